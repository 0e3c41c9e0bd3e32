package tiers

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"emberfs/tiers/cold"
	"emberfs/tiers/warm"
)

// commits is the component that commits what is dirty.
type commits struct {
	// syncing holds one token while a Sync runs: there is one commit at a time, and waiting for it can honour a
	// context.
	syncing   chan struct{}
	upkeep    chan struct{} // holds one token when Cold.Maintain is due after a commit
	answers   []*remoteWait // guarded by syncing: those who wait for what was just committed
	justTaken riskCount     // guarded by syncing: what was at risk and the last commit took
	justFound bool          // guarded by syncing: of that a part had not been counted when the commit began
	underWay  atomic.Pointer[capture]
	live      liveBranch
	// sessionOpen: the newest commit is of this machine, and does not say that its session has ended.
	sessionOpen atomic.Bool
	pusher      pusher

	marksInMemory int // the constant of this name; tests set another
}

// commit stores what is dirty and moves the branch. It begins, captures what there is at one boundary, publishes a
// commit of it, records what is clean now, and finishes. Nothing is recorded as clean before the branch points to the
// commit, and after an error all that was dirty still is. Volume.syncing is held.
func (v *Volume) commit(ctx context.Context, rc *Receipt) error { return v.commitPart(ctx, rc, nil) }

// commitPart is commit with only the files that p lets it take; nil: all.
func (v *Volume) commitPart(ctx context.Context, rc *Receipt, p *part) (err error) {
	// Begin.
	if err := v.step("commit.begin"); err != nil {
		return err
	}
	tx, err := v.cold.Begin(ctx)
	if err != nil {
		return fmt.Errorf("begin a commit: %w", err)
	}
	defer tx.Abort()
	if err := v.checkBase(ctx, tx.Base()); err != nil {
		return err
	}
	rewalk := v.book.rewalk.Swap(false) || v.state.Walked != v.rulesSum()
	if done, err := v.nothingToCommit(ctx, tx, rewalk, rc); done {
		return err
	}
	walked := v.rulesSum()

	// Capture.
	c := v.beginCapture(ctx, tx, &capture{rewalk: rewalk, part: p})
	defer func() {
		c.finish(err)
		if err != nil && rewalk {
			v.book.rewalk.Store(true)
		}
	}()
	flush := c.beginFlush()
	defer flush.wait()
	root, err := c.all()
	if err != nil {
		return err
	}
	if err := v.step("commit.walked"); err != nil {
		return err
	}

	// Publish. After a power cut the next commit takes what warm holds. So warm must not be behind a commit that was
	// reported, or the next one would take that back.
	if err := v.publish(ctx, c, root, rc, flush.end); err != nil {
		return err
	}

	// Record. The commit stands. What fails from here on only makes the next commit, or the next start, look at more.
	_ = v.step("commit.moved")
	c.regained = v.risk.leave(c.missing)
	c.short = p != nil && v.risk.late().files > 0
	v.noteHead(rc.Commit)
	_ = v.step("commit.noted")
	c.recordClean()
	_ = v.step("commit.recorded")
	if len(c.missing) == 0 {
		v.setVerified()
	}
	if v.state.Walked != walked {
		if err := v.state.Update(func(s *warm.StateFile) { s.Walked = walked }); err != nil {
			v.log.WithError(err).Warn("cannot write volume.json")
		}
	}
	return nil
}

// nothingToCommit says whether nothing has to be captured, because the base has all that there is. If the base is of
// the live branch, it makes main absorb that. If done is true the commit ends with err.
func (v *Volume) nothingToCommit(ctx context.Context, tx cold.Tx, rewalk bool, rc *Receipt) (done bool, err error) {
	base := tx.Base()
	if v.rootClean() && base != nil && !rewalk && !v.rulesChanged(ctx, base) {
		v.nothingDirty()
		if base.Info().Live {
			return true, v.absorb(ctx, tx, rc)
		}
		if v.closes(base, rc.Reason) {
			return true, v.repeat(ctx, rc, &capture{tx: tx, base: base})
		}
		rc.Commit = base.Info().ID.String()
		v.noteHead(rc.Commit)
		if v.points.failing("flush") {
			return true, v.flushWarm()
		}
		return true, nil
	}
	if v.onlyLookedAt(ctx, base, rewalk) {
		rc.Commit = base.Info().ID.String()
		return true, nil
	}
	return false, nil
}

// onlyLookedAt says whether nothing was changed since warm was brought to what a stock client committed. Then
// directories are not clean only because no commit has EmberFS's metadata of them, which can wait for the first change:
// to look at a repository should not commit anything.
func (v *Volume) onlyLookedAt(ctx context.Context, base cold.Snapshot, rewalk bool) bool {
	if base == nil || rewalk || !v.untouched || v.changes.Load() != 0 || base.Info().Live ||
		!v.points.verified.Load() || v.state.Head != base.Info().ID.String() ||
		v.rulesChanged(ctx, base) {
		return false
	}
	if valid, err := base.Valid(ctx, cold.RootDir(base)); err != nil || valid {
		return false
	}
	v.barrier.Lock()
	defer v.barrier.Unlock()
	if v.changes.Load() != 0 { // one began just now
		return false
	}
	v.nothingWaits()
	return true
}

// absorb makes a commit to main of what the live branch has, which is all that there is.
func (v *Volume) absorb(ctx context.Context, tx cold.Tx, rc *Receipt) error {
	err := v.flushWarm()
	if err == nil {
		err = v.repeat(ctx, rc, &capture{tx: tx, base: tx.Base()})
	}
	return err
}

// publish moves the branch to what was captured, while flush makes that durable in warm, and fills in rc. What flush
// could not do is in rc.Missing.
func (v *Volume) publish(ctx context.Context, c *capture, root cold.DirID, rc *Receipt, flush func() error) error {
	rc.Files, rc.Bytes, rc.Missing = c.files, c.bytes, append(rc.Missing, lines(c.missing)...)
	flushed := make(chan error, 1)
	go func() { flushed <- flush() }()
	err := v.moveBranch(ctx, c, root, rc)
	if ferr := <-flushed; ferr != nil {
		rc.Missing = append(rc.Missing, ferr.Error())
	}
	return err
}

// moveBranch makes a commit of what was captured, with root as its root directory, and moves the branch to it. Where
// that would repeat the base it makes none.
func (v *Volume) moveBranch(ctx context.Context, c *capture, root cold.DirID, rc *Receipt) error {
	tx := c.tx
	// Repeating leaves the content as the base has it; new rules come with the next commit.
	rules := !c.repeats && v.rulesChanged(ctx, c.base)
	same := c.base != nil && cold.RootDir(c.base) == root && !rules
	// The commit would repeat the last one, and say nothing new.
	if same && !c.base.Info().Live && !c.repeats && !v.closes(c.base, rc.Reason) {
		rc.Commit, rc.Files, rc.Bytes = c.base.Info().ID.String(), 0, 0
		v.live.reset(c.base.Info().ID)
		if m, ok := tx.(mender); ok {
			if err := m.Mend(root); err != nil {
				return fmt.Errorf("commit: %w", err)
			}
		}
		return nil
	}
	now := time.Now()
	o := cold.CommitOptions{
		Reason: rc.Reason, Machine: v.state.Machine, Files: c.files, Bytes: c.bytes, Root: root, Repeat: c.repeats,
		When: now, Took: now.Sub(rc.Started), Opened: v.openedPaths(),
		Clean: v.mayEnd(rc.Reason) && len(c.missing) == 0 && !c.live,
	}
	v.tellRisk(c, &o)
	if same && !c.base.Info().Live {
		o.Files, o.Bytes = 0, 0
	}
	if rules {
		text := v.RulesText()
		o.Rules = &text
		o.Files++
	}
	commit, err := tx.Commit(ctx, o)
	if err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	if o.Rules != nil {
		v.rulesCommitted(*o.Rules)
	}
	rc.Files, rc.Bytes = o.Files, o.Bytes
	v.sessionOpen.Store(!o.Clean)
	rc.Commit, rc.New = commit.String(), true
	v.setLastCommit(commit, time.Now())
	if !c.live {
		v.live.reset(commit)
	}
	return nil
}

// mender is a Tx that can publish objects that its base commit turned out to lack, when a commit would only repeat the
// base.
type mender interface{ Mend(root cold.DirID) error }

var errDiffers = errors.New("warm differs from the commit")

func (v *Volume) rootClean() bool {
	v.root.mu.Lock()
	defer v.root.mu.Unlock()
	return v.root.mu.rec.Has(warm.FlagClean)
}

// release drops the walk's references and its file of marks. After an error the directories that were read whole will
// be read whole again.
func (c *capture) release(err error) {
	if err != nil {
		c.passOver(0)
	}
	for _, m := range c.marks {
		c.v.unref(m.n, 1)
	}
	c.marks = nil
	c.markFile.close()
}

var errClosed = errors.New("the volume is closed")
