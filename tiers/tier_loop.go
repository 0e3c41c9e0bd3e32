package tiers

import (
	"context"
	"time"

	"golang.org/x/sys/unix"

	"emberfs/tiers/warm"
)

const (
	// limitRest is how long tierLoop leaves the limits alone after a round that could not free enough. It doubles, up
	// to limitRestMax, until something is committed that could leave warm.
	limitRest    = 5 * time.Second
	limitRestMax = 5 * time.Minute
)

// ageing is the component that moves files down.
type ageing struct {
	sweeping mutex[lockSweeping] // one walk over warm at a time
	hopeless time.Time           // of tierLoop: when an emergency last freed nothing
}

// tierLoop moves files down by age at each tick, and earlier where warm is too full.
func (v *Volume) tierLoop(ctx context.Context) {
	defer close(v.idleTiers)
	var tick <-chan time.Time
	if v.cfg.TierInterval > 0 && (v.cfg.WarmAge > 0 || v.cfg.HotAge > 0) {
		t := time.NewTicker(v.cfg.TierInterval)
		defer t.Stop()
		tick = t.C
	}
	pause := limitRest
	if v.cfg.WarmLimit > 0 && v.checkTiering() == nil {
		s := v.newSweep(ctx, "limit")
		s.count = new([ageBuckets]int64)
		v.sweeping.Lock()
		err := s.run()
		v.sweeping.Unlock()
		if err != nil && ctx.Err() == nil {
			v.log.WithError(err).Warn("cannot count what warm holds")
		}
		v.lookAtLimits()
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick:
			v.tick(ctx)
		case reply := <-v.pressure.room:
			reply <- v.emergency(ctx)
		case <-v.pressure.wake:
			if time.Now().UnixNano() < v.rest.Load() {
				continue
			}
			if v.rest.Load() == 0 { // something was committed since
				pause = limitRest
			}
			if v.checkTiering() == nil && !v.holdLimits(ctx) {
				v.rest.Store(time.Now().Add(pause).UnixNano())
				time.AfterFunc(pause+time.Millisecond, v.lookAtLimits)
				pause = min(2*pause, limitRestMax)
			}
			v.endRound()
		}
	}
}

// endRound lets the writers go on that wait in grew for room.
func (v *Volume) endRound() {
	next := make(chan struct{})
	close(*v.round.Swap(&next))
}

// tick drops from hot, and releases from warm, what was not used for long.
func (v *Volume) tick(ctx context.Context) {
	hot := v.expireHot(v.cfg.HotAge)
	v.forgotten.expire(v.clock() - min(v.clock(), uint32(max(v.cfg.WarmAge, v.cfg.HotAge)/useTick)))
	s := v.newSweep(ctx, "age")
	s.report.Hot = hot
	if (v.cfg.WarmAge > 0 || v.Rules().HasAges()) && v.checkTiering() == nil {
		s.byAge, s.age = true, v.cfg.WarmAge
		if s.age == 0 {
			s.age = never
		}
		v.sweeping.Lock()
		err := s.run()
		v.sweeping.Unlock()
		if ctx.Err() != nil {
			return
		}
		v.points.setError("tier", err)
	}
	v.noteTick(s.report)
}

func (v *Volume) noteTick(r TierReport) {
	v.points.mu.Lock()
	// The report of a round that moved something is shown until one that did so too, or had the same reason.
	if old := v.points.tick; r.Files > 0 || r.Hot > 0 || old == nil || old.Reason == r.Reason {
		v.points.tick = &r
	}
	v.points.mu.Unlock()
	if r.Files > 0 {
		v.log.WithField("files", r.Files).WithField("bytes", r.Bytes).WithField("reason", r.Reason).Info(
			"files left warm")
	}
}

// holdLimits brings warm below warm_limit, and frees room on its file system until warm_reserve is free. It returns
// false if it could not.
func (v *Volume) holdLimits(ctx context.Context) bool {
	limit := v.cfg.WarmLimit
	over := func(use warm.Use) int64 {
		excess := int64(0)
		if limit > 0 && use.Bytes > limit {
			excess = use.Bytes - limit + limit/limitSlack
		}
		return max(excess, v.lacking())
	}
	near := limit > 0 && v.warmBytes.Load() > limit
	if !near && v.lacking() <= 0 {
		v.limitHelps.Store(true)
		return true
	}
	reason := "limit"
	if !near {
		reason = "reserve"
	}
	for try := range 2 {
		var missing int64
		r, err := v.evict(ctx, reason, func(use warm.Use) int64 {
			missing = over(use)
			return missing
		})
		if err != nil {
			v.log.WithError(err).Warn("warm is too full")
		}
		if missing > 0 {
			v.noteTick(r)
		}
		if r.Bytes >= missing {
			v.limitHelps.Store(true)
			return true
		}
		if try == 0 { // what is left is dirty or in use: the former can be committed now
			if _, err := v.Sync(ctx, reason); err != nil {
				break
			}
		}
	}
	// Just below the limit is good enough. Writers do not wait any more, since that would be in vain.
	v.limitHelps.Store(false)
	return limit > 0 && v.warmBytes.Load() <= limit
}

// emergencyBytes is how many bytes are freed when warm's file system is full.
const emergencyBytes = 64 << 20

// emergency releases files after ENOSPC, after a commit if need be, and returns how many bytes that freed.
func (v *Volume) emergency(ctx context.Context) int64 {
	if time.Since(v.hopeless) < time.Second {
		return 0 // it was in vain a moment ago: a program goes on writing into a full disk
	}
	excess := func(warm.Use) int64 { return max(emergencyBytes, v.lacking()) }
	r, err := v.evict(ctx, "reserve", excess)
	if r.Bytes == 0 && err == nil {
		if _, err := v.Sync(ctx, "reserve"); err == nil {
			r, _ = v.evict(ctx, "reserve", excess)
		}
	}
	if r.Bytes > 0 {
		_ = unix.Syncfs(v.warmRead()) // the file system hands out freed blocks only after its journal has the holes
	}
	v.noteTick(r)
	if r.Bytes == 0 {
		v.hopeless = time.Now()
	}
	return r.Bytes
}
