package tiers

import (
	"context"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
)

// TestWriteWhileRecorded: a write that begins while its file is being recorded is in the next commit.
func TestWriteWhileRecorded(t *testing.T) {
	cold := &heldCold{memCold: newMemCold()}
	v := openTest(t, t.TempDir(), cold)
	defer v.Close()
	f := write(t, v, v.Root(), "f", "one")
	h, err := v.Open(context.Background(), f, unix.O_WRONLY, false)
	must(t, err)
	wait := func(limit time.Duration, ok func() bool) bool {
		for end := time.Now().Add(limit); !ok(); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				return false
			}
		}
		return true
	}
	locked := func(ok func() bool) func() bool { // looks on a goroutine of its own: who asks holds ns
		return func() bool {
			is := make(chan bool)
			go func() {
				f.mu.Lock()
				defer f.mu.Unlock()
				is <- ok()
			}()
			return <-is
		}
	}
	wrote := make(chan error, 1)
	cold.committed = func() { // everything is read, nothing is recorded
		cold.committed = nil
		f.mu.Lock()
		f.mu.ungranted = false
		f.mu.Unlock()
		holding, release := make(chan struct{}), make(chan struct{})
		go func() {
			v.ns.Lock() // holds the write up where it looks for its directory
			close(holding)
			<-release
			v.ns.Unlock()
		}()
		<-holding
		go func() {
			_, err := h.Write(context.Background(), []byte("two, and longer"), 0, false)
			wrote <- err
		}()
		wait(100*time.Millisecond, locked(func() bool { return f.mu.ungranted })) // it may be held up before that
		go func() {
			defer close(release)
			if !wait(20*time.Second, locked(func() bool { return !f.mu.captured.IsZero() })) {
				t.Error("the file is not recorded")
			}
		}()
	}
	v.mustSync(t)
	must(t, <-wrote)
	v.mustSync(t)
	checkCommitted(t, v, cold.memCold, "f", f)
	h.Release()
}

// heldCold calls a function when a commit stands.
type heldCold struct {
	*memCold
	committed func()
}

type heldTx struct {
	cold.Tx
	c *heldCold
}

func (c *heldCold) Begin(ctx context.Context) (cold.Tx, error) {
	tx, err := c.memCold.Begin(ctx)
	return heldTx{tx, c}, err
}

func (t heldTx) Commit(ctx context.Context, o cold.CommitOptions) (cold.ID, error) {
	id, err := t.Tx.Commit(ctx, o)
	if f := t.c.committed; f != nil {
		f()
	}
	return id, err
}
