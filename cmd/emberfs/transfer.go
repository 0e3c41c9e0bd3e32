package main

import (
	"context"
	"sync"
	"time"
)

// transferReply is what goes between the daemon and the remote now. It answers GET /v1/transfer.
type transferReply struct {
	What    string `json:"what"`    // fetch or push; "": nothing is under way
	Objects int64  `json:"objects"` // that have gone
	Of      int64  `json:"of"`      // of how many; 0: not known
	Bytes   int64  `json:"bytes"`   // of the pack, that have gone

	since time.Time // when it began
}

// transfers holds the transfer that is under way. It is safe for concurrent use.
type transfers struct {
	mu  sync.Mutex
	now transferReply
}

// set is for backup.Options.Progress.
func (t *transfers) set(what string, objects, of, bytes int64) {
	t.mu.Lock()
	since := t.now.since
	if what != t.now.What || bytes < t.now.Bytes { // another one
		since = time.Now()
	}
	t.now = transferReply{what, objects, of, bytes, since}
	t.mu.Unlock()
}

func (t *transfers) get() transferReply {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.now
}

// transfer implements controlled.
func (d *daemon) transfer() transferReply { return d.transfers.get() }

// transferEvery is how often a command that waits for a daemon asks how far its push is, and how long it waits before
// it asks first, so that a short one is asked nothing.
const transferEvery = 300 * time.Millisecond

// showTransfer shows on stderr how far the push is for which a command waits, until stop is called.
func showTransfer(ctx context.Context, c *client, w world) (stop func()) {
	if w.silent() {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	shown := newProgress(w, "push", "object")
	var asking sync.WaitGroup
	asking.Go(func() {
		tick := time.NewTicker(transferEvery)
		defer tick.Stop()
		for last := (transferReply{}); ; {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			now, err := call[transferReply](ctx, c, "/v1/transfer", nil, "")
			if err != nil { // it has ended, or is of another version
				return
			}
			if now.What == "" {
				continue
			}
			if now.What != last.What || now.Bytes < last.Bytes { // another one
				shown.begin(now.What, "object")
			}
			last = now
			shown.expect(now.Of, 0)
			shown.set(now.Objects, now.Bytes)
		}
	})
	return func() {
		cancel()
		asking.Wait()
		shown.done()
	}
}
