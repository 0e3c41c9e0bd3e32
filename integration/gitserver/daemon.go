package gitserver

import (
	"fmt"
	"path/filepath"
	"testing"
)

// Daemon starts git's own server for reading: it takes no push.
func Daemon(t testing.TB, dir string) *Server {
	t.Helper()
	s := newServer(t, dir, gitAccount(t))
	s.source = func(port int) string { return fmt.Sprintf("git://127.0.0.1:%d/%s", port, filepath.Base(s.Repo)) }
	s.add(s.port, gitProgram(t, "git-daemon"), "--reuseaddr", "--listen=127.0.0.1", fmt.Sprint("--port=", s.port),
		"--base-path="+dir, "--export-all", dir)
	s.Start()
	return s
}
