package warm

import (
	"context"
	"errors"
	"io"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
)

// WriteSparse copies blob to f, leaving holes where it has holes or whole pages of zeros, and returns its length.
func WriteSparse(ctx context.Context, f int, blob cold.Blob) (int64, error) {
	const page = 4 << 10
	buf := make([]byte, 256<<10)
	var off int64
	for {
		if err := ctx.Err(); err != nil {
			return off, err
		}
		if n := blob.SkipHole(); n > 0 {
			off += n
			continue
		}
		n, err := readFull(blob, buf)
		for start := 0; start < n; {
			stop := min(start+page, n)
			zero := stop-start == page && allZero(buf[start:stop])
			for stop < n {
				next := min(stop+page, n)
				if (next-stop == page && allZero(buf[stop:next])) != zero {
					break
				}
				stop = next
			}
			if !zero {
				if _, err := PwriteFull(f, buf[start:stop], off+int64(start)); err != nil {
					return off, err
				}
			}
			start = stop
		}
		off += int64(n)
		if err != nil {
			if errors.Is(err, io.EOF) {
				return off, unix.Ftruncate(f, off)
			}
			return off, err
		}
	}
}

var zeros [4 << 10]byte

func allZero(p []byte) bool { return string(p) == string(zeros[:len(p)]) }

// readFull fills p as far as the reader goes. If n < len(p), err is not nil; at the end it is io.EOF.
func readFull(r io.Reader, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var m int
		m, err = r.Read(p[n:])
		n += m
	}
	return n, err
}
