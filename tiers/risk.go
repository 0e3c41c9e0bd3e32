package tiers

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// risk counts what no commit has yet: names touched, bytes written, and since when.
type risk struct {
	files atomic.Int64
	bytes atomic.Int64
	since atomic.Int64 // UnixNano of the oldest change; 0: none
	// unpushed is what commits have that the remote has not.
	mu       sync.Mutex
	unpushed riskCount
	taken    riskCount // what the commit under way takes: at risk until it stands
}

type riskCount struct{ files, bytes, since int64 }

func (a riskCount) plus(b riskCount) riskCount {
	since := a.since
	if since == 0 || b.since != 0 && b.since < since {
		since = b.since
	}
	return riskCount{a.files + b.files, a.bytes + b.bytes, since}
}

// take empties the counters at a commit's boundary; put brings them back if the commit fails, settled drops them where it stands.
func (r *risk) take() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.taken = riskCount{r.files.Swap(0), r.bytes.Swap(0), r.since.Swap(0)}
}

func (r *risk) settled() {
	r.mu.Lock()
	r.taken = riskCount{}
	r.mu.Unlock()
}

func (r *risk) put() {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.taken
	r.taken = riskCount{}
	r.files.Add(c.files)
	r.bytes.Add(c.bytes)
	if c.since != 0 {
		r.since.Store(c.since) // older than whatever came since
	}
}

func (r *risk) addUnpushed(c riskCount) {
	r.mu.Lock()
	r.unpushed = r.unpushed.plus(c)
	r.mu.Unlock()
}

func (r *risk) pushed() {
	r.mu.Lock()
	r.unpushed = riskCount{}
	r.mu.Unlock()
}

func (r *risk) now() AtRisk {
	r.mu.Lock()
	c := r.unpushed.plus(r.taken).plus(riskCount{r.files.Load(), r.bytes.Load(), r.since.Load()})
	r.mu.Unlock()
	out := AtRisk{Files: c.files, Bytes: c.bytes}
	if c.since != 0 {
		out.Seconds = max(0, time.Since(time.Unix(0, c.since)).Seconds())
	}
	return out
}

// points are what status says of the last commit and push, and what is wrong.
type points struct {
	verified atomic.Bool
	mu       sync.Mutex
	commit   *Point
	push     *Point
	tick     *TierReport // the last look at ages or limits
	readFD   int
	errors   map[string]string // by what failed: fetch, commit, push
}

// failing says that what was done last and failed is not good again yet.
func (p *points) failing(what string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.errors[what] != ""
}

func (p *points) setError(what string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil {
		delete(p.errors, what)
		return
	}
	if p.errors == nil {
		p.errors = make(map[string]string)
	}
	p.errors[what] = what + ": " + err.Error()
}

func (v *Volume) setLastCommit(id ID, t time.Time) {
	v.points.mu.Lock()
	v.points.commit = &Point{ID: id.String(), Time: t}
	v.points.mu.Unlock()
}

func (v *Volume) lastCommit() *Point {
	v.points.mu.Lock()
	defer v.points.mu.Unlock()
	return v.points.commit
}

func (v *Volume) setVerified() { v.points.verified.Store(true) }

// permanent says whether trying again soon cannot help.
func permanent(err error) bool {
	var refused *RefusedError
	return errors.As(err, &refused) || errors.Is(err, ErrDiverged) || errors.Is(err, ErrRefMoved)
}
