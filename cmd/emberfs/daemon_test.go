package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"emberfs/tiers"
	"emberfs/tiers/cold"
	"emberfs/tiers/rules"
)

func itoa(n uint64) string { return strconv.FormatUint(n, 10) }

// fakeVolume counts the calls of a daemon to its volume.
type fakeVolume struct {
	mu     sync.Mutex
	dirty  int64 // files that the next Sync takes
	syncs  []string
	closed bool
	fail   error                           // of Sync
	wait   func(ctx context.Context) error // runs in Sync

	tiered   [][]string       // paths of each Tier
	report   tiers.TierReport // its answer
	tierFail error

	rules    *rules.Set
	withheld []tiers.RuleEntry

	expires  []time.Time // what Expire was told
	progress tiers.Progress
	alive    func() // runs in Alive
}

func (v *fakeVolume) Sync(ctx context.Context, reason string) (*tiers.Receipt, error) {
	if v.wait != nil {
		if err := v.wait(ctx); err != nil {
			return &tiers.Receipt{Missing: []string{"not committed: " + err.Error()}}, err
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.syncs = append(v.syncs, reason)
	if v.closed {
		return nil, errors.New("closed")
	}
	if v.fail != nil {
		return &tiers.Receipt{Missing: []string{v.fail.Error()}}, v.fail
	}
	r := &tiers.Receipt{Complete: true, Reason: reason, Commit: strings.Repeat("1", 40), New: v.dirty > 0,
		Files: v.dirty, Started: time.Now()}
	v.dirty = 0
	return r, nil
}

func (v *fakeVolume) GC(_ context.Context, o cold.GCOptions) (cold.GCReport, error) {
	if o.Grace < 0 {
		return cold.GCReport{Objects: 1}, errors.New("damaged")
	}
	return cold.GCReport{Objects: 5, Bytes: int64(o.Grace), Busy: o.DryRun}, nil
}

func (v *fakeVolume) Tier(_ context.Context, paths []string) (tiers.TierReport, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.tiered = append(v.tiered, paths)
	return v.report, v.tierFail
}

func (v *fakeVolume) FileStatus(_ context.Context, path string) (tiers.FileStatus, error) {
	if strings.Contains(path, "none") {
		return tiers.FileStatus{}, fmt.Errorf("look up %s: %w", path, unix.ENOENT)
	}
	return tiers.FileStatus{Path: path, Kind: "file", Tiers: []string{"cold"}, Class: "session", Clean: true}, nil
}

func (v *fakeVolume) Status() tiers.Status { return tiers.Status{Volume: "fake"} }

func (*fakeVolume) SetAtime(tiers.Atime) {}

func (v *fakeVolume) ListRules() tiers.RulesList {
	l := tiers.ListRules(v.rules, "written here")
	l.Withheld = append(l.Withheld, v.withheld...)
	return l
}

func (v *fakeVolume) ExplainRules(path string, dir bool) tiers.RulesReport {
	return tiers.ExplainRules(v.rules, "written here", path, dir)
}

func (v *fakeVolume) EndMemory() error { return nil }

func (v *fakeVolume) Expire(at time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.expires = append(v.expires, at)
}

func (v *fakeVolume) Progress() tiers.Progress { return v.progress }

func (v *fakeVolume) Alive() {
	if v.alive != nil {
		v.alive()
	}
}

func (v *fakeVolume) Close() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.closed = true
	return nil
}

// fakeMount is a mount that can be busy.
type fakeMount struct {
	mu   sync.Mutex
	busy bool
	lazy bool
	gone chan struct{}
	once sync.Once
}

func newFakeMount() *fakeMount { return &fakeMount{gone: make(chan struct{})} }

func (m *fakeMount) Wait() error { <-m.gone; return nil }
func (m *fakeMount) leave()      { m.once.Do(func() { close(m.gone) }) }

func (m *fakeMount) Unmount(lazy bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.busy && !lazy {
		return unix.EBUSY
	}
	m.lazy = lazy
	if !m.busy {
		m.leave()
	}
	return nil
}

// daemonTest is a serving daemon over fakes.
type daemonTest struct {
	*daemon
	vol     *fakeVolume
	mount   *fakeMount
	signals chan os.Signal
	result  chan *tiers.Receipt
	notices chan string
}

func serveFake(t *testing.T, c *config, change func(*daemonTest)) *daemonTest {
	t.Helper()
	log := logrus.New()
	log.SetOutput(io.Discard)
	if c.State == "" {
		c.State = t.TempDir()
	}
	x := &daemonTest{vol: &fakeVolume{dirty: 3}, mount: newFakeMount(), signals: make(chan os.Signal),
		result:  make(chan *tiers.Receipt, 1),
		notices: make(chan string, 1000)}
	x.daemon = newDaemon(c, x.vol, x.mount, log)
	x.daemon.abort = x.mount.leave
	x.supervisor = &supervisor{notify: func(s string) { x.notices <- s }}
	if change != nil {
		change(x)
	}
	go func() { x.result <- x.serve(x.signals) }()
	t.Cleanup(x.mount.leave)
	return x
}

func (x *daemonTest) final(t *testing.T) *tiers.Receipt {
	t.Helper()
	select {
	case r := <-x.result:
		x.vol.mu.Lock()
		defer x.vol.mu.Unlock()
		if !x.vol.closed {
			t.Error("the volume was not closed")
		}
		return r
	case <-time.After(20 * time.Second):
		t.Fatal("the daemon does not end")
		return nil
	}
}

func TestMountDisappears(t *testing.T) {
	x := serveFake(t, &config{}, nil)
	x.mount.leave()
	r := x.final(t)
	if !r.Complete || r.Files != 3 || r.Reason != "unmount" {
		t.Errorf("%+v", r)
	}
	if have, err := lastReceipt(x.config.State, r.Started.Add(-time.Minute)); err != nil || have.Files != 3 {
		t.Errorf("the receipt on disk: %+v, %v", have, err)
	}
}

func TestSignalEndsTheMount(t *testing.T) {
	x := serveFake(t, &config{}, nil)
	x.signals <- unix.SIGTERM
	r := x.final(t)
	if !r.Complete || r.Files != 3 || x.mount.lazy {
		t.Errorf("%+v, lazy %v", r, x.mount.lazy)
	}
	if <-x.notices != "STOPPING=1" {
		t.Error("systemd was not told")
	}
}

func TestSignalWhileBusy(t *testing.T) {
	x := serveFake(t, &config{}, func(x *daemonTest) {
		x.mount.busy = true
		x.daemon.grace = time.Millisecond
	})
	x.signals <- unix.SIGTERM
	r := x.final(t)
	if !r.Complete || !x.mount.lazy || len(x.vol.syncs) != 2 {
		t.Errorf("want a backup, a lazy unmount and another backup: %+v, lazy %v, %v", r, x.mount.lazy, x.vol.syncs)
	}
}

func TestSecondSignalDoesNotStopTheBackup(t *testing.T) {
	first, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	x := serveFake(t, &config{}, func(x *daemonTest) {
		x.vol.wait = func(context.Context) error {
			once.Do(func() { close(first) })
			<-release
			return nil
		}
	})
	x.signals <- unix.SIGTERM
	<-first
	x.signals <- unix.SIGTERM
	x.signals <- unix.SIGINT
	close(release)
	if r := x.final(t); !r.Complete {
		t.Errorf("%+v", r)
	}
}

func TestDeadline(t *testing.T) {
	x := serveFake(t, &config{Deadline: 20 * time.Millisecond}, func(x *daemonTest) {
		x.vol.wait = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	})
	x.mount.leave()
	r := x.final(t)
	if r.Complete || !strings.Contains(strings.Join(r.Missing, "\n"), errDeadline.Error()) {
		t.Errorf("%+v", r)
	}
	if err := partError("umount", "/m", r); exitCode(err) != exitPart || !said(err) {
		t.Errorf("exit code %d", exitCode(err))
	}
}

func TestDeadlineBehindAnotherBackup(t *testing.T) {
	release := make(chan struct{})
	x := serveFake(t, &config{Deadline: time.Millisecond}, func(x *daemonTest) {
		x.daemon.patience = time.Millisecond
		x.vol.wait = func(context.Context) error { <-release; return nil }
	})
	x.mount.leave()
	select {
	case <-x.daemon.done:
	case <-time.After(20 * time.Second):
		t.Error("the deadline does not hold")
	}
	close(release)
	if r := x.final(t); r.Complete || len(r.Missing) == 0 {
		t.Errorf("%+v", r)
	}
}

func TestDeadlineOfUmount(t *testing.T) {
	for name, c := range map[string]struct {
		setting, asked, want time.Duration
	}{
		"default":                {0, 0, defaultDeadline},
		"setting":                {time.Hour, 0, time.Hour},
		"asked":                  {time.Hour, time.Minute, time.Minute},
		"asked to have no limit": {0, -1, 0},
	} {
		limits := make(chan time.Duration, 2)
		x := serveFake(t, &config{Deadline: c.setting}, func(x *daemonTest) {
			x.vol.wait = func(ctx context.Context) error {
				at, ok := ctx.Deadline()
				if !ok {
					at = time.Now()
				}
				limits <- time.Until(at)
				return nil
			}
		})
		if _, err := x.daemon.umount(t.Context(), umountRequest{Deadline: c.asked}); err != nil {
			t.Fatal(err)
		}
		if got := <-limits; got > c.want || got < c.want-10*time.Second {
			t.Errorf("%s: the backup had %v, want %v", name, got, c.want)
		}
		x.final(t)
	}
}

// TestSignalDuringTheBackup: a backup that fails when a signal comes, because its programs got it too, is tried again.
func TestSignalDuringTheBackup(t *testing.T) {
	begun, failed := make(chan struct{}), make(chan struct{})
	tries := 0
	x := serveFake(t, &config{}, func(x *daemonTest) {
		x.vol.wait = func(context.Context) error {
			if tries++; tries > 1 {
				return nil
			}
			close(begun)
			<-failed
			return errors.New("the hook was killed")
		}
	})
	x.mount.leave()
	<-begun
	x.signals <- unix.SIGTERM
	x.signals <- unix.SIGTERM // the first one has been taken in
	close(failed)
	if r := x.final(t); !r.Complete || r.Files != 3 || tries != 2 {
		t.Errorf("after %d tries: %+v", tries, r)
	}
}

func TestFailedBackupIsNotComplete(t *testing.T) {
	x := serveFake(t, &config{}, func(x *daemonTest) { x.vol.fail = errors.New("disk full") })
	x.mount.leave()
	if r := x.final(t); r.Complete || len(r.Missing) == 0 {
		t.Errorf("%+v", r)
	}
}

func TestKernelDoesNotLetGo(t *testing.T) {
	x := serveFake(t, &config{}, func(x *daemonTest) {
		x.mount.busy = true
		x.daemon.abort = func() {}
	})
	x.daemon.once.Do(func() { close(x.daemon.giveUp) })
	if r := x.final(t); r.Complete {
		t.Errorf("complete although somebody may still write: %+v", r)
	}
}

func TestUmountRequests(t *testing.T) {
	x := serveFake(t, &config{Mountpoint: "/m"}, func(x *daemonTest) { x.mount.busy = true })
	s := must(serveControl(x.config.State, x.daemon))(t)
	defer s.close()
	cl, ctx := newClient(x.config.State), t.Context()
	if _, err := cl.umount(ctx, umountRequest{}); !errors.Is(err, errBusy) {
		t.Fatalf("busy: %v", err)
	}
	if st, err := cl.status(ctx); err != nil || st.Phase != phaseMounted || st.PID != os.Getpid() ||
		st.Mountpoint != "/m" || st.Volume != "fake" {
		t.Errorf("still usable: %+v, %v", st, err)
	}
	if r, err := cl.sync(ctx, syncRequest{}); err != nil || r.Reason != "sync" {
		t.Errorf("sync: %+v, %v", r, err)
	}
	w := must(cl.startWait(ctx))(t)
	x.mount.mu.Lock()
	x.mount.busy = false
	x.mount.mu.Unlock()
	x.vol.mu.Lock()
	x.vol.dirty = 7
	x.vol.mu.Unlock()
	r, err := cl.umount(ctx, umountRequest{Deadline: time.Minute})
	if err != nil || !r.Complete || r.Files != 7 {
		t.Errorf("umount: %+v, %v", r, err)
	}
	if r, err := w.receipt(); err != nil || r.Files != 7 {
		t.Errorf("who waits gets the same: %+v, %v", r, err)
	}
	if r, err := cl.umount(ctx, umountRequest{}); err != nil || r.Files != 7 {
		t.Errorf("a second umount: %+v, %v", r, err)
	}
	if r, err := cl.sync(ctx, syncRequest{}); err != nil || r.Files != 7 {
		t.Errorf("a sync after the end: %+v, %v", r, err)
	}
	x.final(t)
}

func TestControlSocket(t *testing.T) {
	state := filepath.Join(t.TempDir(), strings.Repeat("long-name/", 20))
	noError(t, os.MkdirAll(state, 0o700))
	cl := newClient(state)
	if _, err := cl.status(t.Context()); !errors.Is(err, errNoDaemon) || cl.alive(t.Context()) {
		t.Errorf("nobody there: %v", err)
	}
	x := serveFake(t, &config{State: state}, nil)
	s := must(serveControl(state, x.daemon))(t)
	if mode := must(os.Lstat(filepath.Join(state, controlName)))(t).Mode(); mode.Perm() != 0o600 ||
		mode.Type() != os.ModeSocket {
		t.Errorf("mode %v", mode)
	}
	if _, err := cl.status(t.Context()); err != nil || !cl.alive(t.Context()) {
		t.Errorf("a long path: %v", err)
	}
	resp, err := cl.do(t.Context(), "/v1/sync", map[string]int{"speed": 9})
	if err != nil || resp.StatusCode != 400 {
		t.Errorf("an unknown field: %v, %v", resp, err)
	}
	resp.Body.Close()
	x.mount.leave()
	x.final(t)
	if err := s.close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(filepath.Join(state, controlName)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket stays: %v", err)
	}
	write(t, state, controlName, "") // a socket that a killed daemon left
	s = must(serveControl(state, x.daemon))(t)
	if err := s.close(); err != nil {
		t.Error(err)
	}
}

func TestAwaitExit(t *testing.T) {
	if awaitExit(os.Getpid(), time.Millisecond) {
		t.Error("we are still here")
	}
	if !awaitExit(1<<22+1, time.Millisecond) {
		t.Error("there is no such process")
	}
}

// serveControl makes a daemon answer at the control socket in a state directory.
func serveControl(state string, c controlled) (*controlServer, error) {
	l, err := listenControl(state)
	if err != nil {
		return nil, err
	}
	return l.serve(c), nil
}
