package tiers

import (
	"context"
	"errors"
	"math"
	"testing"
	"time"
)

// TestSpeedIsLearned checks that the estimate comes near what saving takes, from both sides, for links and amounts of
// all kinds, and that a small save says little of large ones.
func TestSpeedIsLearned(t *testing.T) {
	for _, truth := range []speed{{each: 0.01, file: 1e-5, byte: 1e-9}, {each: 0.05, file: 1e-4, byte: 1.0 / 50e6},
		{each: 5, file: 0.01, byte: 1.0 / 100e3}} {
		s := carefulPush()
		amounts := []riskCount{{files: 100, bytes: 5e6}, {files: 2000, bytes: 8e6}, {files: 1, bytes: 20e6}}
		for i := range 30 {
			c := amounts[i%len(amounts)]
			s.learn(c, time.Duration(truth.seconds(c)*1e9))
		}
		for _, c := range amounts {
			if got, want := s.seconds(c), truth.seconds(c); got < want/1.5 || got > want*1.5 {
				t.Errorf("%+v: %+v takes %.3f s, estimated at %.3f s", truth, c, want, got)
			}
		}
	}
	s := carefulPush()
	s.learn(riskCount{files: 1, bytes: 10}, 10*time.Millisecond)
	if big := (riskCount{files: 1, bytes: 100e6}); s.seconds(big) < 50 {
		t.Errorf("after a push of 10 bytes one of 100 MB is expected to take %.1f s", s.seconds(big))
	}
	if s.seconds(riskCount{}) != 0 {
		t.Error("it takes time to save nothing")
	}
}

// simulation runs a plan against a writer and a link, on a clock of its own.
type simulation struct {
	budget         Budget
	commit, push   speed // as they are
	writer         float64
	expires        time.Duration // after the beginning; 0: never
	maxBytes       int64
	maxAge         time.Duration
	backups        int
	written, saved int64
}

func (s *simulation) run(t *testing.T, limit time.Duration) {
	t.Helper()
	const step = 10 * time.Millisecond
	start := time.Unix(1e9, 0)
	o := outlook{now: start, hasRemote: true, commit: carefulCommit(), push: carefulPush()}
	var expires time.Time
	if s.expires > 0 {
		expires = start.Add(s.expires)
	}
	var committed, ends time.Time // of the backup under way
	var began time.Time
	tokens, owed := 0.0, 0.0
	for ; o.now.Sub(start) < limit; o.now = o.now.Add(step) {
		switch p := &o.parts; {
		case ends.IsZero():
		case !o.now.Before(ends):
			o.push.learn(p.sending, ends.Sub(committed))
			s.saved += p.sending.bytes
			p.sending, p.sendFrom, ends = riskCount{}, time.Time{}, time.Time{}
		case p.taken.files > 0 && !o.now.Before(committed):
			o.commit.learn(p.taken, committed.Sub(began))
			p.sending, p.taken, p.sendFrom = p.taken, riskCount{}, o.now
		}
		p := s.budget.plan(&o, expires, time.Time{})
		if p.due <= 0 && ends.IsZero() {
			s.backups++
			o.parts.taken, o.parts.fresh = o.parts.fresh, riskCount{}
			began = o.now
			committed = began.Add(time.Duration(s.commit.seconds(o.parts.taken) * 1e9))
			ends = committed.Add(time.Duration(s.push.seconds(o.parts.taken) * 1e9))
		}
		g := &brake{plan: p, all: o.all()}
		const chunk = 64 << 10
		tokens = min(tokens+paceShare*step.Seconds(), paceBurst/1e6)
		for owed += s.writer * step.Seconds(); owed >= chunk; owed -= chunk {
			press := free
			if p.gated {
				press = g.pressing(o.parts.fresh.files, o.parts.fresh.bytes+chunk)
			}
			if cost := g.all.cost(0, chunk); press == full || press == paced && tokens < cost {
				owed = chunk // it waits
				break
			} else if press == paced {
				tokens -= cost
			}
			if o.parts.fresh.since == 0 {
				o.parts.fresh.since = o.now.UnixNano()
				o.parts.fresh.files++
			}
			o.parts.fresh.bytes += chunk
			s.written += chunk
		}
		c := o.counts()
		s.maxBytes, s.maxAge = max(s.maxBytes, c.bytes), max(s.maxAge, c.age(o.now))
	}
}

// TestPlanKeepsTheBudget checks, on a simulated clock, that what is at risk stays within the budget whatever the link
// does and however fast programs write, that writers which are slower than the link are not slowed, and that an idle
// volume makes no backups.
func TestPlanKeepsTheBudget(t *testing.T) {
	for _, c := range []struct {
		name string
		simulation
		backups int // at most
	}{
		{"slow writer, fast link", simulation{budget: Budget{60 * time.Second, 100e6},
			push: speed{each: 0.2, byte: 1 / 50e6}, writer: 100e3}, 12},
		{"fast writer, slow link", simulation{budget: Budget{60 * time.Second, 100e6},
			push: speed{each: 0.5, byte: 1 / 700e3}, writer: 50e6}, 200},
		{"fast writer, tight", simulation{budget: Budget{5 * time.Second, 10e6},
			push: speed{each: 0.5, byte: 1 / 5e6}, writer: 100e6}, 1000},
		{"bytes alone", simulation{budget: Budget{0, 10e6}, push: speed{each: 0.5, byte: 1 / 2e6},
			writer: 100e6}, 1000},
		{"time alone", simulation{budget: Budget{10 * time.Second, 0}, push: speed{each: 0.3, byte: 1 / 3e6},
			writer: 100e6}, 1000},
		{"idle", simulation{budget: Budget{5 * time.Second, 10e6}}, 0},
	} {
		c.commit = speed{each: 0.02, file: 1e-4, byte: 1 / 100e6}
		c.run(t, 10*time.Minute)
		t.Logf("%s: at most %d bytes, %v; %d backups, %d bytes written, %d saved", c.name, c.maxBytes, c.maxAge,
			c.simulation.backups, c.written, c.saved)
		if b := c.budget; b.Bytes > 0 && c.maxBytes > b.Bytes || b.Time > 0 && c.maxAge > b.Time {
			t.Errorf("%s: %d bytes, %v at risk", c.name, c.maxBytes, c.maxAge)
		}
		if c.simulation.backups > c.backups {
			t.Errorf("%s: %d backups", c.name, c.simulation.backups)
		}
		if c.writer == 100e3 && float64(c.written) < 0.99*100e3*600 {
			t.Errorf("%s: the writer was slowed to %d bytes", c.name, c.written)
		}
		if c.writer > 1e6 && float64(c.written) < 0.3*600/c.push.byte {
			t.Errorf("%s: the writer was slowed to %d bytes, where the link takes %.0f", c.name, c.written,
				600/c.push.byte)
		}
	}
}

// TestPlanBeforeTheEnd checks that at the time at which the machine goes away nearly all that was written is saved,
// though programs write faster than the link takes it until then.
func TestPlanBeforeTheEnd(t *testing.T) {
	for _, rate := range []float64{500e3, 2e6, 50e6} {
		s := simulation{commit: speed{each: 0.02, byte: 1 / 100e6}, push: speed{each: 0.3, byte: 1 / rate},
			writer: 100e6, expires: 30 * time.Second}
		s.run(t, 30*time.Second)
		lost := s.written - s.saved
		t.Logf("%.0f bytes a second: %d written, %d saved, %d backups", rate, s.written, s.saved, s.backups)
		if float64(lost) > max(0.1*float64(s.written), rate) {
			t.Errorf("%.0f bytes a second: of %d bytes %d are lost", rate, s.written, lost)
		}
	}
}

// TestPlanAfterTheEnd checks that a machine which is still there after its end slows nobody, and goes on with backups.
func TestPlanAfterTheEnd(t *testing.T) {
	o := outlook{now: time.Unix(1e9, 0), commit: carefulCommit(), push: carefulPush()}
	o.parts.fresh = riskCount{files: 1, bytes: 1000, since: o.now.UnixNano()}
	if p := (Budget{}).plan(&o, o.now.Add(-time.Second), o.now.Add(-time.Second)); p.gated || p.due > 0 {
		t.Errorf("%+v", p)
	}
	if p := (Budget{}).plan(&o, o.now.Add(time.Second), time.Time{}); !p.gated || p.due > 0 {
		t.Errorf("before it: %+v", p)
	}
	if p := (Budget{}).plan(&o, time.Time{}, time.Time{}); p.gated || p.due != noBackup {
		t.Errorf("without one: %+v", p)
	}
}

// TestPace checks that a write over the bounds waits, no longer than its limit, that one whose program was killed
// leaves at once, and that below the bounds, and where no commit takes the bytes, none waits.
func TestPace(t *testing.T) {
	v, _ := newVolume(t)
	ctx := context.Background()
	wait := func(ctx context.Context, lane int8, bytes int64) (time.Duration, error) {
		began := time.Now()
		err := v.pace(ctx, lane, bytes)
		return time.Since(began), err
	}
	v.risk.lanes[laneMain].bytes.Store(1000)
	set := func(bytes int64) {
		v.budget.brake.Store(&brake{plan: plan{full: math.Inf(1), bytes: bytes}, all: carefulPush()})
	}
	set(10_000)
	if took, err := wait(ctx, laneMain, 10); err != nil || took > 500*time.Millisecond {
		t.Errorf("below the bounds: %v, %v", took, err)
	}
	set(500)
	if took, err := wait(ctx, laneNone, 10); err != nil || took > 500*time.Millisecond {
		t.Errorf("of what no commit takes: %v, %v", took, err)
	}
	if took, err := wait(ctx, laneMain, 10); err != nil || took < waitUnit || took > 4*waitUnit {
		t.Errorf("over the bounds: %v, %v", took, err)
	}
	killed, kill := context.WithCancel(ctx)
	time.AfterFunc(50*time.Millisecond, kill)
	if took, err := wait(killed, laneMain, 1<<20); !errors.Is(err, context.Canceled) || took > waitUnit {
		t.Errorf("killed: %v, %v", took, err)
	}
	time.AfterFunc(50*time.Millisecond, func() { v.risk.lanes[laneMain].bytes.Store(0) })
	if took, err := wait(ctx, laneMain, 10); err != nil || took > waitUnit {
		t.Errorf("after a commit took it: %v, %v", took, err)
	}
	if v.budget.slowed.Load() != 3 || v.budget.waiting.Load() != 0 {
		t.Errorf("%d writes waited, %d wait", v.budget.slowed.Load(), v.budget.waiting.Load())
	}
	for bytes, want := range map[int64]time.Duration{0: waitUnit, 1: waitUnit, 128 << 10: waitUnit,
		256 << 10: 2 * waitUnit, 1 << 20: 8 * waitUnit, 1 << 30: waitMost} {
		if got := longestWait(bytes); got != want {
			t.Errorf("a write of %d bytes waits for %v at most, want %v", bytes, got, want)
		}
	}
}
