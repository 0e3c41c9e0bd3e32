//go:build slow

package integration

import (
	"bytes"
	"fmt"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"emberfs/integration/effort"
)

// startWriter runs a writer below the mount until the daemon goes.
func startWriter(t testing.TB, v *volume, logFile string, seed int) (wait func()) {
	t.Helper()
	cmd := helperCommand("writer", user{}, v.at("work"), logFile, fmt.Sprint(seed))
	var out bytes.Buffer
	cmd.Stderr = &out
	check(t, cmd.Start())
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	return func() {
		t.Helper()
		select {
		case err := <-done:
			if err != nil {
				t.Fatalf("writer: %v\n%s", err, out.String())
			}
		case <-time.After(30 * time.Second):
			_ = cmd.Process.Kill()
			t.Fatalf("the writer hangs in the mount of a dead daemon")
		}
	}
}

// grown waits until a writer has been acknowledged n operations more.
func grown(t testing.TB, logFile string, n int) {
	t.Helper()
	count := func() int {
		b, _ := os.ReadFile(logFile)
		return bytes.Count(b, []byte("done "))
	}
	if !waitFor(30*time.Second, func() bool { return count() >= n }) {
		t.Fatalf("the writer made %d operations in 30 s, want %d", count(), n)
	}
}

// TestKillUnderWrites kills the daemon again and again while a program writes, sometimes during a commit. What the
// program was told is there at the next mount, and the repository is sound all the time.
func TestKillUnderWrites(t *testing.T) {
	t.Parallel()
	deadline(t, 25*time.Minute)
	rounds := effort.Count(t, 50, 300)
	rnd := rand.New(rand.NewSource(effort.Seed(t)))
	v := newVolume(t, "v")
	m := newModel()
	for round := range rounds {
		v.startForeground()
		if round == 0 {
			check(t, os.Mkdir(v.at("work"), 0o755))
		}
		m.settle(t, v.at("work"))
		logFile := filepath.Join(v.dir, fmt.Sprintf("ops-%d", round))
		wait := startWriter(t, v, logFile, rnd.Int())
		grown(t, logFile, 1+rnd.Intn(150))
		if round%3 == 1 {
			v.killDuring("sync", time.Duration(rnd.Int63n(int64(40*time.Millisecond))), wait)
		} else {
			v.kill(wait)
		}
		m.replay(t, logFile)
		if round%10 == 9 {
			fsck(t, v.cold())
		}
	}
	v.mount()
	m.settle(t, v.at("work"))
	v.umount()
	fsck(t, v.cold())
	two := newVolume(t, "two", withSource(v.cold())).mount()
	m.settle(t, two.at("work"))
	two.umount()
	t.Logf("%d acknowledged operations, %d kills", m.applied, rounds)
}

// killDuring starts a command on the mount and kills the daemon this long after; programs are as for kill.
func (v *volume) killDuring(verb string, after time.Duration, programs ...func()) {
	v.t.Helper()
	cmd := command{args: []string{env.bin, verb, v.mnt}}.prepare(v.t.Context())
	check(v.t, cmd.Start())
	pid := v.fg.Process.Pid
	timer := time.AfterFunc(after, func() { _ = unix.Kill(pid, unix.SIGKILL) })
	defer timer.Stop()
	v.waitForeground(20 * time.Second)
	_ = cmd.Wait() // it may have succeeded or not
	for _, wait := range programs {
		wait()
	}
	v.clearDeadMount()
}

// TestKillAtEachStepOfCommit kills the daemon at its first, second, third... durable step of a commit and push, by
// strace.
func TestKillAtEachStepOfCommit(t *testing.T) {
	lookPath(t, "strace")
	for _, calls := range []string{"fsync,fdatasync,syncfs", "rename,renameat,renameat2,link,linkat", "unlink,unlinkat",
		"openat,openat2", "write,pwrite64", "fsetxattr,setxattr,lsetxattr", "connect,execve"} {
		t.Run(strings.ReplaceAll(calls, ",", "+"), func(t *testing.T) {
			t.Parallel()
			deadline(t, 25*time.Minute)
			killSteps(t, calls)
		})
	}
}

func killSteps(t *testing.T, calls string) {
	repo := newBareRepo(t, "remote.git", user{})
	v := newVolume(t, "v", withSource(repo))
	v.startForeground()
	check(t, os.MkdirAll(v.at("a/b"), 0o755))
	want := map[string]string{}
	// The calls come by the hundred. The long form has each; the suite takes ever wider steps, a dozen in all.
	tried := false
	for n, step := 1, 1; n < 2000; n += step {
		if !effort.Soaking() {
			step = 1 + n/2
		}
		for i := range 5 {
			name, content := fmt.Sprintf("a/b/f%d", i), fmt.Sprintf("%s %d %d", calls, n, i)
			check(t, os.WriteFile(v.at(name), []byte(content), 0o644))
			want[name] = content
		}
		if !v.syncKilledAt(calls, n) {
			tried = true // the sync came to its end
			break
		}
		fsck(t, v.cold())
		fsck(t, repo)
		if v.fg == nil {
			v.clearDeadMount()
			v.startForeground()
		}
		for name, content := range want {
			if b, err := os.ReadFile(v.at(name)); err != nil || string(b) != content {
				t.Fatalf("killed at call %d of %s: %s holds %q, want %q (%v)", n, calls, name, b, content, err)
			}
		}
		v.sync()
		if got := show(t, repo, "main:a/b/f4"); got != want["a/b/f4"] {
			t.Fatalf("killed at call %d of %s: the next sync did not bring the remote up to date: %q", n, calls, got)
		}
		fsck(t, repo)
	}
	if !tried {
		t.Errorf("the sync was killed at each call that was tried: there are more of %s", calls)
	}
	v.umount()
	fsck(t, v.cold())
}

// syncKilledAt runs a sync under strace, which kills the daemon, or the git that it pushes through, at its nth call of
// these; it says whether that happened. v.fg is nil afterwards if it was the daemon.
func (v *volume) syncKilledAt(calls string, n int) bool {
	v.t.Helper()
	pid := v.fg.Process.Pid
	tracer := v.attach(pid, "-e", "trace="+calls, "-e", fmt.Sprintf("inject=%s:signal=SIGKILL:when=%d", calls, n))
	r, err := command{args: []string{env.bin, "sync", v.mnt}, limit: time.Minute}.try()
	check(v.t, err)
	if r.code == 0 {
		endTracer(tracer)
		return false
	}
	if r.stdout == "" { // no receipt: the daemon did not live to send one
		waitFor(10*time.Second, func() bool { return !alive(pid) })
	}
	endTracer(tracer)
	if !alive(pid) {
		v.waitForeground(20 * time.Second)
	}
	return true
}

// attach starts strace and waits until it holds every thread. One attempt in some hundreds misses a thread that is just
// being born, so there are three.
func (v *volume) attach(pid int, options ...string) *exec.Cmd {
	v.t.Helper()
	var says bytes.Buffer
	for range 3 {
		tracer := exec.Command("strace", append([]string{"-f", "-qq", "-o", "/dev/null", "-p", fmt.Sprint(pid)},
			options...)...)
		tracer.Stderr = &says
		check(v.t, tracer.Start())
		if waitFor(5*time.Second, func() bool { return allTraced(pid) }) {
			return tracer
		}
		endTracer(tracer)
	}
	v.t.Fatalf("strace does not attach to %d: %s", pid, says.String())
	return nil
}

// endTracer ends an strace. One that has lost sight of a dead thread waits for it for ever, and the dead process with
// it, so it does not get long.
func endTracer(tracer *exec.Cmd) {
	_ = tracer.Process.Signal(unix.SIGINT)
	hard := time.AfterFunc(5*time.Second, func() { _ = tracer.Process.Kill() })
	_ = tracer.Wait()
	hard.Stop()
}

// allTraced says that no thread of a process is left untraced.
func allTraced(pid int) bool {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	for _, p := range threads {
		b, err := os.ReadFile(p)
		if err == nil && strings.Contains(string(b), "TracerPid:\t0\n") {
			return false
		}
	}
	return len(threads) > 0
}
