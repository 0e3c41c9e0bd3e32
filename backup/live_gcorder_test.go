package backup

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"emberfs/backup/coldtest"
)

// Stock git reads main, and before it reads the live branch, a commit to main absorbs it. So git finds neither the live
// commits nor, in what it has read, the commit that replaced them. Both survive because git reads HEAD, which names
// main, after all references. A FIFO among the references makes git wait at that point.
func TestAbsorbWhileGitReadsReferences(t *testing.T) {
	v := newVolume(t, Options{Branch: "a"}) // before "emberfs-live": git reads it first
	f := coldtest.NewDir(0o755)
	f.Text("x", "0")
	first := v.CommitTree(f, nil)
	f.Text("critical", "only the live branch brought it")
	v.commitLive(f)
	fifo := filepath.Join(v.Dir, "refs/heads/emberfs-live/0")
	coldtest.Check(t, unix.Mkfifo(fifo, 0o600))
	cmd := exec.CommandContext(t.Context(), "git", "repack", "-adq")
	cmd.Dir = v.Dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*")
	coldtest.Check(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	held := false
	for running := true; running; {
		select {
		case err := <-ended:
			coldtest.Check(t, err)
			running = false
		case <-time.After(time.Millisecond):
			w, err := os.OpenFile(fifo, os.O_WRONLY|unix.O_NONBLOCK, 0)
			if errors.Is(err, unix.ENXIO) {
				continue // nobody reads
			}
			coldtest.Check(t, err)
			if !held {
				held = true
				f.Text("x", "1")
				v.CommitTree(f, nil)
			}
			if _, err := w.WriteString(first.String() + "\n"); err != nil {
				t.Fatal(err)
			}
			coldtest.Check(t, w.Close())
		}
	}
	coldtest.Check(t, os.Remove(fifo))
	if !held {
		t.Fatal("this git does not read a FIFO among the references")
	}
	coldtest.Git(t, v.Dir, "prune", "--expire=now")
	coldtest.Fsck(t, v.Dir)
	coldtest.CompareTrees(t, v.ReadTree(v.NewestSnapshot()), f)
}
