//go:build slow

package integration

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestUnresponsiveCold has the repository of a volume on a file system that stops to answer. Whoever reads a file that
// is there alone waits, through any signal but one that kills: then it is gone at once. Nobody else waits, and what was
// waited for comes in the end.
func TestUnresponsiveCold(t *testing.T) {
	// With it the kernel waits for its pages; without, for the answer of each read(2).
	onAndOff(t, "", 3*time.Minute, unresponsiveCold)
}

func unresponsiveCold(t *testing.T, cache string) {
	v := newVolume(t, "v").mount()
	slow, other := string(noise(4<<20, "slow")), string(noise(300_000, "other"))
	check(t, os.MkdirAll(v.at("dir"), 0o755))
	for name, data := range map[string]string{"dir/slow": slow, "dir/other": other, "dir/third": other,
		"here": "in warm"} {
		check(t, os.WriteFile(v.at(name), []byte(data), 0o644))
	}
	v.sync()
	must(t, "/", env.bin, "tier", v.mnt, v.at("dir"))
	v.umount()

	bin := filepath.Join(v.dir, "loopback")
	check(t, goBuildPackage(bin, "./integration/loopback"))
	resolved := filepath.Join(v.dir, "real.git")
	check(t, os.Rename(v.cold(), resolved))
	check(t, os.Mkdir(v.cold(), 0o700))
	server := exec.Command(bin, resolved, v.cold())
	out, err := server.StdoutPipe()
	check(t, err)
	check(t, server.Start())
	t.Cleanup(func() {
		_ = server.Process.Signal(unix.SIGCONT)
		_ = server.Process.Signal(unix.SIGTERM)
		_ = server.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("the file system of the repository: %q, %v", line, err)
	}
	v.mount("-o", "kernel_cache="+cache)
	must(t, "/", "cat", v.at("here")) // hot and the kernel have it
	check(t, server.Process.Signal(unix.SIGSTOP))

	patient := helperCommand("alarmed", user{}, v.at("dir/slow"))
	var heard strings.Builder
	patient.Stdout, patient.Stderr = &heard, &heard
	check(t, patient.Start())
	// A reader, and a writer, for whose file the bytes have to come back first.
	for _, args := range [][]string{{"cat", v.at("dir/other")}, {"dd", "if=/dev/zero", "of=" + v.at("dir/third"),
		"bs=10", "count=1", "conv=notrunc"}} {
		killed := exec.Command(args[0], args[1:]...)
		check(t, killed.Start())
		gone := make(chan error, 1)
		go func() { gone <- killed.Wait() }()
		select {
		case err := <-gone:
			t.Fatalf("the repository does not answer, and %s ended with %v", args[0], err)
		case <-time.After(time.Second):
		}
		check(t, killed.Process.Kill())
		select {
		case <-gone:
		case <-time.After(10 * time.Second):
			t.Errorf("a killed %s is still there after 10 s", args[0])
		}
	}
	// A file is cut to nothing while it is read, for which the kernel itself waits where it has locked pages of it.
	cut := exec.Command("sh", "-ec", ": > dir/other; echo over > dir/other")
	cut.Dir = v.mnt
	check(t, cut.Start())
	// Writers, readers of what is here, and listings go on.
	for _, script := range []string{"echo new > new; cat new", "cat here", "ls -l . dir", "stat dir/slow",
		"mv dir moved; mv moved dir", "rm here; echo again > here"} {
		command{args: []string{"sh", "-ec", script}, dir: v.mnt, limit: 20 * time.Second}.must(t)
	}
	check(t, server.Process.Signal(unix.SIGCONT))
	check(t, cut.Wait())
	check(t, patient.Wait())
	if got, want := heard.String(), fmt.Sprintf("%d bytes, <nil>, signals true", len(slow)); got != want {
		t.Errorf("the reader that got signals: %q, want %q", got, want)
	}
	v.sync()
	if got, err := os.ReadFile(v.at("dir/slow")); string(got) != slow {
		t.Errorf("dir/slow holds %d bytes, or others (%v)", len(got), err)
	}
	if got, err := os.ReadFile(v.at("dir/third")); string(got) != other {
		t.Errorf("dir/third holds %d bytes, or others (%v), though its writer was killed before", len(got), err)
	}
	wantFile(t, v.at("dir/other"), "over\n", "dir/other holds")
	v.umount()
}

func init() { slowHelpers["alarmed"] = helperAlarmed }

// helperAlarmed reads a file by one call while its thread gets a signal every 20 ms, which it handles. A call on a file
// of a disk does not end for that.
func helperAlarmed(args []string) error {
	alarms := make(chan os.Signal, 1)
	signal.Notify(alarms, unix.SIGALRM)
	fd, err := unix.Open(args[0], unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	runtime.LockOSThread()
	thread, done := unix.Gettid(), make(chan struct{})
	go func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(20 * time.Millisecond):
				_ = unix.Tgkill(os.Getpid(), thread, unix.SIGALRM)
			}
		}
	}()
	buf := make([]byte, 4<<20)
	n, err := unix.Read(fd, buf)
	close(done)
	heard := false
	select {
	case <-alarms:
		heard = true
	case <-time.After(5 * time.Second):
	}
	fmt.Printf("%d bytes, %v, signals %v", n, err, heard)
	return nil
}
