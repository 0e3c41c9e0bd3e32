//go:build slow

package integration

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestUmountElsewhere: a volume that is mounted in other places as well ends there; umount of one of them comes back,
// says where it still is, and what is written there is backed up.
func TestUmountElsewhere(t *testing.T) {
	t.Parallel()
	deadline(t, 2*time.Minute)
	repo := newBareRepo(t, "remote.git", user{})
	v := newVolume(t, "v", withSource(repo))
	bound := mkdir(t, v.dir+"/bound", user{})
	has := func(want string) {
		t.Helper()
		equal(t, show(t, repo, "main:f"), want, "the remote holds")
	}

	v.mount()
	must(t, "/", "mount", "--bind", v.mnt, bound)
	check(t, os.WriteFile(v.at("f"), []byte("one"), 0o644))
	r := v.emberfs("umount", v.mnt, "--deadline", "3s")
	if r.code != 3 || !strings.Contains(r.stdout, bound) || r.took > 20*time.Second {
		t.Errorf("umount of a mount that is bound to another place: want exit 3 soon, and where it is\n%v", r)
	}
	has("one")
	check(t, os.WriteFile(bound+"/f", []byte("two"), 0o644))
	v.must("sync", bound)
	has("two")
	check(t, os.WriteFile(bound+"/f", []byte("three"), 0o644))
	if r := v.emberfs("umount", bound); r.code != 0 || !strings.Contains(r.stdout, "COMPLETE") {
		t.Errorf("umount of the last place: %v", r)
	}
	v.waitGone()
	has("three")

	v.mount()
	must(t, "/", "mount", "--bind", v.mnt, bound)
	check(t, os.WriteFile(bound+"/f", []byte("four"), 0o644))
	v.must("umount", bound)
	has("four")
	check(t, os.WriteFile(v.at("f"), []byte("five"), 0o644))

	hold := exec.Command("unshare", "-m", "sh", "-euc", ownNamespace+"echo; exec sleep 120")
	hold.Env = append(os.Environ(), "KEEP="+v.mnt)
	ready, err := hold.StdoutPipe()
	check(t, err)
	check(t, hold.Start())
	held := true
	release := func() {
		if held {
			held = false
			_ = hold.Process.Kill()
			_ = hold.Wait()
		}
	}
	t.Cleanup(release)
	_, err = ready.Read(make([]byte, 1)) // it has its mounts
	check(t, err)
	r = v.emberfs("umount", v.mnt)
	if r.code != 3 || !strings.Contains(r.stdout, "mount namespace of process") || r.took > 30*time.Second {
		t.Errorf("umount of a mount that another namespace has: want exit 3 soon, and where it is\n%v", r)
	}
	has("five")
	release()
	v.waitGone()
}

// TestInterrupted: a command that waits ends at SIGINT and SIGTERM, with the exit code of a program that was ended by
// them.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	deadline(t, 2*time.Minute)
	v := newVolume(t, "v", withSource(newBareRepo(t, "remote.git", user{}))).mount()
	check(t, os.WriteFile(v.at("f"), []byte("one"), 0o644))
	pid := v.daemon()
	check(t, unix.Kill(pid, unix.SIGSTOP)) // it accepts connections and says nothing
	for _, args := range [][]string{{"sync", v.mnt}, {"umount", v.mnt}, {"tier", v.mnt}, {"gc", v.mnt}} {
		for sig, code := range map[syscall.Signal]int{unix.SIGTERM: 143, unix.SIGINT: 130} {
			cmd := command{args: append([]string{env.bin}, args...), limit: time.Minute}.prepare(t.Context())
			check(t, cmd.Start())
			time.Sleep(300 * time.Millisecond) // it waits by now; if not, it ends by the signal itself
			check(t, cmd.Process.Signal(sig))
			done := make(chan struct{})
			go func() { _ = cmd.Wait(); close(done) }()
			select {
			case <-done:
			case <-time.After(20 * time.Second):
				_ = cmd.Process.Kill()
				<-done
				t.Errorf("%q does not end at %v", args, sig)
			}
			ws := cmd.ProcessState.Sys().(syscall.WaitStatus)
			if got := ws.ExitStatus(); got != code && !(ws.Signaled() && ws.Signal() == sig) {
				t.Errorf("%q after %v: exit %d, want %d", args, sig, got, code)
			}
		}
	}
	check(t, unix.Kill(pid, unix.SIGCONT))
	v.umount()
}
