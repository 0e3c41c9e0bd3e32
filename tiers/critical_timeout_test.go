package tiers

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// remoteFile opens a volume with `fsync: remote` and a file of that rule.
func remoteFile(t *testing.T, timeout time.Duration) (*Volume, *memCold, *Handle) {
	t.Helper()
	repo := newMemCold()
	repo.remote = true
	v := openCritical(t, repo, "- {match: '*.db', class: critical, fsync: remote, critical_delay: 1h}\n")
	v.cfg.FsyncTimeout, v.cfg.BackupInterval = timeout, time.Hour
	v.Start()
	_, h, _, err := v.Create(context.Background(), v.Root(), "x.db", unix.O_RDWR, 0o600, me)
	must(t, err)
	t.Cleanup(h.Release)
	return v, repo, h
}

func (c *memCold) onPush(pushing func(), fail error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pushing, c.failPush = pushing, fail
}

func writeHandle(t *testing.T, h *Handle, text string) {
	t.Helper()
	_, err := h.Write(context.Background(), []byte(text), 0, false)
	must(t, err)
}

// TestFsyncTimeout checks that an fsync whose push hangs fails with EIO at fsync_timeout, that meanwhile commits and
// writers of the same file go on, and that a later fsync succeeds, without another commit, once the push has ended.
func TestFsyncTimeout(t *testing.T) {
	const limit = 500 * time.Millisecond
	v, repo, h := remoteFile(t, limit)
	open := make(chan bool)
	let := sync.OnceFunc(func() { close(open) })
	t.Cleanup(let)
	began := make(chan bool, 10)
	repo.onPush(func() { began <- true; <-open }, nil)
	writeHandle(t, h, "one")
	type result struct {
		err  error
		took time.Duration
	}
	done := make(chan result, 1)
	go func() {
		start := time.Now()
		err := h.Fsync(context.Background(), true)
		done <- result{err, time.Since(start)}
	}()
	<-began
	for range 3 {
		write(t, v, v.Root(), "other", time.Now().String())
		writeHandle(t, h, "two")
		if rc, err := v.Sync(t.Context(), "interval"); err != nil || !rc.New || rc.Pushed {
			t.Errorf("a commit beside an fsync that waits: %+v, %v", rc, err)
		}
	}
	select {
	case r := <-done:
		t.Errorf("fsync did not wait for its time: %+v", r)
	default:
	}
	r := <-done
	if !errors.Is(r.err, unix.EIO) || !strings.Contains(r.err.Error(), "has not acknowledged it for 500ms") ||
		r.took < limit {
		t.Errorf("fsync of what the remote does not acknowledge: %v after %v", r.err, r.took)
	}
	if err := h.Fsync(context.Background(), true); !errors.Is(err, unix.EIO) {
		t.Errorf("fsync while it still hangs: %v", err)
	}
	v.pusher.mu.Lock()
	next := v.pusher.next
	v.pusher.mu.Unlock()
	let()
	if next != nil {
		<-next.done
	}
	repo.mu.Lock()
	commits := len(repo.commits)
	repo.mu.Unlock()
	v.cfg.FsyncTimeout = time.Minute
	must(t, h.Fsync(context.Background(), true))
	repo.mu.Lock()
	defer repo.mu.Unlock()
	if len(repo.commits) != commits || repo.pushed.IsZero() {
		t.Errorf("after it was healed: %d commits, %d before, the remote is at %v", len(repo.commits), commits,
			repo.pushed)
	}
}

// TestFsyncOutlastsFailure checks that an fsync is not told of a push that failed for the moment if one that succeeds
// comes in time, and that it is told at once where the remote refuses.
func TestFsyncOutlastsFailure(t *testing.T) {
	v, repo, h := remoteFile(t, 20*time.Second)
	tried := make(chan bool, 100)
	repo.onPush(func() { tried <- true }, unix.ECONNRESET)
	writeHandle(t, h, "one")
	done := make(chan error, 1)
	go func() { done <- h.Fsync(context.Background(), true) }()
	<-tried
	<-tried // again by itself
	repo.onPush(nil, nil)
	must(t, <-done)
	if newest(t, repo)["x.db"] != "one" || repo.Pushed().IsZero() {
		t.Error("the remote lacks it")
	}
	repo.onPush(nil, unix.ECONNRESET)
	v.cfg.FsyncTimeout = 50 * time.Millisecond
	for range 5 { // those who have given up are not kept
		writeHandle(t, h, "two")
		if err := h.Fsync(context.Background(), true); !errors.Is(err, unix.EIO) {
			t.Errorf("fsync without a remote: %v", err)
		}
	}
	v.pusher.mu.Lock()
	defer v.pusher.mu.Unlock()
	if r := v.pusher.next; r != nil && len(r.waiting) > 2 {
		t.Errorf("%d of those who waited are kept", len(r.waiting))
	}
}
