package tiers

import (
	"context"
	"math"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// criticalLoop commits what is critical when it is due. Commits take at most half of the time, however many files
// change.
func (v *Volume) criticalLoop(ctx context.Context) {
	c := &v.critical
	retry := backoff.NewExponentialBackOff()
	retry.InitialInterval, retry.MaxInterval = 100*time.Millisecond, time.Minute
	// How long a commit may take: as long as the longest one lately, whose weight fades; before the first one it is a
	// guess.
	took := v.cfg.CriticalDelay / 8
	var rest time.Time // no commit begins before this
	var hold time.Time // set after a failure: nor before this, unless somebody waits for it
	for {
		wait := time.Duration(math.MaxInt64)
		if due, awaited := c.next(); !due.IsZero() {
			wait = max(time.Until(due)-min(took, v.cfg.CriticalDelay/4), time.Until(rest))
			if !awaited {
				wait = max(wait, time.Until(hold))
			}
		}
		if wait > 0 {
			if !sleepUnless(ctx, wait, c.wake) {
				return
			}
			continue // look again: a commit may have been made meanwhile
		}
		started := time.Now()
		rc, err := v.syncCritical(ctx)
		if ctx.Err() != nil {
			return
		}
		last := time.Since(started)
		took = max(last, took-took/8)
		rest = time.Now().Add(last)
		if err == nil && rc.Complete {
			retry.Reset()
			hold = time.Time{}
			continue
		}
		pause := retryAfter(retry, err, v.cfg.BackupInterval)
		if err != nil {
			v.log.WithError(err).WithField("retry", pause.String()).Error(
				"critical files are not committed: they are on this disk only")
		} else {
			v.log.WithField("missing", rc.Missing).WithField("retry", pause.String()).Error(
				"critical files are not all backed up")
		}
		rest, hold = time.Now().Add(max(last, retry.InitialInterval)), time.Now().Add(pause)
		c.mu.Lock()
		c.dueBy(hold)
		c.mu.Unlock()
	}
}

func (v *Volume) criticalStatus() CriticalStatus {
	c := &v.critical
	c.mu.Lock()
	defer c.mu.Unlock()
	s := CriticalStatus{Waiting: int64(c.count), Commits: c.commits, Worst: c.delays.worst.Seconds()}
	if c.whole {
		s.Waiting = max(s.Waiting, 1) // at least one
	}
	s.P50, s.P99 = c.delays.percentile(50), c.delays.percentile(99)
	return s
}
