package odb

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/klauspost/compress/zlib"
)

const (
	// zlibLevel is the fastest level of klauspost's zlib: twice as fast as the standard library's at the same output
	// size.
	zlibLevel = zlib.BestSpeed
	// probeSize is how many bytes of a big blob are compressed to find out whether compressing it pays.
	probeSize = 64 << 10
	// maxPooled is the size in bytes up to which a buffer for entries is kept: enough for 4 MiB that cannot be
	// compressed.
	maxPooled = 4<<20 + 64<<10
)

// deflater is a pooled pair of zlib writers.
type deflater struct {
	buf         bytes.Buffer // an entry or the probe
	fast, store *zlib.Writer
}

func (db *DB) deflater() (*deflater, error) {
	if d, ok := db.pools.zw.Get().(*deflater); ok {
		d.buf.Reset()
		return d, nil
	}
	fast, err := zlib.NewWriterLevel(nil, zlibLevel)
	if err != nil {
		return nil, err
	}
	store, err := zlib.NewWriterLevel(nil, zlib.NoCompression)
	return &deflater{fast: fast, store: store}, err
}

func (db *DB) putDeflater(d *deflater) {
	if d.buf.Cap() <= maxPooled {
		db.pools.zw.Put(d)
	}
}

// shrinks reports whether compressing pays, judging by the first bytes of a content.
func (d *deflater) shrinks(probe []byte) (bool, error) {
	n := d.buf.Len()
	defer d.buf.Truncate(n)
	d.fast.Reset(&d.buf)
	if _, err := d.fast.Write(probe); err != nil {
		return false, err
	}
	if err := d.fast.Close(); err != nil {
		return false, err
	}
	return d.buf.Len()-n < len(probe)-len(probe)/64, nil
}

// writer returns the zlib writer for a content that begins with probe. It looks at several places of a long probe,
// since a chunk of a sparse file may have data first and zeros after it.
func (d *deflater) writer(w io.Writer, probe []byte) (*zlib.Writer, error) {
	z := d.fast
	if len(probe) >= probeSize {
		z = d.store
		places := min(1+len(probe)/(4*probeSize), 3)
		for i := range places {
			at := 0
			if i > 0 {
				at = (len(probe) - probeSize) / (places - 1) * i
			}
			ok, err := d.shrinks(probe[at : at+probeSize])
			if err != nil {
				return nil, err
			}
			if ok {
				z = d.fast
				break
			}
		}
	}
	z.Reset(w)
	return z, nil
}

// entry returns a whole pack entry for data. The returned bytes are valid until the next use of d.
func (d *deflater) entry(t Type, data []byte) (entry []byte, crc uint32, err error) {
	var head [16]byte
	d.buf.Reset()
	// Reserve the memory, because growing by doubling would take twice as much as a big entry needs.
	if need := len(data) + len(data)/256 + 64; len(data) > smallBlob && d.buf.Cap() < need {
		d.buf = *bytes.NewBuffer(make([]byte, 0, need))
	}
	d.buf.Write(appendEntryHeader(head[:0], t, int64(len(data))))
	start := d.buf.Len()
	z := d.fast
	z.Reset(&d.buf)
	if len(data) > 2*probeSize {
		if z, err = d.writer(&d.buf, data); err != nil {
			return nil, 0, fmt.Errorf("deflate: %w", err)
		}
	}
	if err = deflate(z, data); err != nil {
		return nil, 0, err
	}
	// A content of up to two probes has been compressed already; store it if that did not help.
	if n := d.buf.Len() - start; len(data) >= probeSize && len(data) <= 2*probeSize && n >= len(data)-len(data)/64 {
		d.buf.Truncate(start)
		d.store.Reset(&d.buf)
		if err = deflate(d.store, data); err != nil {
			return nil, 0, err
		}
	}
	return d.buf.Bytes(), crc32.ChecksumIEEE(d.buf.Bytes()), nil
}

func deflate(z *zlib.Writer, data []byte) error {
	_, err := z.Write(data)
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		return fmt.Errorf("deflate: %w", err)
	}
	return nil
}
