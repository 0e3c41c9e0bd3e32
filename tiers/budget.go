package tiers

import (
	"math"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// budget is the component that keeps what is at risk within max_at_risk: it measures how fast changes are saved, says
// when the next backup must begin, and slows writers that would outrun it.
type budget struct {
	mu      mutex[leaf]
	commit  speed
	push    speed
	expires time.Time   // when the machine goes away; zero: nobody knows
	finals  []time.Time // when the final backups that are asked for must be over
	quiet   time.Time   // no round begins before this: an unmount is under way, and a backup follows it
	over    [2]bool     // max_at_risk and risk_warn are exceeded, which was logged

	wake    chan struct{}         // capacity 1: look at the plan
	brake   atomic.Pointer[brake] // nil: writers are not slowed
	limiter *rate.Limiter         // its tokens are microseconds of saving
	waiting atomic.Int32          // writes that wait now
	slowed  atomic.Int64          // writes that waited
	waited  atomic.Int64          // for so many nanoseconds together
}

func (b *budget) init(r *risk) {
	b.commit, b.push = carefulCommit(), carefulPush()
	b.wake = make(chan struct{}, 1)
	b.limiter = rate.NewLimiter(paceShare*1e6, paceBurst)
	for i := range r.lanes {
		r.lanes[i].first = b.wake
	}
}

// look asks for a look at the plan.
func (b *budget) look() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// committed and pushed take in how long a commit or a push took that made c safe.
func (b *budget) committed(c riskCount, took time.Duration) {
	b.mu.Lock()
	b.commit.learn(c, took)
	b.mu.Unlock()
	b.look()
}

func (b *budget) pushed(c riskCount, took time.Duration) {
	b.mu.Lock()
	b.push.learn(c, took)
	b.mu.Unlock()
	b.look()
}

// noBackup is how long it is until a backup that is not needed.
const noBackup = time.Duration(math.MaxInt64)

// plan is what follows from an outlook.
type plan struct {
	due time.Duration // until the next backup must begin; 0 or less: now; noBackup: none has to
	// gated says that there are bounds for what is unsaved: for the seconds that saving it takes, and for its bytes.
	// From half of them on writers are slowed, and at the bounds they wait.
	gated bool
	full  float64
	bytes int64
}

// plan says when a backup must begin and how much may be unsaved. What is unsaved when a backup begins, and what comes
// while it runs, are both at risk at its end, and the latter has to wait for the next: so each may take up half of the
// budget.
func (b Budget) plan(o *outlook, expires, deadline time.Time) plan {
	p := plan{due: noBackup, full: math.Inf(1), bytes: math.MaxInt64}
	unsaved, all := o.unsaved(), o.all()
	cost := all.cost(unsaved.files, unsaved.bytes)
	some := unsaved != riskCount{}
	if b.Time > 0 {
		limit := b.Time.Seconds()
		p.gated, p.full = true, max(0.4*limit-all.each, limit/20)
		margin := min(limit/10+0.2, limit/4)
		if some {
			left := limit - margin - unsaved.age(o.now).Seconds() - o.underWay() - all.each - cost
			p.due = time.Duration(left * float64(time.Second))
		}
	}
	if b.Bytes > 0 {
		p.gated, p.bytes = true, b.Bytes/20*9
	}
	for _, end := range []time.Time{expires, deadline} {
		if end.After(o.now) { // one that has passed slows nobody: the machine is still there
			left := end.Sub(o.now).Seconds()
			// In short rounds: what is saved is safe, and the speed may not be what it was.
			p.gated, p.full = true, max(0, min(p.full, 0.8*(left-o.underWay())-all.each, max(left/8, 1)))
		}
	}
	if some && (cost >= p.full/2 || unsaved.bytes >= p.bytes/2 || !expires.IsZero()) {
		p.due = 0
	}
	return p
}

const (
	// pushStuck is for how long a push goes on until the link counts as down, and pushStuckTimes how many times the
	// budget's time, if that is longer.
	pushStuck      = 30 * time.Second
	pushStuckTimes = 4
)

// outlook returns what is known of what is at risk now.
func (v *Volume) outlook() outlook {
	b := &v.budget
	b.mu.Lock()
	o := outlook{commit: b.commit, push: b.push, hasRemote: v.cold.HasRemote()}
	b.mu.Unlock()
	o.now = time.Now()
	v.risk.notAfter(o.now.UnixNano())
	o.parts = v.risk.parts()
	return o
}

// helpless says whether nothing can be expected of the remote now, or of the disk. Then a backup is a commit, writers
// are not slowed, and what max_at_risk promises is broken, which is said.
func (v *Volume) helpless(o *outlook) bool {
	if v.points.failing("commit") {
		return true
	}
	if !v.cold.HasRemote() {
		return false
	}
	stuck := max(pushStuck, pushStuckTimes*v.cfg.MaxAtRisk.Time)
	from := o.parts.sendFrom
	return v.points.failing("push") || v.isOffline() || !from.IsZero() && o.now.Sub(from) > stuck
}
