package warm

import (
	"bytes"
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Dirent is one entry of a directory stream.
type Dirent struct {
	Name string
	Ino  uint64
	Mode uint32 // S_IFMT bits only
	Off  uint64 // the stream's position after this entry
	Lazy bool   // the entry comes from the commit, since its directory is lazy; looking the name up may list it
}

const DirentBuf = 32 << 10

// ParseDirent parses one struct linux_dirent64 (getdents64(2)) and returns its length too.
func ParseDirent(b []byte) (Dirent, int) {
	length := int(binary.NativeEndian.Uint16(b[16:]))
	name := b[19:length]
	if i := bytes.IndexByte(name, 0); i >= 0 {
		name = name[:i]
	}
	return Dirent{
		Ino:  binary.NativeEndian.Uint64(b),
		Off:  binary.NativeEndian.Uint64(b[8:]),
		Mode: uint32(b[18]) << 12,
		Name: string(name),
	}, length
}

// ListNames returns the names in the directory behind fd, except "." and "..", in the order of the directory. It does
// not change the directory's access time.
func ListNames(dirfd int) ([]Dirent, error) {
	fd, err := OpenQuiet(dirfd, ".", unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	buf := make([]byte, DirentBuf)
	var out []Dirent
	for {
		n, err := unix.Getdents(fd, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return out, nil
		}
		for b := buf[:n]; len(b) > 0; {
			e, length := ParseDirent(b)
			if e.Name != "." && e.Name != ".." {
				out = append(out, e)
			}
			b = b[length:]
		}
	}
}
