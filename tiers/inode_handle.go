package tiers

import (
	"emberfs/tiers/warm"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Handle is an open file. Each has a descriptor of its own in warm, because writeback errors are reported per
// descriptor. Safe for concurrent use.
type Handle struct {
	v     *Volume
	n     *Inode
	fd    int
	flags uint32      // as the program gave them
	atime atomic.Bool // a read through this handle has moved the atime, if it was to
	cold  atomic.Bool // a stub was read through this handle

	io      IO    // how reads and writes are served
	backing int32 // the id that Backing gave, for IODirect

	lane int8 // the lane of risk in which writes count; laneNone: no commit takes them

	noatime bool // reads of fd do not move warm's atime

	// Opener is the user that the file was opened for. The caller sets it.
	Opener uint32
}

// IO says who serves programs' reads and writes of an open file.
type IO uint8

const (
	IOCached   IO = iota // through the daemon, with the kernel's page cache in front
	IODirect             // the kernel reads and writes warm's file
	IOUncached           // always through the daemon: warm's file is written untracked
)

// attrNow returns what stat shows of n. It looks at warm's file, through h where that is not nil, and at the record
// under one hold of n.mu: when bytes come back both change together, and the kernel keeps what it is told.
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
