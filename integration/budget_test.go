//go:build slow

package integration

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"emberfs/integration/effort"
	"emberfs/integration/gitserver"
	"emberfs/integration/testprog"
)

// written is a file that a program has written and closed.
type written struct {
	name string
	size int64
	at   time.Time // when the first byte was about to be written
}

// budgetWriter writes files of 256 KiB, as fast as they are taken, until stop is called, which returns all that were
// acknowledged. Their names begin with prefix.
func budgetWriter(t *testing.T, v *volume, prefix string) (acknowledged func() []written, stop func() []written) {
	var mu sync.Mutex
	var list []written
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for i := 0; ; i++ {
			select {
			case <-end:
				return
			default:
			}
			w := written{fmt.Sprintf("%s%06d", prefix, i), 256 << 10, time.Now()}
			if os.WriteFile(v.at(w.name), noise(int(w.size), w.name), 0o644) != nil {
				return // the daemon was killed
			}
			mu.Lock()
			list = append(list, w)
			mu.Unlock()
		}
	}()
	acknowledged = func() []written {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(list)
	}
	var once sync.Once
	return acknowledged, func() []written {
		once.Do(func() { close(end); <-ended })
		return acknowledged()
	}
}

// missing returns the files that a repository's main lacks: how many bytes, and for how long the oldest has been there.
func missing(t *testing.T, repo string, list []written, now time.Time) (bytes int64, age time.Duration) {
	t.Helper()
	r := command{args: []string{"git", "-C", repo, "ls-tree", "--name-only", "main"}}.run(t)
	has := map[string]bool{}
	for _, name := range strings.Fields(r.stdout) {
		has[name] = true
	}
	for _, w := range list {
		if !has[w.name] {
			bytes += w.size
			age = max(age, now.Sub(w.at))
		}
	}
	return bytes, age
}

// TestBudgetUnderFastWriter has a program write much faster than a remote takes it, and looks into the remote all the
// time: what it lacks is within max_at_risk. Then the daemon is killed and the machine lost: another machine lacks no
// more than that. Nobody who reads waits.
func TestBudgetUnderFastWriter(t *testing.T) {
	deadline(t, 3*time.Minute)
	const (
		maxBytes, maxAge     = 10_000_000, 5 * time.Second
		slackBytes, slackAge = 2 << 20, 2500 * time.Millisecond // two cores that others use too
	)
	repo := newBareRepo(t, "remote.git", user{})
	hook := filepath.Join(repo, "hooks/pre-receive")
	check(t, os.MkdirAll(filepath.Dir(hook), 0o755))
	check(t, testprog.Write(hook, "#!/bin/sh\nsleep 1\n"))
	v := newVolume(t, "v", withSource(repo), withOpts("max_at_risk=5s+10MB", "kernel_cache=off")).mount()
	check(t, os.WriteFile(v.at("read"), []byte("read me"), 0o644))
	v.sync()
	acknowledged, stop := budgetWriter(t, v, "f")
	defer stop()
	var slowest atomic.Int64
	readers := make(chan struct{})
	go func() {
		defer close(readers)
		for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			began := time.Now()
			if b, err := os.ReadFile(v.at("read")); err != nil || string(b) != "read me" {
				t.Errorf("read: %q, %v", b, err)
			}
			slowest.Store(max(slowest.Load(), int64(time.Since(began))))
		}
	}()
	var worstBytes int64
	var worstAge time.Duration
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		list, now := acknowledged(), time.Now()
		bytes, age := missing(t, repo, list, now)
		worstBytes, worstAge = max(worstBytes, bytes), max(worstAge, age)
	}
	<-readers
	var b struct {
		Slowed int64
		Waited float64
	}
	st := v.status()
	st.get(t, "budget", &b)
	v.kill(func() { stop() })
	killed := time.Now()
	list := stop()
	var total int64
	for _, w := range list {
		total += w.size
	}
	t.Logf("%d bytes written in 20 s; the remote lacked %d bytes and %v at most; %d writes waited for %.1f s; a read "+
		"took %v at most", total, worstBytes, worstAge, b.Slowed, b.Waited, time.Duration(slowest.Load()))
	if worstBytes > maxBytes+slackBytes || worstAge > maxAge+slackAge {
		t.Errorf("the remote lacked %d bytes, the oldest for %v", worstBytes, worstAge)
	}
	if b.Slowed == 0 || total < 10<<20 {
		t.Errorf("%d writes waited, %d bytes were written: it was no test", b.Slowed, total)
	}
	if s := time.Duration(slowest.Load()); s > time.Second {
		t.Errorf("a read took %v", s)
	}
	check(t, os.Remove(hook))
	time.Sleep(3 * time.Second) // the push that was under way may still arrive
	next := newVolume(t, "next", withSource(repo)).mount()
	next.lacks(list, killed, maxBytes+slackBytes, maxAge+slackAge)
	next.umount()
	fsck(t, repo)
}

// lacks requires that of what another machine wrote until it was killed this one lacks no more than that.
func (v *volume) lacks(list []written, killed time.Time, bytes int64, age time.Duration) {
	v.t.Helper()
	var lost int64
	for _, w := range list {
		if st, err := os.Stat(v.at(w.name)); err != nil || st.Size() != w.size {
			if lost += w.size; killed.Sub(w.at) > age {
				v.t.Errorf("%s was written %v before the kill and is lost", w.name, killed.Sub(w.at))
			}
		}
	}
	if v.t.Logf("of %d files the next machine lacks %d bytes", len(list), lost); lost > bytes {
		v.t.Errorf("the next machine lacks %d bytes", lost)
	}
}

// TestBudgetKilledAtRandom kills daemons of one volume at random moments under a fast writer, and loses the machine
// each time: the next one lacks no more than max_at_risk allows.
func TestBudgetKilledAtRandom(t *testing.T) {
	rounds := effort.Count(t, 6, 100)
	deadline(t, time.Duration(rounds)*40*time.Second)
	repo := newBareRepo(t, "remote.git", user{})
	hook := filepath.Join(repo, "hooks/pre-receive")
	check(t, os.MkdirAll(filepath.Dir(hook), 0o755))
	check(t, testprog.Write(hook, "#!/bin/sh\nsleep 0.3\n"))
	random := rand.New(rand.NewPCG(15, uint64(effort.Seed(t))))
	var list []written
	var killed time.Time
	for i := range rounds {
		v := newVolume(t, fmt.Sprintf("v%d", i), withSource(repo), withOpts("max_at_risk=3s+8MB")).mount()
		v.lacks(list, killed, 10_000_000, 5500*time.Millisecond)
		for _, w := range list {
			if err := os.Remove(v.at(w.name)); err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
		}
		_, stop := budgetWriter(t, v, fmt.Sprintf("f%d-", i))
		time.Sleep(time.Second + time.Duration(random.Int64N(int64(6*time.Second))))
		killed = time.Now()
		v.kill(func() { stop() })
		list = stop()
		time.Sleep(time.Second) // the push that was under way may still arrive
	}
	fsck(t, repo)
}

// TestPacedWriterIsKilled: a program that waits in a write because of max_at_risk is gone as soon as it is killed.
func TestPacedWriterIsKilled(t *testing.T) {
	deadline(t, 2*time.Minute)
	repo := newBareRepo(t, "remote.git", user{})
	hook := filepath.Join(repo, "hooks/pre-receive")
	check(t, os.MkdirAll(filepath.Dir(hook), 0o755))
	v := newVolume(t, "v", withSource(repo), withOpts("max_at_risk=2MiB")).mount()
	v.write("f", "x")
	v.sync()
	check(t, testprog.Write(hook, "#!/bin/sh\nsleep 15\n"))
	// One write of 64 MiB is many of 1 MiB for the daemon, each of which may wait for 8 s.
	cmd := command{args: []string{"dd", "if=/dev/zero", "of=" + v.at("big"), "bs=1M", "count=64"}}.prepare(t.Context())
	check(t, cmd.Start())
	waits := func() bool {
		var b struct{ Slowed int64 }
		v.status().get(t, "budget", &b)
		return b.Slowed > 0
	}
	if !waitFor(20*time.Second, waits) {
		t.Error("no write waits")
	}
	began := time.Now()
	check(t, cmd.Process.Signal(unix.SIGKILL))
	_ = cmd.Wait()
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("killed, it was there for another %v", took)
	}
	check(t, os.Remove(hook))
	v.umount()
}

// TestDeadlineWithMuchDirty ends a mount of 500 MB that no commit has within 3 seconds, over a link that would take
// minutes: exit 3, the critical file is complete in the remote, and the receipt is true of what this machine and what
// the remote has. The next mount has everything.
func TestDeadlineWithMuchDirty(t *testing.T) {
	deadline(t, 5*time.Minute)
	s := gitserver.HTTP(t, serverDir(t), gitserver.HTTPOptions{BodyLimit: "0"})
	link := gitserver.NewLink(t, s.Addr(), 1)
	v := remoteVolume(t, "v", s.Server, link.Port()).mount()
	v.rules("- {match: \"*.db\", class: critical, critical_delay: 1h}")
	v.write("first", "x")
	v.sync()
	link.Limit(1 << 20)
	const files, size = 50, 10 << 20
	for i := range files {
		check(t, os.WriteFile(v.at(fmt.Sprintf("big%02d", i)), noise(size, fmt.Sprint(i)), 0o644))
	}
	v.write("k.db", "critical")
	began := time.Now()
	r := command{args: []string{env.bin, "umount", v.mnt, "--deadline", "3s"}, env: v.userEnv(),
		limit: time.Minute}.run(t)
	took := time.Since(began)
	t.Logf("%v: exit %d\n%s", took, r.code, clip(r.stdout))
	if r.code != 3 || took > 10*time.Second {
		t.Errorf("exit %d after %v", r.code, took)
	}
	v.waitGone()
	link.Limit(0)
	tip := strings.Fields(must(t, s.Repo, "git", "for-each-ref", "--format=%(objectname)"))
	if !slices.ContainsFunc(tip, func(id string) bool { return shows(t, s.Repo, id, "k.db", "critical") }) {
		t.Error("the remote lacks the critical file")
	}
	local := must(t, v.cold(), "git", "ls-tree", "--name-only", "main")
	for i := range files {
		name := fmt.Sprintf("big%02d", i)
		if has, said := strings.Contains(local, name+"\n"), strings.Contains(r.stdout, name+": "); has == said {
			t.Errorf("%s: the commit has it: %v, the receipt says that it is missing: %v", name, has, said)
		}
	}
	if !strings.Contains(r.stdout, "in all 50 files, 500 MiB") {
		t.Errorf("the receipt does not say that the remote lacks all big files\n%v", r)
	}
	if strings.Contains(r.stdout, ", pushed to") {
		t.Errorf("the receipt says that all was pushed\n%v", r)
	}
	fsck(t, v.cold())
	v.mount()
	v.umount()
	for i := range files {
		name := fmt.Sprintf("big%02d", i)
		if size := must(t, s.Repo, "git", "ls-tree", "-r", "--name-only", "main", name); size == "" {
			t.Errorf("in the end the remote lacks %s", name)
		}
	}
}
