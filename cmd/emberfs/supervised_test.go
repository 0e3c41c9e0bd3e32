package main

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"emberfs/tiers"
	"emberfs/tiers/cold"
)

// await returns the next notice that begins with text; others are passed over.
func (x *daemonTest) await(t *testing.T, text string) string {
	t.Helper()
	for end := time.After(20 * time.Second); ; {
		select {
		case s := <-x.notices:
			if strings.HasPrefix(s, text) {
				return s
			}
		case <-end:
			t.Fatalf("no notice %s", text)
		}
	}
}

// TestWatchdog: signs of life come while the volume answers, end when it hangs, and come again when it answers again.
func TestWatchdog(t *testing.T) {
	var hang sync.RWMutex
	x := serveFake(t, &config{}, func(x *daemonTest) {
		x.supervisor.there, x.supervisor.watchdog = true, 40*time.Millisecond
		x.vol.alive = func() {
			hang.RLock()
			defer hang.RUnlock()
		}
		x.vol.progress.AtRisk = cold.AtRisk{Files: 2, Bytes: 2048}
	})
	x.await(t, "WATCHDOG=1")
	if got, want := x.await(t, "STATUS="), "STATUS=mounted; at risk: 2 files, 2.0 KiB"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	x.await(t, "WATCHDOG=1")
	hang.Lock()
	for len(x.notices) > 0 || x.pulse.alive(50*time.Millisecond) { // one may have been on its way
		for len(x.notices) > 0 {
			<-x.notices
		}
	}
	select {
	case s := <-x.notices:
		t.Errorf("%s while the volume hangs", s)
	case <-time.After(200 * time.Millisecond):
	}
	hang.Unlock()
	x.await(t, "WATCHDOG=1")
	x.mount.leave()
	x.final(t)
}

// TestWatchdogSlow: a volume that answers within two thirds of the time in which a sign of life is wanted is not
// taken for one that hangs, whenever it becomes slow.
func TestWatchdogSlow(t *testing.T) {
	const wanted = 2 * time.Second
	var slow atomic.Bool
	x := serveFake(t, &config{}, func(x *daemonTest) {
		x.supervisor.there, x.supervisor.watchdog = true, wanted
		x.vol.alive = func() {
			if slow.CompareAndSwap(true, false) {
				time.Sleep(wanted * 2 / 3)
			}
		}
	})
	x.await(t, "WATCHDOG=1")
	slow.Store(true)
	began := time.Now()
	if x.await(t, "WATCHDOG=1"); time.Since(began) > wanted {
		t.Errorf("there was no sign of life for %v, and one is wanted every %v", time.Since(began), wanted)
	}
	x.mount.leave()
	x.final(t)
}

// TestSupervisedEnd: a service manager is asked for more time, and told what is done, until the backup has ended; there
// is no deadline of ours then, and no more time is asked for where the volume hangs.
func TestSupervisedEnd(t *testing.T) {
	release := make(chan struct{})
	x := serveFake(t, &config{}, func(x *daemonTest) {
		x.supervisor.there = true
		x.vol.progress = tiers.Progress{Since: time.Now().Add(-4 * time.Second), Files: 312, Of: 1024}
		x.vol.wait = func(ctx context.Context) error {
			if _, limited := ctx.Deadline(); limited {
				t.Error("the final backup has a deadline")
			}
			<-release
			return ctx.Err()
		}
	})
	x.signals <- unix.SIGTERM
	x.await(t, "STOPPING=1")
	x.await(t, "EXTEND_TIMEOUT_USEC=60000000")
	const want = "STATUS=final backup: 312 of 1,024 files, "
	if got := x.await(t, "STATUS=final backup: "); !strings.HasPrefix(got, want) || !strings.HasSuffix(got, " s left") {
		t.Errorf("%q", got)
	}
	x.await(t, "EXTEND_TIMEOUT_USEC=60000000")
	close(release)
	if r := x.final(t); !r.Complete {
		t.Errorf("%+v", r)
	}
}

func TestAmount(t *testing.T) {
	for want, got := range map[string]string{
		"1 file":                         amount(1, 0, "file", time.Minute),
		"0 of 10 objects":                amount(0, 10, "object", time.Minute),
		"10 of 10 objects":               amount(10, 10, "object", time.Minute),
		"5 of 10 files":                  amount(5, 10, "file", time.Millisecond),
		"256 of 1,024 files, 6 s left":   amount(256, 1024, "file", 2*time.Second),
		"1 of 1,000 files, 59940 s left": amount(1, 1000, "file", time.Minute),
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
