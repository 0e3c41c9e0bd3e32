//go:build slow

package integration

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// gitDaemon serves the repositories in dir by git daemon on a port of its own, and returns the URL of dir.
func gitDaemon(t *testing.T, dir string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	at := l.Addr().(*net.TCPAddr)
	check(t, l.Close())
	core := strings.TrimSpace(must(t, "/", "git", "--exec-path"))
	daemon := exec.Command(filepath.Join(core, "git-daemon"), "--listen=127.0.0.1", fmt.Sprint("--port=", at.Port),
		"--reuseaddr", "--export-all", "--base-path="+dir, dir)
	check(t, daemon.Start())
	t.Cleanup(func() {
		_ = daemon.Process.Kill()
		_ = daemon.Wait()
	})
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("tcp", at.String())
		if err == nil {
			_ = c.Close()
			return "git://" + at.String()
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// TestGitDaemon: a git:// SOURCE is refused at once where the volume would be written, and read where it is not.
func TestGitDaemon(t *testing.T) {
	t.Parallel()
	deadline(t, time.Minute)
	repo := newBareRepo(t, "remote.git", user{})
	w := newVolume(t, "writer", withSource(repo)).mount()
	check(t, os.WriteFile(w.at("f"), []byte("one"), 0o644))
	w.sync()

	v := newVolume(t, "reader", withSource(gitDaemon(t, filepath.Dir(repo))+"/remote.git"))
	if r := v.tryMount(); r.code != 2 || !strings.Contains(r.stderr, "-o ro") || r.took > 10*time.Second {
		t.Fatalf("want exit 2 at once, and a hint\n%v", r)
	}
	v.mount("-o", "ro")
	wantFile(t, v.at("f"), "one", "the reader has")
	if r := v.emberfs("mount", v.mnt, "-o", "remount,rw"); r.code != 2 || !strings.Contains(r.stderr, "git://") {
		t.Errorf("remount: want exit 2, and the source named\n%v", r)
	}
	if err := os.WriteFile(v.at("g"), nil, 0o644); err == nil {
		t.Error("the volume was written")
	}
	if r := v.emberfs("sync", v.mnt); r.code != 0 {
		t.Errorf("sync of what is on the remote: want exit 0\n%v", r)
	}
	v.umount()

	check(t, os.WriteFile(w.at("f"), []byte("two"), 0o644))
	w.umount()
	v.mount("-o", "ro")
	wantFile(t, v.at("f"), "two", "the next mount has")
	v.umount()
}
