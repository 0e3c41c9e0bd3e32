package odb

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/klauspost/compress/zlib"
)

// Entries are small where any part of the content shrinks, never much longer than it, and inflate to it again.
func TestDeflateEntry(t *testing.T) {
	_, db := newRepo(t, Options{})
	noise := make([]byte, 5<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(noise)
	zeros := make([]byte, 4<<20)
	for _, c := range []struct {
		name  string
		data  []byte
		limit int
	}{
		{"nothing", nil, 64},
		{"noise below the probe", noise[:probeSize-1], probeSize + 64},
		{"noise of the probe's length", noise[:probeSize], probeSize + 64},
		{"noise", noise[:4<<20], 4<<20 + 4<<10},
		{"zeros", zeros, 64 << 10},
		{"zeros of the probe's length", zeros[:probeSize], 1 << 10},
		{"zeros behind noise", append(bytes.Clone(noise[:probeSize]), zeros...), probeSize + 64<<10},
		{"zeros before noise", append(bytes.Clone(zeros), noise[:probeSize]...), probeSize + 64<<10},
		{"zeros behind a little noise", append(bytes.Clone(noise[:probeSize]), zeros[:probeSize]...),
			probeSize + 1<<10},
	} {
		d, err := db.deflater()
		check(t, err)
		entry, _, err := d.entry(Blob, c.data)
		check(t, err)
		var head [16]byte
		z, err := zlib.NewReader(bytes.NewReader(entry[len(appendEntryHeader(head[:0], Blob, int64(len(c.data)))):]))
		check(t, err)
		if got, err := io.ReadAll(z); err != nil || !bytes.Equal(got, c.data) {
			t.Errorf("%s: %d bytes of %d, %v", c.name, len(got), len(c.data), err)
		}
		if len(entry) > c.limit {
			t.Errorf("%s: an entry of %d bytes for %d, want at most %d", c.name, len(entry), len(c.data), c.limit)
		}
		db.putDeflater(d)
	}
}
