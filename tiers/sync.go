package tiers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/cenkalti/backoff/v5"
	"golang.org/x/sys/unix"

	"emberfs/tiers/warm"
)

// A commit for which what changes cannot be set aside is tried again after spoiledWait, then after four times as long, below spoiledMost:
// what removes thousands of files comes to an end.
const (
	spoiledWait = 50 * time.Millisecond
	spoiledMost = 4 * time.Second
)

// Sync commits what is dirty and pushes where there is a remote; it returns when both are durable. The error says that nothing
// could be committed; what is committed but not pushed, or could not be taken, is in the receipt, which comes with an error too.
func (v *Volume) Sync(ctx context.Context, reason string) (*Receipt, error) {
	rc := &Receipt{Reason: reason, Started: time.Now()}
	if due, _ := v.critical.next(); (reason == "unmount" || reason == "terminate") && !due.IsZero() {
		_, _ = v.syncCritical(ctx) // first, for there may be a deadline; what fails is tried again with all the rest
	}
	err := v.syncBy(ctx, rc, v.commit)
	if slices.Contains([]string{"sync", "unmount", "terminate", "tier"}, reason) { // somebody asked
		rc.Missing = append(rc.Missing, v.cold.Aside()...)
		rc.Complete = rc.Complete && len(rc.Missing) == 0
		rc.LeftOut = v.heldLines(20)
	}
	rc.Took = time.Since(rc.Started)
	return rc, err
}

// syncBy is Sync by one way to commit. errNeedWhole, which is no failure, leaves everything as it was.
func (v *Volume) syncBy(ctx context.Context, rc *Receipt, commit func(context.Context, *Receipt) error) error {
	select {
	case v.syncing <- struct{}{}:
		defer func() { <-v.syncing }()
	case <-ctx.Done():
		rc.Missing = append(rc.Missing, "not committed: another backup is still running: "+context.Cause(ctx).Error())
		return fmt.Errorf("wait for the backup that is running: %w", context.Cause(ctx))
	}
	if v.closed.Load() {
		return errClosed
	}
	err := commit(ctx, rc)
	for wait := spoiledWait; errors.Is(err, ErrSpoiled) && wait < spoiledMost && sleep(ctx, wait); wait *= 4 {
		v.log.WithError(err).Warn("the commit is tried again")
		err = commit(ctx, rc)
	}
	if errors.Is(err, errNeedWhole) {
		return err
	}
	v.points.setError("commit", err)
	if err != nil {
		if c := v.lastCommit(); c != nil {
			rc.Commit = c.ID
		}
		rc.Missing = append(rc.Missing, "not committed: "+err.Error())
		if r := v.risk.now(); r.Files > 0 {
			rc.Missing = append(rc.Missing, fmt.Sprintf("at risk: %d files, %d bytes written", r.Files, r.Bytes))
		}
		return err
	}
	if rc.New {
		select {
		case v.upkeep <- struct{}{}:
		default:
		}
	}
	if rc.New && v.cold.HasRemote() {
		v.risk.addUnpushed(v.justTaken)
	}
	v.push(ctx, rc)
	if rc.New { // more may leave warm than before
		v.rest.Store(0)
		v.lookAtLimits()
	}
	rc.Complete = len(rc.Missing) == 0
	if waiting := v.answers; len(waiting) > 0 {
		v.answers = nil
		var late error
		if !rc.Complete {
			late = errors.New(rc.Missing[0])
		}
		answer(waiting, late)
	}
	const most = 100
	if extra := len(rc.Missing) - most; extra > 0 {
		rc.Missing = append(rc.Missing[:most], fmt.Sprintf("and %d more", extra))
	}
	return nil
}

// push brings the remote up to the branch. It asks the remote also where it had everything when it was asked last: somebody may have moved
// or removed what it had, and only what was looked at is said.
func (v *Volume) push(ctx context.Context, rc *Receipt) {
	if !v.cold.HasRemote() {
		return
	}
	rc.Remote = v.cfg.Source
	had := v.cold.Pushed()
	if err := v.cold.Push(ctx); err != nil {
		v.points.setError("push", err)
		what := "commit " + rc.Commit
		if rc.Commit == "" {
			what = "the volume, which is empty,"
		}
		rc.Missing = append(rc.Missing, fmt.Sprintf("%s is not known to be on %s: %v", what, v.cfg.Source, err))
		return
	}
	if now := v.cold.Pushed(); now != had && !now.IsZero() {
		v.points.mu.Lock()
		v.points.push = &Point{ID: now.String(), Time: time.Now()}
		v.points.mu.Unlock()
	}
	v.points.setError("push", nil)
	v.points.setError("fetch", nil)
	v.risk.pushed()
	v.critical.sent(v)
	rc.Pushed = true
}

// Status describes the volume by counters and the repository's numbers. Warm's alone are counted anew when they are old: for at most
// a twentieth of the time, its tree is walked.
func (v *Volume) Status() Status {
	s := Status{
		Volume: v.cold.VolumeID(), Source: v.cfg.Source, Branch: v.cfg.Branch, State: v.cfg.State,
		AtRisk: v.risk.now(), Records: v.records, Verified: v.points.verified.Load(),
		Errors: []string{}, Rules: []string{}, Notes: []string{},
	}
	s.Memory = v.memoryStatus()
	s.Tiers.Hot = v.hot.status()
	v.table.mu.RLock()
	s.Tiers.Hot.Inodes, s.Tiers.Hot.InodesMax = int64(len(v.table.byID)), int64(v.table.max)
	for _, n := range v.table.byID {
		if n.hotHint.Load() {
			s.Tiers.Hot.Files++ // may have pages there
		}
	}
	v.table.mu.RUnlock()
	if a := v.memory.area.Load(); a != nil {
		s.Tiers.Hot.Inodes += int64(a.inodes())
		s.Tiers.Hot.InodesMax += int64(a.table.max)
	}
	use := v.warmUse()
	s.Tiers.Warm = WarmStatus{
		TierStatus: TierStatus{Files: use.Files, Bytes: use.Bytes}, Stubs: use.Stubs, Unlisted: use.Unlisted, Limit: v.cfg.WarmLimit,
		Hits: v.moved.warmHits.Load(), Released: v.moved.released.Load(), Returned: v.moved.returned.Load(),
	}
	s.Critical = v.criticalStatus()
	cs := v.cold.Stats()
	s.Tiers.Cold = ColdStatus{
		TierStatus: TierStatus{Files: v.coldFiles(use), Bytes: cs.Bytes}, Hits: v.moved.coldHits.Load(), Packs: cs.Packs, Objects: cs.Objects,
	}
	v.points.mu.Lock()
	s.Errors = append(s.Errors, cs.Problems...)
	s.LastCommit, s.LastPush, s.Tiers.Warm.LastTick = v.points.commit, v.points.push, v.points.tick
	s.Errors = append(s.Errors, slices.Sorted(maps.Values(v.points.errors))...)
	v.points.mu.Unlock()
	s.Errors = append(s.Errors, v.risk.left(10)...)
	s.Errors = append(s.Errors, v.cold.Aside()...)
	for i := range v.Rules().Rules() {
		s.Rules = append(s.Rules, v.Rules().Rules()[i].String())
	}
	v.book.mu.Lock()
	s.RulesStatus = RulesStatus{From: v.book.from, Withheld: v.book.withheld}
	v.book.mu.Unlock()
	if n := s.RulesStatus.Withheld; n > 0 {
		s.Notes = append(s.Notes, fmt.Sprintf("%d rules that keep data out of commits came with the repository and are not in effect (accept_rules, or write them to .emberfs/rules.yaml here)", n))
	}
	s.Notes = append(s.Notes, v.memoryNotes()...)
	if !v.records {
		s.Notes = append(s.Notes, "no records (needs CAP_SYS_ADMIN): commits walk and compare, tiering is off")
	}
	s.LeftOut = append([]string{}, v.heldLines(20)...)
	s.Passthrough = v.directStatus()
	if note := v.directNote(); note != "" {
		s.Notes = append(s.Notes, note)
	}
	return s
}

// Start runs the background work until Close: what an earlier run left uncommitted is committed at once, warm is made durable
// every FlushInterval, everything is committed every BackupInterval, failures are tried again with backoff.
func (v *Volume) Start() {
	if v.started.Swap(true) {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	v.stop = cancel
	behind := v.leftBehind() // before programs come in
	v.wg.Go(func() { v.flushLoop(ctx) })
	v.wg.Go(func() { v.backupLoop(ctx, behind) })
	v.wg.Go(func() { v.criticalLoop(ctx) })
	v.wg.Go(func() { v.pruneLoop(ctx) })
	v.startMemory(ctx)
	v.wg.Go(func() { v.upkeepLoop(ctx) })
	v.wg.Go(func() { v.settleLoop(ctx) })
	v.wg.Go(func() { v.lingerLoop(ctx) })
	v.running.Store(true)
	v.wg.Go(func() { v.tierLoop(ctx) })
	v.wg.Go(func() { v.returnLoop(ctx) })
	switch {
	case v.tiered() && !v.cfg.Tiering:
		v.wg.Go(func() { v.returnAll(ctx) })
	case v.tiered() && v.fresh && v.cfg.Prefetch:
		v.wg.Go(func() { v.prefetch(ctx) })
	}
}

func (v *Volume) flushLoop(ctx context.Context) {
	if v.cfg.FlushInterval <= 0 {
		return
	}
	t := time.NewTicker(v.cfg.FlushInterval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			if err := v.flushWarm(); err != nil {
				v.log.Error(err)
			}
		}
	}
}

// flushWarm makes all that warm holds durable.
func (v *Volume) flushWarm() error {
	err := unix.Syncfs(v.warmRead())
	if err != nil {
		err = fmt.Errorf("make warm durable: %w", err)
	}
	err = errors.Join(err, v.held.Sync())
	v.points.setError("flush", err)
	return err
}

func (v *Volume) backupLoop(ctx context.Context, behind bool) {
	retry := backoff.NewExponentialBackOff()
	retry.InitialInterval, retry.MaxInterval = 5*time.Second, 5*time.Minute
	interval := v.cfg.BackupInterval
	next := interval
	var rest time.Time // rules have no say before
	if behind {
		next = time.Millisecond
	}
	reason := "recovery"
	at := time.Now().Add(next)
	for {
		wait := time.Until(at)
		if next <= 0 {
			wait = math.MaxInt64
		}
		if due := v.backupDue.Load(); due != 0 { // not sooner than a failure allows
			wait = max(min(wait, time.Until(time.Unix(0, due))), time.Until(rest))
		}
		if wait > 0 {
			if !sleepUnless(ctx, wait, v.backupBy) {
				return
			}
			continue // a commit may have come between
		}
		rc, err := v.Sync(ctx, reason)
		switch {
		case errors.Is(err, context.Canceled):
			return
		case err == nil && rc.Complete:
			retry.Reset()
			next, reason, rest = interval, "interval", time.Time{}
		case err != nil:
			next = retryAfter(retry, err, interval)
			v.log.WithError(err).WithField("retry", next.String()).Error("backup failed: the changes are on this disk only")
		default:
			next = retryAfter(retry, nil, interval)
			v.log.WithField("missing", rc.Missing).WithField("retry", next.String()).Error("backup incomplete")
		}
		if at = time.Now().Add(next); err != nil || !rc.Complete {
			rest = at
		}
	}
}

// backupWithin has everything committed before so much time has passed.
func (v *Volume) backupWithin(d time.Duration) {
	due := time.Now().Add(d).UnixNano()
	for {
		old := v.backupDue.Load()
		if old != 0 && old <= due {
			return
		}
		if v.backupDue.CompareAndSwap(old, due) {
			break
		}
	}
	select {
	case v.backupBy <- struct{}{}:
	default:
	}
}

// leftBehind says whether an earlier run may have left something that no commit has.
func (v *Volume) leftBehind() bool {
	if !v.points.verified.Load() || v.unpushed() {
		return true
	}
	if v.rootClean() || !v.doubtful {
		return false
	}
	empty, err := v.warmEmpty()
	return v.state.Head != "" || err != nil || !empty
}

// unpushed says whether the remote lacks the last commit.
func (v *Volume) unpushed() bool {
	c := v.lastCommit()
	return v.cold.HasRemote() && c != nil && v.cold.Pushed().String() != c.ID
}

func retryAfter(b *backoff.ExponentialBackOff, err error, interval time.Duration) time.Duration {
	d := b.NextBackOff()
	if permanent(err) && interval > 0 {
		return max(d, interval)
	}
	if interval > 0 {
		return min(d, interval)
	}
	return d
}

// warmUse counts what warm holds. The tree is walked, so the result is kept for a while: twenty times as long as the walk took.
func (v *Volume) warmUse() warm.Use {
	v.warmCount.Lock()
	defer v.warmCount.Unlock()
	c := &v.warmCount
	if time.Now().Before(c.until) {
		return c.use
	}
	started := time.Now()
	c.use = warm.Use{}
	warm.CountTree(v.warmFD, &c.use, 0)
	c.until = time.Now().Add(20 * time.Since(started))
	return c.use
}
