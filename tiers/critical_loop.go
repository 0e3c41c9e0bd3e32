package tiers

import (
	"context"
	"math"
	"slices"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// criticalLoop commits what is critical when it is due. Commits take at most half of the time, however many files change.
func (v *Volume) criticalLoop(ctx context.Context) {
	c := &v.critical
	retry := backoff.NewExponentialBackOff()
	retry.InitialInterval, retry.MaxInterval = 100*time.Millisecond, time.Minute
	took := v.cfg.CriticalDelay / 8 // what a commit may take: the longest one lately, fading; a guess before the first one
	var rest time.Time              // none begins before
	var hold time.Time              // nor before this after a failure, unless somebody waits
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
			continue // a commit may have come between
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
			v.log.WithError(err).WithField("retry", pause.String()).Error("critical files are not committed: they are on this disk only")
		} else {
			v.log.WithField("missing", rc.Missing).WithField("retry", pause.String()).Error("critical files are not all backed up")
		}
		rest, hold = time.Now().Add(max(last, retry.InitialInterval)), time.Now().Add(pause)
		c.mu.Lock()
		c.dueBy(hold)
		c.mu.Unlock()
	}
}

// CriticalStatus says how soon critical files are safe.
type CriticalStatus struct {
	Waiting int64   `json:"waiting"` // changed names that no commit has
	Commits int64   `json:"commits"` // to the live branch, since the mount
	P50     float64 `json:"p50"`     // seconds from close or fsync to the commit, of the last changes
	P99     float64 `json:"p99"`
	Worst   float64 `json:"worst"` // since the mount
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

// delays are the last ones that were measured, and the worst of all.
type delays struct {
	last  []time.Duration
	at    int
	worst time.Duration
}

// lastDelays is of how many the percentiles are.
const lastDelays = 1000

func (d *delays) add(x time.Duration) {
	d.worst = max(d.worst, x)
	if len(d.last) < lastDelays {
		d.last = append(d.last, x)
		return
	}
	d.last[d.at] = x
	d.at = (d.at + 1) % lastDelays
}

// percentile is in seconds; 0 where nothing was measured.
func (d *delays) percentile(p int) float64 {
	if len(d.last) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(d.last))
	return sorted[min(len(sorted)-1, len(sorted)*p/100)].Seconds()
}
