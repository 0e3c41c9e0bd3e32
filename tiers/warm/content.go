package warm

import (
	"errors"
	"io"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
)

// Content is an open file of warm as a commit reads it. A long read fails early once it has become pointless: the
// file's last name is gone, or its size has changed.
type Content struct {
	fd   int
	size int64
	read atomic.Int64 // bytes read since the file was last checked
}

// NewContent returns a Content that reads a file of size bytes through fd, which the caller keeps open.
func NewContent(fd int, size int64) *Content { return &Content{fd: fd, size: size} }

// recheck is how many bytes are read between two checks of the file.
const recheck = 64 << 20

// Size implements cold.Content.
func (c *Content) Size() int64 { return c.size }

// ReadAt implements cold.Content. It fails with cold.ErrSizeChanged if the file's size has changed, and with ENOENT if
// its last name is gone.
func (c *Content) ReadAt(p []byte, off int64) (int, error) {
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
	return FDReader(c.fd).ReadAt(p, off)
}

// FDReader reads from a descriptor at offsets.
type FDReader int

// ReadAt implements io.ReaderAt.
func (fd FDReader) ReadAt(p []byte, off int64) (int, error) {
	n, err := PreadFull(int(fd), p, off)
	if err == nil && n < len(p) {
		err = io.EOF
	}
	return n, err
}

// Data implements cold.Content.
func (c *Content) Data(off int64) (cold.Range, bool, error) {
	start, err := unix.Seek(c.fd, off, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return cold.Range{}, false, nil
	}
	if errors.Is(err, unix.EINVAL) { // the file system does not support holes
		return cold.Range{Off: off, End: c.size}, off < c.size, nil
	}
	if err != nil {
		return cold.Range{}, false, err
	}
	end, err := unix.Seek(c.fd, start, unix.SEEK_HOLE)
	if errors.Is(err, unix.ENXIO) {
		return cold.Range{}, false, cold.ErrSizeChanged // the file was truncated between the two calls
	}
	if err != nil {
		return cold.Range{}, false, err
	}
	return cold.Range{Off: start, End: end}, true, nil
}
