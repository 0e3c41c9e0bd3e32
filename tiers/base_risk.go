package tiers

import (
	"errors"
	"hash/maphash"
	"math"
	"sync/atomic"
	"time"

	"emberfs/tiers/cold"
)

// risk counts what no commit has yet: names touched, bytes written, and since when. Critical files have a lane of their
// own, because they are committed by themselves.
type risk struct {
	lanes [2]lane
	seed  maphash.Seed
	// unpushed is what commits have that the remote has not.
	mu       mutex[leaf]
	unpushed riskCount
	sending  riskCount    // what the push under way takes of it
	sendFrom time.Time    // when that push began; zero: there is none
	guessed  bool         // of unpushed or sending a part is not counted: commits of an earlier run
	taken    [2]riskCount // what the commit under way takes; it is at risk until the commit stands
	// found says that the main lane counts one name for changes of an earlier run, of which nobody knows how many there
	// are; takes that the commit under way finds that out.
	found, takes bool
	out          map[string]leftOut
}

// hash returns a name's hash, by which it is counted once only.
func (r *risk) hash(name string) uint32 { return uint32(maphash.String(r.seed, name)) }

// counted has names by their hash, so that much fewer bytes are needed than for the names: only a number depends on it.
// The value is the epoch in which the name was counted last.
type counted map[uint32]uint32

// add says whether a name is to be counted: it was not since the epoch since. Then it is noted as counted in epoch.
func (c *counted) add(hash uint32, since, epoch uint64) bool {
	if at, ok := (*c)[hash]; ok && uint64(at) >= since {
		return false
	}
	if *c == nil {
		*c = counted{}
	}
	(*c)[hash] = uint32(min(epoch, math.MaxUint32))
	return true
}

type lane struct {
	files atomic.Int64
	bytes atomic.Int64
	since atomic.Int64  // UnixNano of the oldest change; 0: none
	first chan struct{} // capacity 1: gets a token when since is set; nil: nobody wants to know
}

// The lanes of risk.
const (
	laneMain = iota
	laneCritical
)

// laneNone stands for no lane: no commit is to take the change.
const laneNone = -1

type riskCount struct{ files, bytes, since int64 }

func (a riskCount) plus(b riskCount) riskCount {
	since := a.since
	if since == 0 || b.since != 0 && b.since < since {
		since = b.since
	}
	return riskCount{a.files + b.files, a.bytes + b.bytes, since}
}

func (l *lane) count() riskCount { return riskCount{l.files.Load(), l.bytes.Load(), l.since.Load()} }

// touched counts one changed name.
func (l *lane) touched() {
	l.files.Add(1)
	l.begun()
}

// begun notes now as the time of the oldest change that no commit has, unless there is an older one.
func (l *lane) begun() {
	if l.since.Load() == 0 && l.since.CompareAndSwap(0, time.Now().UnixNano()) {
		select {
		case l.first <- struct{}{}:
		default:
		}
	}
}

// files returns how many changed names no commit has, without those that the commit under way takes.
func (r *risk) files() int64 {
	return r.lanes[laneMain].files.Load() + r.lanes[laneCritical].files.Load()
}

// bytes returns how many bytes were written that no commit has, without those that the commit under way takes.
func (r *risk) bytes() int64 {
	return r.lanes[laneMain].bytes.Load() + r.lanes[laneCritical].bytes.Load()
}

// take moves the counters to taken at a commit's boundary: all of them, or only those of critical files. If the commit
// fails put brings them back; if it stands committed drops them and returns their sum.
func (r *risk) take(critical bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.lanes {
		if critical && i != laneCritical {
			continue
		}
		l := &r.lanes[i]
		r.taken[i] = riskCount{l.files.Swap(0), l.bytes.Swap(0), l.since.Swap(0)}
	}
	if !critical {
		r.found, r.takes = false, r.found
	}
}

// find counts one name for what an earlier run changed and no commit has.
func (r *risk) find() {
	r.mu.Lock()
	r.found = true
	r.mu.Unlock()
	r.lanes[laneMain].touched()
}

// taking returns how many changed names the commit under way takes.
func (r *risk) taking() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.taken[0].files + r.taken[1].files
}

// committed says with found that of the sum a part was not counted: what an earlier run changed.
func (r *risk) committed() (sum riskCount, found bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	sum, found = r.taken[0].plus(r.taken[1]), r.takes
	r.taken, r.takes = [2]riskCount{}, false
	return sum, found
}

func (r *risk) put() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, c := range r.taken {
		l := &r.lanes[i]
		l.files.Add(c.files)
		l.bytes.Add(c.bytes)
		if c.since != 0 {
			l.since.Store(c.since) // older than what was counted since
		}
	}
	r.taken = [2]riskCount{}
	r.found, r.takes = r.found || r.takes, false
}

func (r *risk) addUnpushed(c riskCount) {
	r.mu.Lock()
	r.unpushed = r.unpushed.plus(c)
	r.mu.Unlock()
}

// send moves unpushed to sending, before a push looks at what there is to push. If the push fails unsend brings it
// back; else sent drops it.
func (r *risk) send() {
	r.mu.Lock()
	r.sending, r.unpushed = r.sending.plus(r.unpushed), riskCount{}
	r.sendFrom = time.Now()
	r.mu.Unlock()
}

// sent returns what the push took, and how long it took; counted is false where not all of it was counted.
func (r *risk) sent() (c riskCount, took time.Duration, counted bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c, took, counted = r.sending, time.Since(r.sendFrom), !r.guessed
	r.sending, r.sendFrom, r.guessed = riskCount{}, time.Time{}, false
	return c, took, counted
}

func (r *risk) unsend() {
	r.mu.Lock()
	r.sending, r.unpushed = riskCount{}, r.sending.plus(r.unpushed)
	r.sendFrom = time.Time{}
	r.mu.Unlock()
}

// addInherited counts commits of an earlier run that the remote lacks: at least one file, changed at since or before.
func (r *risk) addInherited(since time.Time) {
	r.addUnpushed(riskCount{files: 1, since: since.UnixNano()})
	r.mu.Lock()
	r.guessed = true
	r.mu.Unlock()
}

// riskParts is what is at risk by how far it has come.
type riskParts struct {
	fresh    riskCount // no commit has it, nor takes it
	taken    riskCount // the commit under way takes it
	waiting  riskCount // a commit has it, and no push takes it
	sending  riskCount // the push under way takes it
	sendFrom time.Time // when that push began; zero: there is none
	out      riskCount // commits left it out
}

// local is what no commit has, without what commits leave out.
func (p riskParts) local() riskCount { return p.fresh.plus(p.taken) }

// remote is what the remote lacks, without what commits leave out.
func (p riskParts) remote() riskCount { return p.local().plus(p.waiting).plus(p.sending) }

func (r *risk) parts() riskParts {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := riskParts{waiting: r.unpushed, sending: r.sending, sendFrom: r.sendFrom}
	for i := range r.lanes {
		p.fresh, p.taken = p.fresh.plus(r.lanes[i].count()), p.taken.plus(r.taken[i])
	}
	for _, l := range r.out {
		p.out = p.out.plus(riskCount{1, l.bytes, l.since})
	}
	return p
}

// notAfter takes changes that seem to come from after now, because the clock was set back, for changes of now: they
// would have no age until the clock is there again, and no backup would be due for them.
func (r *risk) notAfter(now int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.lanes {
		if at := r.lanes[i].since.Load(); at > now {
			r.lanes[i].since.CompareAndSwap(at, now)
		}
	}
	for _, c := range []*riskCount{&r.unpushed, &r.sending, &r.taken[0], &r.taken[1]} {
		c.since = min(c.since, now)
	}
}

func (r *risk) now() cold.AtRisk {
	p := r.parts()
	c := p.remote().plus(p.out)
	return cold.AtRisk{Files: c.files, Bytes: c.bytes, Seconds: c.age(time.Now()).Seconds()}
}

// age is how long ago the oldest of the changes was; 0 where there are none.
func (a riskCount) age(now time.Time) time.Duration {
	if a.since == 0 {
		return 0
	}
	return max(0, now.Sub(time.Unix(0, a.since)))
}

// points holds what status says of the last commit and push, and of failures.
type points struct {
	verified atomic.Bool
	mu       mutex[leaf]
	commit   *Point
	push     *Point
	tick     *TierReport // the last look at ages or limits
	readFD   int
	errors   map[string]string // by what failed: fetch, commit, push, and so on
}

// failing says whether something, such as "push", failed when it was last tried.
func (p *points) failing(what string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.errors[what] != ""
}

// because returns the error of what failed last, in brackets for the end of a message; "" where nothing did.
func (p *points) because(what string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if text := p.errors[what]; text != "" {
		return " (" + text + ")"
	}
	return ""
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

func (v *Volume) setLastCommit(id cold.ID, t time.Time) {
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

// permanent says whether err is one for which trying again soon cannot help.
func permanent(err error) bool {
	var refused *cold.RefusedError
	return errors.As(err, &refused) || errors.Is(err, cold.ErrDiverged) || errors.Is(err, cold.ErrRefMoved)
}

// unpushed says whether the remote lacks the last commit.
func (v *Volume) unpushed() bool {
	c := v.lastCommit()
	return v.cold.HasRemote() && c != nil && v.cold.Pushed().String() != c.ID
}
