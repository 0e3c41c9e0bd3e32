package tiers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cenkalti/backoff/v5"

	"emberfs/tiers/cold"
)

// pusher sends commits to the remote, one push at a time, on a goroutine of its own: no commit waits for it, and so no
// writer. Who has to know whether the remote has a commit waits for the round that begins after it.
type pusher struct {
	mu      mutex[leaf]
	next    *pushRound // that begins when the one under way has ended; nil: nobody asked for one
	running bool       // the goroutine is there
	wake    chan struct{}
	ctx     context.Context // ends when the volume is closed
	end     context.CancelFunc
	ended   chan struct{} // closed when the goroutine has ended
	begun   time.Time     // when the last push began
}

// pushRound is one push, for all that asked for it before it began.
type pushRound struct {
	urgent  bool          // it begins at once, whatever was before
	soon    bool          // it begins as soon as the remote wants it: a program has called fsync
	waiting []*remoteWait // `fsync: remote`
	done    chan struct{}
	err     error // once done is closed
}

func (p *pusher) init() {
	p.wake = make(chan struct{}, 1)
	p.ctx, p.end = context.WithCancel(context.Background())
}

// pushSoon asks for a push of what is committed by now. The round that it returns gets its error, and so do waiting,
// unless a push that is tried again may still serve them in time.
func (v *Volume) pushSoon(urgent bool, waiting ...*remoteWait) *pushRound {
	p := &v.pusher
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.next == nil {
		p.next = &pushRound{done: make(chan struct{})}
	}
	r := p.next
	r.waiting = append(r.waiting, waiting...)
	r.urgent, r.soon = r.urgent || urgent, r.soon || len(waiting) > 0
	if urgent || len(waiting) > 0 {
		select {
		case p.wake <- struct{}{}:
		default:
		}
	}
	if !p.running {
		p.running, p.ended = true, make(chan struct{})
		go v.pushLoop(p.ended)
	}
	return r
}

// pushNow is pushSoon for who waits for it.
func (v *Volume) pushNow(ctx context.Context) error {
	r := v.pushSoon(true)
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// pushLoop pushes until there is nothing more to push. What fails is tried again, after pauses that grow.
func (v *Volume) pushLoop(ended chan struct{}) {
	p := &v.pusher
	defer close(ended)
	retry := backoff.NewExponentialBackOff()
	retry.InitialInterval, retry.MaxInterval = time.Second, pushPauseMost
	var again time.Time // of a push that failed; zero: the last one did not
	var named time.Time // before which the remote wants no push, also of those who wait by an fsync
	for {
		p.mu.Lock()
		r := p.next
		at := p.begun.Add(v.cfg.PushMinInterval)
		switch {
		case r != nil && r.urgent:
			at = time.Time{}
		case r != nil && r.soon:
			at = named
		case again.After(at):
			at = again
		}
		over := p.ctx.Err() != nil
		if over || r == nil && again.IsZero() {
			p.running, p.next = false, nil
			p.mu.Unlock()
			if r != nil {
				r.finish(errClosed)
			}
			return
		}
		if wait := time.Until(at); wait > 0 {
			p.mu.Unlock()
			sleepUnless(p.ctx, wait, p.wake)
			continue // look again: somebody may have asked for a push now
		}
		p.next, p.begun = nil, time.Now()
		p.mu.Unlock()
		err := v.pushOnce(p.ctx)
		again, named = time.Time{}, time.Time{}
		if err != nil && p.ctx.Err() == nil {
			pause := pushPause(retry, err, v.cfg.BackupInterval)
			var busy *cold.BusyError
			switch {
			case permanent(err):
				named = time.Now().Add(refusedPause)
			case errors.As(err, &busy) && busy.After > 0:
				named = time.Now().Add(pause)
			}
			if r != nil && !permanent(err) && v.keepWaiting(r) && named.IsZero() {
				pause = min(pause, v.cfg.FsyncTimeout/5)
			}
			again = time.Now().Add(pause)
			v.log.WithError(err).WithField("retry", pause.String()).Error(
				"push failed: the remote lacks what was committed")
		} else {
			retry.Reset()
		}
		if r != nil {
			r.finish(err)
		}
	}
}

// refusedPause is how long a remote that refuses is left alone by programs that fsync again and again: each push may
// be an attempt to log in.
const refusedPause = time.Second

// pushPauseMost bounds the pause before a push is tried again that may help.
const pushPauseMost = 30 * time.Second

// pushPause is how long to wait after a push that failed: as the remote asks, or a time that grows, with jitter, so
// that a fleet does not come back all at once. What only a person can change is tried at the backup interval.
func pushPause(b *backoff.ExponentialBackOff, err error, interval time.Duration) time.Duration {
	if permanent(err) {
		return retryAfter(b, err, interval)
	}
	pause := min(b.NextBackOff(), pushPauseMost)
	var busy *cold.BusyError
	if errors.As(err, &busy) && busy.After > pause {
		pause = busy.After
		if interval > 0 {
			pause = min(pause, max(interval, pushPauseMost))
		}
	}
	return pause
}

// keepWaiting lets the next push serve those who wait for a remote that could not be reached: an fsync that is told of
// a failure may end its program, and there is time until FsyncTimeout. It says whether there are any.
func (v *Volume) keepWaiting(r *pushRound) bool {
	if v.cfg.FsyncTimeout <= 0 {
		return false
	}
	list := slices.DeleteFunc(r.waiting, func(w *remoteWait) bool { return w.left.Load() })
	r.waiting = nil
	if len(list) == 0 {
		return false
	}
	p := &v.pusher
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.next == nil {
		p.next = &pushRound{done: make(chan struct{})}
	}
	p.next.waiting = append(list, p.next.waiting...)
	return true
}

func (r *pushRound) finish(err error) {
	r.err = err
	close(r.done)
	answer(r.waiting, err)
}

// pushOnce brings the remote up to the branch. It asks the remote also where it had everything when it was asked last:
// somebody may have moved or removed what it had, and only what was looked at is said.
func (v *Volume) pushOnce(ctx context.Context) error {
	had := v.cold.Pushed()
	v.risk.send()
	v.critical.send()
	if err := v.cold.Push(ctx); err != nil {
		v.risk.unsend()
		v.critical.unsend(v)
		v.points.setError("push", err)
		if errors.Is(err, cold.ErrDiverged) {
			v.contacted()
		}
		return err
	}
	v.contacted()
	if now := v.cold.Pushed(); now != had && !now.IsZero() {
		v.points.mu.Lock()
		v.points.push = &Point{ID: now.String(), Time: time.Now()}
		v.points.mu.Unlock()
	}
	v.points.setError("push", nil)
	v.points.setError("fetch", nil)
	if c, took, counted := v.risk.sent(); counted {
		v.budget.pushed(c, took)
	}
	v.critical.sent(v)
	return nil
}

// endPushes ends the push under way, and waits for that.
func (v *Volume) endPushes() {
	p := &v.pusher
	p.end()
	p.mu.Lock()
	running, ended := p.running, p.ended
	p.mu.Unlock()
	if running {
		<-ended
	}
}

// pushReceipt waits for a push, and fills in rc.
func (v *Volume) pushReceipt(ctx context.Context, rc *Receipt) {
	if err := v.pushNow(ctx); err != nil {
		what := "commit " + rc.Commit
		if rc.Commit == "" {
			what = "the volume, which is empty,"
		}
		rc.Missing = append(rc.Missing, fmt.Sprintf("%s is not known to be on %s: %v", what, v.cfg.Source, err))
		if n := v.risk.now(); n.Files > 0 {
			rc.Missing = append(rc.Missing, fmt.Sprintf("on this machine alone: %d files, %d bytes written", n.Files,
				n.Bytes))
		}
		return
	}
	rc.Pushed = true
}
