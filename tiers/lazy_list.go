package tiers

import (
	"context"
	"errors"
	"fmt"
	"path"
	"runtime"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/heldback"
	"emberfs/tiers/restore"
	"emberfs/tiers/warm"
)

// list makes the children of a lazy directory in warm, as stubs, symlinks, special files and lazy directories; the
// content of no file is read, and what is above it is listed before. Whoever looks at a file in a directory, or changes
// anything in it, calls it first; who wants names alone browses it (lazy_browse.go). Who comes while it is under way
// waits. Nothing is locked; never between begin and end.
func (v *Volume) list(ctx context.Context, n *Inode) error {
	if n.dir == nil || !n.dir.lazy.Load() {
		return nil
	}
	if err := v.listAbove(ctx, n); err != nil {
		return err
	}
	if v.links.any.Load() {
		if done, err := v.listLinked(ctx, n); done || err != nil {
			return err
		}
	}
	n.dir.listing.Lock()
	defer n.dir.listing.Unlock()
	l, err := v.beginList(ctx, n, nil)
	if err != nil || l == nil {
		return err
	}
	defer l.close()
	if err := l.entries(ctx); err != nil {
		return err
	}
	return l.finish()
}

// listWithRoom is list for what programs do: on a full disk it makes room first, as a write does. Commits call list,
// for room may have to wait for one.
func (v *Volume) listWithRoom(ctx context.Context, n *Inode) error {
	if n.dir == nil || !n.dir.lazy.Load() {
		return nil
	}
	return v.withRoom(ctx, n, func(ctx context.Context) error { return v.list(ctx, n) })
}

// lister makes the children of one directory. dirState.listing is held.
type lister struct {
	v     *Volume
	n     *Inode
	fd    int
	r     *restore.Restorer // for attributes
	l     cold.Listing
	ctime cold.Time
	// groups are the hard-link groups that span directories which are listed together; nil: of this directory alone.
	groups map[restore.LinkKey]int // a descriptor of the file
	own    bool                    // groups is ours to close
	links  bool                    // there is a name of a file with several
}

// beginList reads what the commit says of n; nil where it is listed already.
func (v *Volume) beginList(ctx context.Context, n *Inode, groups map[restore.LinkKey]int) (*lister, error) {
	if !n.dir.lazy.Load() {
		return nil, nil
	}
	id := v.keepShown(n)
	if err := v.step("list.begin"); err != nil {
		return nil, err
	}
	listing, err := v.readDir(ctx, id)
	if err != nil {
		at := v.pathOf(n)
		v.log.WithError(err).WithField("path", at).Errorf("a directory cannot be read from cold: programs get EIO "+
			"for it; `emberfs check --deep %s` tells what is damaged", v.cfg.State)
		return nil, fmt.Errorf("list %q: %w", at, err)
	}
	l, err := v.newLister(n, listing)
	if err != nil {
		return nil, err
	}
	if l.groups = groups; groups == nil {
		l.groups, l.own = map[restore.LinkKey]int{}, true
	}
	return l, nil
}

// newLister readies n for making the children that a listing has.
func (v *Volume) newLister(n *Inode, listing cold.Listing) (*lister, error) {
	fd, err := v.dirFD(n)
	if err != nil {
		return nil, err
	}
	l := &lister{v: v, n: n, fd: fd, l: listing, ctime: warm.CoarseNow()}
	l.r = &restore.Restorer{Cold: v.cold, Log: v.log, Vol: v.into(), Untrusted: v.cfg.Untrusted, Lazy: true,
		RootFD: v.warmFD, DirAt: v.pathOf(n), Owner: v.uid, Times: v.times}
	return l, nil
}

// into is the volume as a restorer knows it.
func (v *Volume) into() *restore.Volume {
	return &restore.Volume{Held: v.held, Records: v.records, Trust: v.trust, Ignored: v.ignored, Step: v.step}
}

// keepShown notes the ctime that stat shows of a lazy directory, for making children moves warm's own, and gives
// what it stands for.
func (v *Volume) keepShown(n *Inode) cold.DirID {
	n.mu.Lock()
	defer n.mu.Unlock()
	var st unix.Statx_t
	if !n.mu.rec.Has(warm.FlagCtime) && v.statNode(n, &st) == nil {
		n.mu.rec.Ctime, n.mu.rec.Flags = warm.TimeOf(st.Ctime), n.mu.rec.Flags|warm.FlagCtime
		_ = v.storeRecord(n, n.mu.rec) // where it fails only this ctime is at stake
	}
	return cold.DirID{Tree: n.mu.rec.ID, Meta: n.mu.rec.Meta}
}

func (l *lister) close() {
	if l.own {
		for _, fd := range l.groups {
			unix.Close(fd)
		}
	}
	l.v.unpin(l.n)
}

// entries makes what is not there yet. A listing that was cut off by a crash left whole entries: a file gets its name
// last.
func (l *lister) entries(ctx context.Context) error {
	fresh := madeIn(l.n, l.fd, l.v)
	var g errgroup.Group
	workers := min(runtime.GOMAXPROCS(0), len(l.l.Entries)/listPiece)
	for w := range max(workers, 1) {
		g.Go(func() error {
			for i := range l.l.Entries {
				// The others' turns; what shares a file with other names, or is no file, is the first one's.
				e := &l.l.Entries[i]
				if alone := e.Kind == cold.KindFile && e.Link == "" && !warm.HasCaps(e); w != 0 && !alone || alone &&
					workers > 1 && i/listPiece%workers != w {
					continue
				}
				if err := l.v.step("list.entry"); err != nil {
					return err
				}
				if err := l.entry(ctx, e, fresh); err != nil {
					return fmt.Errorf("list %q: %w", path.Join(l.v.pathOf(l.n), e.Name), err)
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// listPiece is how many files one of the goroutines that list a directory makes at a time.
const listPiece = 16

// madeIn is what files made in a directory have.
func madeIn(n *Inode, fd int, v *Volume) restore.Fresh {
	m := restore.Fresh{UID: v.uid, GID: v.gid, Attrs: v.hasDefaultACL(n, fd) != aclNone}
	var st unix.Statx_t
	if warm.StatAt(fd, "", &st) == nil && st.Mode&unix.S_ISGID != 0 {
		m.GID = st.Gid
	}
	return m
}

func (l *lister) entry(ctx context.Context, e *cold.Entry, fresh restore.Fresh) error {
	if e.Link != "" {
		l.links = true
		if fd, ok := l.groups[restore.LinkKeyOf(e)]; ok {
			err := unix.Linkat(unix.AT_FDCWD, warm.FDPath(fd), l.fd, e.Name, unix.AT_SYMLINK_FOLLOW)
			if err == nil || errors.Is(err, unix.EEXIST) || !errors.Is(err, unix.EMLINK) {
				return exists(err)
			}
			unix.Close(fd) // as many names as the file system allows: the others are another file
			delete(l.groups, restore.LinkKeyOf(e))
		}
	}
	if e.Kind == cold.KindDir {
		return l.subdir(ctx, e)
	}
	ok, err := l.r.Make(ctx, l.fd, e, l.ctime, fresh)
	if errors.Is(err, unix.EEXIST) && e.Kind == cold.KindFile {
		if err = l.removeHalf(e); err == nil {
			ok, err = l.r.Make(ctx, l.fd, e, l.ctime, fresh)
		}
	}
	if err == nil && ok && e.Kind == cold.KindFile && !l.r.Stubbed(e) {
		err = l.syncFile(e)
	}
	if errors.Is(err, unix.EEXIST) && (e.Kind != cold.KindFile || l.v.afterCut) {
		if standsIn, err := l.r.Again(l.fd, e); standsIn || err != nil {
			return err
		}
	} else if err == nil && !ok {
		return nil // a stand-in is nobody's other name
	}
	if exists(err) != nil || e.Link == "" {
		return exists(err)
	}
	fd, err := warm.OpenAt(l.fd, e.Name, unix.O_PATH, 0)
	if err == nil {
		l.groups[restore.LinkKeyOf(e)] = fd
	}
	return err
}

// removeHalf removes a file that a listing which was cut off had not finished: it has no record. It returns EEXIST for
// one that is whole.
func (l *lister) removeHalf(e *cold.Entry) error {
	var st unix.Statx_t
	if err := warm.StatAt(l.fd, e.Name, &st); err != nil {
		return err
	}
	if _, ok := warm.ReadRecord(warm.ByName(l.fd, e.Name)); ok {
		return unix.EEXIST
	}
	return errors.Join(l.v.held.Drop(heldback.KeyOf(&st)), unix.Unlinkat(l.fd, e.Name, 0))
}

// syncFile makes a file's bytes durable, since the directory's mark goes without waiting for bytes.
func (l *lister) syncFile(e *cold.Entry) error {
	fd, err := warm.OpenAt(l.fd, e.Name, unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Fsync(fd)
}

// exists takes "it is there already" for success.
func exists(err error) error {
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}

// subdir makes a lazy directory. One that is there is left as it is, unless it was being made when the daemon was
// killed, and has no record yet, or stands for another tree than the commit has: since nothing changes below a lazy
// directory, it is none of the commit.
func (l *lister) subdir(ctx context.Context, e *cold.Entry) error {
	var st unix.Statx_t
	err := warm.StatAt(l.fd, e.Name, &st)
	exists := err == nil
	if exists {
		if r, ok := warm.ReadRecord(warm.ByName(l.fd, e.Name)); ok &&
			(!r.Has(warm.FlagLazy) || e.Dir() == (cold.DirID{Tree: r.ID, Meta: r.Meta})) {
			if l.v.afterCut {
				_, err = l.r.Again(l.fd, e)
			}
			return err
		}
	} else if !errors.Is(err, unix.ENOENT) {
		return err
	}
	valid := !l.l.Reconciled
	if !valid {
		s, err := l.v.origin(ctx)
		if err == nil {
			valid, err = s.Valid(ctx, e.Dir())
		}
		if err != nil {
			valid = false // found out when it is listed
		}
	}
	return l.r.LazyDir(l.fd, e, l.ctime, exists, valid)
}

// finish takes the mark away, last: from now on the directory is one as any other.
func (l *lister) finish() error {
	v, n := l.v, l.n
	if err := v.step("list.record"); err != nil {
		return err
	}
	if err := v.syncListed(n); err != nil {
		return err
	}
	if err := v.held.Sync(); err != nil {
		return err
	}
	for _, p := range l.l.Problems {
		v.log.WithField("path", v.pathOf(n)).WithError(p).Warn("the repository describes this directory wrongly")
	}
	if len(l.l.Problems) > 0 {
		v.points.setError("restore", fmt.Errorf(
			"the repository describes directory %q wrongly (the log tells): the first: %w", v.pathOf(n),
			l.l.Problems[0]))
	}
	incomplete := l.l.Reconciled || len(l.l.Problems) > 0
	n.dir.mu.Lock()
	n.dir.mu.links = n.dir.mu.links || l.links
	if incomplete {
		n.dir.mu.tracking, n.dir.mu.changed, n.dir.mu.base = false, nil, cold.DirID{}
	}
	n.dir.mu.Unlock()
	n.mu.Lock()
	if !n.mu.rec.Has(warm.FlagCtime) { // its attributes were changed meanwhile, and the next line moves warm's own
		n.mu.rec.Ctime, n.mu.rec.Flags = warm.CoarseNow(), n.mu.rec.Flags|warm.FlagCtime
	}
	err := warm.Utimens(l.fd, []unix.Timespec{{Nsec: unix.UTIME_OMIT}, n.mu.rec.Mtime.Timespec()})
	clean := n.mu.rec.Has(warm.FlagClean) && !incomplete && !l.links
	n.mu.Unlock()
	if err != nil {
		return fmt.Errorf("list %q: %w", v.pathOf(n), err)
	}
	if !clean {
		// It counts as changed, and so does all above it, before it can be used.
		v.beginOwn()
		defer v.end()
		if err := v.touchOwn(n, touchQuiet); err != nil {
			return err
		}
	}
	v.marks.Lock()
	defer v.marks.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	r := n.mu.rec
	r.Flags &^= warm.FlagLazy
	if !clean {
		v.keepPast(n)
		r = warm.Record{Flags: warm.FlagCtime, Mtime: r.Mtime, Ctime: r.Ctime}
		n.epoch.Store(v.epoch.Load())
	}
	if err := v.storeRecord(n, r); err != nil {
		return err
	}
	v.moved.listed.Add(1) // first: whoever finds it listed then sees that a link count from before is none
	n.dir.lazy.Store(false)
	if inval := v.inval.Load(); inval != nil && n.dir.browsers.Load() > 0 {
		(*inval).InvalInode(n.id) // what a stream that browsed the directory before leaves with the kernel
	}
	return nil
}

// syncListed makes what was made in a directory durable before the mark goes, where the file system may bring the two
// to the disk in another order than they were made in.
func (v *Volume) syncListed(n *Inode) error {
	if v.fsType != unix.BTRFS_SUPER_MAGIC {
		return nil
	}
	if err := unix.Syncfs(v.warmRead()); err != nil {
		return fmt.Errorf("make the listing of inode %d durable: %w", n.ino, err)
	}
	return nil
}

// shownLinks completes what stat shows of a lazy directory: its link count is that of the listed one.
func (v *Volume) shownLinks(ctx context.Context, n *Inode, a *Attr) {
	if n.dir == nil || !n.dir.lazy.Load() || a.Nlink < 2 { // 1: warm's file system does not count
		return
	}
	links := n.dir.nlink.Load()
	if links == 0 {
		n.mu.Lock()
		id := cold.DirID{Tree: n.mu.rec.ID, Meta: n.mu.rec.Meta}
		n.mu.Unlock()
		l, err := v.namesFor(ctx, n, id)
		if err != nil {
			return // listing it says so
		}
		links = 2
		for i := range l.Entries {
			if l.Entries[i].Kind == cold.KindDir {
				links++
			}
		}
		n.dir.nlink.Store(links)
	}
	if n.dir.lazy.Load() {
		a.Nlink = uint32(links)
	}
}
