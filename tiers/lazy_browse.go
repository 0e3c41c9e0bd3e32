package tiers

import (
	"context"
	"fmt"
	"hash/fnv"
	"math"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/warm"
)

// This file browses: it gives the names of a lazy directory without listing it. A find(1) over a restored tree needs
// names and kinds, which the commit has. To make the files in warm for it takes twenty times as long as to give their
// names, so a lazy directory gives the commit's names, and only the directories in it are made, since they are looked
// into next. The directory stays lazy until the first look at a file in it, or the first change. So warm holds only
// lazy directories below a lazy one, and a directory is listed after all those above it.

// browseMax bounds the names of a directory that can be browsed: each reader of the directory holds all of them in
// memory.
const browseMax = 1 << 17

// absentMax is how many names that do not exist may be looked up in a lazy directory before it is listed. Each such
// lookup may read what the commit has in the directory.
const absentMax = 16

// listAbove lists the lazy directories above n, the topmost first. It is called before a change below them, because
// such a change marks them dirty. Nothing is locked.
func (v *Volume) listAbove(ctx context.Context, n *Inode) error {
	if !v.tiered() {
		return nil
	}
	var above []*Inode
	v.ns.RLock()
	for p := n.parent; p != nil; p = p.parent {
		if p.dir.lazy.Load() {
			v.ref(p)
			above = append(above, p)
		}
	}
	v.ns.RUnlock()
	defer func() {
		for _, p := range above {
			v.unref(p, 1)
		}
	}()
	for _, p := range slices.Backward(above) {
		if err := v.list(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

// lazyAbove says whether a directory above n is lazy, so that listAbove has something to do.
func (v *Volume) lazyAbove(n *Inode) bool {
	if !v.tiered() {
		return false
	}
	v.ns.RLock()
	defer v.ns.RUnlock()
	for p := n.parent; p != nil; p = p.parent {
		if p.dir.lazy.Load() {
			return true
		}
	}
	return false
}

// prepareAttrs prepares n for a change of its own attributes. Such a change marks the directories above n, so these are
// listed first. A change of the root's attributes marks the root, so the root itself is listed.
func (v *Volume) prepareAttrs(ctx context.Context, n *Inode) error {
	switch {
	case n.dir == nil: // only lazy directories are below lazy directories
		return nil
	case n == v.root:
		return v.listWithRoom(ctx, n)
	}
	if !v.lazyAbove(n) {
		return nil
	}
	return v.withRoom(ctx, n, func(ctx context.Context) error { return v.listAbove(ctx, n) })
}

// browse makes the directories in the lazy directory n, and returns what the commit has in n. ok is false if n is
// listed already, or if it has to be listed before its names can be given: the commit does not say exactly what n will
// hold, or several names in it stand for one inode.
func (v *Volume) browse(ctx context.Context, n *Inode) (l cold.Listing, ok bool, err error) {
	l, ok = v.browsable(ctx, n)
	if !ok || n.dir.browsed.Load() != nil {
		return l, ok, nil
	}
	n.dir.listing.Lock()
	defer n.dir.listing.Unlock()
	if !n.dir.lazy.Load() {
		return cold.Listing{}, false, nil
	}
	id := v.keepShown(n)
	b, err := v.newLister(n, l)
	if err != nil {
		return cold.Listing{}, false, err
	}
	defer b.close()
	for i := range l.Entries {
		e := &l.Entries[i]
		if e.Kind != cold.KindDir {
			continue
		}
		if err := v.step("browse.entry"); err != nil {
			return cold.Listing{}, false, err
		}
		if err := b.subdir(ctx, e); err != nil {
			return cold.Listing{}, false, fmt.Errorf("list %q: %w", path.Join(v.pathOf(n), e.Name), err)
		}
	}
	n.dir.browsed.Store(&id)
	return l, true, nil
}

// browsable reads what the commit has in n, and says whether n is lazy and these names may be given as they are.
func (v *Volume) browsable(ctx context.Context, n *Inode) (cold.Listing, bool) {
	if !n.dir.lazy.Load() {
		return cold.Listing{}, false
	}
	n.mu.Lock()
	clean, id := n.mu.rec.Has(warm.FlagClean|warm.FlagLazy), cold.DirID{Tree: n.mu.rec.ID, Meta: n.mu.rec.Meta}
	n.mu.Unlock()
	if !clean {
		return cold.Listing{}, false
	}
	l, err := v.readNames(ctx, id)
	if err != nil || len(l.Entries) > browseMax || l.Reconciled || len(l.Problems) > 0 {
		return cold.Listing{}, false // listing n reports what is wrong
	}
	for i := range l.Entries {
		e := &l.Entries[i]
		// An empty file may have to stand in for a device or submodule. Only listing the directory finds that out.
		if e.Link != "" || e.Kind == cold.KindChar || e.Kind == cold.KindBlock || e.Kind == cold.KindOther {
			return cold.Listing{}, false
		}
	}
	return l, true
}

// lookLazy prepares the directory dir for a lookup of name, by listing it if it is lazy. If name is a directory,
// browsing dir is enough. If the commit does not have name, lookLazy returns ENOENT without listing dir, up to
// absentMax times.
func (v *Volume) lookLazy(ctx context.Context, dir *Inode, name string) error {
	if dir.dir == nil || !dir.dir.lazy.Load() {
		return nil
	}
	return v.withRoom(ctx, dir, func(ctx context.Context) error {
		l, ok := v.browsable(ctx, dir)
		// A listing this large is not kept in memory (readRecent). To read it for each name takes longer than to list
		// dir.
		if !ok || len(l.Entries) > recentEntries/4 {
			return v.list(ctx, dir)
		}
		i, found := slices.BinarySearchFunc(l.Entries, name, func(e cold.Entry, name string) int {
			return strings.Compare(e.Name, name)
		})
		switch {
		case found && l.Entries[i].Kind == cold.KindDir:
			if _, ok, err := v.browse(ctx, dir); ok || err != nil {
				return err
			}
		case !found && dir.dir.lazy.Load(): // still lazy, so nobody made name meanwhile
			if dir.dir.absent.Add(1) <= absentMax {
				return unix.ENOENT
			}
		}
		return v.list(ctx, dir)
	})
}

// Cache says what the kernel may do with what it reads from the stream.
func (d *DirHandle) Cache() DirCache { return d.cache }

// ready prepares d's directory for reading names. A lazy directory is browsed, or listed where that is not possible.
// For a listed one, ready decides what the kernel may keep (d.cache).
func (d *DirHandle) ready(ctx context.Context) error {
	v, dir := d.v, d.n.dir
	if !dir.lazy.Load() || v.areaOf != nil {
		switch {
		case dir.browsers.Load() > 0:
			d.cache = DirNever
		case dir.browseKept.Swap(false):
			d.cache = DirAnew
		}
		return nil
	}
	if dir.browsed.Load() != nil { // it was browsed before, and the kernel may read its own copy of the names
		return nil
	}
	n := d.n // d may be closed before the errand ends
	return v.withRoom(ctx, n, func(ctx context.Context) error {
		if _, ok, err := v.browse(ctx, n); ok || err != nil {
			return err
		}
		return v.list(ctx, n)
	})
}

// Lazy says whether the directory is lazy. Looking at the files in a lazy directory takes much longer than reading its
// names.
func (d *DirHandle) Lazy() bool { return d.n.dir.lazy.Load() }

// List lists the directory. It is called for a reader at the beginning of the stream who will look at the files too.
func (d *DirHandle) List(ctx context.Context) error { return d.v.listWithRoom(ctx, d.n) }

// browse is ReadDir with the commit's names. It applies to a read from the beginning (off 0) of a lazy directory, and
// to a read that goes on from a cookie of an earlier browse, even if the directory was listed since; names that were
// removed since are given nevertheless. It returns false where the caller has to read warm's directory.
func (d *DirHandle) browse(ctx context.Context, off uint64, emit func(warm.Dirent) bool) (bool, error) {
	dir := d.n.dir
	lazy, id := dir.lazy.Load(), dir.browsed.Load()
	if id == nil || off == 0 && !lazy || off != 0 && !isBrowsed(off) {
		return false, nil
	}
	if !d.browser {
		d.browser = true
		dir.browsers.Add(1)
		dir.browseKept.Store(true)
	}
	names := dir.names.Load()
	if names == nil {
		l, err := d.v.namesFor(ctx, d.n, *id)
		if err != nil {
			return false, err
		}
		entries, err := d.v.browseEntries(d.n, d.fd, &l)
		if err != nil {
			return false, err
		}
		names = &entries
		dir.names.Store(names)
	}
	for i := min(int(uint32(off)), len(*names)); i < len(*names); i++ {
		e := (*names)[i]
		e.Lazy = lazy && i > 1
		if !emit(e) {
			break
		}
	}
	return true, nil
}

// stopBrowsing is called when the stream ends. The last stream that browsed the directory drops the names.
func (d *DirHandle) stopBrowsing() {
	if d.browser && d.n.dir.browsers.Add(-1) == 0 {
		d.n.dir.names.Store(nil)
	}
}

// browseEntries returns the entries of a stream that browses the directory n, whose names in the commit are l; "." and
// ".." are included. fd is warm's directory. Files that are not made yet have no inode numbers: browseIno makes up
// theirs.
func (v *Volume) browseEntries(n *Inode, fd int, l *cold.Listing) ([]warm.Dirent, error) {
	made := map[string]uint64{}
	if slices.ContainsFunc(l.Entries, func(e cold.Entry) bool { return e.Kind == cold.KindDir }) {
		names, err := warm.ListNames(fd)
		if err != nil {
			return nil, fmt.Errorf("read directory %d: %w", n.ino, err)
		}
		for _, d := range names {
			made[d.Name] = d.Ino
		}
	}
	up := n.ino
	v.ns.RLock()
	if n.parent != nil {
		up = n.parent.ino
	}
	v.ns.RUnlock()
	out := make([]warm.Dirent, 0, len(l.Entries)+2)
	out = append(out, warm.Dirent{Name: ".", Ino: n.ino, Mode: unix.S_IFDIR},
		warm.Dirent{Name: "..", Ino: up, Mode: unix.S_IFDIR})
	for i := range l.Entries {
		e := &l.Entries[i]
		d := warm.Dirent{Name: e.Name, Mode: e.Kind.Format(), Ino: made[e.Name]}
		if d.Ino == 0 {
			d.Ino = browseIno(n.ino, e.Name)
		}
		out = append(out, d)
	}
	for i := range out {
		out[i].Off = browseCookie | uint64(i+1)
	}
	return out, nil
}

// browseCookie is the upper half of the cookies of browsed entries. A file system that numbers its cookies has small
// ones. Of the cookies of one that hashes names, one in 2^46 looks like one of ours.
const browseCookie = 0x7e5b1d93 << 32

func isBrowsed(off uint64) bool {
	return off&^math.MaxUint32 == browseCookie && uint32(off) <= browseMax+2
}

// browseIno makes up the inode number of a file that is not made yet, in a range that no file system uses.
func browseIno(dir uint64, name string) uint64 {
	h := fnv.New64a()
	fmt.Fprintf(h, "%d/%s", dir, name)
	return h.Sum64()&^(7<<61) | 1<<61
}
