package tiers

import (
	"emberfs/tiers/warm"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// setName notes that n stands at (parent, name) now. It takes a reference on the new parent. It returns the old parent
// where that is another one, from which the caller must drop a reference after unlocking Volume.ns, which is held for
// writing.
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

// place notes that n stands at (parent, name), where a stat found it when Volume.nameChanges was moves. If there were
// renames or unlinks since, it looks again, and returns false where n is not there any more.
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

// regainName gives the inode of st, found by a commit at (dirfd, name), that name where it has lost the one it was
// known by; without a name no change of it is noted. It says whether the name was lost. moves is as for place.
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

// pathOf returns the slash path from the root at which n stands now: "" for the root; for what has no name, or lies
// below a directory without one, a path that begins with "(removed)".
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

// checkName returns EINVAL or ENAMETOOLONG for what can not be one name in a directory.
func checkName(name string) error {
	switch {
	case len(name) > 255:
		return unix.ENAMETOOLONG
	case name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00"):
		return unix.EINVAL
	}
	return nil
}
