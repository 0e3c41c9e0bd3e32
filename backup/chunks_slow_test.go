//go:build slow

package backup

import (
	"slices"
	"testing"

	"emberfs/backup/coldtest"
	"emberfs/backup/format"
	"emberfs/tiers/cold"
)

// An edit stores the chunks that changed and the tree, and nothing else. If it is known what changed, no other chunks
// are read.
func TestChunkEdit(t *testing.T) {
	t.Parallel()
	v := newVolume(t, Options{ChunkThreshold: testThreshold})
	data := coldtest.Noise(4, 64*format.MinChunk+100)
	id, n := v.store(coldtest.Content(data), cold.Base{})
	if n != 65+2 {
		t.Errorf("first: %d objects", n)
	}
	v.checkFile(data)
	if again, n := v.store(coldtest.Content(data), cold.Base{ID: id}); n != 0 || again != id {
		t.Errorf("unchanged: %d objects", n)
	}
	for _, c := range []struct {
		name    string
		known   bool
		change  func()
		objects int // chunks that differ, and the tree; and where the size changed the blob beside them
	}{
		{"one", false, func() { data[10*format.MinChunk] ^= 1 }, 2},
		{"one known", true, func() { data[10*format.MinChunk] ^= 1 }, 2},
		{"across a border", true, func() { data[20*format.MinChunk-1] ^= 1; data[20*format.MinChunk] ^= 1 }, 3},
		{"the last", true, func() { data[64*format.MinChunk] ^= 1 }, 2},
		{"nothing after all", true, func() {}, 0},
		{"longer", true, func() { data = append(data, 1, 2, 3) }, 3},
		{"shorter", true, func() { data = data[:63*format.MinChunk+5] }, 3},
		{"shorter to the border", true, func() { data = data[:63*format.MinChunk] }, 2},
	} {
		old := slices.Clone(data)
		c.change()
		base := cold.Base{ID: id, Known: c.known}
		var reads readLog
		for i := range max(len(old), len(data)) {
			if i < len(old) && i < len(data) && old[i] == data[i] {
				continue
			}
			if k := len(base.Changed) - 1; k >= 0 && base.Changed[k].End == int64(i) {
				base.Changed[k].End++
			} else {
				base.Changed = append(base.Changed, cold.Range{Off: int64(i), End: int64(i) + 1})
			}
		}
		now, n := v.store(holed{size: int64(len(data)), parts: map[int64][]byte{0: data}, reads: &reads}, base)
		if n != c.objects {
			t.Errorf("%s: %d objects, want %d", c.name, n, c.objects)
		}
		if c.known && len(reads.list) > 3 {
			t.Errorf("%s: %d reads", c.name, len(reads.list))
		}
		id = now
		v.checkFile(data)
	}
}
