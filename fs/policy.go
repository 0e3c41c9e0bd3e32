package fs

import (
	"fmt"
	"os"
	"strconv"

	"github.com/hanwen/go-fuse/v2/fuse"

	"emberfs/tiers"
)

// cacheSeconds is how long the kernel may keep names, attributes and the absence of names: the daemon is the only
// writer of the tree and invalidates what it changes itself, so nothing ends early but by a notification.
const cacheSeconds = 365 * 24 * 3600

// policy decides what the kernel keeps. The zero policy keeps nothing (kernel_cache=off).
type policy struct {
	cache bool
}

// seconds is the timeout of entries, attributes and negative entries alike.
func (p policy) seconds() uint64 {
	if p.cache {
		return cacheSeconds
	}
	return 0
}

// fileFlags decides the FOPEN flags of every file that is opened or created, by the way that tiers chose for it.
func (p policy) fileFlags(io tiers.IO) uint32 {
	// Every write reached warm before it was acknowledged: FLUSH has nothing to say, and POSIX locks are the kernel's.
	const always = fuse.FOPEN_NOFLUSH
	switch {
	case io == tiers.IODirect:
		return always | fuse.FOPEN_PASSTHROUGH // with any other flag the kernel fails the open
	case !p.cache || io == tiers.IOUncached:
		return always | fuse.FOPEN_DIRECT_IO // mmap keeps working: CAP_DIRECT_IO_ALLOW_MMAP
	}
	return always | fuse.FOPEN_KEEP_CACHE
}

// attrSeconds is the timeout of n's attributes: none while they change without the daemon's knowledge.
func (p policy) attrSeconds(n *tiers.Inode) uint64 {
	if n.Untracked() {
		return 0
	}
	return p.seconds()
}

// dirFlags decides the FOPEN flags of every directory that is opened. Without FOPEN_KEEP_CACHE the kernel drops what it
// has of it.
func (p policy) dirFlags(c tiers.DirCache) uint32 {
	switch {
	case !p.cache || c == tiers.DirNever:
		return 0
	case c == tiers.DirAnew:
		return fuse.FOPEN_CACHE_DIR
	}
	return fuse.FOPEN_CACHE_DIR | fuse.FOPEN_KEEP_CACHE
}

// readahead is how far the kernel reads ahead in a file, in KiB. FUSE has no say beyond the kernel's default of 128:
// with 512 the first sequential read is a third faster, and a page fault in a mapping still costs well under a
// millisecond.
const readahead = 512

// setReadahead asks for it through the mount's backing device, which only root may.
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
