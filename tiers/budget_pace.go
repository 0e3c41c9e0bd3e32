package tiers

import (
	"context"
	"time"

	"golang.org/x/time/rate"
)

// Here, and nowhere else, writers wait so that what is at risk stays within its bounds. Only writes of bytes do. The
// kernel holds the lock of a directory while a name is made in it, so who looks up a name there would wait too; what
// names cost is counted, and the writes that follow wait for it.

const (
	// paceShare is the part of the measured speed at which writers may go on.
	paceShare = 0.7
	// paceBurst is for how many microseconds of saving writes need not wait.
	paceBurst = 100_000
	// A write waits no longer than waitUnit for each waitBytes of it, nor than waitMost: programs go on.
	waitUnit  = time.Second
	waitBytes = 128 << 10
	waitMost  = 10 * time.Second
	// Each write that waits holds a thread that serves the kernel. Where more than crowd wait, the others wait no
	// longer than crowdWait, so that reads find a thread.
	crowd     = 40
	crowdWait = 20 * time.Millisecond
	// waitLook is how often a write that waits looks whether it may go on.
	waitLook = 20 * time.Millisecond
)

// brake bounds what may be unsaved.
type brake struct {
	plan
	all speed
}

// pressing is how much of the bounds is used up.
type pressing int

const (
	free  pressing = iota // writers go on
	paced                 // writers go on at the speed of the backup
	full                  // writers wait
)

// pressing says how much of the bounds is used up where so many names and bytes are unsaved.
func (g *brake) pressing(files, bytes int64) pressing {
	cost := g.all.cost(files, bytes)
	switch {
	case cost >= g.full || bytes >= g.bytes:
		return full
	case cost >= g.full/2 || bytes >= g.bytes/2:
		return paced
	}
	return free
}

// longestWait is how long a write of so many bytes waits at most.
func longestWait(bytes int64) time.Duration {
	return min(waitUnit*time.Duration(max(1, (bytes+waitBytes-1)/waitBytes)), waitMost)
}

// pace is called before bytes are written that count in the given lane of risk. It waits where they come faster than
// they can be saved. The error is ctx's. Nothing is locked.
func (v *Volume) pace(ctx context.Context, lane int8, bytes int64) error {
	b := &v.budget
	g := b.brake.Load()
	if g == nil || lane < 0 {
		return nil
	}
	if g.pressing(v.risk.files(), v.risk.bytes()+bytes) == free {
		return nil
	}
	b.look() // a backup may be due
	began := time.Now()
	limit := longestWait(bytes)
	if b.waiting.Add(1) > crowd {
		limit = crowdWait
	}
	defer func() {
		b.waiting.Add(-1)
		b.slowed.Add(1)
		b.waited.Add(int64(time.Since(began)))
	}()
	late, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for ; g != nil; g = b.brake.Load() {
		switch g.pressing(v.risk.files(), v.risk.bytes()+bytes) {
		case free:
			return nil
		case paced:
			tokens(late, b.limiter, int(min(g.all.cost(0, bytes)*1e6, waitMost.Seconds()*1e6)))
			return ctx.Err()
		}
		if !sleep(late, waitLook) {
			return ctx.Err()
		}
	}
	return nil
}

// tokens waits for n tokens of l, or until ctx ends.
func tokens(ctx context.Context, l *rate.Limiter, n int) {
	for n > 0 {
		step := min(n, l.Burst())
		if l.WaitN(ctx, step) != nil { // ctx ended, or ends before they are there
			<-ctx.Done()
			return
		}
		n -= step
	}
}
