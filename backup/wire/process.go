package wire

import (
	"context"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"emberfs/tiers/subprocess"
)

// killDelay is how long pipes may stay open after the process has ended; a child of a hook may hold them.
const killDelay = 2 * time.Second

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
		if service == uploadPack {
			cmd.Env = append(cmd.Env, askVersion2)
		}
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
