package backup

import (
	"fmt"
	"testing"

	"emberfs/backup/coldtest"
	"emberfs/tiers/cold"
)

// commitDelta changes the root directory by put and del and commits.
func (v *testVolume) commitDelta(f *coldtest.File, put []string, del []string) {
	v.T.Helper()
	ctx := v.T.Context()
	tx, err := v.Begin(ctx)
	coldtest.Check(v.T, err)
	defer tx.Abort()
	var entries []cold.Entry
	for _, name := range put {
		k := f.Kids[name]
		k.ID, err = tx.PutFile(ctx, coldtest.Content(k.Data), cold.Base{})
		coldtest.Check(v.T, err)
		entries = append(entries, k.Entry)
	}
	id, err := tx.PutDir(ctx, coldtest.RootOf(tx.Base()), false, &cold.Root{Entry: f.Entry}, entries, del)
	coldtest.Check(v.T, err)
	f.ID, f.Meta = id.Tree, id.Meta
	if _, err := tx.Commit(ctx, cold.CommitOptions{Reason: "test", Root: id}); err != nil {
		v.T.Fatal(err)
	}
}

// Two ways to the same content give the same directory, once it is put whole on the same base.
func TestFullAfterDelta(t *testing.T) {
	v := newVolume(t, Options{})
	f := coldtest.NewDir(0o755)
	for i := range 700 {
		f.Text(fmt.Sprintf("f%d", i), "x")
	}
	v.CommitTree(f, nil)
	var del []string
	for i := range 300 {
		del = append(del, fmt.Sprintf("f%d", i))
		delete(f.Kids, del[i])
	}
	v.commitDelta(f, nil, del)
	want := coldtest.RootOf(v.HeadSnapshot())
	v.CommitTree(f, nil)
	if got := coldtest.RootOf(v.HeadSnapshot()); got != want {
		t.Errorf("put whole the directory is %v, by deltas it was %v", got, want)
	}
}
