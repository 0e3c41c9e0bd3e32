package tiers

import (
	"context"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// growCheck is after how many bytes written warm's limits are looked at again.
	growCheck = 4 << 20
	// limitSlack is by which part of it warm is brought below its limit, so that the next write does not meet it again.
	limitSlack = 8
	// limitPatience is how long one write waits for room below the limit; what cannot be released does not stop it.
	limitPatience = 500 * time.Millisecond
	// roomPatience is how long a write that met a full disk waits for room where there is a remote.
	roomPatience = 10 * time.Second
)

// pressure is what limits of warm ask of the scheduler.
type pressure struct {
	wake chan struct{}     // capacity 1: look at the limits
	room chan chan<- int64 // somebody got ENOSPC: answers with the bytes that were freed
}

// grew is called after n bytes were written to warm.
func (v *Volume) grew(n int64) {
	if v.cfg.WarmLimit <= 0 && v.cfg.WarmReserve <= 0 || !v.records || !v.cfg.Tiering {
		return
	}
	was := v.warmBytes.Add(n) - n
	if was/growCheck == (was+n)/growCheck {
		return
	}
	v.lookAtLimits()
	if limit := v.cfg.WarmLimit; limit > 0 && was > limit+limit/limitSlack && v.limitHelps.Load() {
		// Whoever fills warm faster than it can be emptied waits a little.
		done := v.round.Load()
		select {
		case <-*done:
		case <-time.After(limitPatience):
		}
	}
}

func (v *Volume) lookAtLimits() {
	select {
	case v.pressure.wake <- struct{}{}:
	default:
	}
}

// makeRoom is called after warm's file system had no room: it releases what can be, after a commit if need be, and says
// whether that gave any. Nothing is locked.
func (v *Volume) makeRoom(ctx context.Context) bool {
	if v.areaOf != nil {
		return v.awaitForgotten()
	}
	if v.checkTiering() != nil || !v.running.Load() {
		return false
	}
	// What has to be pushed first may wait for the network, and writers never do.
	var late <-chan time.Time
	if v.cold.HasRemote() {
		t := time.NewTimer(roomPatience)
		defer t.Stop()
		late = t.C
	}
	reply := make(chan int64, 1)
	select {
	case v.pressure.room <- reply:
	case <-v.idleTiers:
		return false
	case <-late:
		return false
	case <-ctx.Done():
		return false
	}
	select {
	case bytes := <-reply:
		return bytes > 0
	case <-late:
		return false
	case <-ctx.Done():
		return false
	}
}

// lacking is by how much warm's file system has less room than warm_reserve asks for; a quarter more, so that it lasts.
func (v *Volume) lacking() int64 {
	if v.cfg.WarmReserve <= 0 {
		return 0
	}
	var st unix.Statfs_t
	if unix.Fstatfs(v.warmFD, &st) != nil {
		return 0
	}
	free := int64(st.Bavail) * st.Bsize
	if free >= v.cfg.WarmReserve {
		return 0
	}
	return v.cfg.WarmReserve + v.cfg.WarmReserve/4 - free
}

const (
	forgetStep = 2 * time.Millisecond
	forgetMost = 100 * time.Millisecond
	forgetRest = time.Second
)

// awaitForgotten waits for files of the area that were removed a moment ago: their bytes go when the kernel forgets
// them, which it tells after it told the program that they are gone. It says whether there may be room now. Nothing is
// locked.
func (v *Volume) awaitForgotten() bool {
	last := v.rest.Load()
	if time.Now().UnixNano() < last {
		return false // a program that goes on writing into a full tmpfs
	}
	var before, st unix.Statfs_t
	if unix.Fstatfs(v.warmFD, &before) != nil {
		return false
	}
	for waited := time.Duration(0); v.nameless.Load() > 0 && waited < forgetMost; waited += forgetStep {
		time.Sleep(forgetStep)
		if unix.Fstatfs(v.warmFD, &st) == nil && (st.Bfree > before.Bfree || st.Ffree > before.Ffree) {
			return true
		}
	}
	if before.Bfree > 0 && before.Ffree > 0 { // they went before the look
		return true
	}
	if v.nameless.Load() > 0 { // somebody has them open
		v.rest.CompareAndSwap(last, time.Now().Add(forgetRest).UnixNano())
	}
	return false
}
