package tiers

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cenkalti/backoff/v5"

	"emberfs/tiers/cold"
)

// TestCommitsBesideHangingPush checks that a push which hangs holds up no commit and no writer, that whoever waits for
// the remote waits no longer than its context, and that the next push has everything.
func TestCommitsBesideHangingPush(t *testing.T) {
	c := newMemCold()
	c.remote = true
	begun, goOn := make(chan struct{}, 10), make(chan struct{})
	c.pushing = func() {
		begun <- struct{}{}
		<-goOn
	}
	v := openTest(t, t.TempDir(), c)
	write(t, v, v.root, "one", "1")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	rc, err := v.Sync(ctx, "sync")
	if err != nil || !rc.New || rc.Pushed || rc.Complete || !errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
		t.Fatalf("beside a push that hangs: %+v, %v", rc, err)
	}
	<-begun
	for i := range 3 {
		write(t, v, v.root, "more", time.Now().String())
		if rc, err := v.Sync(t.Context(), "interval"); err != nil || !rc.New || rc.Pushed {
			t.Fatalf("commit %d beside it: %+v, %v", i, rc, err)
		}
	}
	if r := v.risk.now(); r.Files == 0 {
		t.Error("nothing counts as at risk while it is not pushed")
	}
	close(goOn)
	rc, err = v.Sync(t.Context(), "sync")
	if err != nil || !rc.Pushed || !rc.Complete || c.Pushed().String() != rc.Commit {
		t.Fatalf("after it: %+v, %v", rc, err)
	}
	if r := v.risk.now(); r.Files != 0 {
		t.Errorf("after it %d files are at risk", r.Files)
	}
}

// TestPushPause: what may be over soon is tried again within 30 seconds, or when the remote asks for it; what only a
// person can change at the backup interval.
func TestPushPause(t *testing.T) {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval = time.Second, pushPauseMost
	for range 50 {
		if d := pushPause(b, io.ErrUnexpectedEOF, time.Hour); d <= 0 || d > pushPauseMost {
			t.Errorf("a pause of %v", d)
		}
	}
	b.Reset()
	for _, c := range []struct {
		err            error
		interval, want time.Duration
	}{
		{&cold.BusyError{After: time.Minute}, time.Hour, time.Minute},
		{&cold.BusyError{After: 100 * time.Hour}, time.Hour, time.Hour},
		{&cold.RefusedError{}, time.Hour, time.Hour}, {cold.ErrDiverged, time.Hour, time.Hour},
	} {
		if d := pushPause(b, c.err, c.interval); d != c.want {
			t.Errorf("%v: %v, want %v", c.err, d, c.want)
		}
	}
}

// TestFsyncKeepsToTheRemote: who waits by an fsync does not press a remote that has named a time, or that refuses;
// whoever calls sync does.
func TestFsyncKeepsToTheRemote(t *testing.T) {
	for what, c := range map[string]struct {
		err  error
		most int64
	}{"named a time": {&cold.BusyError{After: time.Hour}, 1}, "refuses": {&cold.RefusedError{Reason: "no"}, 2}} {
		m := newMemCold()
		m.remote = true
		var pushes atomic.Int64
		m.pushing = func() { pushes.Add(1) }
		v := openTest(t, t.TempDir(), m)
		write(t, v, v.root, "one", "1")
		if _, err := v.Sync(t.Context(), "interval"); err != nil {
			t.Fatal(err)
		}
		m.mu.Lock()
		m.failPush = c.err
		m.mu.Unlock()
		if err := v.pushNow(t.Context()); err == nil {
			t.Fatal("the push did not fail")
		}
		pushes.Store(0)
		for end := time.Now().Add(600 * time.Millisecond); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			v.pushSoon(false, newRemoteWait())
		}
		if n := pushes.Load(); n > c.most {
			t.Errorf("%s: %d pushes in 600 ms", what, n)
		}
		before := pushes.Load()
		if err := v.pushNow(t.Context()); err == nil || pushes.Load() == before {
			t.Errorf("%s: sync was not heard: %v", what, err)
		}
	}
}
