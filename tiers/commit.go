package tiers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/warm"
)

// commits is the component that commits what is dirty.
type commits struct {
	syncing   chan struct{} // holds one token while a Sync runs: one commit at a time, and waiting for it honours a context
	upkeep    chan struct{} // holds one token while a commit waits to be followed by Cold.Maintain
	answers   []chan error  // syncing: those who wait for what was just committed
	justTaken riskCount     // syncing: what the last commit took
	live      liveBranch

	marksInMemory int // see there
}

// commit stores what is dirty and moves the branch; Volume.syncing is held. It begins, captures what there is at one moment, publishes a
// commit of it, records what is clean now, and finishes. Nothing is recorded as clean before the branch points to the commit, and an error
// leaves all that was dirty so.
func (v *Volume) commit(ctx context.Context, rc *Receipt) (err error) {
	// Begin.
	if err := v.step("commit.begin"); err != nil {
		return err
	}
	tx, err := v.cold.Begin(ctx)
	if err != nil {
		return fmt.Errorf("begin a commit: %w", err)
	}
	defer tx.Abort()
	if err := v.checkBase(ctx, tx.Base()); err != nil {
		return err
	}
	rewalk := v.book.rewalk.Swap(false) || v.state.Walked != v.rulesSum()
	if done, err := v.nothingToCommit(ctx, tx, rewalk, rc); done {
		return err
	}
	walked := v.rulesSum()

	// Capture.
	c := v.beginCapture(ctx, tx, &capture{rewalk: rewalk})
	defer func() {
		c.finish(err)
		if err != nil && rewalk {
			v.book.rewalk.Store(true)
		}
	}()
	root, err := c.all()
	if err != nil {
		return err
	}
	if err := v.step("commit.walked"); err != nil {
		return err
	}

	// Publish. After a power cut warm is what counts: it must not be behind a commit that was reported, or the next one takes that back.
	if err := v.publish(ctx, c, root, rc, v.flushWarm); err != nil {
		return err
	}

	// Record. The commit stands: what fails from here on only makes the next one, or the next start, look at more.
	_ = v.step("commit.moved")
	v.risk.leave(c.missing)
	v.noteHead(rc.Commit)
	_ = v.step("commit.noted")
	c.recordClean()
	_ = v.step("commit.recorded")
	if len(c.missing) == 0 {
		v.setVerified()
	}
	if v.state.Walked != walked {
		if err := v.state.Update(func(s *warm.StateFile) { s.Walked = walked }); err != nil {
			v.log.WithError(err).Warn("cannot write volume.json")
		}
	}
	return nil
}

// nothingToCommit says that nothing has to be captured: the base has all that there is, or the live branch has, which main absorbs then.
func (v *Volume) nothingToCommit(ctx context.Context, tx cold.Tx, rewalk bool, rc *Receipt) (done bool, err error) {
	base := tx.Base()
	if v.rootClean() && base != nil && !rewalk && !v.rulesChanged(ctx, base) {
		v.nothingDirty()
		if base.Info().Live {
			return true, v.absorb(ctx, tx, rc)
		}
		rc.Commit = base.Info().ID.String()
		v.noteHead(rc.Commit)
		if v.points.failing("flush") {
			return true, v.flushWarm()
		}
		return true, nil
	}
	if v.onlyLookedAt(ctx, base, rewalk) {
		rc.Commit = base.Info().ID.String()
		return true, nil
	}
	return false, nil
}

// onlyLookedAt says that nothing was changed since warm was brought to what a stock client committed: that its directories are not clean is
// for the metadata alone that no commit has of them. It comes with the first change; a look at a repository commits nothing.
func (v *Volume) onlyLookedAt(ctx context.Context, base cold.Snapshot, rewalk bool) bool {
	if base == nil || rewalk || !v.untouched || v.changes.Load() != 0 || base.Info().Live || !v.points.verified.Load() || v.state.Head != base.Info().ID.String() ||
		v.rulesChanged(ctx, base) {
		return false
	}
	if valid, err := base.Valid(ctx, cold.RootDir(base)); err != nil || valid {
		return false
	}
	v.barrier.Lock()
	defer v.barrier.Unlock()
	if v.changes.Load() != 0 { // just now
		return false
	}
	v.nothingWaits()
	return true
}

// absorb makes a commit to main of what the live branch has, where nothing was changed since.
func (v *Volume) absorb(ctx context.Context, tx cold.Tx, rc *Receipt) error {
	err := v.flushWarm()
	if err == nil {
		err = v.moveBranch(ctx, &capture{tx: tx, base: tx.Base(), absorbs: true}, cold.RootDir(tx.Base()), rc)
	}
	if err == nil {
		v.noteHead(rc.Commit)
	}
	return err
}

// publish moves the branch to what was captured, and makes that durable in warm meanwhile.
func (v *Volume) publish(ctx context.Context, c *capture, root cold.DirID, rc *Receipt, flush func() error) error {
	rc.Files, rc.Bytes, rc.Missing = c.files, c.bytes, append(rc.Missing, lines(c.missing)...)
	flushed := make(chan error, 1)
	go func() { flushed <- flush() }()
	err := v.moveBranch(ctx, c, root, rc)
	if ferr := <-flushed; ferr != nil {
		rc.Missing = append(rc.Missing, ferr.Error())
	}
	return err
}

// moveBranch moves the branch to a commit of what was captured, where that is not what it has already.
func (v *Volume) moveBranch(ctx context.Context, c *capture, root cold.DirID, rc *Receipt) error {
	tx := c.tx
	rules := !c.absorbs && v.rulesChanged(ctx, c.base)                                  // what the live branch has goes on as it is; new rules come with the next commit
	if c.base != nil && cold.RootDir(c.base) == root && !rules && !c.base.Info().Live { // a commit would repeat the last one
		rc.Commit, rc.Files, rc.Bytes = c.base.Info().ID.String(), 0, 0
		v.live.reset(c.base.Info().ID)
		if m, ok := tx.(mender); ok {
			if err := m.Mend(root); err != nil {
				return fmt.Errorf("commit: %w", err)
			}
		}
		return nil
	}
	o := cold.CommitOptions{
		Reason: rc.Reason, Machine: v.state.Machine, Files: c.files, Bytes: c.bytes, AtRisk: int64(len(c.missing)),
		Root: root, When: time.Now(), Opened: v.openedPaths(),
	}
	if rules {
		text := v.RulesText()
		o.Rules = &text
		o.Files++
	}
	commit, err := tx.Commit(ctx, o)
	if err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	if o.Rules != nil {
		v.rulesCommitted(*o.Rules)
	}
	rc.Files = o.Files
	rc.Commit, rc.New = commit.String(), true
	v.setLastCommit(commit, time.Now())
	if !c.live {
		v.live.reset(commit)
	}
	return nil
}

// mender is a Tx that can publish what its base commit turned out to lack, when a commit would only repeat the base.
type mender interface{ Mend(root cold.DirID) error }

// inStep says whether warm is what the given commit says: nothing was changed since, whatever the marks say.
func (v *Volume) inStep(ctx context.Context, with cold.ID) (same bool, err error) {
	tx, err := v.cold.BeginAt(ctx, with)
	if err != nil {
		return false, fmt.Errorf("compare with commit %s: %w", with, err)
	}
	defer tx.Abort()
	c := v.beginCapture(ctx, tx, &capture{})
	root, err := c.all()
	switch {
	case err != nil:
	case len(c.missing) > 0 || cold.RootDir(tx.Base()) != root:
		err = errDiffers
	default:
		c.recordClean()
		v.setVerified()
	}
	c.finish(err)
	if errors.Is(err, errDiffers) {
		return false, nil
	}
	return err == nil, err
}

var errDiffers = errors.New("warm differs from the commit")

func (v *Volume) rootClean() bool {
	v.root.mu.Lock()
	defer v.root.mu.Unlock()
	return v.root.mu.rec.Has(warm.FlagClean)
}

// release lets go of what the walk held. After a failure directories that were read whole are read whole again.
func (c *capture) release(err error) {
	if err != nil {
		c.passOver(0)
	}
	for _, m := range c.marks {
		c.v.unref(m.n, 1)
	}
	c.marks = nil
	c.spill.close()
}

// recordClean writes what the commit made true: files first, then directories from the leaves up.
func (c *capture) recordClean() {
	for _, m := range c.marks {
		fd, err := c.v.dirFD(m.n)
		if err == nil {
			c.eachFile(m, func(f *fileMark) { c.v.recordFile(fd, f, c.epoch) })
			c.v.unpin(m.n)
		}
		if !c.recordDir(m) && m.parent != nil {
			m.parent.keep = true
			m.parent.redo = append(m.parent.redo, m.name)
		}
	}
}

// recordFile marks one file clean if nothing happened to it since it was read.
func (v *Volume) recordFile(dirfd int, f *fileMark, epoch uint64) {
	var st unix.Statx_t
	if warm.StatAt(dirfd, f.name, &st) != nil || st.Ino != f.ino || warm.GenOf(&st) != f.gen {
		return
	}
	n, fresh := v.peekRef(&st), false
	if n == nil {
		var err error
		if n, fresh, err = v.internAt(dirfd, f.name, &st); err != nil {
			return
		}
	}
	if !fresh {
		n.mu.Lock()
	}
	if n.ino != f.ino || n.gen != f.gen {
		n.mu.Unlock()
		v.unref(n, 1)
		return
	}
	if !fresh {
		if warm.StatAt(dirfd, f.name, &st) != nil || st.Ino != f.ino || warm.GenOf(&st) != f.gen { // the ctime is that of this moment
			n.mu.Unlock()
			v.unref(n, 1)
			return
		}
	}
	r := warm.Record{Flags: warm.FlagClean | warm.FlagCtime, ID: f.id, Size: f.size, Mtime: f.mtime}
	if w := n.written.Load(); w != nil {
		w.stored(r.ID, f.read)
	}
	a := n.attrLocked(&st)
	switch {
	case n.mu.rec.IsStub(): // recorded under another of its names, and released since
	case n.contentEpoch.Load() >= epoch || v.late.has(n.ino) || n.untracked.Load():
	case r.Size != int64(a.Size) || r.Mtime != a.Mtime:
	case n.mu.writers > 0:
		n.mu.captured = r.ID
	default:
		r.Ctime = a.Ctime
		r.Flags |= n.mu.rec.Flags & warm.FlagGroup
		r.Group = n.mu.rec.Group
		if a.Blocks != st.Blocks { // it came back from cold, or has a record that takes a block
			r.Flags, r.Blocks = r.Flags|warm.FlagBlocks, a.Blocks
		}
		if v.step("record.file") == nil && v.storeNamed(n, r, warm.ByName(dirfd, f.name)) == nil {
			v.hideBlock(n, &r, &st, dirfd, f.name)
			n.mu.ungranted, n.mu.captured = false, cold.ID{}
			if n.written.Load() == nil && r.Size >= writtenMin {
				n.written.Store(newWritten(r.ID))
			}
			v.dirtyHint.remove(n.ino)
		}
	}
	n.mu.Unlock()
	v.unref(n, 1)
}

// hideBlock notes how many blocks stat shows of a file where its record, beside attributes of the user's, took one more: a file does not
// grow by being committed. n.mu is held; st is from before.
func (v *Volume) hideBlock(n *Inode, r *warm.Record, st *unix.Statx_t, dirfd int, name string) {
	var now unix.Statx_t
	if r.Has(warm.FlagBlocks) || !v.records || warm.StatAt(dirfd, name, &now) != nil || now.Ino != n.ino || now.Blocks <= st.Blocks {
		return
	}
	r.Flags, r.Blocks = r.Flags|warm.FlagBlocks, st.Blocks
	if err := v.storeNamed(n, *r, warm.ByName(dirfd, name)); err != nil {
		v.log.WithError(err).WithField("inode", n.ino).Debug("a file shows a block more than it has")
	}
}

// recordDir marks a directory clean if nothing below it was touched since the boundary, and says whether it did.
func (c *capture) recordDir(m *dirMark) bool {
	v, n := c.v, m.n
	v.marks.Lock()
	defer v.marks.Unlock()
	ds := n.dir
	ds.mu.Lock()
	links := ds.mu.links
	ds.mu.Unlock()
	clean := !m.keep && !links && n.epoch.Load() < c.epoch && !v.late.has(n.ino)
	if clean {
		clean = v.step("record.dir") == nil && v.storeClean(n, m.id) == nil
	}
	ds.mu.Lock()
	defer ds.mu.Unlock()
	if ds.mu.pending {
		ds.mu.pending, ds.mu.tracking = false, true
	}
	if ds.mu.tracking {
		ds.mu.base = m.id
		maps.DeleteFunc(ds.mu.changed, func(_ string, t touch) bool { return t.epoch < c.epoch })
		for _, name := range m.redo {
			if _, ok := ds.mu.changed[name]; !ok {
				if ds.mu.changed == nil {
					ds.mu.changed = make(map[string]touch)
				}
				ds.mu.changed[name] = touch{}
			}
		}
	}
	return clean
}

// storeClean writes {clean, tree, meta} into a directory's record with the ctime that stat shows now.
func (v *Volume) storeClean(n *Inode, id cold.DirID) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	var st unix.Statx_t
	if err := v.statNode(n, &st); err != nil {
		return err
	}
	a := n.attrLocked(&st)
	r := warm.Record{Flags: warm.FlagClean | warm.FlagCtime, ID: id.Tree, Meta: id.Meta, Mtime: a.Mtime, Ctime: a.Ctime}
	r.Flags |= n.mu.rec.Flags & warm.FlagUnlisted // where it was described without being listed
	return v.storeRecord(n, r)
}

// noteHead writes down the commit that warm is in step with.
func (v *Volume) noteHead(commit string) {
	if v.state.Head == commit {
		return
	}
	err := v.step("state.write")
	if err == nil {
		err = v.state.Update(func(s *warm.StateFile) { s.Head = commit })
	}
	if err != nil {
		v.log.WithError(err).Warn("cannot write volume.json")
	}
}

// checkBase refuses to commit over somebody else's work: the newest commit must be where this volume's uncommitted changes began, or
// ahead of that by commits of our own whose note in volume.json was lost with the daemon.
func (v *Volume) checkBase(ctx context.Context, base cold.Snapshot) error {
	if base == nil || v.state.Head == "" {
		return nil // cold is new, or was lost and made anew: everything is stored again
	}
	const most = 1000
	ok, err := v.reaches(ctx, base, most, func(info *cold.CommitInfo) bool { return info.Machine == v.state.Machine })
	if ok || err != nil {
		return err
	}
	return fmt.Errorf("branch %s: %w: it is at %s, this volume's changes began at %s; merge or move the branch back in cold.git, then sync",
		v.cfg.Branch, cold.ErrRefMoved, base.Info().ID, v.state.Head)
}

// reaches says whether the commit that warm was last in step with is s, went before it, or was absorbed on the way. It looks at most
// commits, and only beyond those that past likes.
func (v *Volume) reaches(ctx context.Context, s cold.Snapshot, most int, past func(*cold.CommitInfo) bool) (bool, error) {
	seen := map[cold.ID]bool{}
	var parents, absorbed []cold.ID
	add := func(list *[]cold.ID, id cold.ID) {
		if !id.IsZero() && !seen[id] {
			seen[id] = true
			*list = append(*list, id)
		}
	}
	for n := 0; n < most; n++ {
		info := s.Info()
		is := func(id cold.ID) bool { return id.String() == v.state.Head }
		if is(info.ID) || slices.ContainsFunc(info.Absorbed, is) {
			return true, nil
		}
		if past(&info) {
			add(&parents, info.Parent)
			for _, id := range info.Absorbed {
				add(&absorbed, id)
			}
		}
		for s = nil; s == nil; {
			var err error
			switch {
			case len(parents) > 0:
				if s, err = v.cold.Snapshot(ctx, parents[0]); err != nil {
					return false, err
				}
				parents = parents[1:]
			case len(absorbed) > 0: // live branches lead further as long as they are there
				if s, err = v.cold.Snapshot(ctx, absorbed[0]); err != nil {
					s = nil
				}
				absorbed = absorbed[1:]
			default:
				return false, nil
			}
		}
	}
	return false, nil
}

var errClosed = errors.New("the volume is closed")
