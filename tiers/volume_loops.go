package tiers

import (
	"context"
	"emberfs/tiers/warm"
	"errors"
	"math"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// Start runs the background work until Close: what an earlier run left uncommitted is committed at once, warm is made
// durable every FlushInterval, everything is committed every BackupInterval, failures are tried again with backoff.
func (v *Volume) Start() {
	if v.started.Swap(true) {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	v.stop = cancel
	behind := v.leftBehind() // before programs come in
	if v.leftChanges() {
		v.risk.find()
	}
	v.wg.Go(func() { v.flushLoop(ctx) })
	v.wg.Go(func() { v.backupLoop(ctx, behind) })
	v.wg.Go(func() { v.criticalLoop(ctx) })
	v.wg.Go(func() { v.budgetLoop(ctx) })
	if v.cfg.AnnounceDelay > 0 && v.cold.HasRemote() {
		v.wg.Go(func() { v.announceLoop(ctx) })
	}
	v.wg.Go(func() { v.pruneLoop(ctx) })
	if v.isOffline() {
		v.wg.Go(func() { v.contactLoop(ctx) })
	}
	v.startMemory(ctx)
	v.wg.Go(func() { v.upkeepLoop(ctx) })
	v.wg.Go(func() { v.settleLoop(ctx) })
	v.wg.Go(func() { v.lingerLoop(ctx) })
	v.running.Store(true)
	v.wg.Go(func() { v.tierLoop(ctx) })
	v.wg.Go(func() { v.recallLoop(ctx) })
	switch {
	case v.tiered() && !v.cfg.Tiering:
		v.wg.Go(func() { v.recallAll(ctx) })
	case v.tiered() && v.fresh && v.cfg.Prefetch:
		v.wg.Go(func() { v.prefetch(ctx) })
	}
}

func (v *Volume) flushLoop(ctx context.Context) {
	if v.cfg.FlushInterval <= 0 {
		return
	}
	t := time.NewTicker(v.cfg.FlushInterval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			if err := v.flushWarm(); err != nil {
				v.log.Error(err)
			}
		}
	}
}

func (v *Volume) backupLoop(ctx context.Context, behind bool) {
	retry := backoff.NewExponentialBackOff()
	retry.InitialInterval, retry.MaxInterval = 5*time.Second, 5*time.Minute
	interval := v.cfg.BackupInterval
	next := interval
	var rest time.Time // set after a failure: commits that rules ask for do not begin before this
	if behind {
		next = time.Millisecond
	}
	reason := "recovery"
	at := time.Now().Add(next)
	for {
		wait := time.Until(at)
		if next <= 0 {
			wait = math.MaxInt64
		}
		if due := v.backupDue.Load(); due != 0 { // not sooner than a failure allows
			wait = max(min(wait, time.Until(time.Unix(0, due))), time.Until(rest))
		}
		if wait > 0 {
			if !sleepUnless(ctx, wait, v.backupBy) {
				return
			}
			continue // look again: a commit may have been made meanwhile
		}
		rc, err := v.Sync(ctx, reason)
		switch {
		case errors.Is(err, context.Canceled):
			return
		case err == nil && rc.Complete:
			retry.Reset()
			next, reason, rest = interval, "interval", time.Time{}
		case err != nil:
			next = retryAfter(retry, err, interval)
			v.log.WithError(err).WithField("retry", next.String()).Error(
				"backup failed: the changes are on this disk only")
		default:
			next = retryAfter(retry, nil, interval)
			v.log.WithField("missing", rc.Missing).WithField("retry", next.String()).Error("backup incomplete")
		}
		if at = time.Now().Add(next); err != nil || !rc.Complete {
			rest = at
		}
	}
}

// leftBehind says whether an earlier run may have left something that no commit has.
func (v *Volume) leftBehind() bool {
	if !v.points.verified.Load() || v.unpushed() {
		return true
	}
	return v.leftChanges()
}

// leftChanges says whether an earlier run may have left changes that no commit has.
func (v *Volume) leftChanges() bool {
	if v.rootClean() || !v.doubtful {
		return false
	}
	empty, err := v.warmEmpty()
	return v.state.Head != "" || err != nil || !empty
}

// warmUse counts what warm holds. The tree is walked, so the result is kept for a while: twenty times as long as the
// walk took.
func (v *Volume) warmUse() warm.Use {
	v.warmCount.Lock()
	defer v.warmCount.Unlock()
	c := &v.warmCount
	if time.Now().Before(c.until) {
		return c.use
	}
	started := time.Now()
	c.use = warm.Use{}
	warm.CountTree(v.warmFD, &c.use, 0)
	c.until = time.Now().Add(20 * time.Since(started))
	return c.use
}
