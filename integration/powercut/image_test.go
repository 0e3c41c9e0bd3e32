package powercut

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

const diskSize = 64 << 10

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// entry is one as the recorder writes it.
func entry(kind Kind, off int64, data string) []byte {
	b := binary.LittleEndian.AppendUint32(nil, uint32(kind))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(data)))
	b = binary.LittleEndian.AppendUint64(b, uint64(off))
	return append(b, data...)
}

func TestReadLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	whole := bytes.Join([][]byte{entry(Write, 512, "data"), entry(Mark, 0, "one"), entry(Flush, 0, ""),
		entry(Mark, 0, "two")}, nil)
	check(t, os.WriteFile(path, whole, 0o600))
	log, err := ReadLog(path)
	check(t, err)
	if got := fmt.Sprintf("%v %d %q %v", log[0].Kind, log[0].Off, log[0].Data, len(log)); got != `1 512 "data" 4` {
		t.Errorf("the log reads as %s", got)
	}
	if got := fmt.Sprint(log.Marks(3), log.Marks(4), log.flushed(2), log.flushed(3)); got != "[one] [one two] 0 3" {
		t.Errorf("marks and flushes: %s", got)
	}
	for _, bad := range [][]byte{whole[:len(whole)-1], append(whole, 1), append(whole, entry(4, 0, "")...)} {
		check(t, os.WriteFile(path, bad, 0o600))
		if _, err := ReadLog(path); err == nil {
			t.Errorf("a damaged log of %d bytes is read", len(bad))
		}
	}
}

// fill is a write of n sectors of 512 bytes, each full of one letter.
func fill(sector, n int, letter byte) Entry {
	return Entry{Write, int64(sector) * 512, bytes.Repeat([]byte{letter}, n*512)}
}

// image builds one cut and gives a letter a sector, a dot for zeros.
func image(t *testing.T, b *Builder, c Cut) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "image")
	check(t, b.Image(c, to))
	data, err := os.ReadFile(to)
	check(t, err)
	if len(data) != diskSize {
		t.Fatalf("the image has %d bytes", len(data))
	}
	letters := []byte{}
	for s := 0; s < diskSize; s += 512 {
		if !bytes.Equal(data[s:s+512], bytes.Repeat(data[s:s+1], 512)) {
			t.Fatalf("sector %d is torn within", s/512)
		}
		letters = append(letters, max(data[s], '.'))
	}
	return string(letters)
}

func builder(t *testing.T, log Log, sector int) *Builder {
	t.Helper()
	work := filepath.Join(t.TempDir(), "work")
	check(t, os.WriteFile(work, nil, 0o600))
	check(t, os.Truncate(work, diskSize))
	b, err := NewBuilder(log, work, sector)
	check(t, err)
	t.Cleanup(func() { check(t, b.Close()) })
	return b
}

// TestImageKeepsWhatIsFlushed: whatever the seed, what a flush covers is there, and each sector is as some write left
// it.
func TestImageKeepsWhatIsFlushed(t *testing.T) {
	log := Log{fill(0, 4, 'a'), fill(8, 2, 'b'), {Kind: Flush}, fill(0, 2, 'c'), fill(8, 1, 'd'), fill(8, 1, 'e'),
		{Kind: Flush}, fill(16, 8, 'f')}
	seen := map[string]bool{}
	b := builder(t, log, 512)
	for seed := range int64(1000) {
		seen[image(t, b, Cut{6, seed})[:12]] = true
	}
	for s := range seen {
		if s[2:8] != "aa...." || s[9] != 'b' || !bytes.ContainsRune([]byte("bde"), rune(s[8])) ||
			!bytes.ContainsRune([]byte("ac"), rune(s[0])) {
			t.Errorf("an impossible image: %s", s)
		}
	}
	if len(seen) != 12 { // sectors 0 and 1 each a or c, sector 8 b, d or e
		t.Errorf("%d of the 12 possible images came up: %v", len(seen), seen)
	}
	for seed := range int64(20) {
		if got := image(t, b, Cut{7, seed})[:12]; got != "ccaa....eb.." {
			t.Errorf("after the second flush: %s", got)
		}
	}
	if err := b.Image(Cut{6, 0}, filepath.Join(t.TempDir(), "image")); err == nil {
		t.Error("a cut before one that was made is not refused")
	}
}

// TestTearAtSectors: a disk with sectors of 4096 bytes does not tear within them, whatever the write's borders are.
func TestTearAtSectors(t *testing.T) {
	b := builder(t, Log{fill(4, 32, 'a')}, 4096)
	seen := map[string]bool{}
	for seed := range int64(500) {
		got := image(t, b, Cut{1, seed})
		seen[got] = true
		for s := 0; s < 40; s += 8 {
			if first, last := max(s, 4), min(s+8, 36)-1; got[first] != got[last] {
				t.Fatalf("a sector is torn: %s", got)
			}
		}
	}
	if len(seen) < 20 {
		t.Errorf("only %d different tears", len(seen))
	}
	again := builder(t, Log{fill(4, 32, 'a')}, 4096)
	for seed := range int64(20) {
		if image(t, b, Cut{1, seed}) != image(t, again, Cut{1, seed}) {
			t.Errorf("seed %d makes two images", seed)
		}
	}
}

func TestCuts(t *testing.T) {
	log := make(Log, 100)
	for i := range log {
		log[i] = fill(i, 1, 'x')
		if i%25 == 24 {
			log[i] = Entry{Kind: Flush}
		}
	}
	cuts := log.Cuts(400, 10, 100, 1)
	before, after := 0, 0
	for i, c := range cuts {
		if c.At < 10 || c.At > 100 || i > 0 && c.At < cuts[i-1].At {
			t.Fatalf("%d: %v", i, c)
		}
		switch c.At % 25 {
		case 24:
			before++
		case 0:
			after++
		}
	}
	if before < 50 || after < 50 {
		t.Errorf("of 400 cuts %d are just before a flush, %d just after", before, after)
	}
}
