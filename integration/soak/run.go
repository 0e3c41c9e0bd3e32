package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// soak is a run of the command.
type soak struct {
	options
	jobs []job
	out  io.Writer
	dir  string // binaries, and the working directories of the jobs

	mu      sync.Mutex // of what follows, and of out
	results []result
	started time.Time
}

// result is how a job ended.
type result struct {
	job  job
	seed int64
	took time.Duration
	why  string // it failed; "" if it did not
	log  string // its output, if it failed
}

// prepare builds every binary that the jobs need.
func prepare(ctx context.Context, o options, jobs []job, out io.Writer) (*soak, error) {
	s := &soak{options: o, jobs: jobs, out: out}
	var err error
	if s.dir, err = os.MkdirTemp("", "emberfs-soak-"); err != nil {
		return nil, err
	}
	if err := s.build(ctx); err != nil {
		return nil, errors.Join(err, s.cleanUp())
	}
	return s, os.Chmod(s.dir, 0o755) // jobs act as other users
}

func (s *soak) build(ctx context.Context) error {
	built := map[string]bool{}
	do := func(to string, args []string) error {
		if built[to] {
			return nil
		}
		built[to] = true
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Dir = s.module
		if b, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, b)
		}
		return nil
	}
	for _, j := range s.jobs {
		to := filepath.Join(s.dir, j.binary())
		if err := do(to, j.build(to)); err != nil {
			return err
		}
		if j.pkg != "integration" {
			continue
		}
		to = s.emberfs(j)
		args := []string{"build", "-o", to}
		if j.raced {
			// Which takes twice the time: the suite has it in unit tests alone.
			args = append(args, "-race", "-tags", "lockorder")
		}
		if err := do(to, append(args, "./cmd/emberfs")); err != nil {
			return err
		}
	}
	return nil
}

// emberfs is the binary under test.
func (s *soak) emberfs(j job) string {
	if j.raced {
		return filepath.Join(s.dir, "emberfs.race")
	}
	return filepath.Join(s.dir, "emberfs")
}

func (s *soak) cleanUp() error { return os.RemoveAll(s.dir) }

// rounds runs round after round until the time is over, stop is done, or, without a time, once.
func (s *soak) rounds(stop, hard context.Context) {
	s.started = time.Now()
	over := func() bool {
		return stop.Err() != nil || s.length > 0 && time.Since(s.started) >= s.length
	}
	seed := s.seed
	for round := 1; round == 1 || s.length > 0 && !over(); round++ {
		list, next := order(s.jobs, seed)
		s.say("round %d, seed %d: %d jobs", round, seed, len(list))
		var wg sync.WaitGroup
		slots := make(chan struct{}, s.atOnce)
		for _, j := range list {
			slots <- struct{}{}
			if over() {
				<-slots
				break
			}
			wg.Go(func() {
				defer func() { <-slots }()
				s.finished(s.one(hard, j, seed))
			})
		}
		wg.Wait()
		seed = next
	}
}

// say prints a line with the time of day.
func (s *soak) say(format string, a ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(s.out, time.Now().Format(time.TimeOnly)+" "+format+"\n", a...)
}

func (s *soak) finished(r result) {
	if r.why == "" {
		s.say("ok    %s, seed %d, %v", r.job.name, r.seed, r.took.Round(time.Second))
	} else {
		s.say("FAIL  %s, seed %d, %v: %s; see %s", r.job.name, r.seed, r.took.Round(time.Second), r.why, r.log)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.results = append(s.results, r)
}

func (s *soak) failed() bool {
	return slices.ContainsFunc(s.results, func(r result) bool { return r.why != "" })
}

// ownNamespace runs a command with mounts and a /run of its own. It lets go of the mounts of others, which could not be
// unmounted while this namespace has copies of them, but not of the disk that it works on.
const ownNamespace = `mount --make-rprivate /
awk '$3 ~ /^fuse/ || $1 ~ /^\/dev\/loop/ {print $2}' /proc/self/mounts | tac | while read -r dir; do
	dir="$(printf %b "$dir")"
	case "$TMPDIR/" in "$dir"/*) ;; *) umount -l "$dir" ;; esac
done
mount -t tmpfs -o mode=755 run /run
exec "$@"`

// one runs a job.
func (s *soak) one(ctx context.Context, j job, seed int64) result {
	r := result{job: j, seed: seed}
	dir, err := os.MkdirTemp(s.dir, "job-")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		r.why = err.Error()
		return r
	}
	started := time.Now()
	text, why := s.start(ctx, j, seed, dir)
	r.took = time.Since(started)
	if left := s.endAll(dir); left > 0 && why == "" {
		why = fmt.Sprintf("left %d processes running", left)
	}
	r.why = why
	if why != "" {
		r.log = filepath.Join(s.logs, fmt.Sprintf("%s-%d.log", strings.ReplaceAll(j.name, "/", "_"), seed))
		if err := errors.Join(os.MkdirAll(s.logs, 0o755), os.WriteFile(r.log, text, 0o644)); err != nil {
			r.log = err.Error()
		}
	}
	if err := os.RemoveAll(dir); err != nil && r.why == "" {
		r.why = err.Error()
	}
	return r
}

// start runs a job's process to its end and says what it printed and why it failed.
func (s *soak) start(ctx context.Context, j job, seed int64, dir string) (text []byte, why string) {
	ctx, cancel := context.WithTimeout(ctx, j.limit)
	defer cancel()
	// A job's processes are known by their executables, so it has some of its own.
	test := filepath.Join(dir, j.binary())
	if err := os.Link(filepath.Join(s.dir, j.binary()), test); err != nil {
		return nil, err.Error()
	}
	args := []string{"-ec", ownNamespace, "soak", test}
	cmd := exec.CommandContext(ctx, "sh", append(args, j.args(seed, filepath.Join(s.dir, "fuzzcache"))...)...)
	cmd.Dir = filepath.Join(s.module, j.pkg)
	cmd.Env = append(os.Environ(), "TMPDIR="+dir, "EMBERFS_SOAK=1", fmt.Sprint("EMBERFS_SEED=", seed))
	if j.pkg == "integration" {
		bin := filepath.Join(dir, "emberfs")
		if err := os.Link(s.emberfs(j), bin); err != nil {
			return nil, err.Error()
		}
		cmd.Env = append(cmd.Env, "EMBERFS_BIN="+bin)
	}
	cmd.Env = append(cmd.Env, j.env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Unshareflags: syscall.CLONE_NEWNS}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 10 * time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.Bytes(), verdict(j, out.Bytes(), err, ctx.Err())
}

// verdict says why a job failed, "" if it did not.
func verdict(j job, text []byte, err, ctxErr error) string {
	has := func(s string) bool { return bytes.Contains(text, []byte(s)) }
	switch {
	case errors.Is(ctxErr, context.DeadlineExceeded):
		return fmt.Sprintf("not finished after %v", j.limit)
	case ctxErr != nil:
		return "interrupted"
	case j.fuzz != "" && err != nil && has(", execs: ") && has("context deadline exceeded") && !has("Failing input"):
		return "" // the fuzzer at times takes the end of its own time for a failure: go.dev/issue/48591
	case err != nil:
		return err.Error()
	case has("no tests to run") || j.fuzz != "" && !has(", execs: "):
		return "the pattern matches no test"
	case has("--- SKIP"):
		return "a test was skipped"
	case j.fuzz == "" && !has("--- PASS"):
		return "no test passed"
	}
	return ""
}

// endAll ends the processes that were started from below a directory, and says how many there were. A dead one that
// waits for its parent holds nothing and does not count.
func (s *soak) endAll(dir string) (left int) {
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		pids := processesBelow(dir)
		if len(pids) == 0 || time.Now().After(end) {
			for _, pid := range pids {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
			return len(pids)
		}
	}
}
