package tiers

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/warm"
)

// moved counts what went between the tiers since the volume was opened.
type moved struct {
	released, returned, listed atomic.Int64
	warmHits, coldHits         atomic.Uint64 // pages read
	foreground                 atomic.Int32  // reads from cold under way that programs wait for
}

// useTick is the unit of Volume.clock.
const useTick = 10 * time.Millisecond

// clock is the time since the volume was opened, in ticks from 1 on. It does not move when the system's clock is set.
func (v *Volume) clock() uint32 { return uint32(time.Since(v.openedAt)/useTick) + 1 }

// touchUse notes that n is used now.
func (n *Inode) touchUse(v *Volume) {
	if t := v.clock(); n.lastUse.Load() != t {
		n.lastUse.Store(t)
	}
}

// forgottenMax bounds how many files that the kernel forgot are remembered as used.
const forgottenMax = 100_000

// forgotten remembers when files whose inodes are gone were used last.
type forgotten struct {
	mu  mutex[leaf]
	use map[uint64]uint32 // by warm's inode number
}

// keepUse is called when n goes away.
func (v *Volume) keepUse(n *Inode) {
	t := n.lastUse.Load()
	if t == 0 || n.kind != cold.KindFile || !v.tiered() {
		return
	}
	f := &v.forgotten
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.use == nil {
		f.use = map[uint64]uint32{}
	}
	if len(f.use) < forgottenMax {
		f.use[n.ino] = t
	}
}

func (f *forgotten) get(ino uint64) uint32 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.use[ino]
}

// take gives the last use of a file whose inode is known again.
func (f *forgotten) take(ino uint64) uint32 {
	f.mu.Lock()
	defer f.mu.Unlock()
	t, ok := f.use[ino]
	if ok {
		delete(f.use, ino)
	}
	return t
}

// expire drops what was not used since the given time: its files are old without it.
func (f *forgotten) expire(before uint32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for ino, t := range f.use {
		if t < before {
			delete(f.use, ino)
		}
	}
}

// unusedFor is for how long a file was not used: since its last use in this session, else since the latest of its
// times.
func (v *Volume) unusedFor(n *Inode, st *unix.Statx_t) time.Duration {
	t := uint32(0)
	if n != nil {
		t = n.lastUse.Load()
	}
	if t == 0 {
		t = v.forgotten.get(st.Ino)
	}
	if t != 0 {
		return time.Duration(v.clock()-t) * useTick
	}
	last := warm.TimeOf(st.Atime)
	for _, u := range []cold.Time{warm.TimeOf(st.Mtime), warm.TimeOf(st.Ctime)} {
		if last.Before(u) {
			last = u
		}
	}
	return max(0, time.Since(time.Unix(last.Sec, int64(last.Nsec))))
}
