package tiers

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/restore"
	"emberfs/tiers/warm"
)

// catchUp fetches from the remote, and brings warm to the newest commit if warm holds nothing that is not committed.
func (v *Volume) catchUp(ctx context.Context) error {
	fresh := v.state.Head == "" && v.state.Restore == ""
	if fresh {
		empty, err := v.warmEmpty()
		if err != nil {
			return err
		}
		fresh = empty
	}
	restoring := v.state.Restore != ""
	// What this machine has and no commit has must not be lost: only a warm that is in step moves on with the branch.
	inStep := fresh || restoring || v.rootClean()
	var before cold.Snapshot // what was here before the fetch
	var err error
	if v.cold.HasRemote() {
		here, herr := v.cold.Newest(ctx)
		if herr == nil {
			before = here
		}
		local := !fresh || here != nil || herr != nil
		if inStep, err = v.fetch(ctx, local, inStep); err != nil {
			return err
		}
	}
	head, err := v.cold.Newest(ctx)
	if err != nil {
		return fmt.Errorf("read branch %s: %w", v.cfg.Branch, err)
	}
	if err := v.lookBack(ctx, head, before, !fresh); err != nil {
		return err
	}
	if head == nil {
		return nil
	}
	if id := v.cold.VolumeID(); !fresh && v.state.Head != "" && v.state.Volume != id {
		return fmt.Errorf("%s is of volume %s, the repository of %s: use another state directory", v.cfg.State,
			v.state.Volume, id)
	}
	info := head.Info()
	v.setLastCommit(info.ID, info.Made)
	if v.unpushed() { // commits of an earlier run
		since := time.Now()
		if info.Made.Before(since) && info.Made.Unix() > 0 {
			since = info.Made
		}
		v.risk.addInherited(since)
	}
	if !inStep && v.state.Head != "" && v.checkBase(ctx, head) != nil { // somebody moved the branch in cold.git itself
		if inStep, err = v.compare(ctx); err != nil {
			return err
		}
	}
	if !inStep || v.state.Head == info.ID.String() {
		return nil
	}
	same := !fresh && !restoring && v.rootRecordDir() == cold.RootDir(head)
	if v.state.Head != "" && !v.descends(ctx, head) {
		if same {
			return nil
		}
		// The branch was moved back, or cold is an older copy: warm may hold the only copy of what came after.
		err := fmt.Errorf("branch %s is at %s, which does not follow %s that the files here are of; they stay as "+
			"they are", v.cfg.Branch, info.ID, v.state.Head)
		v.points.setError("branch", err)
		v.log.Warn(err)
		return nil
	}
	// The files are the same, but the rules may have changed, or another machine let main absorb the live commit that
	// warm is of.
	if same {
		if err := v.followRules(ctx, head); err != nil {
			return err
		}
		v.noteHead(info.ID.String())
		return nil
	}
	return v.restoreWarm(ctx, head)
}

// descends says whether the commit that warm was last in step with went into s. It is false if that cannot be found
// out.
func (v *Volume) descends(ctx context.Context, s cold.Snapshot) bool {
	id, err := cold.ParseID(v.state.Head)
	if err != nil {
		return false
	}
	ok, err := v.cold.Follows(ctx, s.Info().ID, id)
	return ok && err == nil
}

// fetch fetches the remote's commits, and moves the branch if warm can follow. It returns whether warm is in step with
// the last commit, by comparing them if inStep is false and the remote has moved. If local is true there is something
// here to go on with: then it does not wait long for the remote, and an error stands in status, unless the volume is
// not to be mounted without the remote.
func (v *Volume) fetch(ctx context.Context, local, inStep bool) (bool, error) {
	waits := ctx
	if local {
		var stop func()
		waits, stop = v.awaitContact(ctx)
		defer stop()
	}
	err := func() error {
		if !inStep {
			moved, err := v.cold.Peek(waits)
			if err != nil || !moved {
				return err
			}
			// The marks say "changed", which may be true or only careful (a killed daemon, a file with several names).
			if inStep, err = v.compare(waits); err != nil {
				return err
			}
			if !inStep {
				return cold.ErrDiverged
			}
		}
		return v.cold.Fetch(waits)
	}()
	var noBranch *cold.NoBranchError
	switch {
	case err == nil, errors.Is(err, cold.ErrDiverged):
		v.contacted()
	case !local:
		return false, fmt.Errorf("fetch from %s: %w", v.cfg.Source, err)
	case errors.As(err, &noBranch): // the first commit makes the branch
		v.contacted()
		err = nil
	case v.cfg.OfflineRefuse:
		return false, &OfflineError{v.cfg.Source, err}
	default:
		v.goOffline(err)
	}
	if v.points.setError("fetch", err); err != nil && !v.isOffline() {
		v.log.WithError(err).Warn("cannot follow the remote: going on with what is here")
	}
	return inStep, nil
}

// compare looks at warm's files to find out whether they are still those of the commit that warm was last in step with.
func (v *Volume) compare(ctx context.Context) (bool, error) {
	id, err := cold.ParseID(v.state.Head)
	if err != nil {
		return false, nil // no commit yet: everything here is new
	}
	return v.inStep(ctx, id)
}

func (v *Volume) rootRecordDir() cold.DirID {
	v.root.mu.Lock()
	defer v.root.mu.Unlock()
	return cold.DirID{Tree: v.root.mu.rec.ID, Meta: v.root.mu.rec.Meta}
}

func (v *Volume) warmEmpty() (bool, error) {
	list, err := warm.ListNames(v.warmFD)
	return len(list) == 0, err
}

// restoreWarm makes warm what snap says. It notes that in volume.json first, so that a start that finds the work half
// done does it again.
func (v *Volume) restoreWarm(ctx context.Context, snap cold.Snapshot) error {
	id := snap.Info().ID.String()
	if err := v.step("restore.note"); err != nil {
		return err
	}
	if err := v.state.Update(func(s *warm.StateFile) { s.Restore = id }); err != nil {
		return err
	}
	v.setOrigin(snap)
	r := &restore.Restorer{Cold: v.cold, Snap: snap, Log: v.log, Vol: v.into(), Untrusted: v.cfg.Untrusted,
		Lazy: v.checkTiering() == nil, Progress: v.cfg.Progress}
	r.Vol.Restored = v.state.Head != ""
	if err := r.Run(ctx, v.warmFD, nil); err != nil {
		return fmt.Errorf("restore commit %s: %w", id, err)
	}
	if r.Problems > 0 {
		// It stays in status: the next commit will have what is here, not what the repository says.
		v.points.setError("restore", fmt.Errorf("commit %s describes %d entries wrongly, which were left out or "+
			"mended (the log names them); the first: %w", id, r.Problems, r.First))
	}
	sync := unix.Syncfs
	if r.Lazy && r.Files == 0 {
		// Nothing but the root was made, so there is no need to wait for what others wrote to this disk.
		sync = unix.Fsync
	}
	if err := sync(v.warmRead()); err != nil {
		return fmt.Errorf("make the restored files durable: %w", err)
	}
	if err := v.held.Sync(); err != nil {
		return err
	}
	if err := v.followRules(ctx, snap); err != nil {
		return err
	}
	if err := v.step("restore.done"); err != nil {
		return err
	}
	v.doubtful, v.fresh = false, true
	return v.reloadRoot(func(s *warm.StateFile) {
		s.Restore, s.Head, s.Origin, s.Volume = "", id, id, v.cold.VolumeID()
	})
}

// reloadRoot reads the root's record anew after a restore wrote it, and then makes change in volume.json.
func (v *Volume) reloadRoot(change func(*warm.StateFile)) error {
	var st unix.Statx_t
	if err := warm.StatAt(v.warmFD, "", &st); err != nil {
		return err
	}
	n := v.root
	n.mu.Lock()
	n.mu.rec = warm.Record{}
	n.dir.mu.Lock() // what a comparison before the restore found is no longer so
	n.dir.mu.tracking, n.dir.mu.pending, n.dir.mu.links, n.dir.mu.changed, n.dir.mu.base = false, false, false, nil,
		cold.DirID{}
	n.dir.mu.Unlock()
	n.dir.lazy.Store(false)
	v.loadRecord(n, warm.ByFD(v.warmFD), &st)
	n.attrLocked(&st)
	n.mu.Unlock()
	return v.state.Update(change)
}
