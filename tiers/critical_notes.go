package tiers

import (
	"errors"
	"maps"
	"math"
	"path"
	"slices"
	"time"

	"emberfs/tiers/cold"
	"emberfs/tiers/rules"
)

// Critical files are committed by themselves, soon after they were closed or fsynced. Every change of a critical name
// is noted before it happens. The end of a change (close, fsync, a rename) sets a time, and at that time a commit to
// the live branch takes everything that is noted.

// criticalMost bounds how many names are noted. Where more changed everything is committed instead.
const criticalMost = 100_000

// critical is what changed of critical names since the last commit that has them. Names are added between begin and
// end, and taken while the barrier is held for writing, so each change is on one side of a boundary.
type critical struct {
	mu      mutex[lockNotes]
	names   map[*Inode]map[string]struct{} // by directory, each with a reference
	count   int
	whole   bool        // only a commit of everything can take what changed
	ends    []time.Time // when the changes ended that no commit has
	due     time.Time   // when the next commit is due; zero: nothing waits
	waiting []*remoteWait
	under   *criticalSet  // what the commit under way takes; nil: none
	wake    chan struct{} // capacity 1
	// unsent are directories with names of `fsync: remote` that a commit has and the remote may lack; each holds a
	// reference.
	unsent  map[*Inode]struct{}
	sending map[*Inode]struct{} // those that the push under way takes
	delays  delays
	commits int64 // how many there were to the live branch, since the mount
}

// criticalSet is what one commit takes of critical.
type criticalSet struct {
	names   map[*Inode]map[string]struct{}
	count   int
	whole   bool
	ends    []time.Time
	waiting []*remoteWait
}

// watch asks the rules about a name that is about to change. It notes the name where they want that, and returns the
// lane of risk in which the change counts, or laneNone.
func (v *Volume) watch(d *Inode, name string, kind touchKind) int {
	if len(v.Rules().Rules()) == 0 {
		return laneMain
	}
	r := v.ruleOf(d, name)
	switch {
	case r == nil:
		return laneMain
	case r.Ignore:
		return laneNone
	}
	if r.BackupInterval > 0 {
		v.backupWithin(r.BackupInterval)
	}
	if !watched(r) {
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

// ruleOf returns the rule that decides about a name, whether that is a file or a directory; nil: there is none.
func (v *Volume) ruleOf(d *Inode, name string) *rules.Rule {
	set, at := v.Rules(), path.Join(v.pathOf(d), name)
	r := set.Decide(at, false).Rule
	if r == nil || !r.Ignore && r.Class != rules.Critical { // the name may be a directory
		if d := set.Decide(at, true); r == nil || d.Class() == rules.Critical {
			r = d.Rule
		}
	}
	return r
}

// watched says whether changes of names that r decides about are noted. r may be nil.
func watched(r *rules.Rule) bool { return r != nil && (r.Class == rules.Critical || r.FsyncRemote) }

// watchMove notes both names of a rename if one of them is critical. A commit that takes the one name shows that the
// file left it, so it has to show the file under the other name too, whatever the rules say of that; else it would be
// nowhere.
func (v *Volume) watchMove(dir *Inode, name string, newdir *Inode, newname string) {
	set := v.Rules()
	if !set.HasCritical() && !set.HasFsyncRemote() {
		return
	}
	from, to := v.ruleOf(dir, name), v.ruleOf(newdir, newname)
	// A name that is noted may have been moved there just now.
	either := watched(from) || watched(to) || v.critical.has(dir, name) || v.critical.has(newdir, newname)
	if !either {
		return
	}
	if from == nil || !from.Ignore {
		v.critical.note(v, dir, name)
	}
	if to == nil || !to.Ignore {
		v.critical.note(v, newdir, newname)
	}
}

// laneOf returns the lane of risk for what is written to n, or laneNone.
func (v *Volume) laneOf(n *Inode) int8 {
	switch d := v.decide(n); {
	case d.Ignored():
		return laneNone
	case d.Class() == rules.Critical:
		return laneCritical
	}
	return laneMain
}

// decide returns what the rules say of n where it stands now.
func (v *Volume) decide(n *Inode) rules.Decision {
	set := v.Rules()
	if len(set.Rules()) == 0 {
		return rules.Decision{}
	}
	return set.Decide(v.pathOf(n), n.kind == cold.KindDir)
}

func (v *Volume) criticalDelay(r *rules.Rule) time.Duration {
	if r.CriticalDelay > 0 {
		return r.CriticalDelay
	}
	return v.cfg.CriticalDelay
}

// finished notes that a change of n's bytes is over: a handle that could write was closed, or n was truncated without
// one.
func (v *Volume) finished(n *Inode) {
	if !v.Rules().HasCritical() || !v.critical.noted(v, n) {
		return
	}
	if d := v.decide(n); d.Class() == rules.Critical {
		v.critical.ended(v.criticalDelay(d.Rule))
	} else if n.alsoCritical.Load() {
		v.critical.ended(v.cfg.CriticalDelay)
	}
}

// severalNames notes that n has the name (dir, name) beside the one that it is known by. If the rules say critical of
// either, a commit has to come soon after each change by any of its names; one of everything, as the live branch has no
// files with several names.
func (v *Volume) severalNames(n, dir *Inode, name string) {
	set := v.Rules()
	if n.kind != cold.KindFile || !set.HasCritical() || n.alsoCritical.Load() {
		return
	}
	v.ns.RLock()
	several := n.parent != nil && (n.parent != dir || n.name != name)
	v.ns.RUnlock()
	if several && (v.decide(n).Class() == rules.Critical ||
		set.Decide(path.Join(v.pathOf(dir), name), false).Class() == rules.Critical) {
		n.alsoCritical.Store(true)
	}
}

// note adds a name of the directory d to the notes.
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

// noted says whether n's name is noted, or everything has to be committed anyway.
func (c *critical) noted(v *Volume, n *Inode) bool {
	v.ns.RLock()
	parent, name := n.parent, n.name
	v.ns.RUnlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.names[parent][name]
	return ok || c.whole
}

// has says whether a name is noted, or is being committed: then it is noted again if that fails.
func (c *critical) has(d *Inode, name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.names[d][name]
	if c.under != nil && !ok {
		_, ok = c.under.names[d][name]
	}
	return ok
}

// awaited says whether a change of n may be missing from the commits that stand: it is noted, or in the commit under
// way.
func (c *critical) awaited(v *Volume, n *Inode) bool {
	v.ns.RLock()
	parent, name := n.parent, n.name
	v.ns.RUnlock()
	if c.has(parent, name) {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.whole || c.under != nil && c.under.whole
}

// awaitedIn returns the names in d that are noted, or in the commit under way.
func (c *critical) awaitedIn(d *Inode) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	names := slices.Collect(maps.Keys(c.names[d]))
	if c.under != nil {
		names = slices.AppendSeq(names, maps.Keys(c.under.names[d]))
	}
	return names
}

// needWhole notes that something changed which only a commit of everything can take. It is due after delay.
func (c *critical) needWhole(delay time.Duration) {
	c.mu.Lock()
	c.whole = true
	c.mu.Unlock()
	c.ended(delay)
}

// severalChanged notes a change of a file with several names, of which one is critical.
func (c *critical) severalChanged(v *Volume, kind touchKind) {
	c.mu.Lock()
	c.whole = true
	c.mu.Unlock()
	if kind == touchChange {
		c.ended(v.cfg.CriticalDelay)
	}
}

// ended notes that a change ended now. A commit is due after delay.
func (c *critical) ended(delay time.Duration) {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.ends) < maxEnds {
		c.ends = append(c.ends, now)
	}
	c.dueBy(now.Add(delay))
}

// maxEnds bounds for how many changes per commit the delay is measured.
const maxEnds = 4096

// dueBy makes the next commit due at t, unless it is due earlier. c.mu is held.
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

// waitFor makes a commit due now. w gets its error, or nil once the remote has it.
func (c *critical) waitFor(w *remoteWait) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting = append(c.waiting, w)
	c.dueBy(time.Now())
}

// take returns the notes at a commit's boundary, and empties them.
func (c *critical) take() *criticalSet {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &criticalSet{names: c.names, count: c.count, whole: c.whole, ends: c.ends, waiting: c.waiting}
	c.names, c.count, c.whole, c.ends, c.waiting, c.due = nil, 0, false, nil, nil, time.Time{}
	c.under = s
	return s
}

// put brings back what a failed commit took, to be tried again after some time. Those who wait get the error, unless it
// is one after which the next commit follows at once.
func (c *critical) put(v *Volume, s *criticalSet, err error) {
	for d, names := range s.names {
		for name := range names {
			c.note(v, d, name)
		}
		v.unref(d, 1)
	}
	c.mu.Lock()
	c.under = nil
	c.whole = c.whole || s.whole
	c.ends = append(s.ends, c.ends...)
	if len(c.ends) > maxEnds {
		c.ends = c.ends[:maxEnds]
	}
	if errors.Is(err, errNeedWhole) || errors.Is(err, ErrSpoiled) {
		c.waiting = append(c.waiting, s.waiting...)
		s.waiting = nil
	}
	if c.count > 0 || c.whole || len(c.waiting) > 0 {
		c.dueBy(time.Now().Add(v.cfg.CriticalDelay))
	}
	c.mu.Unlock()
	answer(s.waiting, err)
}

// committed drops the notes of a commit that stands.
func (c *critical) committed(v *Volume, s *criticalSet) {
	now := time.Now()
	c.mu.Lock()
	c.under = nil
	for _, t := range s.ends {
		c.delays.add(now.Sub(t))
	}
	c.mu.Unlock()
	set := v.Rules()
	remote := v.cold.HasRemote() && set.HasFsyncRemote()
	for d, names := range s.names {
		if !remote || !v.keepUnsent(set, d, names) {
			v.unref(d, 1)
		}
	}
}

// next returns when the next commit is due, zero: no time; and whether somebody waits for it.
func (c *critical) next() (due time.Time, awaited bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.due, len(c.waiting) > 0
}

// errNeedWhole says that a commit to the live branch cannot take what changed.
var errNeedWhole = errors.New("a commit of everything is needed")

// leastCriticalDelay returns the shortest delay that a rule of class critical asks for.
func (v *Volume) leastCriticalDelay(set *rules.Set) time.Duration {
	least := time.Duration(math.MaxInt64)
	for i := range set.Rules() {
		if r := &set.Rules()[i]; r.Class == rules.Critical {
			least = min(least, v.criticalDelay(r))
		}
	}
	return least
}
