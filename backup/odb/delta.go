package odb

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// content is an object's bytes, in memory or, if there are many, in an unlinked temporary file.
type content struct {
	mem  []byte
	f    *os.File
	size int64
}

func (c *content) ReadAt(p []byte, off int64) (int, error) {
	if c.f != nil {
		return c.f.ReadAt(p, off)
	}
	if off >= int64(len(c.mem)) {
		return 0, io.EOF
	}
	n := copy(p, c.mem[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (c *content) close() error {
	if c == nil || c.f == nil {
		return nil
	}
	return c.f.Close()
}

// collect reads size bytes from r into memory or into a temporary file.
func (db *DB) collect(r io.Reader, size int64, what string) (_ *content, err error) {
	if size > db.opt.MaxDelta {
		return nil, fmt.Errorf("%s: %w: %d bytes as a delta base, at most %d", what, ErrTooLarge, size, db.opt.MaxDelta)
	}
	if size <= db.opt.DeltaMemory {
		mem, err := readSized(r, size, nil)
		return &content{mem: mem, size: size}, err
	}
	f, err := db.scratch()
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	n, err := io.Copy(f, r)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	if n != size {
		return nil, corruptf("%s: %d bytes, declared %d", what, n, size)
	}
	return &content{f: f, size: size}, nil
}

// scratch opens a temporary file that has no name.
func (db *DB) scratch() (*os.File, error) {
	path := filepath.Join(db.opt.TempDir, db.self.tempName("delta"))
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("temporary file for a delta: %w", err)
	}
	if err := os.Remove(path); err != nil {
		return nil, errors.Join(fmt.Errorf("temporary file for a delta: %w", err), f.Close())
	}
	return f, nil
}

// deltaSizes reads the two sizes that a delta begins with.
func deltaSizes(r io.ByteReader) (src, dst int64, err error) {
	one := func() (int64, error) {
		v, shift := uint64(0), 0
		for {
			b, err := r.ReadByte()
			if err != nil {
				if errors.Is(err, io.EOF) {
					err = corruptf("delta without sizes")
				}
				return 0, err
			}
			if shift > 56 {
				return 0, corruptf("delta size of more than 63 bits")
			}
			v |= uint64(b&0x7f) << shift
			shift += 7
			if b&0x80 == 0 {
				return int64(v), nil
			}
		}
	}
	if src, err = one(); err != nil {
		return 0, 0, err
	}
	dst, err = one()
	return src, dst, err
}

// deltaReader yields the target of a delta, reading its instructions and its base as needed.
type deltaReader struct {
	base    io.ReaderAt
	srcSize int64
	ins     *bufio.Reader // the delta's instructions, which follow its sizes
	left    int64         // bytes of the target still to come
	copyOff int64
	copyN   int64 // how many bytes are to be copied from base, at copyOff
	insertN int   // how many bytes are to be copied from ins
}

// newDeltaReader reads the delta's sizes from ins. The base must have baseSize bytes.
func newDeltaReader(base io.ReaderAt, baseSize int64, ins *bufio.Reader) (*deltaReader, error) {
	src, dst, err := deltaSizes(ins)
	if err != nil {
		return nil, err
	}
	if src != baseSize {
		return nil, corruptf("delta for a base of %d bytes, it has %d", src, baseSize)
	}
	d := &deltaReader{base: base, srcSize: src, ins: ins, left: dst}
	if dst == 0 {
		return d, d.finish()
	}
	return d, nil
}

func (d *deltaReader) Read(p []byte) (int, error) {
	if d.left == 0 {
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	total := 0
	for total < len(p) && d.left > 0 {
		if d.copyN == 0 && d.insertN == 0 {
			if err := d.next(); err != nil {
				return total, err
			}
		}
		var n int
		var err error
		if d.copyN > 0 {
			n, err = d.base.ReadAt(p[total:total+int(min(d.copyN, int64(len(p)-total)))], d.copyOff)
			d.copyOff += int64(n)
			d.copyN -= int64(n)
			if n > 0 {
				err = nil
			}
		} else {
			n, err = d.ins.Read(p[total : total+min(d.insertN, len(p)-total)])
			d.insertN -= n
		}
		total += n
		d.left -= int64(n)
		if err != nil {
			return total, d.cut(err)
		}
	}
	if d.left == 0 {
		if err := d.finish(); err != nil {
			return 0, err
		}
	}
	return total, nil
}

// next reads one instruction.
func (d *deltaReader) next() error {
	op, err := d.ins.ReadByte()
	if err != nil {
		return d.cut(err)
	}
	if op == 0 {
		return corruptf("delta instruction 0")
	}
	if op&0x80 == 0 {
		d.insertN = int(op)
		if int64(op) > d.left {
			return corruptf("delta is longer than it declares")
		}
		return nil
	}
	var v [7]byte
	for i := range v {
		if op&(1<<i) != 0 {
			if v[i], err = d.ins.ReadByte(); err != nil {
				return d.cut(err)
			}
		}
	}
	d.copyOff = int64(v[0]) | int64(v[1])<<8 | int64(v[2])<<16 | int64(v[3])<<24
	d.copyN = int64(v[4]) | int64(v[5])<<8 | int64(v[6])<<16
	if d.copyN == 0 {
		d.copyN = 0x10000
	}
	if d.copyOff+d.copyN > d.srcSize {
		return corruptf("delta copies from outside its base")
	}
	if d.copyN > d.left {
		return corruptf("delta is longer than it declares")
	}
	return nil
}

// finish checks that no instruction is left.
func (d *deltaReader) finish() error {
	if _, err := d.ins.ReadByte(); !errors.Is(err, io.EOF) {
		if err == nil {
			err = corruptf("delta goes on behind its end")
		}
		return err
	}
	return nil
}

func (d *deltaReader) cut(err error) error {
	if errors.Is(err, io.EOF) {
		return corruptf("delta ends early, %d bytes are missing", d.left)
	}
	return err
}
