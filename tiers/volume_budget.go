package tiers

import (
	"context"
	"errors"
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
	o.now, o.parts = time.Now(), v.risk.parts()
	return o
}

// linkDown says whether nothing can be expected of the remote now. Then a backup is a commit, writers are not slowed,
// and what max_at_risk promises is broken, which is said.
func (v *Volume) linkDown(o *outlook) bool {
	if !o.hasRemote {
		return false
	}
	stuck := max(pushStuck, pushStuckTimes*v.cfg.MaxAtRisk.Time)
	from := o.parts.sendFrom
	return v.points.failing("push") || v.isOffline() || !from.IsZero() && o.now.Sub(from) > stuck
}

// budgetLoop begins backups so that what is at risk stays within max_at_risk, and in short rounds once the machine is
// about to go away; it says where what writers leave must not outrun them; and it says when too much is at risk.
func (v *Volume) budgetLoop(ctx context.Context) {
	b := &v.budget
	retry := backoff.NewExponentialBackOff()
	retry.InitialInterval, retry.MaxInterval = time.Second, time.Minute
	var rest time.Time         // no backup begins before this
	var ended chan roundResult // of the backup under way; nil: there is none
	defer b.brake.Store(nil)   // nobody would make room any more
	defer func() {
		if ended != nil {
			<-ended
		}
	}()
	for {
		o := v.outlook()
		expires, deadline := b.ends(o.now)
		v.checkRisk(&o)
		down := v.linkDown(&o)
		o.hasRemote = o.hasRemote && !down
		p := v.cfg.MaxAtRisk.plan(&o, expires, deadline)
		b.setBrake(p, &o, down)
		due := max(p.due, rest.Sub(o.now))
		if p.due == noBackup || !deadline.IsZero() {
			due = noBackup
		}
		if due <= 0 && ended == nil {
			ended = make(chan roundResult, 1)
			go func() { ended <- v.budgetRound(ctx, expires, down) }()
		}
		var tick <-chan time.Time
		if c := o.counts(); c.files > 0 || c.bytes > 0 || !expires.IsZero() || !deadline.IsZero() {
			tick = time.After(budgetTick)
		}
		if ended == nil && due > 0 && due < budgetTick {
			tick = time.After(due)
		}
		if v.cfg.MaxAtRisk.IsZero() && v.cfg.RiskWarn.IsZero() && expires.IsZero() && deadline.IsZero() {
			tick = nil // nothing to plan for
		}
		select {
		case <-ctx.Done():
			return
		case <-tick:
		case <-b.wake:
		case r := <-ended:
			ended = nil
			if rest = time.Now().Add(roundPause); r.err == nil {
				retry.Reset()
			} else if !errors.Is(r.err, context.Canceled) {
				pause := retryAfter(retry, r.err, v.cfg.BackupInterval)
				rest = time.Now().Add(pause)
				v.log.WithError(r.err).WithField("retry", pause.String()).Error(
					"backup failed: what is at risk may grow past max_at_risk")
			}
		}
	}
}

// roundResult is how a backup of budgetLoop ended.
type roundResult struct{ err error }

// errExpired ends a backup that did not end before the machine was to go away.
var errExpired = errors.New("the time at which the machine goes away has come")

// budgetRound is one backup of budgetLoop. It ends when the machine goes away, unless expires is zero. With down it
// does not wait for the remote.
func (v *Volume) budgetRound(ctx context.Context, expires time.Time, down bool) roundResult {
	reason := "budget"
	if !expires.IsZero() {
		reason = "notice"
		if time.Until(expires) > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithDeadlineCause(ctx, expires, errExpired)
			defer cancel()
		}
	} else if down {
		reason = "interval"
	}
	rc, err := v.Sync(ctx, reason)
	if err == nil && !down && rc.Remote != "" && !rc.Pushed {
		err = errors.New(rc.Missing[len(rc.Missing)-1])
	}
	return roundResult{err}
}

// setBrake bounds what writers may leave unsaved as the plan says. With down nobody is slowed.
func (b *budget) setBrake(p plan, o *outlook, down bool) {
	if !p.gated || down {
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
