package odb

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/klauspost/compress/zlib"
)

// inflater yields exactly the declared number of bytes of one zlib stream. With the last of them it checks that the
// stream ends there and has the right checksum. close returns its buffers to the DB's pools.
type inflater struct {
	db   *DB
	br   *bufio.Reader
	zr   io.ReadCloser
	left int64
	what string // for errors
}

// inflate begins to read the zlib stream at the current position of r. It reads through a buffer, so it may read r
// beyond the stream's end.
func (db *DB) inflate(r io.Reader, size int64, what string) (*inflater, error) {
	f := &inflater{db: db, br: db.bufioFor(r), left: size, what: what}
	if err := f.start(f.br); err != nil {
		f.close()
		return nil, err
	}
	if size == 0 {
		if err := f.finish(); err != nil {
			f.close()
			return nil, err
		}
	}
	return f, nil
}

func (f *inflater) start(r io.Reader) error {
	zr, ok := f.db.pools.zr.Get().(io.ReadCloser)
	if !ok {
		var err error
		if zr, err = zlib.NewReader(r); err != nil {
			return f.fault(err)
		}
		f.zr = zr
		return nil
	}
	f.zr = zr
	if rs, ok := zr.(zlib.Resetter); ok {
		if err := rs.Reset(r, nil); err != nil {
			return f.fault(err)
		}
	}
	return nil
}

// fault turns errors about the bytes into cold.ErrCorrupt, as opposed to those of a failing disk.
func (f *inflater) fault(err error) error {
	var pe *fs.PathError
	var se *sourceError
	if errors.As(err, &pe) || errors.As(err, &se) {
		return fmt.Errorf("read %s: %w", f.what, err)
	}
	return corruptf("%s: %v", f.what, err)
}

func (f *inflater) Read(p []byte) (int, error) {
	if f.left == 0 {
		return 0, io.EOF
	}
	if int64(len(p)) > f.left {
		p = p[:f.left]
	}
	n, err := f.zr.Read(p)
	f.left -= int64(n)
	switch {
	case errors.Is(err, io.EOF) && f.left > 0:
		return n, corruptf("%s: %d bytes are missing", f.what, f.left)
	case err != nil && !errors.Is(err, io.EOF):
		return 0, f.fault(err) // 0 instead of n, because a caller that got all bytes would not look at the error
	case f.left == 0 && err == nil:
		if err := f.finish(); err != nil {
			return 0, err
		}
	}
	return n, nil
}

// finish checks that nothing follows.
func (f *inflater) finish() error {
	var b [1]byte
	for range 16 { // a Reader may return 0, nil
		n, err := f.zr.Read(b[:])
		if n > 0 {
			return corruptf("%s: longer than it declares", f.what)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return f.fault(err)
		}
	}
	return corruptf("%s: does not end", f.what)
}

func (f *inflater) close() {
	if f.zr != nil {
		f.db.pools.zr.Put(f.zr)
		f.zr = nil
	}
	if f.br != nil {
		f.br.Reset(nil)
		f.db.pools.buf.Put(f.br)
		f.br = nil
	}
}

// sourceError marks an error that a foreign reader returned, as opposed to an error about the bytes that it yielded.
type sourceError struct{ err error }

func (e *sourceError) Error() string { return e.err.Error() }
func (e *sourceError) Unwrap() error { return e.err }

// readSized reads size bytes from r, into buf if they fit. Otherwise memory is allocated as bytes arrive, not as
// declared, and the result has room for one more byte.
func readSized(r io.Reader, size int64, buf []byte) ([]byte, error) {
	if buf != nil && size <= int64(cap(buf)) {
		_, err := io.ReadFull(r, buf[:size])
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return buf[:size], err
	}
	const trusted = 1 << 20
	buf = make([]byte, 0, min(size, trusted)+1)
	for int64(len(buf)) < size {
		if len(buf) == cap(buf)-1 {
			grown := make([]byte, len(buf), min(size, 2*int64(len(buf)))+1)
			copy(grown, buf)
			buf = grown
		}
		n, err := io.ReadFull(r, buf[len(buf):cap(buf)-1])
		buf = buf[:len(buf)+n]
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
	return buf, nil
}
