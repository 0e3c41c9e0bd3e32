package tiers

import (
	"context"
	"errors"
	"fmt"
	"path"
	"sync"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/warm"
)

// What the rules ignore stays in warm: no commit takes it, nothing releases it. Such a file has its bytes here and nothing in its
// record that speaks of cold, and a directory no clean mark, since the objects that they name are kept for nobody. What was committed
// before a rule came is brought back first, in the background, and leaves the commits after that.

// ignored says whether the rules leave a slash path out of commits.
func (v *Volume) ignored(path string, dir bool) bool {
	s := v.Rules()
	return s.HasIgnore() && s.Decide(path, dir).Ignored()
}

// ignoredName is ignored for a name in a directory.
func (v *Volume) ignoredName(d *Inode, name string, dir bool) bool {
	return v.Rules().HasIgnore() && v.ignored(path.Join(v.pathOf(d), name), dir)
}

// ignoredInode is ignored for an inode where it stands now.
func (v *Volume) ignoredInode(n *Inode) bool {
	return v.Rules().HasIgnore() && v.ignored(v.pathOf(n), n.kind == cold.KindDir)
}

// settling are inodes that the rules ignore and that may still have bytes in cold only.
type settling struct {
	mu    sync.Mutex
	queue []*Inode // each with a reference
	wake  chan struct{}
	done  map[uint64]uint64 // directories of which all is in warm: inode number -> generation
	rules uint64            // ruleBook.changes for which done holds
}

// settleSoon has n, which the rules ignore, brought back with all below it, so that commits need not have it any more.
func (v *Volume) settleSoon(n *Inode) {
	v.ref(n)
	s := &v.settling
	s.mu.Lock()
	s.queue = append(s.queue, n)
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *settling) next() *Inode {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 {
		return nil
	}
	n := s.queue[0]
	s.queue = s.queue[1:]
	return n
}

// settleLoop brings back what settleSoon asked for.
func (v *Volume) settleLoop(ctx context.Context) {
	s := &v.settling
	for {
		select {
		case <-ctx.Done():
			for n := s.next(); n != nil; n = s.next() {
				v.unref(n, 1)
			}
			return
		case <-s.wake:
		}
		for n := s.next(); n != nil; n = s.next() {
			if ctx.Err() == nil && !v.settledNow(n) {
				err := v.settleIgnored(ctx, n)
				if err != nil && ctx.Err() == nil {
					err = fmt.Errorf("%q is ignored and cannot be brought back from cold, so commits keep it: %w", v.pathOf(n), err)
					v.log.Warn(err)
				}
				if ctx.Err() == nil {
					v.points.setError("ignore", err)
				}
			}
			v.unref(n, 1)
		}
	}
}

// settledNow says whether n was brought back since the rules last changed.
func (v *Volume) settledNow(n *Inode) bool {
	s := &v.settling
	s.mu.Lock()
	defer s.mu.Unlock()
	gen, ok := s.done[n.ino]
	return ok && gen == n.gen && s.rules == v.book.changes.Load()
}

// note remembers that all of a directory is in warm, as was found out while the rules were those of the given change.
func (s *settling) note(n *Inode, changes uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rules != changes || s.done == nil {
		s.rules, s.done = changes, map[uint64]uint64{}
	}
	s.done[n.ino] = n.gen
}

// settleIgnored makes warm the only place that n, and all below it, needs, and has the next commit look at it.
func (v *Volume) settleIgnored(ctx context.Context, n *Inode) error {
	changes := v.book.changes.Load()
	if n.dir == nil {
		if err := v.leaveCold(ctx, n); err != nil {
			return err
		}
	} else {
		if err := v.settleDir(ctx, n, 0); err != nil {
			return err
		}
		v.settling.note(n, changes)
	}
	v.begin()
	defer v.end()
	return v.touchOwn(n, touchQuiet)
}

func (v *Volume) settleDir(ctx context.Context, n *Inode, depth int) error {
	if err := cold.TooDeepToWalk("", depth); err != nil {
		return err
	}
	if err := v.list(ctx, n); err != nil {
		return err
	}
	fd, err := v.dirFD(n)
	if err != nil {
		return gone2nil(err)
	}
	defer v.unpin(n)
	list, err := warm.ListNames(fd)
	if err != nil {
		return err
	}
	var stubs []*Inode
	defer func() {
		for _, s := range stubs {
			v.unref(s, 1)
		}
	}()
	flush := func() error {
		v.bringBack(ctx, stubs)
		for _, s := range stubs {
			if err := v.leaveCold(ctx, s); err != nil {
				return fmt.Errorf("%q: %w", v.pathOf(s), err)
			}
			v.unref(s, 1)
		}
		stubs = stubs[:0]
		return ctx.Err()
	}
	for _, d := range list {
		if err := ctx.Err(); err != nil {
			return err
		}
		if d.Mode != unix.S_IFDIR && d.Mode != unix.S_IFREG {
			continue
		}
		if d.Mode == unix.S_IFREG && v.records {
			if _, ok := warm.ReadRecord(warm.ByName(fd, d.Name)); !ok {
				continue // nothing speaks of cold
			}
		}
		c, _, err := v.lookupAt(ctx, n, fd, d.Name)
		if err != nil {
			if gone2nil(err) == nil {
				continue
			}
			return err
		}
		if c.dir == nil {
			if stubs = append(stubs, c); len(stubs) >= returnBatch {
				if err := flush(); err != nil {
					return err
				}
			}
			continue
		}
		err = v.settleDir(ctx, c, depth+1)
		v.unref(c, 1)
		if err != nil {
			return err
		}
	}
	if err := flush(); err != nil {
		return err
	}
	return v.voidDir(n)
}

// leaveCold makes a file forget cold: its bytes come back, and its record says nothing any more.
func (v *Volume) leaveCold(ctx context.Context, n *Inode) error {
	if n.kind != cold.KindFile {
		return nil
	}
	n.opens.Add(1) // it does not leave meanwhile
	defer n.opens.Add(-1)
	for try := range 3 {
		if n.stub.Load() {
			v.bringBack(ctx, []*Inode{n})
		}
		v.begin()
		n.mu.Lock()
		r := n.mu.rec
		var err error
		stub := r.IsStub()
		if !stub && r.Has(warm.FlagClean) {
			err = v.storeOrRemove(n, warm.Record{Flags: r.Flags & warm.FlagGroup, Group: r.Group})
			n.mu.captured, n.mu.ungranted = cold.ID{}, true
			n.mu.marks++
		}
		n.mu.Unlock()
		v.end()
		if err != nil || !stub {
			return err
		}
		if try == 2 || ctx.Err() != nil {
			break
		}
	}
	return errors.Join(errors.New("its bytes did not come back from cold (the log says why)"), ctx.Err())
}

// voidDir takes a directory's clean mark away, and what is known of its commit.
func (v *Volume) voidDir(n *Inode) error {
	v.marks.Lock()
	defer v.marks.Unlock()
	n.dir.mu.Lock()
	n.dir.mu.tracking, n.dir.mu.changed, n.dir.mu.base = false, nil, cold.DirID{}
	n.dir.mu.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	r := n.mu.rec
	if !r.Has(warm.FlagClean) {
		return nil
	}
	var st unix.Statx_t
	if err := v.statNode(n, &st); err != nil {
		return gone2nil(err)
	}
	a := n.attrLocked(&st)
	return v.storeOrRemove(n, warm.Record{Flags: warm.FlagCtime, Mtime: a.Mtime, Ctime: a.Ctime})
}

// passBy says what a commit does with a name that the rules ignore: keep says that what the last commit has of it, if anything,
// stays in the next one, since it may be the only copy. n is nil where what it was at the boundary is known by pre alone.
func (c *capture) passBy(m *dirMark, name string, n *Inode, pre *preimage) (keep bool) {
	v := c.v
	switch warm.KindOf(pre.attr.Mode) {
	case cold.KindDir:
		if n != nil && v.settledNow(n) {
			return false
		}
	case cold.KindFile:
		if n == nil {
			if !pre.rec.IsStub() && !pre.rec.Has(warm.FlagClean) {
				return false
			}
			break
		}
		n.mu.Lock()
		r := n.mu.rec
		n.mu.Unlock()
		if !r.IsStub() && (!r.Has(warm.FlagClean) || v.leaveCold(c.ctx, n) == nil) {
			return false
		}
	default:
		return false
	}
	if n != nil {
		v.settleSoon(n)
	}
	m.keep, m.redo = true, append(m.redo, name)
	return true
}

// crossing prepares for a rename over the border of what the rules ignore: a file that goes there comes back from cold first. A
// directory does not: EXDEV makes mv copy.
func (v *Volume) crossing(ctx context.Context, dir *Inode, name string, newdir *Inode, newname string, exchange bool) error {
	if !v.Rules().HasIgnore() {
		return nil
	}
	if err := v.enters(ctx, dir, name, newdir, newname); err != nil || !exchange {
		return err
	}
	return v.enters(ctx, newdir, newname, dir, name)
}

func (v *Volume) enters(ctx context.Context, dir *Inode, name string, newdir *Inode, newname string) error {
	dirfd, err := v.dirFD(dir)
	if err != nil {
		return err
	}
	defer v.unpin(dir)
	n, _, err := v.lookupAt(ctx, dir, dirfd, name)
	if err != nil {
		return nil // the call itself says so
	}
	defer v.unref(n, 1)
	isDir := n.dir != nil
	from, to := v.ignoredName(dir, name, isDir), v.ignoredName(newdir, newname, isDir)
	switch {
	case from == to && (!isDir || from || !v.Rules().Anchored()):
		return nil
	case isDir && to:
		return unix.EXDEV
	case isDir: // what is ignored below it may be another now
		v.book.rewalk.Store(true)
		return nil
	case to:
		return v.errand(ctx, n, func(ctx context.Context) error { return v.leaveCold(ctx, n) })
	}
	return nil
}

// linkCrosses says whether a new name of a file would be ignored and the one that it has not, or the other way round.
func (v *Volume) linkCrosses(n, dir *Inode, name string) bool {
	if !v.Rules().HasIgnore() {
		return false
	}
	v.ns.RLock()
	named := n.parent != nil
	v.ns.RUnlock()
	return named && v.ignoredInode(n) != v.ignoredName(dir, name, false)
}
