package tiers

import (
	"emberfs/tiers/warm"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// preimageFile is an unnamed file that holds pre-images of bytes: in warm's file system, or where that has none in the
// state directory. It is safe for concurrent use once it is open.
type preimageFile struct {
	fd  int // 0: not open yet
	end atomic.Int64
}

// openFile returns the descriptor of the file of pre-images, which it makes on first use. It returns ESTALE where the
// boundary is over.
func (m *boundary) openFile() (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.over.Load() {
		return -1, unix.ESTALE
	}
	if m.file.fd != 0 {
		return m.file.fd, nil
	}
	fd, err := warm.OpenAt(m.v.warmFD, ".", unix.O_TMPFILE|unix.O_RDWR, 0o600)
	if err != nil { // warm has no O_TMPFILE, or we may not make files there
		if fd, err = tempFile(m.v.cfg.State); err != nil {
			return -1, err
		}
	}
	m.file.fd = fd
	return fd, nil
}

func (s *preimageFile) close() {
	if s.fd != 0 {
		unix.Close(s.fd)
		s.fd = 0
	}
}

// tempFile makes a file without a name in the directory state. On file systems without O_TMPFILE it has a name for a
// moment.
func tempFile(state string) (int, error) {
	fd, err := unix.Open(state, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EISDIR) {
		path := fmt.Sprintf("%s/%s%d", state, warm.TempPrefix, rand.Uint64())
		if fd, err = unix.Open(path, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR|unix.O_CLOEXEC, 0o600); err == nil {
			err = unix.Unlink(path)
		}
	}
	if err != nil {
		return -1, fmt.Errorf("make a temporary file in %s: %w", state, err)
	}
	return fd, nil
}
