package odb

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"

	"emberfs/tiers/cold"
)

// Wanted is what a fetched pack has to bring.
type Wanted struct {
	Tip ID // a commit
	// Cut reports whether the other side's history begins at a commit, so that its parents may be missing. nil: it
	// never does.
	Cut func(commit ID) bool
	// Lost is told of the content of a file that is missing. nil: that is an error.
	Lost func(blob ID)
}

// ReceivePack is IndexPack for the answer to a fetch. The pack is published only if the tip is in it or already here,
// and if everything that the commits, trees and tags of the pack name is in it or already here; otherwise the error is
// cold.ErrCorrupt. What was here before counts as complete.
//
// It reads each commit and tree of the pack once more, which counts for Options.MaxInflate, and takes no memory for
// that beside the delta bases.
func (db *DB) ReceivePack(r io.Reader, maxBytes int64, want Wanted) (objects int, keep func() error, err error) {
	return db.indexPack(r, maxBytes, func(f *fetched, p *pack) error {
		c := &links{db: db, p: p, want: want}
		if err := c.tip(want.Tip); err != nil {
			return err
		}
		for i := range f.came {
			if err := c.entry(f, int32(i)); err != nil {
				return err
			}
		}
		return nil
	})
}

// checkFetched opens a complete pack under its temporary names and has it checked.
func (db *DB) checkFetched(f *fetched, check func(f *fetched, p *pack) error) (err error) {
	if len(f.entries) == 0 {
		return check(f, nil)
	}
	if err := db.finish(f.pf); err != nil {
		return err
	}
	base := filepath.Join(db.packDir(), "pack-"+f.pf.sum.String())
	p, err := openPackFiles(base, f.pf.path, f.pf.idxPath)
	if err != nil {
		return err
	}
	p.seq = db.seq.Add(1)
	defer func() { err = errors.Join(err, p.close()) }()
	return check(f, p)
}

// links checks that what the objects of a pack name exists.
type links struct {
	db   *DB
	p    *pack // nil: it is empty
	want Wanted
}

// tip checks that what was asked for is there, and is a commit.
func (c *links) tip(id ID) error {
	var t Type
	var err error
	if i := c.find(id); i < 0 {
		t, _, err = c.db.Stat(id)
	} else if off, ok := c.p.idx.offset(i); ok {
		t, err = c.p.typeAt(off, c.db.opt.MaxDepth)
	}
	switch {
	case errors.Is(err, cold.ErrMissing):
		return corruptf("%s, which was asked for, did not come", id)
	case err == nil && t != Commit:
		return corruptf("%s is a %s, not a commit", id, t)
	}
	return err
}

// find returns the position of an object in the pack's index, or -1.
func (c *links) find(id ID) int {
	if c.p == nil {
		return -1
	}
	return c.p.idx.find(id)
}

func (c *links) has(id ID) bool { return id == EmptyTree || c.find(id) >= 0 || c.db.Has(id) }

// named checks one object that the object id names.
func (c *links) named(id ID, what string, target ID) error {
	if c.has(target) {
		return nil
	}
	return corruptf("%s %s, which %s names, did not come", what, target, id)
}

// entry checks what an entry of the pack names. Its content was hashed when it came.
func (c *links) entry(f *fetched, i int32) (err error) {
	e := &f.entries[i]
	if e.typ == Blob {
		return nil
	}
	content, typ, err := f.content(i)
	if err != nil {
		return wrapObject(e.id, err)
	}
	br := c.db.bufioFor(io.NewSectionReader(content, 0, content.size))
	defer func() {
		br.Reset(nil)
		c.db.pools.buf.Put(br)
	}()
	switch typ {
	case Tree:
		err = c.tree(e.id, br)
	case Commit:
		err = c.commit(e.id, br)
	case Tag:
		err = c.tag(e.id, br)
	}
	return wrapObject(e.id, err)
}

// tree reads a tree as a stream, because its size is the sender's choice.
func (c *links) tree(id ID, br *bufio.Reader) error {
	for {
		head, err := br.ReadSlice(0)
		if errors.Is(err, io.EOF) && len(head) == 0 {
			return nil
		}
		digits, name, ok := bytes.Cut(head, []byte{' '})
		mode, merr := strconv.ParseUint(string(digits), 8, 32)
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
		if err != nil || !ok || merr != nil || len(name) < 2 {
			return corruptf("tree: an entry is malformed")
		}
		var target ID
		if _, err := io.ReadFull(br, target[:]); err != nil {
			return corruptf("tree: cut off (%v)", err)
		}
		if mode == uint64(ModeGitlink) {
			continue
		}
		if mode != uint64(ModeTree) && c.want.Lost != nil {
			if !c.has(target) {
				c.want.Lost(target)
			}
			continue
		}
		if err := c.named(id, "object", target); err != nil {
			return err
		}
	}
}

func (c *links) commit(id ID, br *bufio.Reader) error {
	tree, err := headerLine(br, "tree ")
	if err == nil {
		err = c.named(id, "tree", tree)
	}
	if err != nil {
		return err
	}
	for {
		if next, err := br.Peek(len("parent ")); err != nil || string(next) != "parent " {
			return nil // whatever follows names nothing
		}
		parent, err := headerLine(br, "parent ")
		if err != nil {
			return err
		}
		if c.want.Cut != nil && c.want.Cut(id) {
			continue
		}
		if err := c.named(id, "parent", parent); err != nil {
			return err
		}
	}
}

func (c *links) tag(id ID, br *bufio.Reader) error {
	target, err := headerLine(br, "object ")
	if err != nil {
		return err
	}
	return c.named(id, "object", target)
}

// headerLine reads one line of a commit or tag that names an object.
func headerLine(br *bufio.Reader, key string) (ID, error) {
	line, err := br.ReadSlice('\n')
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, bufio.ErrBufferFull) {
		return ID{}, err
	}
	if err != nil {
		return ID{}, corruptf("the line %q is missing", key)
	}
	id, err := headerID(string(line[:len(line)-1]), key)
	if err != nil {
		return ID{}, fmt.Errorf("line %q: %w", key, err)
	}
	return id, nil
}
