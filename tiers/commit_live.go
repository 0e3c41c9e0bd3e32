package tiers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/warm"
)

// liveBranch remembers what the newest commit has of directories that commits to the live branch changed, so that the
// next one need not look for them in the commit. Volume.syncing guards it.
type liveBranch struct {
	// tip is the commit for which dirs holds, and beside it the bases of tracked directories; zero: not known.
	tip  cold.ID
	dirs map[inoKey]cold.DirID
}

// reset notes that tip is a commit of everything; or, if it is zero, that nothing is known.
func (l *liveBranch) reset(tip cold.ID) { l.tip, l.dirs = tip, nil }

// has says whether root is the root directory of base, and base is the newest commit, of the live branch. Then a commit
// of everything extends this root. With the changed names that gives the same as the root of the last commit of
// everything, which cold cannot extend: it has only root directories of commits.
func (l *liveBranch) has(base cold.Snapshot, root cold.DirID) bool {
	return base != nil && len(l.dirs) > 0 && l.tip == base.Info().ID && root == cold.RootDir(base)
}

// liveDir is a directory that a commit to the live branch goes into: it has critical names that changed, or is above
// one that has.
type liveDir struct {
	n     *Inode
	at    string
	names map[string]struct{}
	kids  map[string]*liveDir
}

// liveTree arranges the noted names in a tree of directories, as they stand at this moment. It returns errNeedWhole
// where only a commit of everything can take what changed. Volume.barrier is held for writing.
func (v *Volume) liveTree(s *criticalSet) (*liveDir, error) {
	if s.whole {
		return nil, errNeedWhole
	}
	v.ns.RLock()
	defer v.ns.RUnlock()
	root := &liveDir{n: v.root}
	byNode := map[*Inode]*liveDir{v.root: root}
	var dir func(n *Inode) *liveDir
	dir = func(n *Inode) *liveDir {
		if d := byNode[n]; d != nil || n.parent == nil { // no parent: removed
			return d
		}
		p := dir(n.parent)
		if p == nil {
			return nil
		}
		d := &liveDir{n: n, at: path.Join(p.at, n.name)}
		byNode[n] = d
		if p.kids == nil {
			p.kids = map[string]*liveDir{}
		}
		p.kids[n.name] = d
		return d
	}
	for n, names := range s.names {
		d := dir(n)
		if d == nil {
			return nil, errNeedWhole // that the directory was removed is not noted
		}
		d.names = names
	}
	return root, nil
}

// commitLive captures the noted critical names and moves the live branch to a commit of them. All else is in that
// commit as the newest one has it, and stays dirty. On errNeedWhole nothing was changed. Volume.syncing is held.
func (v *Volume) commitLive(ctx context.Context, rc *Receipt) (err error) {
	tx, err := v.cold.BeginLive(ctx)
	if err != nil {
		return fmt.Errorf("begin a commit: %w", err)
	}
	defer tx.Abort()
	base := tx.Base()
	if base == nil || v.state.Walked != v.rulesSum() || v.book.rewalk.Load() {
		return errNeedWhole
	}
	if err := v.checkBase(ctx, base); err != nil {
		return err
	}
	// A directory that a stock client changed is merged from its tree and our metadata, which PutDir cannot extend: a
	// commit of everything comes first.
	if valid, err := base.Valid(ctx, cold.RootDir(base)); err != nil {
		return fmt.Errorf("read the last commit: %w", err)
	} else if !valid {
		return errNeedWhole
	}
	v.followLive(base)
	c := v.beginCapture(ctx, tx, &capture{live: true})
	defer func() { c.finish(err) }()
	if c.treeErr != nil {
		return c.treeErr
	}
	if err := v.step("live.boundary"); err != nil {
		return err
	}
	w := &liveWalk{c: c, dirs: map[inoKey]cold.DirID{}}
	id, err := w.dir(c.tree)
	// A commit of everything stores anew what the last commit lacks.
	if errors.Is(err, cold.ErrCorrupt) || errors.Is(err, cold.ErrMissing) {
		return errNeedWhole
	}
	if err = errors.Join(err, c.checkBoundary()); err != nil {
		return err
	}
	c.boundary.close()
	if cold.RootDir(base) == id && !v.rulesChanged(ctx, base) {
		rc.Files, rc.Bytes, rc.Missing = c.files, c.bytes, append(rc.Missing, lines(c.missing)...)
		rc.Commit = base.Info().ID.String()
		return nil
	}
	if err := v.publish(ctx, c, id, rc, w.flush); err != nil {
		return err
	}
	// From here on the commit stands.
	_ = v.step("live.moved")
	v.noteHead(rc.Commit)
	w.stands(rc.Commit)
	v.critical.mu.Lock()
	v.critical.commits++
	v.critical.mu.Unlock()
	return nil
}

// followLive makes sure that what v.live remembers is of base, the newest commit, or nothing.
func (v *Volume) followLive(base cold.Snapshot) {
	id := base.Info().ID
	if v.live.tip != id {
		v.live.reset(cold.ID{})
	}
	if c := v.lastCommit(); v.live.tip.IsZero() && !base.Info().Live && c != nil && c.ID == id.String() &&
		v.state.Head == c.ID {
		v.live.reset(id) // clean records tell what it has
	}
}

// liveWalk captures the directories of one commit to the live branch.
type liveWalk struct {
	c     *capture
	dirs  map[inoKey]cold.DirID
	marks []*dirMark // each with a reference to its directory
}

// dir stores one directory and returns its id: what the newest commit has of it, with the noted names and the
// directories in d.kids replaced. It returns errNeedWhole where that cannot be done.
func (w *liveWalk) dir(d *liveDir) (cold.DirID, error) {
	c, v := w.c, w.c.v
	if err := c.ctx.Err(); err != nil {
		return cold.DirID{}, err
	}
	if err := v.list(c.ctx, d.n); err != nil {
		return cold.DirID{}, err
	}
	base, err := w.base(d)
	if err != nil {
		return cold.DirID{}, err
	}
	names := slices.Sorted(maps.Keys(d.names))
	names = slices.DeleteFunc(names, func(name string) bool { return d.kids[name] != nil })
	m := &dirMark{n: d.n, name: path.Base(d.at), touched: names}
	fd, err := v.dirFD(d.n)
	if err != nil {
		return cold.DirID{}, fmt.Errorf("open directory %q: %w", d.at, err)
	}
	defer v.unpin(d.n)
	var st unix.Statx_t
	if err := warm.StatAt(fd, "", &st); err == nil && v.mayLend(&st) && uint32(st.Mode)&0500 != 0500 {
		undo, err := v.lend(d.n, fd, 0500)
		if err != nil {
			return cold.DirID{}, fmt.Errorf("read directory %q: %w", d.at, err)
		}
		defer undo()
	}
	walk := &dirWalk{c: c, m: m, fd: fd, at: d.at, b: &baseDir{c: c, id: base}}
	put, del, err := walk.entries(names)
	if err != nil {
		return cold.DirID{}, err
	}
	if m.full || len(m.redo) > 0 { // a file with several names, or one that could not be read
		return cold.DirID{}, errNeedWhole
	}
	for name, kid := range d.kids {
		id, err := w.dir(kid)
		if err != nil {
			return cold.DirID{}, err
		}
		s, err := walk.find(name)
		if s.n != nil {
			v.unref(s.n, 1)
		}
		if err == nil && (s.pre == nil || s.pre.err != nil) {
			err = errors.Join(errNeedWhole, s.pre.failure())
		}
		if err != nil {
			return cold.DirID{}, err
		}
		e := s.pre.entry(name)
		e.ID, e.Meta = id.Tree, id.Meta
		put = append(put, e)
	}
	slices.SortFunc(put, func(a, b cold.Entry) int { return cmp.Compare(a.Name, b.Name) })
	var root *cold.Root
	if d.n == v.root {
		if root, err = w.root(); err != nil {
			return cold.DirID{}, err
		}
	}
	full := base == cold.DirID{}
	if full {
		del = nil
	}
	id, err := c.tx.PutDir(c.ctx, base, full, root, put, del)
	if err != nil {
		return cold.DirID{}, fmt.Errorf("store directory %q: %w", d.at, err)
	}
	w.dirs[d.n.key()] = id
	v.ref(d.n)
	w.marks = append(w.marks, m)
	return id, nil
}

// root returns what the root's metadata holds beside its entries. The groups of links are those of the newest commit.
func (w *liveWalk) root() (*cold.Root, error) {
	c, v := w.c, w.c.v
	v.root.mu.Lock()
	pre := c.boundary.keep(v.root)
	v.root.mu.Unlock()
	if pre == nil || pre.err != nil {
		return nil, fmt.Errorf("stat the root: %w", errors.Join(c.checkBoundary(), pre.failure()))
	}
	links, err := c.base.LinkDirs(c.ctx)
	if err != nil {
		return nil, err
	}
	return &cold.Root{Entry: pre.entry(""), Links: links}, nil
}

// base returns the id that the newest commit has of a directory, zero if it has none.
func (w *liveWalk) base(d *liveDir) (cold.DirID, error) {
	c, v := w.c, w.c.v
	if d.n == v.root {
		return cold.RootDir(c.base), nil
	}
	if !v.live.tip.IsZero() {
		if id, ok := v.live.dirs[d.n.key()]; ok {
			return id, nil
		}
		d.n.dir.mu.Lock()
		tracking, id := d.n.dir.mu.tracking, d.n.dir.mu.base
		d.n.dir.mu.Unlock()
		if tracking && id != (cold.DirID{}) {
			return id, nil
		}
	}
	id := cold.RootDir(c.base)
	for name := range strings.SplitSeq(d.at, "/") {
		l, err := c.base.ReadDir(c.ctx, id)
		if err != nil {
			return cold.DirID{}, fmt.Errorf("read %q in the last commit: %w", d.at, err)
		}
		i, ok := slices.BinarySearchFunc(l.Entries, name, func(e cold.Entry, name string) int {
			return cmp.Compare(e.Name, name)
		})
		if l.Reconciled {
			return cold.DirID{}, errNeedWhole
		}
		if !ok || l.Entries[i].Kind != cold.KindDir {
			return cold.DirID{}, nil
		}
		id = l.Entries[i].Dir()
	}
	return id, nil
}

// fsyncMost is up to how many files are made durable one by one; for more it is cheaper to sync the whole file system.
const fsyncMost = 8

// flush makes durable in warm what the commit has. Otherwise warm might be behind the commit after a power cut, and the
// next commit would take it back.
func (w *liveWalk) flush() error {
	v := w.c.v
	if err := v.held.Sync(); err != nil {
		return err
	}
	files := 0
	for _, m := range w.marks {
		files += len(m.files)
	}
	if files > fsyncMost || v.fsType == unix.BTRFS_SUPER_MAGIC {
		return v.flushWarm()
	}
	for _, m := range w.marks {
		fd, err := v.dirFD(m.n)
		if err != nil {
			continue // it was removed since
		}
		for i := range m.files {
			if err := syncName(fd, m.files[i].name); err != nil {
				v.unpin(m.n)
				return v.flushWarm()
			}
		}
		if len(m.touched) > 0 {
			err = syncName(fd, ".")
		}
		v.unpin(m.n)
		if err != nil {
			return v.flushWarm()
		}
	}
	return nil
}

func syncName(dirfd int, name string) error {
	fd, err := warm.OpenAt(dirfd, name, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Fsync(fd)
}

// stands notes what later commits need to know of this one, which stands now.
func (w *liveWalk) stands(commit string) {
	v := w.c.v
	id, err := cold.ParseID(commit)
	if err != nil {
		return
	}
	v.live.tip = id
	if v.live.dirs == nil {
		v.live.dirs = map[inoKey]cold.DirID{}
	}
	maps.Copy(v.live.dirs, w.dirs)
	for _, m := range w.marks {
		fd, err := v.dirFD(m.n)
		if err != nil {
			continue
		}
		for i := range m.files {
			v.noteStored(fd, &m.files[i], w.c.epoch)
		}
		v.unpin(m.n)
	}
}

// noteStored notes which content a live commit has of a file, which stays dirty. epoch is the commit's.
func (v *Volume) noteStored(dirfd int, f *fileMark, epoch uint64) {
	var st unix.Statx_t
	if warm.StatAt(dirfd, f.name, &st) != nil || st.Ino != f.ino || warm.GenOf(&st) != f.gen {
		return
	}
	n := v.peekRef(&st)
	if n == nil {
		return
	}
	defer v.unref(n, 1)
	if w := n.written.Load(); w != nil {
		w.stored(f.id, f.read)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.contentEpoch.Load() < epoch && !v.late.has(n.ino) {
		n.mu.captured = f.id
	}
}

// syncCritical commits what is critical, or everything where that alone cannot be done, and pushes where there is a
// remote.
func (v *Volume) syncCritical(ctx context.Context) (*Receipt, error) {
	rc := &Receipt{Reason: "critical", Started: time.Now()}
	err := v.syncBy(ctx, rc, false, v.commitLive)
	if errors.Is(err, errNeedWhole) {
		rc = &Receipt{Reason: "critical", Started: rc.Started}
		err = v.syncBy(ctx, rc, false, v.commit)
	}
	rc.Took = time.Since(rc.Started)
	return rc, err
}
