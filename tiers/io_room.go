package tiers

import (
	"context"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// growCheck is how many bytes are written to warm before its limits are looked at again.
	growCheck = 4 << 20
	// limitSlack says how far below its limit warm is brought, by 1/limitSlack of it, so that the next write does not
	// reach the limit again.
	limitSlack = 8
	// limitPatience is how long one write waits for warm to get below its limit. Then it goes on in any case.
	limitPatience = 500 * time.Millisecond
	// roomPatience is how long a write that met a full disk waits for room where there is a remote.
	roomPatience = 10 * time.Second
)

// pressure is how writes ask tierLoop for room in warm.
type pressure struct {
	wake chan struct{}     // capacity 1: look at the limits
	room chan chan<- int64 // a write met a full disk; tierLoop answers with the number of bytes that it freed
}

// grew is called after n bytes were written to warm. It wakes tierLoop now and then, and waits for it for a moment
// where warm is far over its limit.
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

// makeRoom is called after warm's file system had no room. It has tierLoop release what can be released, after a commit
// if need be, and says whether that freed anything. Nothing is locked.
func (v *Volume) makeRoom(ctx context.Context) bool {
	if v.areaOf != nil {
		return v.awaitForgotten()
	}
	if v.checkTiering() != nil || !v.running.Load() {
		return false
	}
	// Releasing files may need a push, which may wait for the network. Writers do not wait that long.
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

// lacking returns how many bytes have to leave warm because its file system has less room than warm_reserve asks for: a
// quarter more than that, so that it lasts. It is 0 if there is enough room.
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

// awaitForgotten waits for the room of files of the area that were removed a moment ago: it comes only when the kernel
// forgets them, a little after the program's unlink(2) returned. It says whether there may be room now. Nothing is
// locked.
func (v *Volume) awaitForgotten() bool {
	last := v.rest.Load()
	if time.Now().UnixNano() < last {
		return false // a wait a moment ago did not help: a program goes on writing into a full tmpfs
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
	if before.Bfree > 0 && before.Ffree > 0 { // they were forgotten before the first look
		return true
	}
	if v.nameless.Load() > 0 { // somebody has removed files open
		v.rest.CompareAndSwap(last, time.Now().Add(forgetRest).UnixNano())
	}
	return false
}
