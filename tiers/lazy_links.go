package tiers

import (
	"context"
	"errors"
	"maps"
	"path"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/restore"
	"emberfs/tiers/warm"
)

// pendingLinks are the hard-link groups that span directories of which none is listed yet. Names of one file have to
// show one inode and the right count from the first look on, so directories that share a group are listed together; and
// a directory is not moved before that, since the commit names them by their paths.
type pendingLinks struct {
	any    atomic.Bool       // whether there are any
	listed mutex[lockListed] // held while directories that share files are listed together
	mu     mutex[leaf]
	groups map[string][]string // group -> its directories, slash paths
	byDir  map[string][]string // directory -> its groups
}

// loadLinks finds out, when the volume is opened, which groups still have lazy directories. Directories of a group
// of which some are listed and some are not, which only a crash leaves or a newer commit brings, are listed at once.
func (v *Volume) loadLinks(ctx context.Context) error {
	if !v.tiered() || v.state.Origin == "" {
		return nil
	}
	s, err := v.origin(ctx)
	if err != nil {
		return nil // whatever needs the commit reports the error
	}
	groups, err := s.LinkDirs(ctx)
	if err != nil {
		v.log.WithError(err).Warn("hard links between directories cannot be read: their names are files of their own")
		return nil
	}
	p := &v.links
	p.groups, p.byDir = map[string][]string{}, map[string][]string{}
	var mixed []string
	for g, dirs := range groups {
		unlisted := 0
		for _, d := range dirs {
			if v.lazyAt(d) {
				unlisted++
			}
		}
		if unlisted == 0 {
			continue
		}
		if unlisted < len(dirs) {
			mixed = append(mixed, dirs...)
		}
		p.groups[g] = dirs
		for _, d := range dirs {
			p.byDir[d] = append(p.byDir[d], g)
		}
	}
	p.any.Store(len(p.groups) > 0)
	if len(mixed) > 0 {
		if err := v.listTogether(ctx, mixed); err != nil {
			v.log.WithError(err).Error("directories that share files cannot be listed together; it is tried again " +
				"when one is looked at")
		}
	}
	return nil
}

// lazyAt says whether a directory of the commit that was restored is not listed yet, or lies in one that is not.
func (v *Volume) lazyAt(at string) bool {
	fd := v.warmFD
	defer func() {
		if fd != v.warmFD {
			unix.Close(fd)
		}
	}()
	for rest := at; ; {
		self := warm.ByFD(fd)
		if r, ok := warm.ReadRecord(self); ok && r.Has(warm.FlagDir|warm.FlagLazy) {
			return true
		}
		if rest == "" {
			return false
		}
		var name string
		name, rest, _ = strings.Cut(rest, "/")
		next, err := warm.OpenAt(fd, name, unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			return false // removed, renamed or replaced since it was listed
		}
		if fd != v.warmFD {
			unix.Close(fd)
		}
		fd = next
	}
}

// listLinked lists n together with the directories that it shares files with; done is false where there are none.
func (v *Volume) listLinked(ctx context.Context, n *Inode) (done bool, err error) {
	at := v.pathOf(n)
	v.links.mu.Lock()
	_, pending := v.links.byDir[at]
	v.links.mu.Unlock()
	if !pending {
		return false, nil
	}
	return true, v.listTogether(ctx, []string{at})
}

// beforeMove prepares for moving the directory with the path at: it lists all directories at or below it that share
// files with others, together with those others. Nothing is locked.
func (v *Volume) beforeMove(ctx context.Context, at string) error {
	if !v.links.any.Load() {
		return nil
	}
	var below []string
	v.links.mu.Lock()
	for d := range v.links.byDir {
		if d == at || strings.HasPrefix(d, at+"/") {
			below = append(below, d)
		}
	}
	v.links.mu.Unlock()
	if len(below) == 0 {
		return nil
	}
	return v.listTogether(ctx, below)
}

// closure returns all directories that have to be listed together with dirs, parents before children, and their groups.
// These are dirs themselves, the directories that share groups with them, and the directories above any of these that
// share groups with others.
func (p *pendingLinks) closure(dirs []string) (all []string, groups map[string]bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	groups = map[string]bool{}
	seen := map[string]bool{}
	for todo := slices.Clone(dirs); len(todo) > 0; {
		d := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if seen[d] {
			continue
		}
		seen[d] = true
		for up := d; up != ""; {
			if up = path.Dir(up); up == "." {
				up = ""
			}
			if len(p.byDir[up]) > 0 {
				todo = append(todo, up)
			}
		}
		for _, g := range p.byDir[d] {
			if !groups[g] {
				groups[g] = true
				todo = append(todo, p.groups[g]...)
			}
		}
	}
	return slices.Sorted(maps.Keys(seen)), groups // parents before children
}

// listTogether lists the directories with the paths dirs in the commit, and all that share files with them. A directory
// that cannot be read fails it only if it is in dirs. Nothing is locked.
func (v *Volume) listTogether(ctx context.Context, dirs []string) error {
	p := &v.links
	p.listed.Lock()
	defer p.listed.Unlock()
	all, groups := p.closure(dirs)
	together := map[string]bool{}
	for _, d := range all {
		together[d] = true
	}
	files := map[restore.LinkKey]int{}
	var lists []*lister
	var held []*Inode
	defer func() {
		for _, l := range lists {
			l.close()
		}
		for _, n := range held {
			n.dir.listing.Unlock()
			v.unref(n, 1)
		}
		for _, fd := range files {
			unix.Close(fd)
		}
	}()
	damaged := func(d string, err error) bool { // d was not asked for, and must not keep the others from being listed
		return (errors.Is(err, cold.ErrMissing) || errors.Is(err, cold.ErrCorrupt)) && !slices.Contains(dirs, d)
	}
	whole := true
	for _, d := range all {
		n, err := v.walkTo(ctx, d, together)
		if err != nil {
			if err == unix.ENOENT || err == unix.ENOTDIR {
				continue // it was listed and removed before a crash
			}
			if damaged(d, err) {
				whole = false
				continue
			}
			return err
		}
		n.dir.listing.Lock()
		held = append(held, n)
		l, err := v.beginList(ctx, n, files)
		if damaged(d, err) {
			whole = false
			continue
		}
		if err != nil {
			return err
		}
		if l == nil { // it was listed before a crash, and may have the file that the others are to have names of
			v.adoptLinks(ctx, n, files)
			continue
		}
		lists = append(lists, l)
		if err := l.entries(ctx); err != nil {
			return err
		}
	}
	for _, l := range lists {
		if err := l.finish(); err != nil {
			return err
		}
	}
	if !whole {
		return nil // the groups stay pending: damaged directories get names of the same files once they can be read
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for g := range groups {
		delete(p.groups, g)
	}
	for _, d := range all {
		delete(p.byDir, d)
	}
	p.any.Store(len(p.groups) > 0)
	return nil
}

// walkTo returns the directory with the path at, with one reference. It lists the directories on the way there, except
// those in together, which the caller lists. pendingLinks.listed is held.
func (v *Volume) walkTo(ctx context.Context, at string, together map[string]bool) (*Inode, error) {
	n := v.root
	v.ref(n)
	so := ""
	for rest := at; rest != ""; {
		if n.dir == nil {
			v.unref(n, 1)
			return nil, unix.ENOTDIR
		}
		if !together[so] {
			// This is not done by list, which may take pendingLinks.listed: a directory that shares files is in
			// together.
			n.dir.listing.Lock()
			l, err := v.beginList(ctx, n, nil)
			if err == nil && l != nil {
				if err = l.entries(ctx); err == nil {
					err = l.finish()
				}
				l.close()
			}
			n.dir.listing.Unlock()
			if err != nil {
				v.unref(n, 1)
				return nil, err
			}
		}
		var name string
		name, rest, _ = strings.Cut(rest, "/")
		fd, err := v.dirFD(n)
		if err != nil {
			v.unref(n, 1)
			return nil, err
		}
		next, _, err := v.lookupAt(ctx, n, fd, name)
		v.unpin(n)
		v.unref(n, 1)
		if err != nil {
			return nil, err
		}
		n, so = next, path.Join(so, name)
	}
	if n.dir == nil {
		v.unref(n, 1)
		return nil, unix.ENOTDIR
	}
	return n, nil
}

// adoptLinks opens the files that the listed directory n has under names of hard-link groups, and adds them to files,
// so that directories listed later get names of the same files.
func (v *Volume) adoptLinks(ctx context.Context, n *Inode, files map[restore.LinkKey]int) {
	n.dir.mu.Lock()
	id := n.dir.mu.base
	n.dir.mu.Unlock()
	if id == (cold.DirID{}) {
		id = v.committedDir(ctx, v.pathOf(n))
	}
	l, err := v.readDir(ctx, id)
	if err != nil {
		return
	}
	fd, err := v.dirFD(n)
	if err != nil {
		return
	}
	defer v.unpin(n)
	for i := range l.Entries {
		e := &l.Entries[i]
		if e.Link == "" {
			continue
		}
		if _, ok := files[restore.LinkKeyOf(e)]; ok {
			continue
		}
		var st unix.Statx_t
		if warm.StatAt(fd, e.Name, &st) != nil || warm.KindOf(uint32(st.Mode)) != e.Kind {
			continue
		}
		if e.Kind == cold.KindFile {
			if r, ok := warm.ReadRecord(warm.ByName(fd, e.Name)); !ok || r.ID != e.ID || int64(st.Size) != e.Size {
				continue // it was replaced or changed since
			}
		}
		if f, err := warm.OpenAt(fd, e.Name, unix.O_PATH, 0); err == nil {
			files[restore.LinkKeyOf(e)] = f
		}
	}
}

// committedDir returns the directory that the restored commit has at a path. It returns the zero DirID if there is
// none, or the commit cannot be read.
func (v *Volume) committedDir(ctx context.Context, at string) cold.DirID {
	s, err := v.origin(ctx)
	if err != nil {
		return cold.DirID{}
	}
	root := s.Root()
	id := root.Dir()
	for rest := at; rest != ""; {
		var name string
		name, rest, _ = strings.Cut(rest, "/")
		l, err := v.readDir(ctx, id)
		if err != nil {
			return cold.DirID{}
		}
		i, ok := slices.BinarySearchFunc(l.Entries, name, func(e cold.Entry, name string) int {
			return strings.Compare(e.Name, name)
		})
		if !ok || l.Entries[i].Kind != cold.KindDir {
			return cold.DirID{}
		}
		id = l.Entries[i].Dir()
	}
	return id
}

// spanning adds the groups that are still pending to found, those that a commit found, and returns found. Pending
// groups are in lazy directories, into which the commit did not look.
func (p *pendingLinks) spanning(found map[string][]string) map[string][]string {
	p.mu.Lock()
	defer p.mu.Unlock()
	for g, dirs := range p.groups {
		all := slices.Concat(found[g], dirs)
		slices.Sort(all)
		found[g] = slices.Compact(all)
	}
	return found
}
