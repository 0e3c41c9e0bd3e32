package tiers

import (
	"context"
	"testing"
)

// TestChangeDuringSecondTry checks that a commit which comes after one that failed within a directory loses nothing
// that is changed there while it runs: the next commit has that.
func TestChangeDuringSecondTry(t *testing.T) {
	c := newMemCold()
	ctx, cancel := context.WithCancel(t.Context())
	c.skim = func(int64) bool { cancel(); return false } // the first commit ends at its first file
	change := func() {}
	v, err := Open(t.Context(), Config{State: t.TempDir(), Cold: c, Log: quiet(), Branch: "main", MemoryLimit: 64 << 20,
		Fail: func(step string) error {
			if step == "commit.boundary" {
				change()
			}
			return nil
		}})
	must(t, err)
	t.Cleanup(v.over)
	write(t, v, mkdir(t, v, v.root, "first"), "f", "x")
	mkdir(t, v, v.root, "second") // is not reached
	if _, err := v.Sync(ctx, "sync"); err == nil {
		t.Fatal("the first commit did not fail")
	}
	change = func() { write(t, v, v.root, "during", "y") }
	v.mustSync(t)
	if got := newest(t, c); got["during"] != "" || got["first/f"] != "x" {
		t.Fatalf("the second commit is no moment: %v", got)
	}
	change = func() {}
	v.mustSync(t)
	if got := newest(t, c); got["during"] != "y" {
		t.Errorf("what was changed during the second commit is lost: %v", got)
	}
}
