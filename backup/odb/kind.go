package odb

// Kind returns the object's type, and its size in bytes or, for a delta, -1. Unlike Stat it resolves no delta but only
// reads the headers of its chain. It is for callers that are going to rely on the object: a loose object, and one in a
// linked pack that was not verified yet, is read and verified. The error is cold.ErrMissing or cold.ErrCorrupt if the
// object is not there or damaged.
func (db *DB) Kind(id ID) (t Type, size int64, err error) {
	if id == EmptyTree {
		return Tree, 0, nil
	}
	err = db.each(id, func(s source) error {
		if s.p == nil || s.p.linked.Load() {
			t, size, err = verifySource(s, id)
		} else {
			t, size, err = db.kind(s.p, s.off)
		}
		return err
	})
	return t, size, err
}

// kind follows a delta chain to the object at its end, which has the same type.
func (db *DB) kind(p *pack, off int64) (t Type, size int64, err error) {
	h, err := p.header(off)
	if err != nil {
		return 0, 0, err
	}
	size = h.size
	for n := 0; h.isDelta(); n++ {
		if n >= db.opt.MaxDepth {
			return 0, 0, corruptf("%s: delta chain of more than %d, or a cycle", p.what(off), db.opt.MaxDepth)
		}
		at, ok := h.base, true
		if h.typ == refDelta {
			i := p.idx.find(h.baseRef)
			if ok = i >= 0; ok {
				at, ok = p.idx.offset(i)
			}
		}
		if !ok {
			return 0, 0, corruptf("%s: delta base %s is not in the pack", p.what(h.off), h.baseRef)
		}
		if h, err = p.header(at); err != nil {
			return 0, 0, err
		}
		size = -1
	}
	return h.typ, size, nil
}
