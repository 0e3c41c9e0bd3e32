package tiers

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path"
	"slices"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"golang.org/x/sys/unix"

	"emberfs/tiers/rules"
)

// What is critical is committed by itself, soon after it was closed or fsynced: every change of a critical name is noted before it
// happens, an end of a change (close, fsync, a rename) sets a time, and at that time a commit to the live branch takes all that is noted.

const laneNone = -1 // of risk: no commit is to take it

// criticalMost bounds the names that are noted; beyond it everything is committed instead.
const criticalMost = 100_000

// critical is what changed of critical names since the last commit that has them. Between begin and end names are added, under the
// barrier they are taken: each is of one side of a boundary.
type critical struct {
	mu      sync.Mutex
	names   map[*Inode]map[string]struct{} // by directory, which holds a reference
	count   int
	whole   bool        // only a commit of everything can take what changed
	ends    []time.Time // when changes ended that no commit has
	due     time.Time   // of the next commit; zero: nothing waits
	waiting []chan error
	wake    chan struct{} // capacity 1
	delays  delays
	commits int64 // to the live branch, since the mount
}

// criticalSet is what one commit takes.
type criticalSet struct {
	names   map[*Inode]map[string]struct{}
	count   int
	whole   bool
	ends    []time.Time
	waiting []chan error
}

// watch looks a name that is about to change up in the rules, notes it where they say so, and gives its lane of risk.
func (v *Volume) watch(d *Inode, name string, kind touchKind) int {
	set := v.Rules()
	if len(set.Rules()) == 0 {
		return laneMain
	}
	at := path.Join(v.pathOf(d), name)
	r := set.Decide(at, false).Rule
	if r == nil {
		r = set.Decide(at, true).Rule // it may be a directory
	}
	switch {
	case r == nil:
		return laneMain
	case r.Ignore:
		return laneNone
	}
	if r.BackupInterval > 0 {
		v.backupWithin(r.BackupInterval)
	}
	if r.Class != rules.Critical && !r.FsyncRemote {
		return laneMain
	}
	v.critical.note(v, d, name)
	if r.Class != rules.Critical {
		return laneMain
	}
	if kind == touchChange {
		v.critical.ended(v.criticalDelay(r))
	}
	return laneCritical
}

// laneOf is the lane of risk for what is written to n.
func (v *Volume) laneOf(n *Inode) int8 {
	switch d := v.decide(n); {
	case d.Ignored():
		return laneNone
	case d.Class() == rules.Critical:
		return laneCritical
	}
	return laneMain
}

// decide looks an inode up in the rules where it stands now.
func (v *Volume) decide(n *Inode) rules.Decision {
	set := v.Rules()
	if len(set.Rules()) == 0 {
		return rules.Decision{}
	}
	return set.Decide(v.pathOf(n), n.kind == KindDir)
}

func (v *Volume) criticalDelay(r *rules.Rule) time.Duration {
	if r.CriticalDelay > 0 {
		return r.CriticalDelay
	}
	return v.cfg.CriticalDelay
}

// finished notes that a handle that could write n was closed.
func (v *Volume) finished(n *Inode) {
	if !v.Rules().HasCritical() {
		return
	}
	if d := v.decide(n); d.Class() == rules.Critical && v.critical.noted(v, n) {
		v.critical.ended(v.criticalDelay(d.Rule))
	}
}

// fsynced notes that n was made durable here, and waits for the remote where its rule says so.
func (v *Volume) fsynced(n *Inode) error {
	set := v.Rules()
	if !set.HasCritical() && !set.HasFsyncRemote() {
		return nil
	}
	d := v.decide(n)
	if d.Rule == nil || !v.critical.noted(v, n) {
		return nil
	}
	if !d.Rule.FsyncRemote {
		if d.Class() == rules.Critical {
			v.critical.ended(v.criticalDelay(d.Rule))
		}
		return nil
	}
	if !v.running.Load() {
		return nil
	}
	done := make(chan error, 1)
	v.critical.waitFor(done)
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("inode %d is durable here, not remotely: %w: %w", n.ino, unix.EIO, err)
		}
	case <-v.idleTiers:
		return fmt.Errorf("inode %d is durable here, not remotely: the volume is being closed: %w", n.ino, unix.EIO)
	}
	return nil
}

// note notes a name of a directory.
func (c *critical) note(v *Volume, d *Inode, name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.whole {
		return
	}
	names := c.names[d]
	if _, ok := names[name]; ok {
		return
	}
	if c.count == criticalMost {
		c.whole = true
		return
	}
	if names == nil {
		names = map[string]struct{}{}
		if c.names == nil {
			c.names = map[*Inode]map[string]struct{}{}
		}
		c.names[d] = names
		v.ref(d)
	}
	names[name] = struct{}{}
	c.count++
}

// noted says whether a change of n waits for a commit.
func (c *critical) noted(v *Volume, n *Inode) bool {
	v.ns.RLock()
	parent, name := n.parent, n.name
	v.ns.RUnlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.names[parent][name]
	return ok || c.whole
}

// needWhole says that something changed which only a commit of everything can take.
func (c *critical) needWhole(delay time.Duration) {
	c.mu.Lock()
	c.whole = true
	c.mu.Unlock()
	c.ended(delay)
}

// ended notes the end of a change, from which on there is so much time until the commit.
func (c *critical) ended(delay time.Duration) {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.ends) < maxEnds {
		c.ends = append(c.ends, now)
	}
	c.dueBy(now.Add(delay))
}

// maxEnds bounds the ends of changes whose delay is measured together.
const maxEnds = 4096

// dueBy brings the next commit forward; mu is held.
func (c *critical) dueBy(t time.Time) {
	if !c.due.IsZero() && !t.Before(c.due) {
		return
	}
	c.due = t
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// waitFor has a commit made at once; done gets its error, nil once the remote has it.
func (c *critical) waitFor(done chan error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting = append(c.waiting, done)
	c.dueBy(time.Now())
}

// take empties the notes at a boundary.
func (c *critical) take() *criticalSet {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &criticalSet{names: c.names, count: c.count, whole: c.whole, ends: c.ends, waiting: c.waiting}
	c.names, c.count, c.whole, c.ends, c.waiting, c.due = nil, 0, false, nil, nil, time.Time{}
	return s
}

// put brings back what a failed commit took, to be tried again after some time. Those who wait get the error.
func (c *critical) put(v *Volume, s *criticalSet, err error) {
	for d, names := range s.names {
		for name := range names {
			c.note(v, d, name)
		}
		v.unref(d, 1)
	}
	c.mu.Lock()
	c.whole = c.whole || s.whole
	c.ends = append(s.ends, c.ends...)
	if len(c.ends) > maxEnds {
		c.ends = c.ends[:maxEnds]
	}
	if errors.Is(err, errNeedWhole) { // which follows at once
		c.waiting = append(c.waiting, s.waiting...)
		s.waiting = nil
	}
	if c.count > 0 || c.whole || len(c.waiting) > 0 {
		c.dueBy(time.Now().Add(v.cfg.CriticalDelay))
	}
	c.mu.Unlock()
	answer(s.waiting, err)
}

// settled lets go of what a commit has.
func (c *critical) settled(v *Volume, s *criticalSet) {
	now := time.Now()
	c.mu.Lock()
	for _, t := range s.ends {
		c.delays.add(now.Sub(t))
	}
	c.mu.Unlock()
	for d := range s.names {
		v.unref(d, 1)
	}
}

func answer(waiting []chan error, err error) {
	for _, w := range waiting {
		w <- err
	}
}

// next is when the next commit is due; zero: never.
func (c *critical) next() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.due
}

// criticalLoop commits what is critical when it is due. Commits take at most half of the time, however many files change.
func (v *Volume) criticalLoop(ctx context.Context) {
	c := &v.critical
	retry := backoff.NewExponentialBackOff()
	retry.InitialInterval, retry.MaxInterval = 100*time.Millisecond, time.Minute
	var took time.Duration // of commits lately, on the average
	var rest time.Time     // none begins before
	for {
		wait := time.Duration(math.MaxInt64)
		if due := c.next(); !due.IsZero() {
			wait = max(time.Until(due)-min(took, v.cfg.CriticalDelay/4), time.Until(rest))
		}
		if wait > 0 {
			t := time.NewTimer(wait)
			select {
			case <-ctx.Done():
				t.Stop()
				return
			case <-c.wake:
			case <-t.C:
			}
			t.Stop()
			continue // a commit may have come between
		}
		started := time.Now()
		rc, err := v.syncCritical(ctx)
		if ctx.Err() != nil {
			return
		}
		last := time.Since(started)
		took = (took*3 + last) / 4
		rest = time.Now().Add(last)
		if err == nil && rc.Complete {
			retry.Reset()
			continue
		}
		pause := retryAfter(retry, err, v.cfg.BackupInterval)
		if err != nil {
			v.log.WithError(err).WithField("retry", pause.String()).Error("critical files are not committed: they are on this disk only")
		} else {
			v.log.WithField("missing", rc.Missing).WithField("retry", pause.String()).Error("critical files are not all backed up")
		}
		rest = time.Now().Add(pause)
		c.mu.Lock()
		c.dueBy(rest)
		c.mu.Unlock()
	}
}

// CriticalStatus says how soon critical files are safe.
type CriticalStatus struct {
	Waiting int64   `json:"waiting"` // changed names that no commit has
	Commits int64   `json:"commits"` // to the live branch, since the mount
	P50     float64 `json:"p50"`     // seconds from close or fsync to the commit, of the last changes
	P99     float64 `json:"p99"`
	Worst   float64 `json:"worst"` // since the mount
}

func (v *Volume) criticalStatus() CriticalStatus {
	c := &v.critical
	c.mu.Lock()
	defer c.mu.Unlock()
	s := CriticalStatus{Waiting: int64(c.count), Commits: c.commits, Worst: c.delays.worst.Seconds()}
	s.P50, s.P99 = c.delays.percentile(50), c.delays.percentile(99)
	return s
}

// delays are the last ones that were measured, and the worst of all.
type delays struct {
	last  []time.Duration
	at    int
	worst time.Duration
}

// lastDelays is of how many the percentiles are.
const lastDelays = 1000

func (d *delays) add(x time.Duration) {
	d.worst = max(d.worst, x)
	if len(d.last) < lastDelays {
		d.last = append(d.last, x)
		return
	}
	d.last[d.at] = x
	d.at = (d.at + 1) % lastDelays
}

// percentile is in seconds; 0 where nothing was measured.
func (d *delays) percentile(p int) float64 {
	if len(d.last) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(d.last))
	return sorted[min(len(sorted)-1, len(sorted)*p/100)].Seconds()
}

// errNeedWhole: a commit to the live branch cannot take what changed.
var errNeedWhole = errors.New("a commit of everything is needed")
