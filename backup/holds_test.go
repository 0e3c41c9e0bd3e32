package backup

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"emberfs/backup/coldtest"
	"emberfs/backup/format"
	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

func TestHolds(t *testing.T) {
	t.Parallel()
	v := newVolume(t, Options{ChunkThreshold: testThreshold})
	ctx := t.Context()
	data := coldtest.Noise(70, 9*format.MinChunk+1)
	sparse := holed{size: 40 * format.MinChunk, parts: map[int64][]byte{format.MinChunk: data[:5]}}
	hole := holed{size: 40 * format.MinChunk}
	holds := func(what string, id cold.ID, size int64, want error, texts ...string) {
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
	small, _ := v.store(coldtest.Content(data[:100]), cold.Base{})
	empty, _ := v.store(coldtest.Content(nil), cold.Base{})
	big, _ := v.store(coldtest.Content(data), cold.Base{})
	some, _ := v.store(sparse, cold.Base{})
	none, _ := v.store(hole, cold.Base{})
	holds("small", small, 100, nil)
	holds("of unknown size", small, -1, nil)
	holds("empty", empty, 0, nil)
	holds("chunks", big, int64(len(data)), nil)
	holds("sparse", some, sparse.size, nil)
	holds("hole", none, hole.size, nil)
	holds("another size", small, 99, cold.ErrCorrupt)
	holds("chunks of another size", big, 5, cold.ErrCorrupt)
	// The root's tree without .emberfs is not stored.
	holds("directory", coldtest.RootOf(v.HeadSnapshot()).Tree, 5, cold.ErrMissing)
	holds("commit", v.HeadSnapshot().Info().ID, 5, cold.ErrCorrupt)
	holds("empty tree", odb.EmptyTree, 0, cold.ErrCorrupt)
	nowhere := coldtest.BlobID(t, "nowhere")
	holds("missing", nowhere, 7, cold.ErrMissing, nowhere.String())

	// git's deltas, and objects that are loose.
	coldtest.Git(t, v.Dir, "repack", "-q", "-a", "-d", "-f", "--depth=50")
	holds("chunks in git's pack", big, int64(len(data)), nil)
	l, err := format.LoadChunks(v.db, big)
	coldtest.Check(t, err)
	coldtest.Explode(t, v.Dir)
	coldtest.Check(t, v.db.Refresh())
	holds("loose", small, 100, nil)
	holds("loose chunks", big, int64(len(data)), nil)
	coldtest.RemoveLoose(t, v.Dir, l.Refs[7].ID)
	holds("a chunk is missing", big, int64(len(data)), cold.ErrMissing, "00000007", l.Refs[7].ID.String())
	coldtest.RemoveLoose(t, v.Dir, small)
	holds("it went away", small, 100, cold.ErrMissing, small.String())

	ended, cancel := context.WithCancel(ctx)
	cancel()
	coldtest.WantErr(t, v.Holds(ended, empty, 0), context.Canceled, "with a context that ended")
}

func BenchmarkHolds(b *testing.B) {
	for _, packs := range []int{1, 32} {
		b.Run(fmt.Sprintf("packs=%d", packs), func(b *testing.B) {
			c := benchCold(b)
			var ids []cold.ID
			for p := range packs {
				x, err := c.Begin(b.Context())
				coldtest.Check(b, err)
				root := coldtest.NewDir(0o755)
				for i := range 2000 / packs {
					k := root.Text(fmt.Sprint(i), fmt.Sprint(p, i))
					k.ID, err = x.PutFile(b.Context(), coldtest.Content(k.Data), cold.Base{})
					coldtest.Check(b, err)
					ids = append(ids, k.ID)
				}
				coldtest.Check(b, coldtest.PutDirs(b.Context(), x, root, true))
				if _, err := x.Commit(b.Context(), cold.CommitOptions{Root: root.Dir()}); err != nil {
					b.Fatal(err)
				}
			}
			i := 0
			for b.Loop() {
				coldtest.Check(b, c.Holds(b.Context(), ids[i%len(ids)], -1))
				i++
			}
		})
	}
}
