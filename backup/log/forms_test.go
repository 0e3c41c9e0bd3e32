package log

import (
	"path/filepath"
	"testing"

	"emberfs/backup"
	"emberfs/backup/coldtest"
	"emberfs/backup/format"
	"emberfs/tiers/cold"
)

// Content that is stored in another way than before did not change.
func TestDiffOfForms(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "cold.git")
	data := coldtest.Noise(70, 30*format.MinChunk)
	commit := func(v *testVolume) {
		f := coldtest.NewDir(0o755)
		f.Text("f", string(data))
		v.CommitTree(f, nil)
	}
	v := openVolume(t, dir, backup.Options{})
	commit(v)
	blob := v.HeadSnapshot()
	coldtest.Check(t, v.Close())
	v = openVolume(t, dir, backup.Options{ChunkThreshold: 256 << 10})
	commit(v)
	chunks := v.HeadSnapshot()
	data[9*format.MinChunk] ^= 1
	commit(v)
	blob, err := v.Snapshot(t.Context(), blob.Info().ID)
	coldtest.Check(t, err)
	for _, c := range []struct {
		from, to cold.Snapshot
		want     bool
	}{{blob, chunks, false}, {chunks, blob, false}, {chunks, v.HeadSnapshot(), true}, {blob, v.HeadSnapshot(), true}} {
		var changes []Change
		err := Diff(t.Context(), v.Side(c.from), v.Side(c.to), DiffOptions{}, func(c Change) error {
			if c.Path == "f" {
				changes = append(changes, c)
			}
			return nil
		})
		if err != nil || (len(changes) == 1 && changes[0].Status == Modified) != c.want || len(changes) > 1 {
			t.Errorf("%+v, %v; want a change: %v", changes, err, c.want)
		}
	}
}
