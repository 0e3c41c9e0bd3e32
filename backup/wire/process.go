package wire

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"emberfs/tiers/subprocess"
)

const (
	// maxAdvertised is how many bytes a remote's list of references may have.
	maxAdvertised = 256 << 20
	// maxMessages is how many bytes of the other side's messages are kept for errors.
	maxMessages = 8 << 10
	// killDelay is how long pipes may stay open after the process has ended; a child of a hook may hold them.
	killDelay = 2 * time.Second
)

// environment returns the environment for the service and its children, with git settings given as keys and values in
// turn.
func environment(settings ...string) []string {
	env := append(subprocess.Environment(), "LC_ALL=C", "GIT_TERMINAL_PROMPT=0",
		fmt.Sprintf("GIT_CONFIG_COUNT=%d", len(settings)/2))
	for i := 0; i+1 < len(settings); i += 2 {
		env = append(env, fmt.Sprintf("GIT_CONFIG_KEY_%d=%s", i/2, settings[i]),
			fmt.Sprintf("GIT_CONFIG_VALUE_%d=%s", i/2, settings[i+1]))
	}
	return env
}

// messages keeps the last messages of the other side for an error. It is safe for concurrent use.
type messages struct {
	mu struct {
		sync.Mutex
		buf []byte
	}
}

func (m *messages) Write(p []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.buf = append(m.mu.buf, p...)
	if over := len(m.mu.buf) - maxMessages; over > 0 {
		m.mu.buf = m.mu.buf[:copy(m.mu.buf, m.mu.buf[over:])]
	}
	return len(p), nil
}

// String joins the lines by "; " and removes control characters, because the text goes to terminals and logs.
func (m *messages) String() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	lines := bytes.FieldsFunc(m.mu.buf, func(r rune) bool { return r == '\n' || r == '\r' })
	var out []string
	for _, l := range lines {
		s := strings.Map(func(r rune) rune {
			if r < ' ' || r == 0x7f || r == '\uFFFD' {
				return -1
			}
			return r
		}, string(l))
		if s = strings.TrimSpace(s); s != "" {
			out = append(out, s)
		}
	}
	return strings.Join(out, "; ")
}

// process is a git service that runs as a child of ours, or the ssh that leads to one.
type process struct {
	cmd    *exec.Cmd
	cancel context.CancelFunc
}

func (p *process) bye(in io.Writer) error { return flushBye(in) }

func (p *process) wait() error {
	defer p.cancel()
	return p.cmd.Wait()
}

func (p *process) kill(in io.Closer) {
	_ = in.Close()
	p.cancel()
	_ = p.cmd.Wait()                                // the caller's error says it better
	_ = unix.Kill(-p.cmd.Process.Pid, unix.SIGKILL) // what is left of its group
}

func (p *process) orderly() bool {
	if p.cmd.ProcessState == nil {
		return false
	}
	ws, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	return ok && !(ws.Signaled() && ws.Signal() == unix.SIGKILL)
}

// spawn starts a program that speaks for a service on its standard input and output.
func spawn(ctx context.Context, service string, build func(ctx context.Context) *exec.Cmd) (*session, error) {
	ctx, cancel := context.WithCancel(ctx)
	s := &session{name: service}
	cmd := build(ctx)
	cmd.Stderr = &s.said
	cmd.SysProcAttr.Setpgid = true
	// SIGTERM lets git remove its locks; whoever does not listen is killed after killDelay.
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGTERM) }
	cmd.WaitDelay = killDelay
	var err error
	if s.in, err = cmd.StdinPipe(); err == nil {
		if s.out, err = cmd.StdoutPipe(); err == nil {
			err = cmd.Start()
		}
	}
	if err != nil {
		cancel()
		return nil, fmt.Errorf("run git %s: %w", service, err)
	}
	s.end = &process{cmd, cancel}
	return s, nil
}

// run starts a service on a repository of this machine.
func (r *Remote) run(ctx context.Context, service string, settings ...string) (*session, error) {
	h, err := r.hold()
	if err != nil {
		return nil, fmt.Errorf("run git %s: %w", service, err)
	}
	defer h.close()
	if h.why != nil {
		r.noHooks.Do(func() { r.logger().Warnf("hooks and other programs of %s are not run: %v", r.path, h.why) })
	}
	return spawn(ctx, service, func(ctx context.Context) *exec.Cmd {
		cmd := subprocess.Command(ctx, r.git, service, ".")
		// hold has checked the owner, by a rule that lets root's repositories pass where git's own does not.
		cmd.Env = environment(slices.Concat(settings, h.settings, []string{"safe.directory", h.real})...)
		cmd.Dir = h.at("")
		return cmd
	})
}

// ended returns the context's error, if it was cancelled, instead of an error that this caused.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
