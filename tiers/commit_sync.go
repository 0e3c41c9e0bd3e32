package tiers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// A spoiled commit is tried again after spoiledWait, then after four times as long each time, while that is below
// spoiledMost: a program that removes thousands of files comes to an end.
const (
	spoiledWait = 50 * time.Millisecond
	spoiledMost = 4 * time.Second
)

// Sync commits what is dirty and pushes where there is a remote. It returns when both are durable. An error says that
// nothing could be committed. The receipt, which is never nil, says what was committed but not pushed, or could not be
// taken.
func (v *Volume) Sync(ctx context.Context, reason string) (*Receipt, error) {
	rc := &Receipt{Reason: reason, Started: time.Now()}
	if due, _ := v.critical.next(); (reason == "unmount" || reason == "terminate") && !due.IsZero() {
		_, _ = v.syncCritical(ctx) // first, as there may be a deadline; if it fails the commit below has it too
	}
	err := v.syncBy(ctx, rc, v.commit)
	if slices.Contains([]string{"sync", "unmount", "terminate", "tier"}, reason) { // somebody reads the receipt
		rc.Missing = append(rc.Missing, v.cold.Aside()...)
		rc.Complete = rc.Complete && len(rc.Missing) == 0
		rc.LeftOut = v.heldLines(20)
	}
	rc.Took = time.Since(rc.Started)
	return rc, err
}

// syncBy is Sync with the given way to commit. It returns errNeedWhole, which is no failure, where that way cannot take
// what changed; then nothing was changed.
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
	if rc.New { // now more can leave warm
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

// push brings the remote up to the branch. It asks the remote even if that had everything when it was asked last:
// somebody may have moved or removed it, and the receipt must say only what was checked.
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

// flushWarm makes everything in warm durable, and the table of what is held back.
func (v *Volume) flushWarm() error {
	err := unix.Syncfs(v.warmRead())
	if err != nil {
		err = fmt.Errorf("make warm durable: %w", err)
	}
	err = errors.Join(err, v.held.Sync())
	v.points.setError("flush", err)
	return err
}
