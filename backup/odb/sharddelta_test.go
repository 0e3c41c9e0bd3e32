package odb

import (
	"bufio"
	"bytes"
	"fmt"
	"hash/maphash"
	"io"
	"testing"
)

// Whatever the bytes are, the delta makes the target of the base, in our reader and in git's.
func TestPieceDelta(t *testing.T) {
	r := newSeeded(90)
	line := func(i, v int) []byte { return fmt.Appendf(nil, `{"name":"file%05d","v":%d}`+"\n", i, v) }
	var lines [2][]byte
	for i := range 9000 { // over 64 KiB in one run
		lines[0] = append(lines[0], line(i, 0)...)
		switch {
		case i == 17:
		case i == 8000:
			lines[1] = append(append(lines[1], line(i, 1)...), bytes.Repeat([]byte("long "), 100)...)
		default:
			lines[1] = append(lines[1], line(i, 0)...)
		}
	}
	random := r.bytes(5000, false)
	for what, c := range map[string]struct {
		typ          Type
		base, target []byte
		most         int
	}{
		"lines":          {Blob, lines[0], lines[1], 700},
		"back":           {Blob, lines[1], lines[0], 200},
		"same":           {Blob, lines[0], lines[0], 60},
		"moved":          {Blob, lines[0], append(bytes.Clone(lines[0][130_000:]), lines[0][:130_000]...), 200},
		"no newline":     {Blob, []byte("one\ntwo"), []byte("two\none\ntwo"), 100},
		"repeated":       {Blob, bytes.Repeat([]byte("x\n"), 50_000), bytes.Repeat([]byte("x\n"), 70_000), 400_000},
		"to empty":       {Blob, lines[0], nil, 10},
		"from empty":     {Blob, nil, lines[0][:1000], 1100},
		"random":         {Blob, random, append(r.bytes(100, false), random...), 6000},
		"no tree at all": {Tree, random, append(bytes.Clone(random[:3000]), random...), 9000},
	} {
		d := pieceDelta(c.typ, c.base, c.target, maphash.MakeSeed())
		if len(d) > c.most {
			t.Errorf("%s: %d bytes", what, len(d))
		}
		dr, err := newDeltaReader(bytes.NewReader(c.base), int64(len(c.base)), bufio.NewReader(bytes.NewReader(d)))
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		if got, err := io.ReadAll(dr); err != nil || !bytes.Equal(got, c.target) {
			t.Errorf("%s: %d bytes of %d, %v", what, len(got), len(c.target), err)
		}
	}
}
