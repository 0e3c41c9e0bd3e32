package tiers

import (
	"golang.org/x/sys/unix"

	"emberfs/tiers/warm"
)

// lend gives the daemon of a plain user's mount the owner's bits on one of that user's own files or directories, which
// the user has taken away from himself (chmod 0), for as long as a commit reads it; undo takes them back. Nobody sees
// it: stat goes on showing the mode that the user set, and a chmod of the user's meanwhile stands. n must be held by a
// reference. SIGKILL in between leaves the bits set: the owner's, on a file that he can read anyway by setting them
// himself. fd is an O_PATH descriptor of n that stays open until undo.
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

// mayLend says whether lend is worth trying: root reads everything anyway.
func (v *Volume) mayLend(st *unix.Statx_t) bool { return v.uid != 0 && st.Uid == v.uid }

// openLent opens a file of the user's that he may not read himself.
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
