package tiers

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/warm"
)

// Every change runs between begin and end, which hold Volume.barrier for reading; a commit's boundary falls between
// changes, never inside one. begin is called before a change that a program makes, and counts it.
func (v *Volume) begin() {
	v.changes.Add(1)
	v.barrier.RLock()
}

// beginOwn is begin for changes that the volume makes by itself; they are not counted.
func (v *Volume) beginOwn() { v.barrier.RLock() }

func (v *Volume) end() { v.barrier.RUnlock() }

// loadRecord reads n's record from warm at at, as far as it is believed. n is new, st is its stat, and n.mu is held.
func (v *Volume) loadRecord(n *Inode, at warm.XattrTarget, st *unix.Statx_t) {
	if !v.records || (n.kind != cold.KindFile && n.kind != cold.KindDir) {
		return
	}
	found, ok := warm.ReadRecord(at)
	if !ok {
		return // without a readable record n is dirty
	}
	r := found.Believed(v.trust, n.kind == cold.KindDir, st)
	if found.IsStub() && !r.IsStub() {
		// The file was being emptied: the stub's mark must not become true again when the file grows to its old size.
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

// storeNamed is storeRecord for callers that know how to reach n: by at. n.mu is held.
func (v *Volume) storeNamed(n *Inode, r warm.Record, at warm.XattrTarget) error {
	r.Trust = v.trust
	if n.kind == cold.KindDir {
		r.Flags |= warm.FlagDir
	}
	if !v.records {
		r.Flags &^= warm.FlagCtime
		n.mu.rec = r // it lasts as long as the inode is in the table
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

// touchName notes that name in d is about to change, and first marks d and its ancestors dirty. Called between begin
// and end.
func (v *Volume) touchName(d *Inode, name string) error {
	if v.areaOf != nil { // no commit has it
		return nil
	}
	v.addChanged(d, name, touchChange)
	e := v.epoch.Load()
	if d.epoch.Load() == e {
		return nil
	}
	return v.touchChain(d, e)
}

// touchKind says how a change counts for what is at risk, and for commits of critical files.
type touchKind uint8

const (
	touchQuiet  touchKind = iota // nothing is at risk
	touchBytes                   // contents; a critical commit is due once the file is closed or fsynced
	touchChange                  // a name or attributes; a critical commit is due after the change itself
)

// addChanged notes that name in d is about to change: in the directory's changed names, or where these are not complete
// in missed; as kind says, it also counts in a lane of risk.
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
	// A name counts once per commit that can take it: in the main lane since the last boundary of a commit of
	// everything, in the critical lane since the last boundary of any commit.
	since := v.mainEpoch.Load()
	if l != &v.risk.lanes[laneMain] {
		since = e
	}
	ds := d.dir
	ds.mu.Lock()
	defer ds.mu.Unlock()
	if !ds.mu.tracking && !ds.mu.pending {
		if ds.mu.missed < v.mainEpoch.Load() {
			ds.mu.counted = nil // a commit has looked at them, or does so now
		}
		ds.mu.missed = e
		if risk && ds.mu.counted.add(v.risk.hash(name), since, e) {
			l.files.Add(1)
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

// touchChain marks d and its ancestors dirty, the root first, so that no clean mark ever stands above a change; e is
// the current epoch.
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

// markDirty turns a clean directory's record into a dirty one that keeps the ctime which stat shows. Volume.marks is
// held.
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
	// A lazy d is being listed together with a directory below it, and stays lazy until that is done.
	if r := d.mu.rec; r.Has(warm.FlagLazy) {
		r.Flags &^= warm.FlagClean
		return v.storeRecord(d, r)
	}
	// Where there is no room to rewrite the record it is removed: a directory without one counts as dirty too.
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

// touchContent prepares for a change of a file's bytes: it marks the file and its directories dirty, and keeps
// pre-images for a commit under way. It returns errStub where the bytes have to come back first. Called between begin
// and end, before Inode.io is locked.
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
	// n.mu is held over all of this: a commit that records this file clean does so before it, or sees the new epoch.
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.mu.rec.IsStub() {
		return errStub
	}
	v.keepContent(n)
	if n.mu.rec.Flags&(warm.FlagClean|warm.FlagCtime) != 0 {
		// The id stays as a hint, so that equal bytes are not stored again.
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

// touchOwnName notes, in n's directory, a change of n's attributes. The directories of n's other names need no mark:
// one that holds a name of a file with several names is never clean.
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
		// n has no name, so no commit takes it; or it has others, in directories that commits read whole because they
		// hold names of files with several.
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

// withAttrChange marks n's directories dirty and runs f, which changes n's ctime but not its bytes. It makes the
// record's ctime void first, so that stat never shows a stale one. n.mu is held while f runs, so that a commit records
// n as clean before or after it. Called between begin and end.
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

// pinCtime puts the ctime that stat shows into the record of a stub or a lazy directory, because bringing back the
// bytes or children will move warm's own. Where that fails, only this ctime is lost. n.mu is held.
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

// voidCtime takes the ctime out of n's record, so that stat shows warm's own from now on. n.mu is held.
func (v *Volume) voidCtime(n *Inode) error {
	if !n.mu.rec.Has(warm.FlagCtime) {
		return nil
	}
	r := n.mu.rec
	r.Flags &^= warm.FlagCtime
	return v.storeOrRemove(n, r)
}

// storeOrRemove writes n's record. Where that fails it removes the record, which makes the file dirty. But a stub or a
// lazy directory keeps the one that it has, and the error is returned: without it a hole would be taken for zeros, or a
// directory for empty. n.mu is held.
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

// keepDirtyHint adds n, which leaves the table, to dirtyHint if no commit has its bytes. It is for volumes without
// records.
func (v *Volume) keepDirtyHint(n *Inode) {
	n.mu.Lock()
	dirty := n.kind == cold.KindFile && n.mu.ungranted
	n.mu.Unlock()
	if dirty {
		v.dirtyHint.add(n.ino)
	}
}
