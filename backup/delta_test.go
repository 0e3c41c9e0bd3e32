package backup

import (
	"fmt"
	"testing"

	"emberfs/tiers/cold"
)

// commitDelta changes the root directory by put and del and commits.
func (v *testVolume) commitDelta(f *file, put []string, del []string) {
	v.t.Helper()
	ctx := v.t.Context()
	tx, err := v.Begin(ctx)
	if err != nil {
		v.t.Fatal(err)
	}
	defer tx.Abort()
	var entries []cold.Entry
	for _, name := range put {
		k := f.kids[name]
		if k.ID, err = tx.PutFile(ctx, content(k.data), cold.Base{}); err != nil {
			v.t.Fatal(err)
		}
		entries = append(entries, k.Entry)
	}
	id, err := tx.PutDir(ctx, rootOf(tx.Base()), false, &cold.Root{Entry: f.Entry}, entries, del)
	if err != nil {
		v.t.Fatal(err)
	}
	f.ID, f.Meta = id.Tree, id.Meta
	if _, err := tx.Commit(ctx, cold.CommitOptions{Reason: "test", Root: id}); err != nil {
		v.t.Fatal(err)
	}
}

// Two ways to the same content give the same directory, once it is put whole on the same base.
func TestFullAfterDelta(t *testing.T) {
	v := newVolume(t, Options{})
	f := newDir(0o755)
	for i := range 700 {
		f.text(fmt.Sprintf("f%d", i), "x")
	}
	v.commit(f, nil)
	var del []string
	for i := range 300 {
		del = append(del, fmt.Sprintf("f%d", i))
		delete(f.kids, del[i])
	}
	v.commitDelta(f, nil, del)
	want := rootOf(v.headSnapshot())
	v.commit(f, nil)
	if got := rootOf(v.headSnapshot()); got != want {
		t.Errorf("put whole the directory is %v, by deltas it was %v", got, want)
	}
}
