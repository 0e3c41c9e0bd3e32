package tiers

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/warm"
)

// moved counts what moved between the tiers since the volume was opened: files released and brought back, directories
// listed, pages read from warm and from cold.
type moved struct {
	released, returned, listed atomic.Int64
	warmHits, coldHits         atomic.Uint64
	foreground                 atomic.Int32 // reads from cold that programs wait for now
}

// useTick is the unit of Volume.clock.
const useTick = 10 * time.Millisecond

// clock returns the time since the volume was opened, in useTicks from 1 on. Setting the system's clock does not move
// it.
func (v *Volume) clock() uint32 { return uint32(time.Since(v.openedAt)/useTick) + 1 }

// touchUse notes that n is in use now.
func (n *Inode) touchUse(v *Volume) {
	if t := v.clock(); n.lastUse.Load() != t {
		n.lastUse.Store(t)
	}
}

// forgottenMax bounds for how many files that left the table the last use is remembered.
const forgottenMax = 100_000

// forgotten remembers when files that left the table were used last.
type forgotten struct {
	mu  mutex[leaf]
	use map[uint64]uint32 // inode number in warm -> Volume.clock
}

// keepUse remembers when n, which leaves the table, was used last.
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

// take returns and drops the last use of a file that is in the table again; 0 where it is not known.
func (f *forgotten) take(ino uint64) uint32 {
	f.mu.Lock()
	defer f.mu.Unlock()
	t, ok := f.use[ino]
	if ok {
		delete(f.use, ino)
	}
	return t
}

// expire drops the files that were not used since before. They count as old without it, by their times.
func (f *forgotten) expire(before uint32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for ino, t := range f.use {
		if t < before {
			delete(f.use, ino)
		}
	}
}

// unusedFor returns for how long a file was not used: since its last use in this session, or, where there was none,
// since the latest of its times. n may be nil.
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
