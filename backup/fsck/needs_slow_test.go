//go:build slow

package fsck

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"emberfs/backup"
	"emberfs/backup/coldtest"
	"emberfs/backup/format"
	"emberfs/tiers/cold"
)

// oldNeeds is a volume whose warm has only records of what the first commit had and the tip has not: a file, a big one,
// a directory and the root.
func oldNeeds(t *testing.T) (v *checkedVolume, needs map[string]cold.Need) {
	t.Helper()
	v = &checkedVolume{testVolume: newVolume(t, backup.Options{ChunkThreshold: 2 * format.MinChunk})}
	v.root = coldtest.NewDir(0o755)
	v.root.Text("d/sub/%odd", "content of a file in a directory")
	v.root.Text("file", "content of a file")
	var big strings.Builder
	for n := 0; big.Len() < 8*format.MinChunk; n++ {
		fmt.Fprintln(&big, n)
	}
	v.root.Text("big", big.String())
	v.first = v.CommitTree(v.root, nil)
	need := func(at string) cold.Need {
		s := v.HeadSnapshot()
		e := s.Root()
		if at != "" {
			for name := range strings.SplitSeq(at, "/") {
				l, err := s.ReadDir(t.Context(), e.Dir())
				coldtest.Check(t, err)
				for i := range l.Entries {
					if l.Entries[i].Name == name {
						e = l.Entries[i]
					}
				}
			}
		}
		return cold.Need{Path: at, Dir: e.Kind == cold.KindDir, ID: e.ID, Meta: e.Meta, Size: e.Size}
	}
	needs = map[string]cold.Need{}
	for _, at := range []string{"", "d", "file", "big", "d/sub/%odd"} {
		needs[at] = need(at)
	}
	clear(v.root.Kids)
	v.root.Text("other", "other")
	v.tip = v.CommitTree(v.root, nil)
	return v, needs
}

// lacking asks a fresh Checker.
func lacking(t *testing.T, v *checkedVolume, o Options, n cold.Need) []cold.Lost {
	t.Helper()
	o.Volume, o.Owned, o.Branch, o.Head = true, true, "main", v.tip
	c, err := Open(v.Dir, o)
	coldtest.Check(t, err)
	defer func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}()
	coldtest.Check(t, c.Check(t.Context()))
	lost, err := c.Lacks(t.Context(), n)
	coldtest.Check(t, err)
	if again, err := c.Lacks(t.Context(), n); err != nil || len(again) != len(lost) {
		t.Errorf("asked again: %v, %v", again, err)
	}
	return lost
}

// TestLacks: what is in cold only is looked for wherever in the history it stands, by indexes, and with Deep by
// reading.
func TestLacks(t *testing.T) {
	t.Parallel()
	v, needs := oldNeeds(t)
	for _, deep := range []bool{false, true} {
		for at, n := range needs {
			if lost := lacking(t, v, Options{Deep: deep, Origin: v.first}, n); len(lost) > 0 {
				t.Errorf("%q, deep %v: %+v", at, deep, lost)
			}
		}
	}
	wrong := needs["file"]
	wrong.Size++
	if lost := lacking(t, v, Options{}, wrong); len(lost) != 1 || !errors.Is(lost[0].Err, cold.ErrCorrupt) {
		t.Errorf("another size: %+v", lost)
	}
	// Loose objects are read to be believed, with and without Deep.
	chunk := v.id(v.first.String() + ":big/" + strings.Repeat("0", format.ChunkName-1) + "2")
	v.explodeAll()
	for _, id := range []cold.ID{chunk, needs["file"].ID, needs["d/sub/%odd"].ID} {
		// The checksum, which is not looked at with the header.
		coldtest.Overwrite(t, v.loose(id), -1, []byte{1, 2, 3, 4})
	}
	for at, n := range needs {
		if lost := lacking(t, v, Options{Origin: v.first}, n); len(lost) == 0 && !n.Dir {
			t.Errorf("damaged, %q, quick: nothing", at)
		}
		if lost := lacking(t, v, Options{Deep: true}, n); len(lost) == 0 && !n.Dir {
			t.Errorf("damaged, %q, deep: nothing", at)
		}
	}
}

// TestLacksMissing: a missing object is named with the path that it stands at; of the history --deep alone reports it
// otherwise.
func TestLacksMissing(t *testing.T) {
	t.Parallel()
	v, needs := oldNeeds(t)
	v.explodeAll()
	rev := v.first.String() + ":"
	file, inDir, meta := needs["file"].ID, needs["d/sub/%odd"].ID, v.id(rev+".emberfs/meta/d/sub/.emberfs%entries")
	chunk := v.id(rev + "big/" + strings.Repeat("0", format.ChunkName-1) + "2")
	for _, id := range []cold.ID{file, inDir, meta, chunk} {
		coldtest.Remove(t, v.loose(id))
	}
	for _, c := range []struct {
		need string
		want map[string]cold.ID
	}{
		{"file", map[string]cold.ID{"": file}},
		{"big", map[string]cold.ID{"": needs["big"].ID}},
		{"d", map[string]cold.ID{"sub/%odd": inDir, "sub": meta}},
	} {
		lost := lacking(t, v, Options{}, needs[c.need])
		if len(lost) != len(c.want) {
			t.Errorf("%s: %+v", c.need, lost)
		}
		for _, l := range lost {
			if l.Object != c.want[strings.TrimPrefix(l.Path, "d/")] || !errors.Is(l.Err, cold.ErrMissing) {
				t.Errorf("%s: %+v", c.need, l)
			}
		}
	}
}

// TestRepairNeeds gets back what only stubs and unlisted directories need, from the remote and from another file.
func TestRepairNeeds(t *testing.T) {
	t.Parallel()
	v, needs := oldNeeds(t)
	remote := v.withRemote()
	v.explodeAll()
	rev := v.first.String() + ":"
	for _, id := range []cold.ID{needs["file"].ID, needs["d/sub/%odd"].ID, needs["d"].ID, v.id(rev + "d/sub"),
		v.id(rev + ".emberfs/meta/d"),
		v.id(rev + "big/" + strings.Repeat("0", format.ChunkName-1) + "2")} {
		coldtest.Remove(t, v.loose(id))
	}
	list := []cold.Need{needs["file"], needs["d"], needs["big"]}
	for _, n := range list {
		if len(lacking(t, v, Options{}, n)) == 0 {
			t.Fatalf("%q is not lost", n.Path)
		}
	}
	c, err := Open(v.Dir, Options{Volume: true, Owned: true, Branch: "main", Head: v.tip, Source: remote})
	coldtest.Check(t, err)
	coldtest.Check(t, errors.Join(c.Check(t.Context()), c.Close()))
	if _, err := c.Repair(t.Context(), RepairOptions{Needs: list, Step: func(what, where string) func(string, error) {
		return func(result string, err error) { t.Log(what, where, result, err) }
	}}); err != nil {
		t.Fatal(err)
	}
	for at, n := range needs {
		if lost := lacking(t, v, Options{Deep: true, Origin: v.first}, n); len(lost) > 0 {
			t.Errorf("%q after the repair: %+v", at, lost)
		}
	}
}
