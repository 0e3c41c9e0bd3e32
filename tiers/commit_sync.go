package tiers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
)

// A spoiled commit is tried again after spoiledWait, then after four times as long each time, while that is below
// spoiledMost: a program that removes thousands of files comes to an end.
const (
	spoiledWait = 50 * time.Millisecond
	spoiledMost = 4 * time.Second
)

// unattended are the reasons of commits that nobody waits for: the remote gets them in the background.
var unattended = []string{"interval", "recovery", reasonOpen}

// final are the reasons of commits that may be the last ones: critical files come first.
var final = []string{"unmount", "terminate", "notice", ReasonLeaving}

// Sync commits what is dirty and pushes where there is a remote. It returns when both are durable. An error says that
// nothing could be committed. The receipt, which is never nil, says what was committed but not pushed, or could not be
// taken.
func (v *Volume) Sync(ctx context.Context, reason string) (*Receipt, error) {
	rc := &Receipt{Reason: reason, Started: time.Now()}
	var err error
	if slices.Contains(final, reason) {
		err = v.syncLast(ctx, rc)
		if reason == ReasonLeaving {
			v.budget.leaves()
		}
	} else {
		err = v.syncBy(ctx, rc, !slices.Contains(unattended, reason), v.commit)
	}
	// Somebody reads the receipt.
	if slices.Contains([]string{"sync", "unmount", "terminate", "tier", ReasonLeaving}, reason) {
		rc.Missing = append(rc.Missing, v.cold.Aside()...)
		rc.Complete = rc.Complete && len(rc.Missing) == 0
		rc.LeftOut = v.heldLines(20)
		v.describeCommit(rc)
	}
	rc.Took = time.Since(rc.Started)
	return rc, err
}

// syncBy is Sync with the given way to commit. It returns errNeedWhole, which is no failure, where that way cannot take
// what changed; then nothing was changed.
func (v *Volume) syncBy(ctx context.Context, rc *Receipt, wait bool,
	commit func(context.Context, *Receipt) error) error {
	release := sync.OnceFunc(func() { <-v.syncing })
	select {
	case v.syncing <- struct{}{}:
		defer release()
	case <-ctx.Done():
		rc.Missing = append(rc.Missing, "not committed: another backup is still running: "+context.Cause(ctx).Error())
		return fmt.Errorf("wait for the backup that is running: %w", context.Cause(ctx))
	}
	if v.closed.Load() {
		return errClosed
	}
	began := time.Now()
	v.justTaken, v.justFound = riskCount{}, false // a commit that only absorbs the live branch takes nothing
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
		if !v.justFound { // it may have looked at everything, to find little
			v.budget.committed(v.justTaken, time.Since(began))
		}
		select {
		case v.upkeep <- struct{}{}:
		default:
		}
	}
	remote := v.cold.HasRemote()
	if rc.New && remote {
		v.risk.addUnpushed(v.justTaken)
	}
	waiting := v.answers
	v.answers = nil
	release()
	switch {
	case len(rc.Missing) > 0:
		answer(waiting, errors.New(rc.Missing[0]))
		waiting = nil
	case !remote:
		answer(waiting, nil)
	}
	if remote {
		rc.Remote = v.cfg.Source
		if len(waiting) > 0 || rc.New || v.unpushed() {
			v.pushSoon(false, waiting...)
		}
		if wait {
			v.pushReceipt(ctx, rc)
		}
	}
	if rc.New { // now more can leave warm
		v.rest.Store(0)
		v.lookAtLimits()
	}
	rc.Complete = len(rc.Missing) == 0
	const most = 100
	if extra := len(rc.Missing) - most; extra > 0 {
		rc.Missing = append(rc.Missing[:most], fmt.Sprintf("and %d more", extra))
	}
	return nil
}

// describeCommit fills in what the commit of a receipt says, and what is at risk by now.
func (v *Volume) describeCommit(rc *Receipt) {
	rc.AtRisk = v.risk.now()
	id, err := cold.ParseID(rc.Commit)
	if err != nil {
		return
	}
	s, err := v.cold.Snapshot(context.Background(), id)
	if err != nil {
		v.log.WithError(err).Warn("cannot read the commit of a receipt")
		return
	}
	info := s.Info()
	rc.Tree, rc.Clean = info.Tree.String(), info.Clean == cold.CleanYes
}

// flushWarm makes everything in warm durable, and the table of what is held back.
func (v *Volume) flushWarm() error { return v.flushed(v.syncWarm()) }

func (v *Volume) syncWarm() error {
	if err := unix.Syncfs(v.warmRead()); err != nil {
		return fmt.Errorf("make warm durable: %w", err)
	}
	return nil
}

// flushed ends a flush of warm that came to err.
func (v *Volume) flushed(err error) error {
	err = errors.Join(err, v.held.Sync())
	v.points.setError("flush", err)
	return err
}

// earlyFlush makes warm durable as it is at the boundary of a commit, beside the capture.
type earlyFlush struct {
	c     *capture
	ended chan struct{}
	err   error // once ended is closed
}

func (c *capture) beginFlush() *earlyFlush {
	f := &earlyFlush{c: c, ended: make(chan struct{})}
	go func() {
		defer close(f.ended)
		f.err = c.v.syncWarm()
	}()
	return f
}

// wait returns when the flush is over.
func (f *earlyFlush) wait() { <-f.ended }

// end returns when everything that was captured is durable in warm.
func (f *earlyFlush) end() error {
	f.wait()
	err := f.err
	if f.c.later.Load() {
		err = f.c.v.syncWarm()
	}
	return f.c.v.flushed(err)
}
