package tiers

import (
	"context"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"

	"emberfs/tiers/cold"
)

const (
	// budgetTick is how often the plan is looked at while something is at risk.
	budgetTick = 250 * time.Millisecond
	// roundPause is the least time between two backups while the machine is about to go away.
	roundPause = 500 * time.Millisecond
	// expiresRetry is the longest pause after one of these that failed: there is no time to be patient.
	expiresRetry = 2 * time.Second
	// idlePause is the same after a backup that found nothing to save.
	idlePause = 5 * time.Second
)

// budgetLoop begins backups so that what is at risk stays within max_at_risk, and in short rounds once the machine is
// about to go away; it bounds what writers may leave unsaved meanwhile; and it says when too much is at risk.
func (v *Volume) budgetLoop(ctx context.Context) {
	b := &v.budget
	retry := backoff.NewExponentialBackOff()
	retry.InitialInterval, retry.MaxInterval = time.Second, time.Minute
	var rest time.Time       // no backup begins before this
	var round *budgetRound   // the backup under way; nil: there is none
	defer b.brake.Store(nil) // nobody would make room any more
	defer func() { round.stop() }()
	for {
		o := v.outlook()
		expires, deadline := b.ends(o.now)
		v.checkRisk(&o)
		alone := v.helpless(&o)
		o.hasRemote = o.hasRemote && !alone
		p := v.cfg.MaxAtRisk.plan(&o, expires, deadline)
		b.setBrake(p, &o, alone)
		due := noBackup
		if p.due != noBackup && deadline.IsZero() {
			due = max(p.due, rest.Sub(o.now), b.quietFor(o.now))
		}
		if round == nil && due <= 0 {
			round = v.beginRound(ctx, expires, alone)
		} else if round != nil && alone && !round.alone && o.parts.taken == (riskCount{}) {
			round.cancel() // commits go on without the remote
		}
		wake, ended, tick := b.wake, (<-chan roundResult)(nil), (<-chan time.Time)(nil)
		switch c := o.lacking(); {
		case round != nil:
			wake, ended, tick = nil, round.ended, time.After(budgetTick)
		case v.cfg.MaxAtRisk.IsZero() && v.cfg.RiskWarn.IsZero() && expires.IsZero() && deadline.IsZero():
		case due < budgetTick:
			tick = time.After(due)
		case c != riskCount{} || !expires.IsZero() || !deadline.IsZero():
			tick = time.After(budgetTick)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick:
		case <-wake:
		case r := <-ended:
			round.cancel()
			round, rest = nil, time.Now().Add(r.rest(!expires.IsZero()))
			if r.err == nil {
				retry.Reset()
			} else if ctx.Err() == nil {
				pause := retryAfter(retry, r.err, v.cfg.BackupInterval)
				if !expires.IsZero() {
					pause = min(pause, expiresRetry)
				}
				rest = time.Now().Add(pause)
				v.log.WithError(r.err).WithField("retry", pause.String()).Error(
					"backup failed: what is at risk may grow past max_at_risk")
			}
		}
	}
}

// budgetRound is one backup of budgetLoop.
type budgetRound struct {
	ended  chan roundResult // capacity 1
	cancel context.CancelFunc
	alone  bool // it does not wait for the remote
}

// roundResult is how a budgetRound ended; idle: there was nothing to save.
type roundResult struct {
	idle bool
	err  error
}

// rest is how long it is until the next backup may begin.
func (r roundResult) rest(expires bool) time.Duration {
	switch {
	case r.idle: // what counts as at risk was none
		return idlePause
	case expires:
		return roundPause
	}
	return 0
}

// stop ends the round, if there is one, and waits for that.
func (r *budgetRound) stop() {
	if r != nil {
		r.cancel()
		<-r.ended
	}
}

// beginRound begins a backup. It ends when the machine goes away, unless expires is zero; a time that has passed ends
// nothing. With alone it does not wait for the remote.
func (v *Volume) beginRound(ctx context.Context, expires time.Time, alone bool) *budgetRound {
	reason := "budget"
	var cancel context.CancelFunc
	switch {
	case !expires.IsZero() && time.Until(expires) > 0:
		reason = "notice"
		ctx, cancel = context.WithDeadlineCause(ctx, expires, errExpired)
	case alone:
		reason = "interval"
		fallthrough
	default:
		ctx, cancel = context.WithCancel(ctx)
	}
	r := &budgetRound{make(chan roundResult, 1), cancel, alone}
	toPush := v.risk.parts().waiting != riskCount{}
	go func() {
		rc, err := v.Sync(ctx, reason)
		if err == nil && reason != "interval" && rc.Remote != "" && !rc.Pushed {
			err = fmt.Errorf("the remote lacks commit %s%s", rc.Commit, v.points.because("push"))
		}
		r.ended <- roundResult{err == nil && !rc.New && !toPush, err}
	}()
	return r
}

// setBrake bounds what writers may leave unsaved as the plan says. With alone nobody is slowed.
func (b *budget) setBrake(p plan, o *outlook, alone bool) {
	if !p.gated || alone {
		b.brake.Store(nil)
		return
	}
	b.brake.Store(&brake{plan: p, all: o.all()})
}

// lacking says of what is at risk that no backup has it: of the remote where there is one.
func (o *outlook) lacking() riskCount { return o.counts().plus(o.parts.out) }

// checkRisk logs once when what is at risk grows past max_at_risk or risk_warn.
func (v *Volume) checkRisk(o *outlook) {
	c := o.lacking()
	for i, bound := range []Budget{v.cfg.MaxAtRisk, v.cfg.RiskWarn} {
		over := bound.exceeded(c, o.now)
		v.budget.mu.Lock()
		was := v.budget.over[i]
		v.budget.over[i] = over
		v.budget.mu.Unlock()
		if over && !was {
			v.log.Warn(v.riskLine(i, bound, c, o.now))
		}
	}
}

// riskLine says that c is more than max_at_risk (which 0) or risk_warn (1) allows.
func (v *Volume) riskLine(which int, bound Budget, c riskCount, now time.Time) string {
	name := []string{"max_at_risk", "risk_warn"}[which]
	why := v.points.because("push")
	return fmt.Sprintf("%s: %d files, %d bytes are at risk, the oldest for %v: more than %v%s", name, c.files, c.bytes,
		c.age(now).Round(time.Second), bound, why)
}

// budgetStatus fills in what status says of what is at risk, and of its bounds.
func (v *Volume) budgetStatus(s *Status) {
	o := v.outlook()
	s.AtRisk = v.risk.now()
	part := func(c riskCount, seconds float64, measured bool) *cold.RiskPart {
		c = c.plus(o.parts.out)
		return &cold.RiskPart{Files: c.files, Bytes: c.bytes, Age: c.age(o.now).Seconds(), SecondsToSave: seconds,
			Measured: measured}
	}
	local, remote := o.seconds()
	s.AtRisk.Local = part(o.parts.local(), local, o.commit.samples > 0)
	if o.hasRemote {
		s.AtRisk.Remote = part(o.parts.remote(), remote, o.commit.samples > 0 && o.push.samples > 0)
	}
	b := &v.budget
	s.Budget = BudgetStatus{MaxAtRisk: v.cfg.MaxAtRisk.String(), RiskWarn: v.cfg.RiskWarn.String(),
		Slowed: b.slowed.Load(), Waited: time.Duration(b.waited.Load()).Seconds()}
	if expires, _ := b.ends(o.now); !expires.IsZero() {
		s.Budget.Expires = &expires
	}
	c := o.lacking()
	for i, bound := range []Budget{v.cfg.MaxAtRisk, v.cfg.RiskWarn} {
		if bound.exceeded(c, o.now) {
			s.Errors = append(s.Errors, v.riskLine(i, bound, c, o.now))
		}
	}
}
