package format

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"emberfs/backup/odb"
)

// UpdateTree gives what a map would, in git's order.
func TestUpdateTree(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	modes := []uint32{odb.ModeFile, odb.ModeTree, odb.ModeExec, odb.ModeSymlink}
	random := func() odb.TreeEntry {
		// Names where a directory sorts apart from a file of the same name.
		name := []string{"a", "a-b", "a.c", "a0", "ab", "b"}[rnd.IntN(6)]
		e := odb.TreeEntry{Mode: modes[rnd.IntN(len(modes))], Name: name, ID: odb.EmptyTree}
		e.ID[0] = byte(rnd.IntN(2))
		return e
	}
	for range 5000 {
		want, put := map[string]odb.TreeEntry{}, map[string]odb.TreeEntry{}
		for range rnd.IntN(7) {
			e := random()
			want[e.Name] = e
		}
		var old []odb.TreeEntry
		for _, e := range want {
			old = append(old, e)
		}
		slices.SortFunc(old, CompareTree)
		changed := false
		for range rnd.IntN(4) {
			e := random()
			if rnd.IntN(3) == 0 {
				e = odb.TreeEntry{Name: e.Name}
			}
			put[e.Name] = e
		}
		for name, e := range put {
			changed = changed || want[name] != e && (e.Mode != 0 || want[name].Mode != 0)
			if want[name] = e; e.Mode == 0 {
				delete(want, name)
			}
		}
		got, did := UpdateTree(old, put)
		if did != changed || len(got) != len(want) || !slices.IsSortedFunc(got, CompareTree) {
			t.Fatalf("%v with %v: %v, %v", old, put, got, did)
		}
		for _, e := range got {
			if want[e.Name] != e {
				t.Fatalf("%v with %v: %v", old, put, got)
			}
		}
		if data, err := odb.EncodeTree(got); err != nil {
			t.Fatal(fmt.Errorf("%v: %w", got, err))
		} else if again, err := odb.DecodeTree(data); err != nil || !slices.Equal(again, got) {
			t.Fatalf("%v came back as %v, %v", got, again, err)
		}
	}
}
