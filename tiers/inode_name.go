package tiers

import (
	"emberfs/tiers/warm"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// setName records where n stands now. Volume.ns is held for writing. The parent gains a reference before the old one
// loses its own.
func (v *Volume) setName(n, parent *Inode, name string) (release *Inode) {
	if n.parent == parent {
		n.name = name
		return nil
	}
	release = n.parent
	if parent != nil {
		v.ref(parent)
	}
	n.parent, n.name = parent, name
	if n.anon >= 0 && parent != nil {
		unix.Close(n.anon)
		n.anon = -1
		v.nameless.Add(-1)
	}
	return release
}

// place records that n stands at (parent, name), as a stat of it said when moves was the given count. A rename or
// unlink since then may have taken the name away: then it is looked at again, and false says that n is not there.
func (v *Volume) place(n, parent *Inode, dirfd int, name string, moves uint64) bool {
	if n == v.root {
		return true
	}
	v.ns.RLock()
	same := n.parent == parent && n.name == name
	v.ns.RUnlock()
	if same {
		return true
	}
	v.severalNames(n, parent, name)
	v.ns.Lock()
	if v.nameChanges.Load() != moves {
		var st unix.Statx_t
		if warm.StatAt(dirfd, name, &st) != nil || st.Ino != n.ino || warm.GenOf(&st) != n.gen {
			v.ns.Unlock()
			return false
		}
	}
	release := v.setName(n, parent, name)
	v.ns.Unlock()
	if release != nil {
		v.unref(release, 1)
	}
	return true
}

// regainName gives an inode the name at which a commit found it, where the one that it was known by, one of several, is
// gone, and says whether that was so. Without a name no change of it is noted.
func (v *Volume) regainName(dir *Inode, dirfd int, name string, st *unix.Statx_t, moves uint64) bool {
	n := v.peek(st)
	if n == nil {
		return false
	}
	v.ns.RLock()
	lost := n.parent == nil
	v.ns.RUnlock()
	if !lost {
		return false
	}
	if n = v.peekRef(st); n != nil {
		v.place(n, dir, dirfd, name, moves)
		v.unref(n, 1)
	}
	return true
}

// pathOf is where n stands now, a slash path from the root; "" for the root, and the node's number for what has no
// name.
func (v *Volume) pathOf(n *Inode) string {
	if n == v.root {
		return ""
	}
	var names []string
	v.ns.RLock()
	defer v.ns.RUnlock()
	for ; n.parent != nil; n = n.parent {
		names = append(names, n.name)
	}
	if n != v.root {
		names = append(names, "(removed)")
	}
	slices.Reverse(names)
	return strings.Join(names, "/")
}

// checkName refuses what can not be one name in a directory.
func checkName(name string) error {
	switch {
	case len(name) > 255:
		return unix.ENAMETOOLONG
	case name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00"):
		return unix.EINVAL
	}
	return nil
}
