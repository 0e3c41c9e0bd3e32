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

// list makes the children of a lazy directory in warm, as stubs, symlinks, special files and lazy directories. It reads
// no contents but those of files with capabilities, and lists the directories above n first. Whoever looks at a file in
// a directory, or changes anything in it, calls list first; whoever wants only names browses it (lazy_browse.go). If n
// is being listed already, list waits for that. Nothing is locked, and list is never called between begin and end.
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

// listWithRoom is list for requests of programs: on a full disk it makes room and tries again, as a write does. Commits
// call list, because making room may have to wait for a commit.
func (v *Volume) listWithRoom(ctx context.Context, n *Inode) error {
	if n.dir == nil || !n.dir.lazy.Load() {
		return nil
	}
	return v.withRoom(ctx, n, func(ctx context.Context) error { return v.list(ctx, n) })
}

// lister makes the children of one directory, whose dirState.listing is held.
type lister struct {
	v     *Volume
	n     *Inode
	fd    int
	r     *restore.Restorer // makes the entries
	l     cold.Listing
	ctime cold.Time
	// groups has a descriptor of the file of each hard-link group that was met so far. Directories that are listed
	// together share it.
	groups map[restore.LinkKey]int
	own    bool // groups is of this directory alone, and closed with the lister
	links  bool // the directory holds a name of a file with several names
}

// beginList reads what the commit has in n, and returns a lister for it, or nil if n is listed already. groups is
// lister.groups; nil where n is listed alone. n's dirState.listing is held. The caller closes the lister.
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

// newLister returns a lister that makes the entries of listing in n. It pins n's descriptor, until it is closed.
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

// into returns what a restorer needs to know of the volume.
func (v *Volume) into() *restore.Volume {
	return &restore.Volume{Held: v.held, Records: v.records, Trust: v.trust, Ignored: v.ignored, Step: v.step}
}

// keepShown notes the ctime that stat shows of the lazy directory n in its record, because making children moves warm's
// own ctime. It returns the directory of the commit that n stands for.
func (v *Volume) keepShown(n *Inode) cold.DirID {
	n.mu.Lock()
	defer n.mu.Unlock()
	var st unix.Statx_t
	if !n.mu.rec.Has(warm.FlagCtime) && v.statNode(n, &st) == nil {
		n.mu.rec.Ctime, n.mu.rec.Flags = warm.TimeOf(st.Ctime), n.mu.rec.Flags|warm.FlagCtime
		_ = v.storeRecord(n, n.mu.rec) // if this fails, only the ctime is wrong
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

// entries makes the children that are not there yet. Those that a listing left which was cut off by a crash stay if
// they are whole; half-made ones are made anew (removeHalf, subdir).
func (l *lister) entries(ctx context.Context) error {
	fresh := madeIn(l.n, l.fd, l.v)
	var g errgroup.Group
	workers := min(runtime.GOMAXPROCS(0), len(l.l.Entries)/listPiece)
	for w := range max(workers, 1) {
		g.Go(func() error {
			for i := range l.l.Entries {
				// Worker 0 alone makes directories, special files, files with several names, and files with
				// capabilities. The workers take turns with the other files.
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

// listPiece is how many entries in a row one of the goroutines that list a directory takes at a time.
const listPiece = 16

// madeIn returns the attributes that files have which are made in the directory n; fd is its descriptor.
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
			unix.Close(fd) // it has as many names as the file system allows; the other names get another file
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
		return nil // no other name is linked to a stand-in
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

// removeHalf removes a file that a listing began but could not finish, because it was cut off. Such a file has no
// record. If the file is whole, removeHalf returns EEXIST.
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

// syncFile makes a file's bytes durable, because removing the directory's lazy mark does not wait for bytes.
func (l *lister) syncFile(e *cold.Entry) error {
	fd, err := warm.OpenAt(l.fd, e.Name, unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Fsync(fd)
}

// exists returns nil for EEXIST, and any other error as it is.
func exists(err error) error {
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}

// subdir makes a lazy directory for e. One that is there already stays, unless it has no record, because the daemon was
// killed while making it, or it is lazy and stands for another tree than e. Since nothing changes below a lazy
// directory, such a tree is not this commit's, and the directory is made to stand for e's.
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
			valid = false // whoever lists it gets the error
		}
	}
	return l.r.LazyDir(l.fd, e, l.ctime, exists, valid)
}

// finish removes the directory's lazy mark, as the last step of listing it. From then on it is a directory like any
// other.
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
	if !n.mu.rec.Has(warm.FlagCtime) { // its attributes were changed meanwhile, and utimens moves warm's own ctime
		n.mu.rec.Ctime, n.mu.rec.Flags = warm.CoarseNow(), n.mu.rec.Flags|warm.FlagCtime
	}
	err := warm.Utimens(l.fd, []unix.Timespec{{Nsec: unix.UTIME_OMIT}, n.mu.rec.Mtime.Timespec()})
	clean := n.mu.rec.Has(warm.FlagClean) && !incomplete && !l.links
	n.mu.Unlock()
	if err != nil {
		return fmt.Errorf("list %q: %w", v.pathOf(n), err)
	}
	if !clean {
		// The directory and all above it are marked dirty before it can be used.
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
	v.moved.listed.Add(1) // before lazy: whoever finds n listed also sees that an earlier link count is outdated
	n.dir.lazy.Store(false)
	if inval := v.inval.Load(); inval != nil && n.dir.browsers.Load() > 0 {
		(*inval).InvalInode(n.id) // drops what the kernel keeps of streams that browsed the directory
	}
	return nil
}

// syncListed makes the new children of n durable before n's lazy mark is removed. Only btrfs needs that: it may bring
// the two to the disk in another order than they were made in.
func (v *Volume) syncListed(n *Inode) error {
	if v.fsType != unix.BTRFS_SUPER_MAGIC {
		return nil
	}
	if err := unix.Syncfs(v.warmRead()); err != nil {
		return fmt.Errorf("make the listing of inode %d durable: %w", n.ino, err)
	}
	return nil
}

// shownLinks sets the link count that stat shows of a lazy directory: it is the one that n will have once it is listed.
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
			return // listing n reports the error
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
