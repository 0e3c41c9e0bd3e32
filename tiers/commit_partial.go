package tiers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/warm"
)

// A final backup that does not fit into its deadline goes in rounds: each is a commit, with its push, of the files that
// have been at risk for longest and that can be saved in half of the time that is left. A commit still shows one moment
// of all that it takes. What it does not take is left out whole, as if it could not be read: the commit has it as the
// last one had it, it stays at risk, and the receipt lists it.

// errNoTime says that a file was left out because it would not have been saved before the deadline.
var errNoTime = errors.New("there was no time to save it before the deadline")

// mostLate is how many files that rounds left out a receipt names after one that failed.
const mostLate = 100

// part says which files a commit takes that must be over by a time. Critical files are always taken: commits to the
// live branch have them already, and a commit to main must not take them back.
type part struct {
	until time.Time           // no content is read later than this
	stays map[inoKey]struct{} // these are left out
	since cold.Time           // and all that changed since then; zero: not by time
}

// refuses returns errNoTime where n, which was pre at the boundary, is to be left out. p may be nil: nothing is.
func (p *part) refuses(v *Volume, n *Inode, pre *preimage) error {
	if p == nil || v.comesFirst(n) {
		return nil
	}
	_, stays := p.stays[n.key()]
	if stays || !time.Now().Before(p.until) || p.since != (cold.Time{}) && !pre.attr.Ctime.Before(p.since) {
		return errNoTime
	}
	return nil
}

// comesFirst says whether n is taken by each commit, whatever the time: it is critical, or an fsync of it promises that
// the remote has it.
func (v *Volume) comesFirst(n *Inode) bool { return watched(v.decide(n).Rule) || n.alsoCritical.Load() }

// within returns the context in which the content of n is read.
func (p *part) within(ctx context.Context, v *Volume, n *Inode) (context.Context, context.CancelFunc) {
	if p == nil || v.comesFirst(n) {
		return ctx, func() {}
	}
	return context.WithDeadlineCause(ctx, p.until, errNoTime)
}

// syncLast is Sync for a backup that may be the last one. It is planned to be over by ctx's deadline or, if that is
// earlier, when the machine goes away. If the machine is still there by then, the rest of the time is for the rest.
func (v *Volume) syncLast(ctx context.Context, rc *Receipt) error {
	end, limited := ctx.Deadline()
	if gone, _ := v.budget.ends(time.Now()); time.Until(gone) > 0 && (!limited || gone.Before(end)) {
		err := v.syncUntil(ctx, rc, gone)
		if err == nil && rc.Complete || ctx.Err() != nil {
			return err
		}
		v.log.WithField("missing", rc.Missing).Warn(
			"this machine was to go away by now and is still there: the backup goes on")
		rest := &Receipt{Reason: rc.Reason, Started: time.Now()}
		defer rc.join(rest)
		rc = rest
	}
	if limited {
		return v.syncFinal(ctx, rc, end)
	}
	if due, _ := v.critical.next(); !due.IsZero() {
		_, _ = v.syncCritical(ctx) // first, as a deadline may come; if it fails the commit below has it too
	}
	return v.syncBy(ctx, rc, true, v.commit)
}

// syncUntil is syncFinal for a machine that goes away at gone. What it waits for then is cut, so that the time of a
// machine that is still there goes to what is most urgent.
func (v *Volume) syncUntil(ctx context.Context, rc *Receipt, gone time.Time) error {
	ctx, cancel := context.WithDeadlineCause(ctx, gone, errExpired)
	defer cancel()
	return v.syncFinal(ctx, rc, gone)
}

// syncFinal is Sync for a backup that must be over at end.
func (v *Volume) syncFinal(ctx context.Context, rc *Receipt, end time.Time) error {
	defer v.budget.finalBy(end)()
	if due, _ := v.critical.next(); !due.IsZero() {
		// Where only a commit of everything has them, the rounds below do: they take critical files in any case.
		err := v.syncBy(ctx, &Receipt{Reason: "critical"}, false, v.commitLive)
		if left := time.Until(end).Seconds(); err == nil && v.cold.HasRemote() && v.finalSeconds() > left/2 {
			_ = v.pushNow(ctx) // the receipt says what the remote lacks in the end
		}
	}
	for last := false; !last; {
		left := time.Until(end)
		p := &part{until: end.Add(-v.reserve(left))}
		if v.finalSeconds() <= 0.6*left.Seconds() {
			last = true
		} else if some := v.choose(ctx, left); some != nil {
			p.stays, p.since = some.stays, some.since
		} else {
			last = true // one try: a commit on this disk is better than none
		}
		r := &Receipt{Reason: rc.Reason, Started: time.Now()}
		unheard := v.unheard(rc.Reason)
		err := v.syncBy(ctx, r, !unheard, func(ctx context.Context, rc *Receipt) error {
			return v.commitPart(ctx, rc, p)
		})
		if unheard {
			v.pushSoon(true)
		}
		rc.join(r)
		if err != nil {
			rc.Missing = append(rc.Missing, v.risk.lateLines(mostLate)...) // of the rounds before, whose commits stand
			return err
		}
		last = last || ctx.Err() != nil || r.Remote != "" && !r.Pushed || !r.New ||
			rc.Reason == "notice" && v.budget.crowded() // one that ends the mount waits
	}
	if c := v.risk.late(); c.files > 0 {
		line := fmt.Sprintf("not saved before the deadline: %d files, %d bytes", c.files, c.bytes)
		rc.Missing = append([]string{line}, rc.Missing...)
	}
	return nil
}

// unheard says whether a backup of this reason does not wait for the remote: others follow, and the remote does not
// answer now.
func (v *Volume) unheard(reason string) bool {
	o := v.outlook()
	return reason == "notice" && v.helpless(&o)
}

// join adds what a later round did.
func (r *Receipt) join(later *Receipt) {
	r.New, r.Files, r.Bytes = r.New || later.New, r.Files+later.Files, r.Bytes+later.Bytes
	r.Commit, r.Pushed, r.Remote = later.Commit, later.Pushed, later.Remote
	r.Complete, r.Missing = later.Complete, later.Missing
}

// reserve is how much of the time that is left a commit needs once it has read all that it takes.
func (v *Volume) reserve(left time.Duration) time.Duration {
	o := v.outlook()
	most := left / 4
	return min(max(time.Duration(o.commit.each*float64(time.Second)), left/10), most)
}

// finalSeconds estimates how long it takes to save all that is at risk, with what earlier rounds left out.
func (v *Volume) finalSeconds() float64 {
	o := v.outlook()
	o.hasRemote = o.hasRemote && !v.helpless(&o)
	o.parts.fresh = o.parts.fresh.plus(v.risk.late())
	local, remote := o.seconds()
	return max(local, remote)
}

// together is files that a commit would have to read, and that are taken together or not at all.
type together struct {
	keys    []inoKey
	bytes   int64
	changed cold.Time // the latest change
	first   bool      // one of them is taken in any case
}

// choose returns what is to be left out so that the rest can be saved in half of the time that is left: the files
// that changed last, and those that are too large. It returns nil where nothing would be taken, or where there is no
// time to find out.
func (v *Volume) choose(ctx context.Context, left time.Duration) *part {
	o := v.outlook()
	o.hasRemote = o.hasRemote && !v.helpless(&o)
	s := &survey{v: v, by: o.now.Add(left / 8)}
	if s.dir(ctx, v.root, "") != nil {
		return nil
	}
	all := o.all()
	room := left.Seconds()/2 - all.each - o.underWay()
	p := &part{stays: map[inoKey]struct{}{}, since: cold.Time{Sec: o.now.Unix(), Nsec: uint32(o.now.Nanosecond())}}
	taken := 0
	slices.SortFunc(s.list, compareAge)
	for _, c := range s.list {
		if cost := all.cost(int64(len(c.keys)), c.bytes); cost <= room || c.first {
			room -= cost
			taken++
			continue
		}
		for _, k := range c.keys {
			p.stays[k] = struct{}{}
		}
	}
	if taken == 0 {
		return nil
	}
	return p
}

// compareAge sorts what is taken in any case before all else, and then what changed earlier.
func compareAge(a, b together) int {
	if a.first != b.first {
		if a.first {
			return -1
		}
		return 1
	}
	return cmp.Or(cmp.Compare(a.changed.Sec, b.changed.Sec), cmp.Compare(a.changed.Nsec, b.changed.Nsec))
}

// survey lists the files that the next commit would read.
type survey struct {
	v    *Volume
	by   time.Time
	list []together
}

// dir surveys the directory n, which is at the path at. Files with names such as db, db-wal and db-journal are taken
// together or not at all: a database's journal is of no use without it.
func (s *survey) dir(ctx context.Context, n *Inode, at string) error {
	v := s.v
	if time.Now().After(s.by) {
		return errNoTime
	}
	if n.dir.lazy.Load() {
		return nil
	}
	fd, err := v.dirFD(n)
	if err != nil {
		return nil // it was removed
	}
	defer v.unpin(n)
	names, known := n.changedNames()
	if !known {
		list, err := warm.ListNames(fd)
		if err != nil {
			return nil // the commit will say so
		}
		for i := range list {
			names = append(names, list[i].Name)
		}
	}
	slices.Sort(names)
	var group together
	head := ""
	for _, name := range names {
		if head == "" || !strings.HasPrefix(name, head+"-") {
			s.add(group)
			group, head = together{}, name
		}
		if err := s.name(ctx, n, fd, at, name, &group); err != nil {
			return err
		}
	}
	s.add(group)
	return nil
}

func (s *survey) add(c together) {
	if len(c.keys) > 0 {
		s.list = append(s.list, c)
	}
}

// name surveys one name: it adds a file to c, and goes into a directory.
func (s *survey) name(ctx context.Context, dir *Inode, fd int, at, name string, c *together) error {
	v, full := s.v, path.Join(at, name)
	var st unix.Statx_t
	if warm.StatAt(fd, name, &st) != nil {
		return nil
	}
	kind := warm.KindOf(uint32(st.Mode))
	if kind != cold.KindDir && kind != cold.KindFile || v.ignored(full, kind == cold.KindDir) {
		return nil
	}
	n, a, err := v.lookupAt(ctx, dir, fd, name)
	if err != nil {
		return nil
	}
	defer v.unref(n, 1)
	n.mu.Lock()
	pre := preimage{attr: a, rec: n.mu.rec, captured: n.mu.captured, open: n.mu.writers > 0}
	n.mu.Unlock()
	if n.kind == cold.KindDir {
		if pre.rec.Has(warm.FlagClean|warm.FlagDir) || n.vol != v {
			return nil
		}
		return s.dir(ctx, n, full)
	}
	if n.kind != cold.KindFile || pre.known() {
		return nil
	}
	c.keys = append(c.keys, n.key())
	c.bytes += min(int64(a.Size), n.written.Load().bytes(int64(a.Size)))
	c.first = c.first || v.comesFirst(n)
	if c.changed.Before(a.Ctime) {
		c.changed = a.Ctime
	}
	return nil
}

// changedNames returns the names in a directory that the next commit looks at; known is false where it looks at all.
func (n *Inode) changedNames() (names []string, known bool) {
	ds := n.dir
	ds.mu.Lock()
	defer ds.mu.Unlock()
	if !ds.mu.tracking || ds.mu.links || ds.mu.base == (cold.DirID{}) {
		return nil, false
	}
	for name := range ds.mu.changed {
		names = append(names, name)
	}
	return names, true
}
