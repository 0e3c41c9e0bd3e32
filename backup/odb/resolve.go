package odb

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"emberfs/tiers/cold"
)

// resolve computes the ids of all deltas. It goes from each base to the deltas based on it, depth first, so that the
// base is usually still in the cache. Entries that are part of a cycle, or whose base does not exist, are never
// reached.
func (f *fetched) resolve() error {
	unknown := 0
	for i := range f.entries {
		if !f.entries[i].known {
			unknown++
		}
	}
	offsets := func(off int64) int { // returns the index of the entry at off, or -1
		i, ok := slices.BinarySearchFunc(f.entries, off, func(e fetchedEntry, o int64) int {
			switch {
			case e.off < o:
				return -1
			case e.off > o:
				return 1
			}
			return 0
		})
		if !ok {
			return -1
		}
		return i
	}
	for off := range f.byOffset {
		if offsets(off) < 0 && !f.tolerant {
			return corruptf("%s: delta base at %d is no entry", f.label, off)
		}
	}
	total := len(f.entries)
	for i := range total {
		if f.entries[i].known {
			n, err := f.resolveFrom(int32(i))
			if err != nil {
				return err
			}
			unknown -= n
		}
	}
	// The base of what is still waiting is outside of the pack: the pack is thin.
	if f.tolerant {
		return nil
	}
	if unknown > 0 && f.inPlace {
		return corruptf("%d deltas have no base in the pack", unknown)
	}
	for unknown > 0 {
		n, err := f.addBase()
		if err != nil {
			return err
		}
		unknown -= n
	}
	return nil
}

// resolveFrom resolves everything that is based on entry i, at any depth, and returns how many entries that is.
func (f *fetched) resolveFrom(i int32) (int, error) {
	n := 0
	stack := f.children(i, nil)
	for len(stack) > 0 {
		c := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if int(f.entries[c].depth) > f.db.opt.MaxDepth {
			return n, corruptf("%s, offset %d: delta chain of more than %d", f.label, f.entries[c].off,
				f.db.opt.MaxDepth)
		}
		if err := f.resolveOne(c); err != nil {
			if f.tolerant && errors.Is(err, cold.ErrCorrupt) {
				continue
			}
			return n, err
		}
		n++
		f.indexed++
		f.report()
		stack = f.children(c, stack)
	}
	return n, nil
}

// children removes the entries that wait for i from the maps, and pushes them onto the stack.
func (f *fetched) children(i int32, stack []int32) []int32 {
	e := &f.entries[i]
	for _, kids := range [][]int32{f.byOffset[e.off], f.byID[e.id]} {
		for _, k := range kids {
			f.entries[k].base = i
			f.entries[k].depth = e.depth + 1
		}
		stack = append(stack, kids...)
	}
	delete(f.byOffset, e.off)
	delete(f.byID, e.id)
	return stack
}

// resolveOne computes the id of a delta whose base is known.
func (f *fetched) resolveOne(i int32) error {
	e := &f.entries[i]
	c, typ, err := f.content(i)
	if err != nil {
		return err
	}
	h := newHasher(typ, c.size)
	if _, err := io.Copy(h, io.NewSectionReader(c, 0, c.size)); err != nil {
		return fmt.Errorf("%s, offset %d: %w", f.label, e.off, err)
	}
	id, err := h.sum()
	if err != nil {
		return err
	}
	e.id, e.typ, e.known = id, typ, true
	return nil
}

// content returns an entry's bytes and type. The content belongs to f and is valid until the next call.
func (f *fetched) content(i int32) (*content, Type, error) {
	var chain []int32
	var c *content
	var typ Type
	for at := i; ; at = f.entries[at].base {
		e := &f.entries[at]
		if f.last != nil && f.lastOff == e.off {
			c, typ = f.last, e.typ
			break
		}
		if b, ok := f.cache.Get(e.off); ok {
			typ, c = uncache(b)
			break
		}
		if e.base < 0 {
			in, err := f.inflate(e)
			if err != nil {
				return nil, 0, err
			}
			c, err = f.db.collect(in, e.size, in.what)
			in.close()
			if err != nil {
				return nil, 0, err
			}
			typ = e.typ
			if err := f.remember(e.off, typ, c); err != nil {
				return nil, 0, err
			}
			break
		}
		chain = append(chain, at)
	}
	for _, at := range slices.Backward(chain) {
		e := &f.entries[at]
		next, err := f.apply(e, c)
		if err != nil {
			return nil, 0, err
		}
		c = next
		if err := f.remember(e.off, typ, c); err != nil {
			return nil, 0, err
		}
	}
	return c, typ, nil
}

// remember keeps a content for the deltas based on it: small ones in the cache, and the last one of the others.
func (f *fetched) remember(off int64, t Type, c *content) error {
	if c.f == nil && c.size < f.db.opt.DeltaCache/2 {
		c.mem = append(c.mem, byte(t))[:c.size]
		f.cache.Put(off, c.mem[:c.size+1])
		return nil
	}
	old := f.last
	f.last, f.lastOff = c, off
	if old == c {
		return nil
	}
	return old.close()
}

// apply returns the content that a delta entry makes of its base's content.
func (f *fetched) apply(e *fetchedEntry, base *content) (*content, error) {
	in, err := f.inflate(e)
	if err != nil {
		return nil, err
	}
	defer in.close()
	br := f.db.bufioFor(in)
	defer func() {
		br.Reset(nil)
		f.db.pools.buf.Put(br)
	}()
	d, err := newDeltaReader(base, base.size, br)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", in.what, err)
	}
	if err := f.spend(d.left); err != nil {
		return nil, err
	}
	c, err := f.db.collect(d, d.left, in.what)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", in.what, err)
	}
	return c, nil
}

func (f *fetched) inflate(e *fetchedEntry) (*inflater, error) {
	if err := f.spend(e.size); err != nil {
		return nil, err
	}
	return f.db.inflate(io.NewSectionReader(f.pf.f, e.data, f.pf.done-e.data), e.size,
		fmt.Sprintf("%s, offset %d", f.label, e.off))
}

// addBase adds one missing base from the repository to a thin pack, and resolves what was waiting for it.
func (f *fetched) addBase() (int, error) {
	var missing error
	for id := range f.byID {
		e, err := f.copyBase(id)
		if errors.Is(err, cold.ErrMissing) {
			missing = err
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("complete a thin pack: %w", err)
		}
		f.entries = append(f.entries, e)
		return f.resolveFrom(int32(len(f.entries) - 1))
	}
	if missing != nil {
		return 0, fmt.Errorf("%w: a delta's base is neither in the pack nor here: %w", cold.ErrCorrupt, missing)
	}
	return 0, corruptf("%s: deltas that are based on each other", f.label)
}

// copyBase appends an object of the repository to the pack.
func (f *fetched) copyBase(id ID) (e fetchedEntry, err error) {
	off := f.pf.len()
	err = f.db.each(id, func(src source) error {
		o, err := src.open()
		if err != nil {
			return err
		}
		e = fetchedEntry{id: id, off: off, size: o.size, base: -1, typ: o.typ, known: true}
		e.data = off + int64(len(appendEntryHeader(nil, o.typ, o.size)))
		w := &crcWriter{pf: f.pf}
		err = errors.Join(f.spend(o.size), writeEntry(w, o, id), o.close())
		e.crc = w.crc
		if err != nil {
			return errors.Join(err, f.pf.truncate(off)) // another copy may be good
		}
		return f.pf.flush()
	})
	return e, err
}
