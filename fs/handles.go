package fs

import (
	"sync"
	"sync/atomic"
	"syscall"
)

const (
	handleChunk  = 1 << 10
	handleChunks = 1 << 12 // 4 Mi handles, more than fs.nr_open and memory allow in practice
)

// handleTable gives every open handle a small number, the fh of the protocol. get takes no lock, so that reads and
// writes of different files do not contend. The zero value is ready to use. It is safe for concurrent use.
type handleTable[T any] struct {
	chunks [handleChunks]atomic.Pointer[[handleChunk]atomic.Pointer[T]]

	mu struct {
		sync.Mutex
		free []uint32 // numbers that were used and are free again
		next uint32   // the lowest number never used
	}
}

// put stores h and returns its number. If the table is full it returns ENFILE.
func (t *handleTable[T]) put(h *T) (uint64, error) {
	t.mu.Lock()
	var fh uint32
	if n := len(t.mu.free); n > 0 {
		fh, t.mu.free = t.mu.free[n-1], t.mu.free[:n-1]
	} else {
		if t.mu.next == handleChunk*handleChunks {
			t.mu.Unlock()
			return 0, syscall.ENFILE
		}
		fh = t.mu.next
		t.mu.next++
		if fh%handleChunk == 0 {
			t.chunks[fh/handleChunk].Store(new([handleChunk]atomic.Pointer[T]))
		}
	}
	t.mu.Unlock()
	t.chunks[fh/handleChunk].Load()[fh%handleChunk].Store(h)
	return uint64(fh), nil
}

// get returns what put stored under fh, or nil if that number is not in use.
func (t *handleTable[T]) get(fh uint64) *T {
	if fh >= handleChunk*handleChunks {
		return nil
	}
	c := t.chunks[fh/handleChunk].Load()
	if c == nil {
		return nil
	}
	return c[fh%handleChunk].Load()
}

// take removes fh and returns what was stored under it, or nil if that number is not in use.
func (t *handleTable[T]) take(fh uint64) *T {
	if fh >= handleChunk*handleChunks {
		return nil
	}
	c := t.chunks[fh/handleChunk].Load()
	if c == nil {
		return nil
	}
	h := c[fh%handleChunk].Swap(nil)
	if h != nil {
		t.mu.Lock()
		t.mu.free = append(t.mu.free, uint32(fh))
		t.mu.Unlock()
	}
	return h
}

// drain takes every handle that is left and calls f with it.
func (t *handleTable[T]) drain(f func(*T)) {
	t.mu.Lock()
	next := t.mu.next
	t.mu.Unlock()
	for fh := range uint64(next) {
		if h := t.take(fh); h != nil {
			f(h)
		}
	}
}
