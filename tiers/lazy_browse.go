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

// Looking without listing: find(1) over a restored tree needs names and kinds, which the commit has. Making the files
// for it in warm takes twenty times as long as telling their names, so an unlisted directory tells them as the commit
// does, and only the directories in it are made: they are what is looked into next. It stays unlisted; the first look
// at a file, or change, in it lists it. So warm holds only unlisted directories below one that is unlisted, and a
// directory is listed after all those above it.

// browseMax bounds the names of a directory that are told without listing it: who reads the directory holds them all.
const browseMax = 1 << 17

// absentMax is how many names that it has not an unlisted directory is asked for: each may take reading what the commit
// has.
const absentMax = 16

// listAbove lists the directories above n, the topmost first: changes below them mark them.
func (v *Volume) listAbove(ctx context.Context, n *Inode) error {
	if !v.tiered() {
		return nil
	}
	var above []*Inode
	v.ns.RLock()
	for p := n.parent; p != nil; p = p.parent {
		if p.dir.unlisted.Load() {
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

// unlistedAbove says whether listAbove has anything to do.
func (v *Volume) unlistedAbove(n *Inode) bool {
	if !v.tiered() {
		return false
	}
	v.ns.RLock()
	defer v.ns.RUnlock()
	for p := n.parent; p != nil; p = p.parent {
		if p.dir.unlisted.Load() {
			return true
		}
	}
	return false
}

// prepareAttrs readies n for a change of its own attributes, which is a change of what is above it; for the root, of
// the root.
func (v *Volume) prepareAttrs(ctx context.Context, n *Inode) error {
	switch {
	case n.dir == nil: // only unlisted directories are below unlisted directories
		return nil
	case n == v.root:
		return v.listWithRoom(ctx, n)
	}
	if !v.unlistedAbove(n) {
		return nil
	}
	return v.withRoom(ctx, n, func(ctx context.Context) error { return v.listAbove(ctx, n) })
}

// browse makes the directories in an unlisted directory. It gives what the commit has there; ok is false where n is
// listed, or has to be to be looked at: what the commit tells of it is not what it will hold, or names of one file are
// to show one inode.
func (v *Volume) browse(ctx context.Context, n *Inode) (l cold.Listing, ok bool, err error) {
	l, ok = v.browsable(ctx, n)
	if !ok || n.dir.told.Load() != nil {
		return l, ok, nil
	}
	n.dir.listing.Lock()
	defer n.dir.listing.Unlock()
	if !n.dir.unlisted.Load() {
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
	n.dir.told.Store(&id)
	return l, true, nil
}

// browsable reads what the commit has in n, and says whether browse may tell that.
func (v *Volume) browsable(ctx context.Context, n *Inode) (cold.Listing, bool) {
	if !n.dir.unlisted.Load() {
		return cold.Listing{}, false
	}
	n.mu.Lock()
	clean, id := n.mu.rec.Has(warm.FlagClean|warm.FlagUnlisted), cold.DirID{Tree: n.mu.rec.ID, Meta: n.mu.rec.Meta}
	n.mu.Unlock()
	if !clean {
		return cold.Listing{}, false
	}
	l, err := v.readNames(ctx, id)
	if err != nil || len(l.Entries) > browseMax || l.Reconciled || len(l.Problems) > 0 {
		return cold.Listing{}, false // listing it says what is wrong
	}
	for i := range l.Entries {
		e := &l.Entries[i]
		// What may have to be stood in for is told as what it is found to be.
		if e.Link != "" || e.Kind == cold.KindChar || e.Kind == cold.KindBlock || e.Kind == cold.KindOther {
			return cold.Listing{}, false
		}
	}
	return l, true
}

// lookUnlisted readies dir for a lookup of name. A directory, and a name that the commit has not, do not need it
// listed.
func (v *Volume) lookUnlisted(ctx context.Context, dir *Inode, name string) error {
	if dir.dir == nil || !dir.dir.unlisted.Load() {
		return nil
	}
	return v.withRoom(ctx, dir, func(ctx context.Context) error {
		l, ok := v.browsable(ctx, dir)
		// Such a listing is not kept: reading it for each name takes longer.
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
		case !found && dir.dir.unlisted.Load(): // still: nobody made it meanwhile
			if dir.dir.absent.Add(1) <= absentMax {
				return unix.ENOENT
			}
		}
		return v.list(ctx, dir)
	})
}

// Cache is what the kernel may do with the stream.
func (d *DirHandle) Cache() DirCache { return d.cache }

// ready lists d's directory, or sees that its names can be told without.
func (d *DirHandle) ready(ctx context.Context) error {
	v, dir := d.v, d.n.dir
	if !dir.unlisted.Load() || v.host != nil {
		switch {
		case dir.tellers.Load() > 0:
			d.cache = DirNever
		case dir.toldKept.Swap(false):
			d.cache = DirAnew
		}
		return nil
	}
	if dir.told.Load() != nil { // the kernel may need no more than its own copy
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

// Unlisted says that looking at what is in the directory takes much longer than reading its names.
func (d *DirHandle) Unlisted() bool { return d.n.dir.unlisted.Load() }

// List lists the directory, for a reader at its beginning who will look at what is in it.
func (d *DirHandle) List(ctx context.Context) error { return d.v.listWithRoom(ctx, d.n) }

// tell is ReadDir where the names are told by the commit: from the beginning of an unlisted directory, and from where
// it told the names before on. Names that went away since are told nevertheless. False: warm's directory is to be read.
func (d *DirHandle) tell(ctx context.Context, off uint64, emit func(warm.Dirent) bool) (bool, error) {
	dir := d.n.dir
	unlisted, id := dir.unlisted.Load(), dir.told.Load()
	if id == nil || off == 0 && !unlisted || off != 0 && !isTold(off) {
		return false, nil
	}
	if !d.teller {
		d.teller = true
		dir.tellers.Add(1)
		dir.toldKept.Store(true)
	}
	names := dir.names.Load()
	if names == nil {
		l, err := d.v.namesFor(ctx, d.n, *id)
		if err != nil {
			return false, err
		}
		told, err := d.v.told(d.n, d.fd, &l)
		if err != nil {
			return false, err
		}
		names = &told
		dir.names.Store(names)
	}
	for i := min(int(uint32(off)), len(*names)); i < len(*names); i++ {
		e := (*names)[i]
		e.Told = unlisted && i > 1
		if !emit(e) {
			break
		}
	}
	return true, nil
}

// stopTelling ends tell: the last one who told drops the names.
func (d *DirHandle) stopTelling() {
	if d.teller && d.n.dir.tellers.Add(-1) == 0 {
		d.n.dir.names.Store(nil)
	}
}

// told are the entries of a stream, "." and ".." included, that tells what l has. Files have no inode numbers yet:
// theirs are made up, and nobody has seen others.
func (v *Volume) told(n *Inode, fd int, l *cold.Listing) ([]warm.Dirent, error) {
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
			d.Ino = toldIno(n.ino, e.Name)
		}
		out = append(out, d)
	}
	for i := range out {
		out[i].Off = toldCookie | uint64(i+1)
	}
	return out, nil
}

// toldCookie is the upper half of told names' cookies. Where file systems count, theirs are small; where they hash, one
// in 2^46 looks like it.
const toldCookie = 0x7e5b1d93 << 32

func isTold(off uint64) bool { return off&^math.MaxUint32 == toldCookie && uint32(off) <= browseMax+2 }

// toldIno is the inode number of a name without a file: in a range that no file system uses.
func toldIno(dir uint64, name string) uint64 {
	h := fnv.New64a()
	fmt.Fprintf(h, "%d/%s", dir, name)
	return h.Sum64()&^(7<<61) | 1<<61
}
