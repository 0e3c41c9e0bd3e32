package fs

import (
	"fmt"
	"os"
	"strconv"

	"github.com/hanwen/go-fuse/v2/fuse"

	"emberfs/tiers"
)

// cacheSeconds is how long the kernel may cache names, attributes and the absence of names. The daemon is the only
// writer of the tree and sends notifications for what it changes itself, so nothing has to expire earlier.
const cacheSeconds = 365 * 24 * 3600

// policy decides what the kernel caches. The zero value caches nothing (kernel_cache=off).
type policy struct {
	cache bool
}

// seconds returns the timeout of entries, attributes and negative entries.
func (p policy) seconds() uint64 {
	if p.cache {
		return cacheSeconds
	}
	return 0
}

// fileFlags returns the FOPEN flags of a file that is opened or created, depending on the way of I/O that tiers chose
// for it.
func (p policy) fileFlags(io tiers.IO) uint32 {
	// FLUSH is not needed: every write reached warm before it was acknowledged, and the kernel handles POSIX locks.
	const always = fuse.FOPEN_NOFLUSH
	switch {
	case io == tiers.IODirect:
		return always | fuse.FOPEN_PASSTHROUGH // with more flags the kernel fails the open
	case !p.cache || io == tiers.IOUncached:
		return always | fuse.FOPEN_DIRECT_IO // mmap still works thanks to CAP_DIRECT_IO_ALLOW_MMAP
	}
	return always | fuse.FOPEN_KEEP_CACHE
}

// attrSeconds returns the timeout of n's attributes: 0 if they may change without the daemon's knowledge.
func (p policy) attrSeconds(n *tiers.Inode) uint64 {
	if n.Untracked() {
		return 0
	}
	return p.seconds()
}

// dirFlags returns the FOPEN flags of a directory that is opened. Without FOPEN_KEEP_CACHE the kernel drops what it has
// cached of the directory.
func (p policy) dirFlags(c tiers.DirCache) uint32 {
	switch {
	case !p.cache || c == tiers.DirNever:
		return 0
	case c == tiers.DirAnew:
		return fuse.FOPEN_CACHE_DIR
	}
	return fuse.FOPEN_CACHE_DIR | fuse.FOPEN_KEEP_CACHE
}

// readahead is how many KiB the kernel reads ahead in a file. By FUSE itself it cannot be more than the kernel's
// default of 128. With 512 the first sequential read is a third faster, and a page fault in a mapping still takes well
// under a millisecond.
const readahead = 512

// setReadahead sets readahead through the mount's backing device in /sys, which only root may do.
func setReadahead(mountpoint string) error {
	table, err := Mounts()
	if err != nil {
		return err
	}
	m, ok := MountAt(table, mountpoint)
	if !ok {
		return fmt.Errorf("readahead of %s: %w", mountpoint, os.ErrNotExist)
	}
	return os.WriteFile("/sys/class/bdi/"+m.Device+"/read_ahead_kb", []byte(strconv.Itoa(readahead)), 0)
}
