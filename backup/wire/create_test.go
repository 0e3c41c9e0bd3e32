package wire

import (
	"os"
	"path/filepath"
	"testing"

	"emberfs/tiers/cold"
)

// TestCreate checks that a repository is made as git makes one, whatever formats are somebody's defaults, and that it
// can be taken away until a branch came into it.
func TestCreate(t *testing.T) {
	t.Setenv("GIT_DEFAULT_HASH", "sha256")
	base := t.TempDir()
	path := filepath.Join(base, "new", "deep", "volume.git")
	undo, err := Create(t.Context(), path, "work/one")
	check(t, err)
	if head := git(t, path, "symbolic-ref", "HEAD"); head != "refs/heads/work/one" {
		t.Errorf("HEAD is %s", head)
	}
	if _, err := Open(path, Options{}); err != nil {
		t.Errorf("it cannot be used: %v", err)
	}
	if _, err := Create(t.Context(), path, "main"); err == nil {
		t.Error("a second time")
	}
	check(t, undo())
	if list, err := os.ReadDir(base); err != nil || len(list) > 0 {
		t.Errorf("taken away again: %v, %v", list, err)
	}

	undo, err = Create(t.Context(), path, "main")
	check(t, err)
	r, err := Open(path, Options{})
	check(t, err)
	v := newVolume(t)
	check(t, r.push(t.Context(), one(cold.ID{}, v.commit("first")), v.pack))
	check(t, undo())
	if _, err := os.Stat(path); err != nil {
		t.Errorf("a repository with a branch: %v", err)
	}
}
