package backup

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"emberfs/backup/odb"
	"emberfs/tiers"
)

func TestHolds(t *testing.T) {
	t.Parallel()
	v := newVolume(t, Options{ChunkThreshold: testThreshold})
	ctx := t.Context()
	data := noise(70, 9*minChunk+1)
	sparse := holed{size: 40 * minChunk, parts: map[int64][]byte{minChunk: data[:5]}}
	hole := holed{size: 40 * minChunk}
	holds := func(what string, id tiers.ID, size int64, want error, texts ...string) {
		t.Helper()
		err := v.Holds(ctx, id, size)
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
		for _, text := range texts {
			if err == nil || !strings.Contains(err.Error(), text) {
				t.Errorf("%s: %v does not say %q", what, err, text)
			}
		}
	}
	small, _ := v.store(content(data[:100]), tiers.Base{})
	empty, _ := v.store(content(nil), tiers.Base{})
	big, _ := v.store(content(data), tiers.Base{})
	some, _ := v.store(sparse, tiers.Base{})
	none, _ := v.store(hole, tiers.Base{})
	holds("small", small, 100, nil)
	holds("of unknown size", small, -1, nil)
	holds("empty", empty, 0, nil)
	holds("chunks", big, int64(len(data)), nil)
	holds("sparse", some, sparse.size, nil)
	holds("hole", none, hole.size, nil)
	holds("another size", small, 99, tiers.ErrCorrupt)
	holds("chunks of another size", big, 5, tiers.ErrCorrupt)
	holds("directory", rootOf(v.headSnapshot()).Tree, 5, tiers.ErrMissing) // the root's tree without .emberfs is not stored
	holds("commit", v.headSnapshot().Info().ID, 5, tiers.ErrCorrupt)
	holds("empty tree", odb.EmptyTree, 0, tiers.ErrCorrupt)
	nowhere := blobID(t, "nowhere")
	holds("missing", nowhere, 7, tiers.ErrMissing, nowhere.String())

	// git's deltas, and objects that are loose.
	git(t, v.dir, "repack", "-q", "-a", "-d", "-f", "--depth=50")
	holds("chunks in git's pack", big, int64(len(data)), nil)
	l, err := loadChunks(v.db, big)
	if err != nil {
		t.Fatal(err)
	}
	explode(t, v.dir)
	if err := v.db.Refresh(); err != nil {
		t.Fatal(err)
	}
	holds("loose", small, 100, nil)
	holds("loose chunks", big, int64(len(data)), nil)
	removeLoose(t, v.dir, l.refs[7].id)
	holds("a chunk is missing", big, int64(len(data)), tiers.ErrMissing, "00000007", l.refs[7].id.String())
	removeLoose(t, v.dir, small)
	holds("it went away", small, 100, tiers.ErrMissing, small.String())

	ended, cancel := context.WithCancel(ctx)
	cancel()
	if err := v.Holds(ended, empty, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that ended: %v", err)
	}
}

func BenchmarkHolds(b *testing.B) {
	for _, packs := range []int{1, 32} {
		b.Run(fmt.Sprintf("packs=%d", packs), func(b *testing.B) {
			c := benchCold(b)
			var ids []tiers.ID
			for p := range packs {
				x, err := c.Begin(b.Context())
				if err != nil {
					b.Fatal(err)
				}
				root := newDir(0o755)
				for i := range 2000 / packs {
					k := root.text(fmt.Sprint(i), fmt.Sprint(p, i))
					if k.ID, err = x.PutFile(b.Context(), content(k.data), tiers.Base{}); err != nil {
						b.Fatal(err)
					}
					ids = append(ids, k.ID)
				}
				if err := putDirs(b.Context(), x, root, true); err != nil {
					b.Fatal(err)
				}
				if _, err := x.Commit(b.Context(), tiers.CommitOptions{Root: root.Dir()}); err != nil {
					b.Fatal(err)
				}
			}
			i := 0
			for b.Loop() {
				if err := c.Holds(b.Context(), ids[i%len(ids)], -1); err != nil {
					b.Fatal(err)
				}
				i++
			}
		})
	}
}
