package tiers

import (
	"os"
	"path/filepath"
	"testing"
)

// TestHalfMadeStub: on a file system without O_TMPFILE a stub has a name before it has a record. One that was being
// made when the daemon was killed is made anew.
func TestHalfMadeStub(t *testing.T) {
	v, c := newVolume(t)
	write(t, v, mkdir(t, v, v.root, "d"), "f", "text")
	v.mustSync(t)
	next := openTiered(t, t.TempDir(), c)
	mustFind(t, next, "d")
	p := filepath.Join(next.cfg.State, "warm/d/f")
	must(t, os.WriteFile(p, nil, 0600))
	must(t, os.Truncate(p, 4))
	if got := read(t, next, mustFind(t, next, "d/f")); got != "text" {
		t.Fatalf("%q", got)
	}
	if rc := next.mustSync(t); rc.New {
		t.Fatal("a commit of nothing")
	}
}
