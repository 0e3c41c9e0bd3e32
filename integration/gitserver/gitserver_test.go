package gitserver

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// testDir is a directory that other users may pass, unlike t.TempDir's parents.
func testDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "emberfs-gitserver-")
	check(t, err)
	check(t, os.Chmod(dir, 0o755))
	t.Cleanup(func() { check(t, os.RemoveAll(dir)) })
	return dir
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// git runs stock git as a client of a server.
func git(t *testing.T, s *Server, dir string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null", "GIT_AUTHOR_NAME=a",
		"GIT_AUTHOR_EMAIL=a@b", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@b", "GIT_TERMINAL_PROMPT=0")
	cmd.Env = append(cmd.Env, s.Env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestServers has stock git push to, and clone from, each server; when a server is killed nothing of it is left, and it
// can be started again.
func TestServers(t *testing.T) {
	for name, start := range map[string]func(t *testing.T, dir string) *Server{
		"ssh":      func(t *testing.T, dir string) *Server { return SSH(t, dir, false).Server },
		"ssh-v2":   func(t *testing.T, dir string) *Server { return SSH(t, dir, true).Server },
		"gitolite": func(t *testing.T, dir string) *Server { return Gitolite(t, dir).Server },
		"http":     func(t *testing.T, dir string) *Server { return HTTP(t, dir, HTTPOptions{}).Server },
		"https": func(t *testing.T, dir string) *Server {
			s := HTTP(t, dir, HTTPOptions{TLS: true, NoPush: true})
			s.Env = append(s.Env, "GIT_SSL_CAINFO="+s.CA, "GIT_SSL_CERT="+s.ClientCert, "GIT_SSL_KEY="+s.ClientKey)
			return s.Server
		},
		"basic": func(t *testing.T, dir string) *Server {
			s := HTTP(t, dir, HTTPOptions{User: "somebody", Password: "secret", NoPush: true})
			s.Env = append(s.Env, "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=http.extraHeader",
				"GIT_CONFIG_VALUE_0=Authorization: Basic c29tZWJvZHk6c2VjcmV0")
			return s.Server
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := testDir(t)
			s := start(t, filepath.Join(dir, "server"))
			clone := filepath.Join(dir, "clone")
			for i := range 2 { // the second time after a kill
				script := [][]string{{"init", "-q", "-b", "main", clone}, {"-C", clone, "commit", "-qm", fmt.Sprint(i),
					"--allow-empty"}, {"-C", clone, "push", "-q", s.Source(), "HEAD:refs/heads/main"}}
				for _, args := range script[min(i, 1):] {
					if out, err := git(t, s, "/", args...); err != nil {
						t.Fatalf("git %q: %v: %s", args, err, out)
					}
				}
				if out, err := git(t, s, "/", "ls-remote", s.Source(), "refs/heads/main"); err != nil ||
					!strings.HasPrefix(out, strings.TrimSpace(s.Git("rev-parse", "main"))) {
					t.Errorf("ls-remote: %v: %s", err, out)
				}
				s.Kill()
				if left := processesOf(dir); left != "" {
					t.Errorf("left running: %s", left)
				}
				if out, err := git(t, s, "/", "ls-remote", s.Source()); err == nil {
					t.Errorf("a killed server answers: %s", out)
				}
				s.Start()
			}
		})
	}
}

// processesOf lists processes that have to do with a directory.
func processesOf(dir string) string {
	var found []string
	list, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range list {
		line, _ := os.ReadFile(p + "/cmdline")
		cwd, _ := os.Readlink(p + "/cwd")
		if bytes.Contains(line, []byte(dir)) || strings.HasPrefix(cwd, dir) {
			found = append(found, p+" "+string(line))
		}
	}
	return strings.Join(found, "\n")
}

// TestDaemon: git daemon gives and takes nothing.
func TestDaemon(t *testing.T) {
	dir := testDir(t)
	s := Daemon(t, filepath.Join(dir, "server"))
	clone := filepath.Join(dir, "clone")
	for _, args := range [][]string{{"clone", "-q", s.Source(), clone}, {"-C", clone, "commit", "-qm", "x",
		"--allow-empty"}} {
		if out, err := git(t, s, "/", args...); err != nil {
			t.Fatalf("git %q: %v: %s", args, err, out)
		}
	}
	if out, err := git(t, s, clone, "push", "-q", s.Source(), "HEAD:refs/heads/main"); err == nil {
		t.Errorf("it took a push: %s", out)
	}
}

// echo starts a server that gives back what it gets.
func echo(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); _ = c.Close() }()
		}
	}()
	return l
}

// TestLink: a link that is down lets nothing through and breaks nothing; in chaos things go wrong, but no byte is
// another than the one that was sent.
func TestLink(t *testing.T) {
	l := NewLink(t, echo(t).Addr().String(), 1)
	dial := func() net.Conn {
		t.Helper()
		c, err := net.Dial("tcp", fmt.Sprint("127.0.0.1:", l.Port()))
		check(t, err)
		t.Cleanup(func() { _ = c.Close() })
		check(t, c.SetDeadline(time.Now().Add(20*time.Second)))
		return c
	}
	c := dial()
	says := func(c net.Conn, text string) {
		t.Helper()
		_, err := c.Write([]byte(text))
		check(t, err)
		b := make([]byte, len(text))
		if _, err := io.ReadFull(c, b); err != nil || string(b) != text {
			t.Errorf("%q came back as %q, %v", text, b, err)
		}
	}
	says(c, "one")
	l.Set(Down)
	late := dial()
	for _, c := range []net.Conn{c, late} {
		_, err := c.Write([]byte("two"))
		check(t, err)
		check(t, c.SetReadDeadline(time.Now().Add(200*time.Millisecond)))
		if n, err := c.Read(make([]byte, 3)); err == nil || n > 0 || err == io.EOF {
			t.Errorf("a link that is down gave %d bytes and %v", n, err)
		}
		check(t, c.SetReadDeadline(time.Now().Add(20*time.Second)))
	}
	l.Set(Pass)
	for _, c := range []net.Conn{c, late} {
		b := make([]byte, 3)
		if _, err := io.ReadFull(c, b); err != nil || string(b) != "two" {
			t.Errorf("after it is up again: %q, %v", b, err)
		}
	}
	l.Set(Chaos)
	text := bytes.Repeat([]byte("0123456789abcdef"), 1<<12)
	for i := 0; i < 500 && (l.resets.Load() == 0 || l.truncated.Load() == 0); i++ {
		c := dial()
		check(t, c.SetDeadline(time.Now().Add(time.Second)))
		go func() { _, _ = c.Write(text) }()
		b, _ := io.ReadAll(io.LimitReader(c, int64(len(text))))
		if !bytes.HasPrefix(text, b) {
			t.Fatal("other bytes came than were sent")
		}
	}
	if l.resets.Load() == 0 || l.truncated.Load() == 0 {
		t.Errorf("chaos made %d resets and truncated %d times", l.resets.Load(), l.truncated.Load())
	}
	if to, from := l.Bytes(); to < from || from == 0 {
		t.Errorf("it counts %d bytes and %d", to, from)
	}
}

// TestFront: a front passes requests on, or answers them.
func TestFront(t *testing.T) {
	s := HTTP(t, filepath.Join(testDir(t), "server"), HTTPOptions{})
	f := NewFront(t, s)
	get := func() int {
		t.Helper()
		r, err := http.Get(s.SourceBy(f.Port()) + "/info/refs?service=git-upload-pack")
		check(t, err)
		check(t, r.Body.Close())
		return r.StatusCode
	}
	if got := get(); got != http.StatusOK {
		t.Errorf("through the front: %d", got)
	}
	f.Answer(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	if got := get(); got != http.StatusTeapot {
		t.Errorf("from the front: %d", got)
	}
	f.Answer(nil)
	if got := get(); got != http.StatusOK || f.Requests() != 3 {
		t.Errorf("through the front again: %d, %d requests", got, f.Requests())
	}
}
