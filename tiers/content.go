package tiers

import (
	"errors"
	"io"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
)

// warmContent is an open file of warm as a commit reads it. A long read ends early when it has become pointless: the file's last
// name is gone, or its size is another.
type warmContent struct {
	fd   int
	size int64
	read atomic.Int64 // bytes since the file was looked at
}

// recheck is after how many bytes the file is looked at again.
const recheck = 64 << 20

func (c *warmContent) Size() int64 { return c.size }

func (c *warmContent) ReadAt(p []byte, off int64) (int, error) {
	if c.read.Add(int64(len(p))) > recheck {
		c.read.Store(0)
		var st unix.Stat_t
		if err := unix.Fstat(c.fd, &st); err != nil {
			return 0, err
		}
		if st.Nlink == 0 {
			return 0, unix.ENOENT
		}
		if st.Size != c.size {
			return 0, cold.ErrSizeChanged
		}
	}
	return fdReader(c.fd).ReadAt(p, off)
}

// fdReader reads a descriptor at offsets.
type fdReader int

func (fd fdReader) ReadAt(p []byte, off int64) (int, error) {
	n, err := preadFull(int(fd), p, off)
	if err == nil && n < len(p) {
		err = io.EOF
	}
	return n, err
}

func (c *warmContent) Data(off int64) (cold.Range, bool, error) {
	start, err := unix.Seek(c.fd, off, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return cold.Range{}, false, nil
	}
	if errors.Is(err, unix.EINVAL) { // a file system without holes
		return cold.Range{Off: off, End: c.size}, off < c.size, nil
	}
	if err != nil {
		return cold.Range{}, false, err
	}
	end, err := unix.Seek(c.fd, start, unix.SEEK_HOLE)
	if errors.Is(err, unix.ENXIO) {
		return cold.Range{}, false, cold.ErrSizeChanged // cut off between the two looks
	}
	if err != nil {
		return cold.Range{}, false, err
	}
	return cold.Range{Off: start, End: end}, true, nil
}
