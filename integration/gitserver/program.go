package gitserver

import (
	"fmt"
	"math/rand"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// startWait is how long a server may take to listen.
const startWait = 15 * time.Second

// program is a running server program, the first process of a PID namespace: the kernel ends all others of it together
// with it.
type program struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended, and all that it started
}

// launch starts a program as an account. What it says is appended to the file said. in, which may be nil, is its
// standard input.
func launch(as account, said string, in *os.File, args ...string) (*program, error) {
	to, err := os.OpenFile(said, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer to.Close()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = filepath.Dir(said)
	cmd.Env = serverEnv()
	cmd.Stdout, cmd.Stderr = to, to
	if in != nil {
		cmd.Stdin = in
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: as.credential(), Pdeathsig: syscall.SIGKILL,
		Cloneflags: syscall.CLONE_NEWPID}
	p := &program{cmd: cmd, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		// Pdeathsig counts the thread that started the program: this one has to stay, and to do nothing else.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended is nobody's concern: it is always killed
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", args[0], err)
	}
	return p, nil
}

// kill ends the program and all that it started, at once, and waits for that.
func (p *program) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// listens waits until somebody accepts connections at addr.
func (p *program) listens(addr string) error {
	for end := time.Now().Add(startWait); ; {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			return c.Close()
		}
		if time.Now().After(end) {
			return err
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s ended at once", p.cmd.Path)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// freePort finds a port that nobody listens on. It lies below those that the kernel gives to connections, so that a
// server can be started again on it.
func freePort(t testing.TB) int {
	t.Helper()
	for range 200 {
		port := 10_000 + rand.Intn(20_000)
		l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", port))
		if err == nil {
			_ = l.Close()
			return port
		}
	}
	t.Fatal("no free port on 127.0.0.1")
	return 0
}

// lookPath finds a server program, which PATH of a developer may not lead to.
func lookPath(t testing.TB, name string, more ...string) string {
	t.Helper()
	for _, dir := range append(more, "", "/usr/sbin", "/usr/local/sbin") {
		if p, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return p
		}
	}
	t.Fatalf("%s is needed; scripts/test installs it", name)
	return ""
}

// gitProgram is one of git's own programs.
func gitProgram(t testing.TB, name string) string {
	t.Helper()
	out, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		t.Fatal(err)
	}
	return lookPath(t, name, strings.TrimSpace(string(out)))
}
