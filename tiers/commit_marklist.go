package tiers

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/warm"
)

// marksInMemory is how many file marks a commit holds in memory. A first commit of a million files has a million.
const marksInMemory = 20_000

// markFile keeps the file marks of a big commit in an unnamed file of the state directory until the commit stands.
type markFile struct {
	fd  int
	off int64
	buf []byte
}

// markRange is where in a markFile a directory's marks are, in bytes.
type markRange struct {
	off, end int64
}

func newMarkFile(state string) (*markFile, error) {
	fd, err := tempFile(state)
	if err != nil {
		return nil, err
	}
	return &markFile{fd: fd}, nil
}

func (s *markFile) close() {
	if s != nil {
		unix.Close(s.fd)
	}
}

// put appends the marks of one directory and returns where they are.
func (s *markFile) put(files []fileMark) (markRange, error) {
	b := s.buf[:0]
	le := binary.LittleEndian
	for i := range files {
		f := &files[i]
		b = binary.AppendUvarint(b, uint64(len(f.name)))
		b = append(b, f.name...)
		b = le.AppendUint64(b, f.ino)
		b = le.AppendUint64(b, f.gen)
		b = le.AppendUint64(b, f.read)
		b = append(b, f.id[:]...)
		b = le.AppendUint64(b, uint64(f.size))
		b = le.AppendUint64(b, uint64(f.mtime.Sec))
		b = le.AppendUint32(b, f.mtime.Nsec)
	}
	s.buf = b
	at := markRange{s.off, s.off + int64(len(b))}
	n, err := warm.PwriteFull(s.fd, b, s.off)
	s.off += int64(n)
	if err != nil {
		return markRange{}, fmt.Errorf("keep what was committed: %w", err)
	}
	return at, nil
}

// each calls f for the marks of one directory.
func (s *markFile) each(at markRange, f func(*fileMark)) error {
	r := bufio.NewReaderSize(io.NewSectionReader(warm.FDReader(s.fd), at.off, at.end-at.off), 64<<10)
	le := binary.LittleEndian
	var fixed [3*8 + len(cold.ID{}) + 2*8 + 4]byte
	for {
		n, err := binary.ReadUvarint(r)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil || n > unix.NAME_MAX {
			return fmt.Errorf("read what was committed: %d, %w", n, err)
		}
		name := make([]byte, n)
		if _, err := io.ReadFull(r, name); err != nil {
			return fmt.Errorf("read what was committed: %w", err)
		}
		if _, err := io.ReadFull(r, fixed[:]); err != nil {
			return fmt.Errorf("read what was committed: %w", err)
		}
		m := fileMark{name: string(name), ino: le.Uint64(fixed[0:]), gen: le.Uint64(fixed[8:]),
			read: le.Uint64(fixed[16:])}
		rest := fixed[24:]
		copy(m.id[:], rest)
		rest = rest[len(m.id):]
		m.size = int64(le.Uint64(rest))
		m.mtime = cold.Time{Sec: int64(le.Uint64(rest[8:])), Nsec: le.Uint32(rest[16:])}
		f(&m)
	}
}

// keepMarks moves a directory's file marks to markFile once there are many. If that fails these files are not recorded
// clean, and are read again by the next commit.
func (c *capture) keepMarks(m *dirMark) {
	c.marked += len(m.files)
	if c.marked <= c.v.marksInMemory || len(m.files) == 0 {
		return
	}
	err := error(nil)
	if c.markFile == nil {
		c.markFile, err = newMarkFile(c.v.cfg.State)
	}
	if err == nil {
		m.stored, err = c.markFile.put(m.files)
	}
	if err != nil {
		c.v.log.WithError(err).Warn("files of this commit will be read again by the next one")
		m.keep = true
	}
	m.files = nil
}

// eachFile calls f for each file mark of a directory.
func (c *capture) eachFile(m *dirMark, f func(*fileMark)) {
	for i := range m.files {
		f(&m.files[i])
	}
	if m.stored != (markRange{}) {
		if err := c.markFile.each(m.stored, f); err != nil {
			c.v.log.WithError(err).Warn("files of this commit will be read again by the next one")
			m.keep = true
		}
	}
}
