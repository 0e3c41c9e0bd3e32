package wire

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/go-git/go-git/v5/plumbing/format/pktline"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"

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

// process is a running git service.
type process struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	out     io.Reader
	said    messages
	name    string
	adv     *packp.AdvRefs
	stopped bool
	kill    context.CancelFunc
}

// start runs a service on the repository, with additional git settings, and reads the references that it advertises.
func (r *Remote) start(ctx context.Context, service string, settings ...string) (*process, error) {
	h, err := r.hold()
	if err != nil {
		return nil, fmt.Errorf("run git %s: %w", service, err)
	}
	defer h.close()
	if h.why != nil {
		r.noHooks.Do(func() { r.logger().Warnf("hooks and other programs of %s are not run: %v", r.path, h.why) })
	}
	ctx, cancelWith := context.WithCancelCause(ctx)
	cancel := func() { cancelWith(nil) }
	p := &process{name: service, adv: packp.NewAdvRefs()}
	p.cmd = subprocess.Command(ctx, r.git, service, ".")
	// hold has checked the owner. Unlike git's own check it allows repositories of root.
	p.cmd.Env = environment(slices.Concat(settings, h.settings, []string{"safe.directory", h.real})...)
	p.cmd.Dir = h.at("")
	p.cmd.Stderr = &p.said
	p.cmd.SysProcAttr.Setpgid = true
	// After SIGTERM git removes its locks. A process that does not react is killed after killDelay.
	p.cmd.Cancel = func() error { return unix.Kill(-p.cmd.Process.Pid, unix.SIGTERM) }
	p.cmd.WaitDelay = killDelay
	in, err := p.cmd.StdinPipe()
	if err == nil {
		p.in = in
		p.out, err = p.cmd.StdoutPipe()
	}
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		cancel()
		return nil, fmt.Errorf("run git %s: %w", service, err)
	}
	context.AfterFunc(ctx, func() { _ = in.Close() })
	p.kill = cancel
	silent := time.AfterFunc(patience, func() { cancelWith(errSilent) })
	err = p.adv.Decode(io.LimitReader(p.out, maxAdvertised))
	if !silent.Stop() && err != nil {
		err = errSilent
	}
	if err != nil && !errors.Is(err, packp.ErrEmptyAdvRefs) {
		return nil, p.fail(fmt.Errorf("read references: %w", err))
	}
	for _, f := range p.adv.Capabilities.Get("object-format") {
		if err := checkFormat(f); err != nil {
			return nil, p.fail(err)
		}
	}
	return p, nil
}

// hangUp tells a service that nothing is wanted, and waits for it to end.
func (p *process) hangUp() error {
	_, err := p.in.Write(pktline.FlushPkt)
	return errors.Join(err, p.wait())
}

// wait closes the service's input, reads the rest of its output, and waits for it to end.
func (p *process) wait() error {
	if p.stopped {
		return nil
	}
	p.stopped = true
	_ = p.in.Close() // fails if the service has closed it
	_, _ = io.Copy(io.Discard, p.out)
	err := p.cmd.Wait()
	p.kill()
	if err != nil {
		return p.explain(err)
	}
	return nil
}

// fail kills the service and returns err together with what the other side said.
func (p *process) fail(err error) error {
	if !p.stopped {
		p.stopped = true
		_ = p.in.Close()
		p.kill()
		_ = p.cmd.Wait()                                // err is the better error
		_ = unix.Kill(-p.cmd.Process.Pid, unix.SIGKILL) // the rest of its process group
	}
	return p.explain(err)
}

// murdered reports whether the service was killed and may have left its locks.
func (p *process) murdered() bool {
	if !p.stopped || p.cmd.ProcessState == nil {
		return true
	}
	ws, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	return !ok || ws.Signaled() && ws.Signal() == unix.SIGKILL
}

// ended returns the context's error, if it was cancelled, instead of an error that this caused.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// explain adds what the other side said to err.
func (p *process) explain(err error) error {
	if said := p.said.String(); said != "" {
		return fmt.Errorf("git %s: %w (it said: %s)", p.name, err, said)
	}
	return fmt.Errorf("git %s: %w", p.name, err)
}
