package gitserver

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// Server is a git server with one repository, main.
type Server struct {
	// Repo is the path of the bare repository, for stock git on this machine.
	Repo string
	// Env are the variables that a client needs beside its own.
	Env []string

	t    testing.TB
	dir  string
	as   account
	port int
	// source is what a client calls the repository where the server is reached at 127.0.0.1 and a port.
	source func(port int) string
	// launches start the server's programs, in this order.
	launches []func() (*program, error)

	mu      sync.Mutex
	running []*program
}

// newServer makes the directories and the repository of a server below dir, which must be one that all users may pass.
func newServer(t testing.TB, dir string, as account) *Server {
	t.Helper()
	s := &Server{t: t, dir: dir, as: as, port: freePort(t), Repo: filepath.Join(dir, "repo.git")}
	as.mkdir(t, dir)
	as.run(t, nil, "git", "init", "-q", "--bare", "-b", "main", s.Repo)
	t.Cleanup(func() {
		s.Kill()
		if said, err := os.ReadFile(s.said()); err == nil && t.Failed() {
			t.Logf("what the server at port %d said: %s", s.port, tail(said))
		}
	})
	return s
}

// tail is the end of a text that may be long.
func tail(text []byte) []byte { return text[max(0, len(text)-4000):] }

func (s *Server) said() string { return filepath.Join(s.dir, "said") }

// add has a program be started with the server. It listens on the server's port unless another is given.
func (s *Server) add(port int, args ...string) {
	s.launches = append(s.launches, func() (*program, error) {
		p, err := launch(s.as, s.said(), nil, args...)
		if err != nil || port == 0 {
			return p, err
		}
		if err := p.listens(fmt.Sprint("127.0.0.1:", port)); err != nil {
			p.kill()
			return nil, fmt.Errorf("%s does not listen: %w", args[0], err)
		}
		return p, nil
	})
}

// Addr is where the server listens, as host:port.
func (s *Server) Addr() string { return fmt.Sprint("127.0.0.1:", s.port) }

// Source is what a client calls the repository.
func (s *Server) Source() string { return s.source(s.port) }

// SourceBy is what a client calls the repository where it goes through a Link or a Front, which listens on that port.
func (s *Server) SourceBy(port int) string { return s.source(port) }

// Start starts the server, unless it runs. It accepts connections when Start returns. It fails the test where that
// takes too long.
func (s *Server) Start() {
	s.t.Helper()
	if err := s.TryStart(); err != nil {
		said, _ := os.ReadFile(s.said())
		s.t.Fatalf("%v\n%s", err, tail(said))
	}
}

// TryStart is Start for other goroutines than the test's.
func (s *Server) TryStart() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running != nil {
		return nil
	}
	for _, l := range s.launches {
		p, err := l()
		if err != nil {
			s.kill()
			return err
		}
		s.running = append(s.running, p)
	}
	return nil
}

// Kill ends the server and all that it works at, by SIGKILL. It returns when nothing of it is left; connections of
// clients break.
func (s *Server) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kill()
}

func (s *Server) kill() {
	for _, p := range s.running {
		p.kill()
	}
	s.running = nil
}

// Git runs stock git in the repository as the server's account, and returns what it printed. The test fails unless it
// ends well.
func (s *Server) Git(args ...string) string {
	s.t.Helper()
	return s.as.run(s.t, nil, append([]string{"git", "-C", s.Repo}, args...)...)
}

// Hook gives the repository a hook, and removes it with an empty script.
func (s *Server) Hook(name, script string) {
	s.t.Helper()
	path := filepath.Join(s.Repo, "hooks", name)
	if script == "" {
		if err := os.Remove(path); err != nil {
			s.t.Fatal(err)
		}
		return
	}
	s.as.mkdir(s.t, filepath.Dir(path))
	s.as.program(s.t, path, script)
}

// File writes a file of the server's account below its repository.
func (s *Server) File(name, text string) {
	s.t.Helper()
	s.as.write(s.t, filepath.Join(s.Repo, name), text, 0o644)
}
