package tiers

import (
	"context"
	"fmt"
	"slices"

	"emberfs/tiers/cold"
)

// Commits say where the session of this machine stands, for the next machine (FORMAT.md section 1): the last commit of
// a session that ended with everything in it is clean. A session that changes something after a clean commit says so
// by a commit before long, or the next machine would take it for never begun.

// reasonOpen is the reason of the commit that says that a session has changed something.
const reasonOpen = "open"

// reasonAbsorb is the reason of a commit that Cold makes of the stray live branch of a machine that was lost.
const reasonAbsorb = "absorb"

// ReasonLeaving is the reason of a backup before an unmount. Programs may change something until the mount is gone, so
// it does not end the session, however much it has.
const ReasonLeaving = "leaving"

// endsSession says whether a backup of this reason is the last one of a session: the mount is gone.
func endsSession(reason string) bool {
	return slices.Contains([]string{"unmount", "terminate"}, reason)
}

// mayEnd says whether a commit of this reason that has everything is clean. Without a remote that of the backup before
// the unmount is too: no other machine comes next, and this one knows by its own files what came after it.
func (v *Volume) mayEnd(reason string) bool {
	return endsSession(reason) || reason == ReasonLeaving && !v.cold.HasRemote()
}

// closes says whether a commit of this reason has to be made although it has nothing new: because the remote has only
// commits of this machine's session that say that it goes on, or this machine has taken in what one that was lost had
// left.
func (v *Volume) closes(base cold.Snapshot, reason string) bool {
	if !endsSession(reason) || !v.cold.HasRemote() || base == nil {
		return false
	}
	info := base.Info()
	return v.sessionOpen.Load() || info.Reason == reasonAbsorb && info.Machine == v.state.Machine
}

// repeat makes a commit with the root directory of its base, for what it says. Nothing is at risk less by it.
func (v *Volume) repeat(ctx context.Context, rc *Receipt, c *capture) error {
	c.repeats = true
	if err := v.moveBranch(ctx, c, cold.RootDir(c.base), rc); err != nil {
		return err
	}
	v.justTaken = riskCount{}
	v.noteHead(rc.Commit)
	return nil
}

// commitOpen makes a commit to the live branch which says that this machine's session has changed something. It has
// nothing new, and the next commit to main absorbs it. It returns errNeedWhole where only a commit of everything can
// say so, as in a volume without commits. Volume.syncing is held.
func (v *Volume) commitOpen(ctx context.Context, rc *Receipt) error {
	tx, err := v.cold.BeginLive(ctx)
	if err != nil {
		return fmt.Errorf("begin a commit: %w", err)
	}
	defer tx.Abort()
	base := tx.Base()
	if v.sessionOpen.Load() {
		return nil
	}
	if base == nil { // there is nothing to repeat
		return errNeedWhole
	}
	if err := v.checkBase(ctx, base); err != nil {
		return err
	}
	// What a stock client changed has the time of its commit, which a commit that repeats it would change.
	if valid, err := base.Valid(ctx, cold.RootDir(base)); err != nil {
		return fmt.Errorf("read the last commit: %w", err)
	} else if !valid {
		return errNeedWhole
	}
	v.followLive(base)
	known := v.live.tip == base.Info().ID
	if err := v.repeat(ctx, rc, &capture{tx: tx, base: base, live: true}); err != nil {
		return err
	}
	// Its directories are those of the base.
	id, err := cold.ParseID(rc.Commit)
	if err != nil || !known {
		v.live.reset(cold.ID{})
		return err
	}
	v.live.tip = id
	return nil
}

// tellRisk fills in what a commit of c says is at risk in spite of it.
func (v *Volume) tellRisk(c *capture, o *cold.CommitOptions) {
	for i, l := range c.missing {
		o.AtRisk++
		o.AtRiskBytes += l.bytes
		if i < mostLacking {
			o.Lacking = append(o.Lacking, shown(l.path))
		}
	}
	if !c.live {
		return
	}
	rest := v.risk.lanes[laneMain].count().plus(v.risk.outside())
	o.AtRisk += rest.files
	o.AtRiskBytes += rest.bytes
}

// mostLacking is how many names of files that could not be taken a commit tells.
const mostLacking = 20
