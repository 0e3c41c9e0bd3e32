package tiers

import (
	"math"
	"time"
)

// speed is how long it takes to save changes, as it was measured: an amount of seconds for each commit or push, for
// each changed name, and for each byte written. It is in the units in which risk counts, so that what a server, a
// compressor and a chunker make of these is in it.
type speed struct {
	each, file, byte float64
	samples          int
}

// carefulCommit and carefulPush are what is assumed before anything was measured: a slow disk, and a slow link.
func carefulCommit() speed { return speed{each: 0.1, file: 1.0 / 500, byte: 1.0 / 20e6} }
func carefulPush() speed   { return speed{each: 2, file: 1.0 / 200, byte: 1.0 / 1e6} }

// seconds estimates how long it takes to save c; 0 where there is nothing.
func (s speed) seconds(c riskCount) float64 {
	if c.files == 0 && c.bytes == 0 {
		return 0
	}
	return s.each + s.cost(c.files, c.bytes)
}

// cost is the part of seconds that grows with what there is.
func (s speed) cost(files, bytes int64) float64 { return float64(files)*s.file + float64(bytes)*s.byte }

// plus is the speed of doing one after the other.
func (s speed) plus(t speed) speed {
	return speed{s.each + t.each, s.file + t.file, s.byte + t.byte, min(s.samples, t.samples)}
}

// learn takes in that saving c took so long. What was slower than expected counts in full, and what was faster by half,
// the first time excepted: an estimate that is too low breaks a promise. Each of the three amounts changes by its share
// of what was expected.
func (s *speed) learn(c riskCount, took time.Duration) {
	expected := s.seconds(c)
	if expected <= 0 || took <= 0 {
		return
	}
	const most = 100
	step := math.Log(min(max(took.Seconds()/expected, 1.0/most), most))
	if step < 0 && s.samples > 0 {
		step /= 2
	}
	change := func(amount *float64, n int64) {
		*amount *= math.Exp(step * *amount * float64(n) / expected)
	}
	change(&s.each, 1)
	change(&s.file, c.files)
	change(&s.byte, c.bytes)
	s.samples++
}

// outlook is what is known of what is at risk at a moment, and of how fast it can be saved.
type outlook struct {
	now          time.Time
	hasRemote    bool
	parts        riskParts
	commit, push speed
}

// all is the speed at which a change becomes safe: by a commit, and a push where there is a remote.
func (o *outlook) all() speed {
	if !o.hasRemote {
		return o.commit
	}
	return o.commit.plus(o.push)
}

// counts is what the promise is about: what the remote lacks, or no commit has where there is no remote.
func (o *outlook) counts() riskCount {
	if o.hasRemote {
		return o.parts.remote()
	}
	return o.parts.local()
}

// unsaved is counts without what a commit or a push under way takes.
func (o *outlook) unsaved() riskCount {
	if o.hasRemote {
		return o.parts.fresh.plus(o.parts.waiting)
	}
	return o.parts.fresh
}

// underWay estimates for how many seconds the commit and the push that are under way still take.
func (o *outlook) underWay() float64 {
	left := o.commit.seconds(o.parts.taken)
	if !o.hasRemote {
		return left
	}
	left += o.push.seconds(o.parts.taken)
	if o.parts.sendFrom.IsZero() {
		return left
	}
	expected, so := o.push.seconds(o.parts.sending), o.now.Sub(o.parts.sendFrom).Seconds()
	return left + max(expected-so, so/4) // of one that is late nobody knows how far it is
}

// seconds estimates how long it takes to save what is at risk: locally, and remotely.
func (o *outlook) seconds() (local, remote float64) {
	local = o.commit.seconds(o.parts.fresh) + o.commit.seconds(o.parts.taken)
	if o.hasRemote {
		remote = o.underWay() + o.commit.seconds(o.parts.fresh) + o.push.seconds(o.unsaved())
	}
	return local, remote
}
