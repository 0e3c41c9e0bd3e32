package tiers

import (
	"golang.org/x/sys/unix"

	"emberfs/tiers/warm"
)

// lend adds the owner's permission bits to a file or directory that its owner has made unreadable (chmod 0), so that a
// commit can read it; undo takes them back. It is for the daemon of a plain user, on that user's own files. Nobody sees
// it: stat shows the mode that the user set, and a chmod by the user in between stands. The caller holds a reference on
// n, and keeps fd, an O_PATH descriptor of n, open until undo. A SIGKILL in between leaves the bits set, which gives
// the owner no right that he could not give himself.
func (v *Volume) lend(n *Inode, fd int, bits uint32) (undo func(), err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	lent := n.mu.mode | bits
	if err := unix.Chmod(warm.FDPath(fd), lent&07777); err != nil {
		return nil, err
	}
	n.mu.lent = lent
	return func() {
		n.mu.Lock()
		if n.mu.lent == lent {
			_ = unix.Chmod(warm.FDPath(fd), n.mu.mode&07777)
		}
		n.mu.Unlock()
	}, nil
}

// mayLend says whether lend can help: the daemon is not root, and its user owns the file.
func (v *Volume) mayLend(st *unix.Statx_t) bool { return v.uid != 0 && st.Uid == v.uid }

// openLent opens a file of the daemon's user that the mode forbids him to read. It returns EACCES for files of others.
func (v *Volume) openLent(n *Inode, flags int) (int, error) {
	path, err := v.openNode(n, unix.O_PATH)
	if err != nil {
		return -1, err
	}
	defer unix.Close(path)
	var st unix.Statx_t
	if err := warm.StatAt(path, "", &st); err != nil {
		return -1, err
	}
	if !v.mayLend(&st) {
		return -1, unix.EACCES
	}
	undo, err := v.lend(n, path, 0400)
	if err != nil {
		return -1, err
	}
	defer undo()
	return unix.Open(warm.FDPath(path), flags|unix.O_CLOEXEC, 0)
}
