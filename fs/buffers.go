package fs

import (
	"fmt"

	"golang.org/x/sys/unix"
)

const (
	// bufferRoom is how many bytes a request or reply needs besides its data: enough for the largest header.
	bufferRoom = 4096
	// keepBytes is how many bytes of a buffer may stay in memory between two requests.
	keepBytes = 256 << 10
)

// buffers are the buffers of one worker, for a request and its reply. They are outside the Go heap, so that pages that
// no request touched take no memory, and those that a rare big request touched can be given back.
type buffers struct {
	mem, in, out []byte
	touched      int // bytes of in or out that may be in memory
}

func newBuffers() (*buffers, error) {
	const each = maxRequest + bufferRoom
	mem, err := unix.Mmap(-1, 0, 2*each, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes: %w", 2*each, err)
	}
	return &buffers{mem: mem, in: mem[:each:each], out: mem[each:]}, nil
}

// touch notes that a request of n bytes and a reply of m bytes used the buffers.
func (b *buffers) touch(n, m int) { b.touched = max(b.touched, n, m) }

// release gives the pages of big requests back to the system; the buffers stay usable.
func (b *buffers) release() {
	if b.touched <= keepBytes {
		return
	}
	b.touched = 0
	_ = unix.Madvise(b.in[keepBytes:], unix.MADV_DONTNEED) // a failure only costs memory
	_ = unix.Madvise(b.out[keepBytes:], unix.MADV_DONTNEED)
}

func (b *buffers) free() {
	_ = unix.Munmap(b.mem) // it fails only if the range is not mapped
	*b = buffers{}
}
