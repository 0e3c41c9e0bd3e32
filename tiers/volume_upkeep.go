package tiers

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/warm"
)

// housekeeping is the component that keeps the repository small and counts.
type housekeeping struct {
	// How often garbage is collected unasked; only what is older than the grace period is removed.
	gcInterval time.Duration
	collect    chan collection
	idle       chan struct{} // closed when upkeepLoop has ended
	warmCount  struct {
		mutex[lockCounting]
		use   warm.Use
		until time.Time
	}
	coldCount coldCount
	previous  *Previous // what Open found out about the session before this one; not changed afterwards
}

// collection is a GC that somebody asked for.
type collection struct {
	ctx   context.Context
	o     cold.GCOptions
	reply chan collected
}

type collected struct {
	report cold.GCReport
	err    error
}

// upkeepLoop has cold put itself in order after commits, and collects garbage from time to time and when asked to. It
// runs on a thread of low priority.
func (v *Volume) upkeepLoop(ctx context.Context) {
	runtime.LockOSThread() // and never unlocked: the thread ends with this
	if err := unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), 10); err != nil {
		v.log.WithError(err).Debug("background work has normal priority")
	}
	defer close(v.idle)
	tick := time.NewTicker(v.gcInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case c := <-v.collect:
			both, cancel := context.WithCancel(c.ctx)
			stop := context.AfterFunc(ctx, cancel)
			r, err := v.cold.GC(both, c.o)
			stop()
			cancel()
			if err != nil && ctx.Err() != nil {
				err = fmt.Errorf("the volume was closed meanwhile: %w", err)
			}
			c.reply <- collected{r, err}
		case <-tick.C:
			r, err := v.cold.GC(ctx, cold.GCOptions{})
			if ctx.Err() != nil {
				return
			}
			v.points.setError("gc", err)
			if err != nil {
				v.log.WithError(err).Warn("what cold needs no more stays there")
			} else if r.Objects > 0 {
				v.log.WithField("objects", r.Objects).WithField("bytes", r.Bytes).Info(
					"removed from cold what nothing needs any more")
			}
		case <-v.upkeep:
			err := v.cold.Maintain(ctx)
			if ctx.Err() != nil {
				return
			}
			v.points.setError("maintain", err)
			if err != nil {
				v.log.WithError(err).Warn("cold could not be put in order; it is tried again after the next commit")
			}
		}
	}
}

// GC removes from cold what nothing reaches any more. It waits for a Maintain that runs, never for a commit; Close ends
// it.
func (v *Volume) GC(ctx context.Context, o cold.GCOptions) (cold.GCReport, error) {
	if !v.started.Load() {
		return cold.GCReport{}, errors.New("gc: the volume was not started")
	}
	c := collection{ctx, o, make(chan collected, 1)}
	select {
	case v.collect <- c:
	case <-ctx.Done():
		return cold.GCReport{}, fmt.Errorf("gc: %w", context.Cause(ctx))
	case <-v.idle:
		return cold.GCReport{}, errClosed
	}
	done := <-c.reply // it comes soon after either context ends
	return done.report, done.err
}
