package powercut

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Builder makes the images of one log. Cuts must come in ascending order: what is durable only grows.
type Builder struct {
	log    Log
	sector int
	work   *os.File // the disk as of its first done entries
	done   int
}

// NewBuilder begins with the disk as it was before the log: work is a file with its bytes, which the builder changes.
// Writes tear at multiples of sector bytes.
func NewBuilder(log Log, work string, sector int) (*Builder, error) {
	f, err := os.OpenFile(work, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return &Builder{log: log, sector: sector, work: f}, nil
}

// Close lets go of the working file, which stays.
func (b *Builder) Close() error { return b.work.Close() }

// Image writes the disk after a cut to the file to, which is made anew.
func (b *Builder) Image(c Cut, to string) (err error) {
	durable := b.log.flushed(c.At)
	if durable < b.done {
		return fmt.Errorf("%v comes after one with %d durable entries, it has %d", c, b.done, durable)
	}
	for _, e := range b.log[b.done:durable] {
		if e.Kind == Write {
			if _, err := b.work.WriteAt(e.Data, e.Off); err != nil {
				return err
			}
		}
	}
	b.done = durable
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := copySparse(f, b.work); err != nil {
		return fmt.Errorf("copy %s to %s: %w", b.work.Name(), to, err)
	}
	for _, p := range b.log.survivors(c, b.sector) {
		if _, err := f.WriteAt(p.data, p.off); err != nil {
			return err
		}
	}
	return nil
}

// copySparse copies a file into an empty one and leaves out its holes.
func copySparse(to, from *os.File) error {
	fi, err := from.Stat()
	if err != nil {
		return err
	}
	if err := to.Truncate(fi.Size()); err != nil {
		return err
	}
	buf := make([]byte, 1<<20)
	for off := int64(0); ; {
		off, err = unix.Seek(int(from.Fd()), off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil // holes up to the end
		}
		if err != nil {
			return err
		}
		end, err := unix.Seek(int(from.Fd()), off, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		for off < end {
			n, err := from.ReadAt(buf[:min(int64(len(buf)), end-off)], off)
			if n == 0 && err != nil {
				return err
			}
			if _, err := to.WriteAt(buf[:n], off); err != nil {
				return err
			}
			off += int64(n)
		}
	}
}
