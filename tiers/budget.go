package tiers

import (
	"math"
	"strings"
	"sync/atomic"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/time/rate"
)

// Budget bounds what may be at risk: by the age of the oldest change, by the bytes written, or by both. The zero Budget
// bounds nothing.
type Budget struct {
	Time  time.Duration // 0: no bound
	Bytes int64         // 0: no bound
}

// IsZero says whether the budget bounds nothing.
func (b Budget) IsZero() bool { return b == Budget{} }

// String returns the budget as the settings write it, such as 1m0s,100 MB.
func (b Budget) String() string {
	var parts []string
	if b.Time > 0 {
		parts = append(parts, b.Time.String())
	}
	if b.Bytes > 0 {
		parts = append(parts, humanize.Bytes(uint64(b.Bytes)))
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ",")
}

// exceeded says whether c is more than the budget.
func (b Budget) exceeded(c riskCount, now time.Time) bool {
	return b.Time > 0 && c.age(now) > b.Time || b.Bytes > 0 && c.bytes > b.Bytes
}

// budget is the component that keeps what is at risk within max_at_risk: it measures how fast changes are saved, says
// when the next backup must begin, and slows writers that would outrun it.
type budget struct {
	mu       mutex[leaf]
	commit   speed
	push     speed
	expires  time.Time // when the machine goes away; zero: nobody knows
	deadline time.Time // when the final backup under way must be over; zero: there is none, or it has time
	over     [2]bool   // max_at_risk and risk_warn are exceeded, which was logged

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
	some := unsaved.files > 0 || unsaved.bytes > 0
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
		p.gated, p.bytes = true, b.Bytes*9/20
	}
	for _, end := range []time.Time{expires, deadline} {
		if !end.IsZero() {
			left := end.Sub(o.now).Seconds()
			p.gated, p.full = true, min(p.full, max(0, 0.8*(left-o.underWay())-all.each))
		}
	}
	if some && (cost >= p.full/2 || unsaved.bytes >= p.bytes/2 || !expires.IsZero()) {
		p.due = 0
	}
	return p
}
