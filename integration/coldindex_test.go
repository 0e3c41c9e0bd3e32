//go:build slow

package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestIndexCutUnderDaemon: the index of a pack, which the daemon has mapped, is cut by somebody, as a failing disk
// would lose it. The mount lives on, reads what only that pack has, and says so.
func TestIndexCutUnderDaemon(t *testing.T) {
	deadline(t, 2*time.Minute)
	v := newVolume(t, "v", onlyByCommand()).mount()
	want := map[string]string{}
	for _, name := range []string{"a", "b", "c"} {
		want[name] = strings.Repeat(name+" has this text\n", 500)
		check(t, os.WriteFile(v.at(name), []byte(want[name]), 0o644))
	}
	v.sync()
	v.release()
	same := func(name string) {
		t.Helper()
		if got, err := os.ReadFile(v.at(name)); err != nil || string(got) != want[name] {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	same("a")
	pid := v.daemon()
	cut, err := filepath.Glob(filepath.Join(v.cold(), "objects/pack/*.idx"))
	check(t, err)
	if len(cut) == 0 {
		t.Fatal("no index")
	}
	for _, f := range cut {
		check(t, os.Chmod(f, 0o644))
		check(t, os.Truncate(f, 0))
	}
	same("b")
	same("c")
	check(t, os.WriteFile(v.at("d"), []byte("more"), 0o644))
	v.sync()
	if now := v.daemon(); now != pid {
		t.Errorf("the daemon is another: %d, it was %d", now, pid)
	}
	v.umount()
	fsck(t, v.cold())
	v.mustBeSound(v.state, "--deep")
}
