package tiers

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/warm"
)

// Every change runs between begin and end; a commit's boundary falls between changes, never inside one.
// begin is called before each change of a program's, and counts it.
func (v *Volume) begin() {
	v.changes.Add(1)
	v.barrier.RLock()
}

// beginOwn is begin for what the volume does by itself, and nobody sees.
func (v *Volume) beginOwn() { v.barrier.RLock() }

func (v *Volume) end() { v.barrier.RUnlock() }

// loadRecord reads n's record from warm; n is new, st is its state and its mu is held.
func (v *Volume) loadRecord(n *Inode, at warm.XattrTarget, st *unix.Statx_t) {
	if !v.records || (n.kind != cold.KindFile && n.kind != cold.KindDir) {
		return
	}
	found, ok := warm.ReadRecord(at)
	if !ok {
		return // none, or none that we can read: dirty
	}
	r := found.Believed(v.trust, n.kind == cold.KindDir, st)
	if found.IsStub() && !r.IsStub() {
		// A file that was being emptied: the mark must not become true again when it grows to the old size.
		if err := at.Remove(warm.RecordAttr); err != nil {
			v.log.WithError(err).WithField("inode", n.ino).Warn("cannot remove a void record")
			r = voidStub(&found)
		}
	}
	n.mu.rec = r
	n.stub.Store(r.IsStub())
	if n.dir != nil {
		n.dir.lazy.Store(r.Has(warm.FlagLazy))
	}
	switch {
	case !r.Has(warm.FlagClean):
	case n.kind == cold.KindDir:
		d := n.dir
		d.mu.tracking, d.mu.base = true, cold.DirID{Tree: r.ID, Meta: r.Meta}
	case r.Size >= writtenMin:
		n.written.Store(newWritten(r.ID))
	}
}

// storeRecord writes n's record; n.mu is held.
func (v *Volume) storeRecord(n *Inode, r warm.Record) error {
	return v.locate(n, func(dirfd int, name string, anon bool) error {
		return v.storeNamed(n, r, target(dirfd, name, anon))
	})
}

// storeNamed is storeRecord where the caller knows how to reach n.
func (v *Volume) storeNamed(n *Inode, r warm.Record, at warm.XattrTarget) error {
	r.Trust = v.trust
	if n.kind == cold.KindDir {
		r.Flags |= warm.FlagDir
	}
	if !v.records {
		r.Flags &^= warm.FlagCtime
		n.mu.rec = r // for as long as the inode is remembered
		return nil
	}
	var buf [warm.RecordMax]byte
	value := r.Encode(buf[:0])
	if err := at.Set(warm.RecordAttr, value, 0); err != nil {
		return fmt.Errorf("store the record of inode %d: %w", n.ino, err)
	}
	n.mu.rec = r
	return nil
}

// touchName notes that name in d is about to change: d and all above it turn dirty first. Between begin and end.
func (v *Volume) touchName(d *Inode, name string) error {
	if v.areaOf != nil { // no commit ever looks
		return nil
	}
	v.addChanged(d, name, touchChange)
	e := v.epoch.Load()
	if d.epoch.Load() == e {
		return nil
	}
	return v.touchChain(d, e)
}

// touchKind says what a change means to whoever waits for a commit.
type touchKind uint8

const (
	touchQuiet  touchKind = iota // nothing is at risk
	touchBytes                   // contents, which are to be committed once the file is closed or fsynced
	touchChange                  // a name or attributes, which nobody closes
)

// addChanged notes that name in d is about to change.
func (v *Volume) addChanged(d *Inode, name string, kind touchKind) {
	l := &v.risk.lanes[laneMain]
	if kind != touchQuiet {
		switch v.watch(d, name, kind) {
		case laneCritical:
			l = &v.risk.lanes[laneCritical]
		case laneNone:
			kind = touchQuiet
		}
	}
	risk := kind != touchQuiet
	if risk {
		l.begun()
	}
	e := v.epoch.Load()
	// What was counted since the last boundary of a commit of everything is so already; what is critical, since that of
	// any.
	since := v.mainEpoch.Load()
	if l != &v.risk.lanes[laneMain] {
		since = e
	}
	ds := d.dir
	ds.mu.Lock()
	defer ds.mu.Unlock()
	if !ds.mu.tracking && !ds.mu.pending {
		old := ds.mu.missed
		if old.epoch < since {
			old.risk = false
		}
		ds.mu.missed = touch{epoch: e, risk: risk || old.risk}
		if risk && !old.risk {
			l.files.Add(1) // at least one; which ones the commit will find out
		}
		return
	}
	old, earlier := ds.mu.changed[name]
	if earlier && old.epoch == e {
		earlier = old.earlier
	}
	if old.epoch == e && (old.risk || !risk) {
		return
	}
	if ds.mu.changed == nil {
		ds.mu.changed = make(map[string]touch)
	}
	ds.mu.changed[name] = touch{epoch: e, risk: risk || old.risk, earlier: earlier}
	if risk && !(old.risk && old.epoch >= since) {
		l.files.Add(1)
	}
}

// touchChain marks d and its ancestors dirty, the root first, so that no clean mark ever stands above a change.
func (v *Volume) touchChain(d *Inode, e uint64) error {
	v.marks.Lock()
	defer v.marks.Unlock()
	type step struct {
		n, parent *Inode
		name      string
	}
	var chain []step
	v.ns.RLock()
	for p := d; p != nil && p.epoch.Load() != e; p = p.parent {
		chain = append(chain, step{p, p.parent, p.name})
	}
	v.ns.RUnlock()
	for i := len(chain) - 1; i >= 0; i-- {
		s := chain[i]
		if s.parent != nil {
			v.addChanged(s.parent, s.name, touchQuiet)
		}
		if err := v.markDirty(s.n); err != nil {
			return err
		}
		s.n.epoch.Store(e)
	}
	return nil
}

// markDirty turns a clean directory record into a dirty one that keeps the ctime which stat shows.
func (v *Volume) markDirty(d *Inode) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	v.keepPast(d)
	if !d.mu.rec.Has(warm.FlagClean) {
		return nil
	}
	var st unix.Statx_t
	if err := v.statNode(d, &st); err != nil {
		return err
	}
	a := d.attrLocked(&st)
	// It is being listed together with one below it, and stays so until that is done.
	if r := d.mu.rec; r.Has(warm.FlagLazy) {
		r.Flags &^= warm.FlagClean
		return v.storeRecord(d, r)
	}
	// Without room for a rewritten record it goes: without one the directory counts as dirty just as well.
	return v.storeOrRemove(d, warm.Record{Flags: warm.FlagCtime, Mtime: a.Mtime, Ctime: a.Ctime})
}

// removeRecord takes n's record away; n.mu is held.
func (v *Volume) removeRecord(n *Inode) error {
	if !v.records {
		n.mu.rec = warm.Record{}
		return nil
	}
	err := v.locate(n, func(dirfd int, name string, anon bool) error {
		return target(dirfd, name, anon).Remove(warm.RecordAttr)
	})
	if err != nil && !errors.Is(err, unix.ENODATA) {
		return err
	}
	n.mu.rec = warm.Record{}
	return nil
}

// touchContent prepares for a change of a file's bytes: its record and its directories turn dirty. errStub: its bytes
// have to come back first. Between begin and end.
func (v *Volume) touchContent(n *Inode) error {
	if v.areaOf != nil {
		return nil
	}
	e := v.epoch.Load()
	if n.contentEpoch.Load() == e {
		return nil
	}
	if n.stub.Load() {
		return errStub
	}
	if err := v.touchOwn(n, touchBytes); err != nil {
		return err
	}
	// All under one lock: a commit that records this file does so before it, or sees the epoch.
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.mu.rec.IsStub() {
		return errStub
	}
	v.keepContent(n)
	if n.mu.rec.Flags&(warm.FlagClean|warm.FlagCtime) != 0 {
		// The id stays as a hint: equal bytes need not be stored again.
		r := warm.Record{Flags: n.mu.rec.Flags & warm.FlagGroup, Group: n.mu.rec.Group, ID: n.mu.rec.ID}
		if err := v.storeOrRemove(n, r); err != nil {
			return err
		}
		n.mu.marks++
	}
	n.mu.captured = cold.ID{}
	n.mu.ungranted = true
	n.epoch.Store(e)
	n.contentEpoch.Store(e)
	return nil
}

// touchOwnName notes a change of n's own attributes or bytes in its directory. Names that a file with several has
// elsewhere need no mark: a directory with such a name is never clean.
func (v *Volume) touchOwnName(n *Inode) error { return v.touchOwn(n, touchChange) }

func (v *Volume) touchOwn(n *Inode, kind touchKind) error {
	if v.areaOf != nil {
		return nil
	}
	if n == v.root {
		if kind != touchQuiet {
			v.risk.lanes[laneMain].begun()
		}
		return v.touchChainIfNeeded(n)
	}
	v.ns.RLock()
	parent, name := n.parent, n.name
	if parent != nil {
		v.ref(parent)
	}
	v.ns.RUnlock()
	if parent == nil {
		// No commit will take it, or one finds it in a directory that is read whole because it held one of several
		// names.
		var st unix.Statx_t
		if kind != touchQuiet && v.statNode(n, &st) == nil && st.Nlink > 0 {
			v.risk.lanes[laneMain].touched()
		}
		return nil
	}
	defer v.unref(parent, 1)
	v.addChanged(parent, name, kind)
	if kind != touchQuiet && n.alsoCritical.Load() {
		v.critical.severalChanged(v, kind)
	}
	return v.touchChainIfNeeded(parent)
}

func (v *Volume) touchChainIfNeeded(n *Inode) error {
	e := v.epoch.Load()
	if n.epoch.Load() == e {
		return nil
	}
	return v.touchChain(n, e)
}

// withAttrChange runs f, which changes n's ctime but not its bytes, such that the record never shows a stale ctime.
// n.mu is held over f, so that a commit's mark falls before or after it. Between begin and end.
func (v *Volume) withAttrChange(n *Inode, f func() error) error {
	if err := v.touchOwnName(n); err != nil {
		return err
	}
	return v.withCtimeVoid(n, f)
}

// withCtimeVoid is withAttrChange for callers that mark the directories themselves.
func (v *Volume) withCtimeVoid(n *Inode, f func() error) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	v.keepPast(n)
	if err := v.voidCtime(n); err != nil {
		return err
	}
	if n.dir == nil {
		n.epoch.Store(v.epoch.Load())
	}
	n.mu.marks++
	if err := f(); err != nil {
		return err
	}
	v.pinCtime(n)
	return nil
}

// pinCtime puts the ctime that stat shows into the record of a stub or a lazy directory: bringing back what is not
// here moves warm's own. Where that fails, only this ctime is at stake. n.mu is held.
func (v *Volume) pinCtime(n *Inode) {
	r := n.mu.rec
	if !r.Has(warm.FlagStub) && !r.Has(warm.FlagLazy) || r.Has(warm.FlagCtime) {
		return
	}
	var st unix.Statx_t
	if v.statNode(n, &st) == nil {
		r.Ctime, r.Flags = warm.TimeOf(st.Ctime), r.Flags|warm.FlagCtime
		_ = v.storeRecord(n, r)
	}
}

// voidCtime makes stat show warm's own ctime from now on; n.mu is held.
func (v *Volume) voidCtime(n *Inode) error {
	if !n.mu.rec.Has(warm.FlagCtime) {
		return nil
	}
	r := n.mu.rec
	r.Flags &^= warm.FlagCtime
	return v.storeOrRemove(n, r)
}

// storeOrRemove writes n's record, or takes it away where that fails: the file is dirty then. A stub keeps the one that
// it has, without which its hole would be taken for zeros. n.mu is held.
func (v *Volume) storeOrRemove(n *Inode, r warm.Record) error {
	err := v.storeRecord(n, r)
	if err == nil || n.mu.rec.Has(warm.FlagStub) || n.mu.rec.Has(warm.FlagLazy) {
		return err
	}
	if rmErr := v.removeRecord(n); rmErr != nil {
		return errors.Join(err, rmErr)
	}
	return nil
}

// keepDirtyHint remembers, on volumes without records, that a file whose inode goes away has bytes that no commit has.
func (v *Volume) keepDirtyHint(n *Inode) {
	n.mu.Lock()
	dirty := n.kind == cold.KindFile && n.mu.ungranted
	n.mu.Unlock()
	if dirty {
		v.dirtyHint.add(n.ino)
	}
}
