package tiers

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"emberfs/tiers/restore"
)

// TestRestoreReplaced: who may write where a restore writes can put something in the place of what was just made. It
// gets no name of what is restored; the rest comes back.
func TestRestoreReplaced(t *testing.T) {
	v, c := newVolume(t)
	a := write(t, v, v.root, "a", "restored")
	_, err := v.Link(context.Background(), a, v.root, "b")
	must(t, err)
	write(t, v, v.root, "c", "more")
	v.mustSync(t)
	head, err := c.Head(t.Context())
	must(t, err)
	to := t.TempDir()
	theirs := filepath.Join(to, "a")
	log := logrus.New()
	log.SetOutput(t.Output())
	err = restore.Copy(t.Context(), head, c, restore.Options{To: to, Log: log, Progress: func(files, _, _ int64) {
		if files == 1 {
			must(t, os.Rename(theirs, filepath.Join(to, "moved")))
			must(t, os.WriteFile(theirs, []byte("theirs"), 0o600))
		}
	}})
	if err == nil || !strings.Contains(err.Error(), "replaced") {
		t.Errorf("restore says %v", err)
	}
	var st unix.Stat_t
	must(t, unix.Stat(theirs, &st))
	if st.Nlink != 1 || st.Mode&0o777 != 0o600 {
		t.Errorf("what they put there has %d names, mode %o", st.Nlink, st.Mode)
	}
	if b, err := os.ReadFile(filepath.Join(to, "c")); err != nil || string(b) != "more" {
		t.Errorf("the rest: %q, %v", b, err)
	}
}
