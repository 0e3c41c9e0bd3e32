package tiers

import (
	"emberfs/tiers/warm"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Handle is an open file with a descriptor of its own in warm: writeback errors are reported per descriptor. Safe for
// concurrent use.
type Handle struct {
	v     *Volume
	n     *Inode
	fd    int
	flags uint32      // as the program gave them
	atime atomic.Bool // the first read through this handle has been shown to warm
	cold  atomic.Bool // there was a read of a stub through this handle

	io      IO    // the way that reads and writes take
	backing int32 // of Backing, for IODirect

	lane int8 // of risk, for what is written; -1: no commit takes it

	noatime bool // reads of fd do not move warm's atime

	// Opener is the caller's: which user it was opened for.
	Opener uint32
}

// IO is the way that programs' reads and writes of an open file take.
type IO uint8

const (
	IOCached   IO = iota // through the daemon, with the kernel's page cache in front
	IODirect             // the kernel reads and writes warm's file
	IOUncached           // through the daemon each time: somebody else writes warm's file untracked
)

// attrNow is what stat shows of n. Warm's file and the record are looked at together: one changes with the other when
// bytes come back, and the kernel keeps what it is told.
func (v *Volume) attrNow(n *Inode, h *Handle) (Attr, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var st unix.Statx_t
	var err error
	if h != nil {
		err = warm.StatAt(h.fd, "", &st)
	} else {
		err = v.statNode(n, &st)
	}
	if err != nil {
		return Attr{}, err
	}
	return n.attrLocked(&st), nil
}
