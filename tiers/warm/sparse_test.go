package warm

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// holedBlob is a Blob of data that begins at off, with holes before and after it. It counts reads of holes.
type holedBlob struct {
	off, size, pos int64
	data           []byte
	zeros          int64
}

func (b *holedBlob) Close() error { return nil }
func (b *holedBlob) Size() int64  { return b.size }

func (b *holedBlob) next() int64 {
	switch end := b.off + int64(len(b.data)); {
	case b.pos < b.off:
		return b.off
	case b.pos < end:
		return b.pos
	}
	return b.size
}

func (b *holedBlob) SkipHole() int64 {
	n := b.next() - b.pos
	b.pos += n
	return n
}

func (b *holedBlob) Read(p []byte) (int, error) {
	if b.pos == b.size {
		return 0, io.EOF
	}
	if hole := b.next() - b.pos; hole > 0 {
		n := min(hole, int64(len(p)))
		clear(p[:n])
		b.pos += n
		b.zeros += n
		return int(n), nil
	}
	n := copy(p, b.data[b.pos-b.off:])
	b.pos += int64(n)
	return n, nil
}

// A hole is neither read nor written, however big.
func TestWriteSparse(t *testing.T) {
	data := bytes.Repeat([]byte("data"), 300<<10)
	for _, b := range []*holedBlob{
		{size: 0}, {size: 1 << 42}, {size: 1 << 42, off: 1 << 41, data: data}, {size: 1<<42 + 1, data: data},
		{size: 1 << 42, off: 1<<42 - int64(len(data)), data: data},
		{size: int64(len(data)), data: data},
	} {
		f, err := os.Create(filepath.Join(t.TempDir(), "f"))
		if err != nil {
			t.Fatal(err)
		}
		n, err := WriteSparse(t.Context(), int(f.Fd()), b)
		if err != nil || n != b.size {
			t.Errorf("%d bytes of %d, %v", n, b.size, err)
		}
		if b.zeros > 512<<10 {
			t.Errorf("%d bytes of holes were read", b.zeros)
		}
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Size != b.size || st.Blocks*512 > int64(len(b.data))+
			1<<20 {
			t.Errorf("%d bytes in %d blocks, %v", st.Size, st.Blocks, err)
		}
		got := make([]byte, len(b.data))
		if _, err := f.ReadAt(got, b.off); err != nil && len(got) > 0 || !bytes.Equal(got, b.data) {
			t.Errorf("the data at %d differ: %v", b.off, err)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
}
