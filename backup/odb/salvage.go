package odb

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"emberfs/tiers/cold"
	"emberfs/tiers/warm"
)

// salvage writes every entry of a damaged pack that can still be inflated and matches its id to a new pack, and then
// puts the damaged pack and its companion files aside. It returns how many objects it saved. scan.mu must be held.
func (db *DB) salvage(path string, f *os.File, size int64) (saved int, err error) {
	if err := db.step("rebuild.salvage"); err != nil {
		return 0, err
	}
	w, err := db.NewWriter()
	if err != nil {
		return 0, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	err = db.salvageInOrder(w, path, f, size)
	if err == nil {
		err = db.salvageIndexed(w, path, f, size)
	}
	if err != nil {
		if !crashed(err) {
			err = errors.Join(err, db.withdraw(w.mu.packs))
		}
		return 0, err
	}
	packs, err := w.dropEmpty()
	if err == nil && len(packs) > 0 {
		err = db.publishFiles(packs)
	}
	if err != nil {
		return 0, err
	}
	if err = db.putAside(path); err == nil {
		err = db.step("rebuild.release")
	}
	if !crashed(err) {
		err = errors.Join(err, db.unkeep(packs))
	}
	return w.len(), err
}

// salvageInOrder saves the entries from the pack's beginning up to the first one that cannot be read.
func (db *DB) salvageInOrder(w *Writer, path string, f *os.File, size int64) (err error) {
	in := newFetched(db, &packFile{db: db, f: f, path: path + ".pack"})
	in.inPlace, in.tolerant, in.label = true, true, filepath.Base(path)
	defer func() { err = errors.Join(err, in.last.close()) }()
	if err := in.receive(io.NewSectionReader(f, 0, size), 0); err != nil && !damaged(err) {
		return err
	}
	in.pf.done = size
	if err := in.resolve(); err != nil {
		return err
	}
	for i, e := range in.entries {
		if !e.known {
			continue
		}
		open := func() (*rawObject, error) {
			if e.base < 0 {
				z, err := in.inflate(&in.entries[i])
				if err != nil {
					return nil, err
				}
				return &rawObject{typ: e.typ, size: e.size, r: z, close: func() error { z.close(); return nil }}, nil
			}
			c, typ, err := in.content(int32(i))
			if err != nil {
				return nil, err
			}
			return &rawObject{typ: typ, size: c.size, r: io.NewSectionReader(c, 0, c.size), close: func() error {
				return nil
			}}, nil
		}
		if err := w.salvageOne(e.id, open); err != nil {
			return err
		}
	}
	return nil
}

// damaged reports whether an error is about the bytes, as opposed to the disk.
func damaged(err error) bool {
	return errors.Is(err, cold.ErrCorrupt) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) ||
		errors.Is(err, ErrTooLarge)
}

// salvageIndexed saves entries after a damaged one, if there still is an index that tells where they begin.
func (db *DB) salvageIndexed(w *Writer, path string, f *os.File, size int64) error {
	x, err := openIndex(path + ".idx")
	if err != nil {
		return nil // there is none
	}
	// The trailer may be missing. What follows the last whole entry is not looked at.
	p := &pack{base: path, seq: db.seq.Add(1), f: f, size: size + hashSize, idx: x}
	for i := range x.count {
		id := x.id(i)
		off, ok := x.offset(i)
		if w.has(id) || !ok || off >= size {
			continue
		}
		if err := w.salvageOne(id, func() (*rawObject, error) { return db.openEntry(p, off) }); err != nil {
			return errors.Join(err, x.close())
		}
	}
	return x.close()
}

// salvageOne copies an object unless it is damaged. w.mu must be held.
func (w *Writer) salvageOne(id ID, open func() (*rawObject, error)) error {
	if w.has(id) {
		return nil
	}
	o, err := open()
	if err != nil {
		if damaged(err) {
			return nil
		}
		return err
	}
	pf, err := w.pack()
	if err != nil {
		return errors.Join(err, o.close())
	}
	off := pf.len()
	c := &crcWriter{pf: pf}
	err = errors.Join(writeEntry(c, o, id), o.close())
	if err == nil {
		w.added(pf, packedObject{id: id, crc: c.crc, off: off})
		return nil
	}
	if terr := pf.truncate(off); terr != nil || !damaged(err) {
		return errors.Join(err, terr)
	}
	return nil
}

// putAside moves a pack and all files that belong to it to badDir; the index comes first, as always when a pack is
// removed.
func (db *DB) putAside(path string) error {
	if err := db.step("rebuild.quarantine"); err != nil {
		return err
	}
	dir := filepath.Join(db.packDir(), badDir)
	if err := mkdirDurable(0o755, dir); err != nil {
		return err
	}
	names, err := os.ReadDir(db.packDir())
	if err != nil {
		return err
	}
	base := filepath.Base(path)
	move := []string{base + ".idx"}
	for _, e := range names {
		if n := e.Name(); strings.HasPrefix(n, base+".") && n != base+".idx" && n != base+".pack" {
			move = append(move, n)
		}
	}
	for _, n := range append(move, base+".pack") {
		err := os.Rename(filepath.Join(db.packDir(), n), filepath.Join(dir, n))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("put a damaged pack aside: %w", err)
		}
	}
	return errors.Join(warm.SyncDir(dir), warm.SyncDir(db.packDir()))
}
