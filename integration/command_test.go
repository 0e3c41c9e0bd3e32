package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// user is who runs a command; the zero value is root.
type user struct {
	uid, gid uint32
	groups   []uint32
}

// plainUser is a real account without privileges: fusermount3 asks for its name.
func plainUser() user { return user{uid: 1, gid: 1} }

func (u user) isRoot() bool { return u.uid == 0 }

// result is how a command ended.
type result struct {
	args           []string
	code           int
	stdout, stderr string
	took           time.Duration
}

func (r result) String() string {
	return fmt.Sprintf("%s: exit %d after %v\nstdout: %s\nstderr: %s", strings.Join(r.args, " "), r.code,
		r.took.Round(time.Millisecond), clip(r.stdout), clip(r.stderr))
}

// failure is the result as an error; nil: exit 0.
func (r result) failure() error {
	if r.code == 0 {
		return nil
	}
	return errors.New(r.String())
}

func clip(s string) string {
	const most = 8000
	if len(s) <= most {
		return s
	}
	return s[:most/2] + "\n[...]\n" + s[len(s)-most/2:]
}

// command describes a process to run to its end.
type command struct {
	args  []string
	dir   string
	as    user
	env   []string // added to a small fixed environment
	stdin string
	limit time.Duration // default one minute
}

// baseEnv keeps the developer's own git and tool settings out of the tests.
func baseEnv() []string {
	return []string{
		"PATH=" + os.Getenv("PATH"),
		"HOME=" + env.base, "LC_ALL=C.UTF-8", "TZ=UTC",
		"GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null", "GIT_CONFIG_COUNT=3",
		"GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*",
		"GIT_CONFIG_KEY_1=user.name", "GIT_CONFIG_VALUE_1=Test",
		"GIT_CONFIG_KEY_2=user.email", "GIT_CONFIG_VALUE_2=test@example.org",
		// The race detector lets a program sleep a second at its end by default: that was most of the time of the raced
		// tests.
		"GORACE=halt_on_error=0 atexit_sleep_ms=20 log_path=" + env.base + "/race",
	}
}

func (c command) prepare(ctx context.Context) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.args[0], c.args[1:]...)
	cmd.Dir = c.dir
	if cmd.Dir == "" {
		cmd.Dir = "/"
	}
	cmd.Env = append(baseEnv(), c.env...)
	cmd.WaitDelay = 5 * time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	if !c.as.isRoot() {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: c.as.uid, Gid: c.as.gid, Groups: c.as.groups}
	}
	if c.stdin != "" {
		cmd.Stdin = strings.NewReader(c.stdin)
	}
	return cmd
}

// run runs the command to its end; exit codes are the caller's to judge, anything else that goes wrong fails the test.
func (c command) run(t testing.TB) result {
	t.Helper()
	r, err := c.try()
	if err != nil {
		t.Fatalf("%v\n%v", err, r)
	}
	return r
}

func (c command) try() (result, error) {
	if c.limit == 0 {
		c.limit = time.Minute
	}
	ctx, cancel := context.WithTimeout(context.Background(), c.limit)
	defer cancel()
	cmd := c.prepare(ctx)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	start := time.Now()
	err := cmd.Run()
	r := result{args: c.args, stdout: out.String(), stderr: errOut.String(), took: time.Since(start)}
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return r, fmt.Errorf("%s: not finished after %v", c.args[0], c.limit)
	case errors.As(err, &exit):
		r.code = exit.ExitCode()
		return r, nil
	default:
		return r, err
	}
}

// must runs a command as root in dir and fails the test unless it exits 0; it returns the standard output.
func must(t testing.TB, dir string, args ...string) string {
	t.Helper()
	return command{args: args, dir: dir}.must(t)
}

func (c command) must(t testing.TB) string {
	t.Helper()
	r := c.run(t)
	if r.code != 0 {
		t.Fatalf("%v", r)
	}
	return r.stdout
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// equal fails the test unless a text is the one wanted; what stands before it in the message.
func equal(t testing.TB, got, want, what string, args ...any) {
	t.Helper()
	if got == want {
		return
	}
	format := "%s %q, want %q"
	if strings.Contains(got+want, "\n") {
		format = "%s\n%s\nwant\n%s"
	}
	t.Errorf(format, fmt.Sprintf(what, args...), clip(got), clip(want))
}

// wantFile fails the test unless a file has the content wanted.
func wantFile(t testing.TB, path, want, what string, args ...any) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Errorf("%s: %v", fmt.Sprintf(what, args...), err)
		return
	}
	equal(t, string(b), want, what, args...)
}

func mkdir(t testing.TB, dir string, u user) string {
	t.Helper()
	check(t, os.MkdirAll(dir, 0o755))
	check(t, os.Chown(dir, int(u.uid), int(u.gid)))
	return dir
}
