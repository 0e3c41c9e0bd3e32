package odb

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"emberfs/tiers/cold"
)

// rawObject is an object opened for reading. Its type and size are known, but its bytes are not verified yet.
type rawObject struct {
	typ   Type
	size  int64
	r     io.Reader
	close func() error
}

// openLoose opens a loose object. If there is none, the error is fs.ErrNotExist.
func (db *DB) openLoose(id ID) (_ *rawObject, err error) {
	f, _, err := openRegular(db.loosePath(id))
	if err != nil {
		return nil, err
	}
	what := "loose object " + id.String()
	in := &inflater{db: db, br: db.bufioFor(f), what: what}
	done := func() error {
		in.close()
		return f.Close()
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, done())
		}
	}()
	if err := in.start(in.br); err != nil {
		return nil, err
	}
	var head [32]byte // enough for "commit " and 20 digits
	n := 0
	for {
		if n == len(head) {
			return nil, corruptf("%s: header", what)
		}
		k, err := in.zr.Read(head[n : n+1])
		if k == 1 && head[n] == 0 {
			break
		}
		n += k
		if err != nil {
			return nil, in.fault(err)
		}
	}
	name, digits, _ := strings.Cut(string(head[:n]), " ")
	t, ok := parseType(name)
	size, serr := strconv.ParseInt(digits, 10, 64)
	if !ok || serr != nil || size < 0 || strconv.FormatInt(size, 10) != digits {
		return nil, corruptf("%s: header %q", what, head[:n])
	}
	in.left = size
	if size == 0 {
		if err := in.finish(); err != nil {
			return nil, err
		}
	}
	return &rawObject{typ: t, size: size, r: in, close: done}, nil
}

func (db *DB) loosePath(id ID) string {
	h := id.String()
	return filepath.Join(db.dir, "objects", h[:2], h[2:])
}

func (db *DB) hasLoose(id ID) bool {
	st, err := os.Lstat(db.loosePath(id))
	return err == nil && st.Mode().IsRegular()
}

// openEntry opens the entry at off. The caller must hold a reference to p for as long as the object is open.
func (db *DB) openEntry(p *pack, off int64) (*rawObject, error) {
	h, err := p.header(off)
	if err != nil {
		return nil, err
	}
	if !h.isDelta() {
		return db.openPlain(p, h)
	}
	typ, base, err := db.deltaBase(p, h)
	if err != nil {
		return nil, err
	}
	in, err := db.inflate(p.section(h.data), h.size, p.what(h.off))
	if err != nil {
		return nil, errors.Join(err, base.close())
	}
	br := db.bufioFor(in)
	done := func() error {
		br.Reset(nil)
		db.pools.buf.Put(br)
		in.close()
		return base.close()
	}
	d, err := newDeltaReader(base, base.size, br)
	if err != nil {
		return nil, errors.Join(p.at(h.off, err), done())
	}
	return &rawObject{typ: typ, size: d.left, r: d, close: done}, nil
}

func (db *DB) openPlain(p *pack, h entryHeader) (*rawObject, error) {
	in, err := db.inflate(p.section(h.data), h.size, p.what(h.off))
	if err != nil {
		return nil, err
	}
	done := func() error {
		in.close()
		return nil
	}
	return &rawObject{typ: h.typ, size: h.size, r: in, close: done}, nil
}

func (p *pack) what(off int64) string { return fmt.Sprintf("%s, offset %d", p.name(), off) }

func (p *pack) at(off int64, err error) error { return fmt.Errorf("%s: %w", p.what(off), err) }

// cacheKey returns the key of the entry at off in p in the cache of delta bases, or 0, which is never found, beyond 16
// TiB.
func (p *pack) cacheKey(off int64) int64 {
	if off >= 1<<44 {
		return 0
	}
	return p.seq<<44 | off
}

// deltaBase returns the content and the type of the object to which the delta h applies, resolving the chain below it.
func (db *DB) deltaBase(p *pack, h entryHeader) (Type, *content, error) {
	var chain []entryHeader // the deltas between h and the first base whose content is known
	var typ Type
	var c *content
	for at := h; c == nil; {
		if len(chain) >= db.opt.MaxDepth {
			return 0, nil, corruptf("%s: delta chain of more than %d, or a cycle", p.what(h.off), db.opt.MaxDepth)
		}
		off := at.base
		if at.typ == refDelta {
			i := p.idx.find(at.baseRef)
			ok := i >= 0
			if ok {
				off, ok = p.idx.offset(i)
			}
			if !ok {
				return 0, nil, corruptf("%s: delta base %s is not in the pack", p.what(at.off), at.baseRef)
			}
		}
		if b, ok := db.bases.Get(p.cacheKey(off)); ok {
			typ, c = uncache(b)
			break
		}
		b, err := p.header(off)
		if err != nil {
			return 0, nil, err
		}
		if b.isDelta() {
			chain = append(chain, b)
			at = b
			continue
		}
		o, err := db.openPlain(p, b)
		if err != nil {
			return 0, nil, err
		}
		typ = o.typ
		c, err = db.collect(o.r, o.size, p.what(off))
		if err = errors.Join(err, o.close()); err != nil {
			return 0, nil, err
		}
		db.cacheBase(p.cacheKey(off), typ, c)
	}
	for i := len(chain) - 1; i >= 0; i-- {
		next, err := db.applyDelta(p, chain[i], c)
		if err = errors.Join(err, c.close()); err != nil {
			return 0, nil, err
		}
		c = next
		db.cacheBase(p.cacheKey(chain[i].off), typ, c)
	}
	return typ, c, nil
}

// applyDelta returns the result of applying the delta entry h to base.
func (db *DB) applyDelta(p *pack, h entryHeader, base *content) (_ *content, err error) {
	in, err := db.inflate(p.section(h.data), h.size, p.what(h.off))
	if err != nil {
		return nil, err
	}
	defer in.close()
	br := db.bufioFor(in)
	defer func() {
		br.Reset(nil)
		db.pools.buf.Put(br)
	}()
	d, err := newDeltaReader(base, base.size, br)
	if err != nil {
		return nil, p.at(h.off, err)
	}
	c, err := db.collect(d, d.left, p.what(h.off))
	if err != nil {
		return nil, p.at(h.off, err)
	}
	return c, nil
}

// cacheBase caches a resolved base. The type is stored after the bytes.
func (db *DB) cacheBase(key int64, t Type, c *content) {
	if c.f != nil || c.size >= db.opt.DeltaCache/2 || key == 0 {
		return
	}
	c.mem = append(c.mem, byte(t))[:c.size]
	db.bases.Put(key, c.mem[:c.size+1])
}

func uncache(b []byte) (Type, *content) {
	n := len(b) - 1
	return Type(b[n]), &content{mem: b[:n:n], size: int64(n)}
}

// source is a place where each tries to read an object.
type source struct {
	p    *pack // nil for a loose object
	i    int   // position in p's index
	off  int64
	open func() (*rawObject, error)
}

// each calls try for every place that has the object, the newest pack first and the loose object last, until one call
// succeeds. If one place is damaged (cold.ErrCorrupt) or its file has just been removed, the next one is tried; other
// errors end the search. If there is nothing, each looks for new packs until a scan shows no change.
func (db *DB) each(id ID, try func(s source) error) error {
	var damage error
	// found reports whether the search is over, by success or by an error for which another copy is no help.
	found := func(err error) bool {
		if err == nil || !otherPlace(err) {
			if err == nil && damage != nil {
				db.log.WithError(damage).WithField("object", id.String()).Warn(
					"a damaged copy was passed over, another one is good")
			}
			return true
		}
		if errors.Is(err, cold.ErrCorrupt) {
			damage = err
		}
		return false
	}
	loose := source{open: func() (*rawObject, error) { return db.openLoose(id) }}
	for {
		l, err := db.acquire()
		if err != nil {
			return wrapObject(id, err)
		}
		for _, p := range l.packs {
			if i := p.idx.find(id); i >= 0 {
				if err := db.tryPacked(p, i, try); found(err) {
					db.release(l)
					return wrapObject(id, err)
				}
			} else if err := p.idx.unread(); err != nil {
				damage = err
			}
		}
		db.release(l)
		if err := try(loose); found(err) {
			return wrapObject(id, err)
		}
		changed, err := db.rescan(l.gen)
		if err != nil {
			return wrapObject(id, err)
		}
		if changed {
			continue
		}
		// git gc may have unpacked the object between the two looks.
		if err := try(loose); found(err) {
			return wrapObject(id, err)
		}
		mended, err := db.checkIndexes()
		if err != nil {
			return wrapObject(id, err)
		}
		if !mended {
			break
		}
	}
	if damage != nil {
		return wrapObject(id, damage)
	}
	if err := db.unreadable(); err != nil {
		return wrapObject(id, err)
	}
	return errMissing(id)
}

func (db *DB) tryPacked(p *pack, i int, try func(s source) error) error {
	off, ok := p.idx.offset(i)
	if !ok {
		return corruptf("index %s: offset of object %d", p.name(), i)
	}
	return try(source{p: p, i: i, off: off, open: func() (*rawObject, error) { return db.openEntry(p, off) }})
}

func wrapObject(id ID, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("object %s: %w", id, err)
}
