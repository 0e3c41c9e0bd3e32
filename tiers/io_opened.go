package tiers

import (
	"slices"
	"sync/atomic"
)

const (
	// openedMax bounds the list of files that a session opened first.
	openedMax = 4096
	// openedBytes bounds the bytes of all its paths.
	openedBytes = 192 << 10
)

// firstOpened are the paths of the files that this session opened first.
type firstOpened struct {
	full  atomic.Bool
	mu    mutex[leaf]
	seen  map[uint64]struct{} // by warm's inode number
	paths []string
	bytes int
}

// noteOpened remembers n among the files that this session opened first.
func (v *Volume) noteOpened(n *Inode) {
	if v.areaOf != nil || n.noted.Load() || v.firstOpened.full.Load() || n.noted.Swap(true) {
		return
	}
	at := v.pathOf(n)
	o := &v.firstOpened
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.seen == nil {
		o.seen = map[uint64]struct{}{}
	}
	if _, ok := o.seen[n.ino]; ok { // the kernel forgot the inode meanwhile, and n.noted went with it
		return
	}
	if len(o.paths) >= openedMax || o.bytes+len(at) > openedBytes {
		o.full.Store(true)
		return
	}
	o.seen[n.ino] = struct{}{}
	o.paths = append(o.paths, at)
	o.bytes += len(at)
}

// openedPaths is the list for a commit; nil where nothing was opened.
func (v *Volume) openedPaths() []string {
	v.firstOpened.mu.Lock()
	defer v.firstOpened.mu.Unlock()
	return slices.Clone(v.firstOpened.paths)
}
