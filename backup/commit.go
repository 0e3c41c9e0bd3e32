package backup

import (
	"context"
	"errors"
	"fmt"
	"time"

	"emberfs/backup/format"
	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

// Commit implements cold.Tx.
func (t *tx) Commit(ctx context.Context, o cold.CommitOptions) (cold.ID, error) {
	if err := t.alive(); err != nil {
		return cold.ID{}, err
	}
	id, err := t.commit(ctx, o)
	if err != nil {
		t.mu.Lock()
		if t.mu.done == nil {
			t.mu.done = errTxFailed
		}
		t.mu.Unlock()
		return cold.ID{}, fmt.Errorf("commit: %w", err)
	}
	if t.end() {
		t.c.endTx()
	}
	return id, nil
}

func (t *tx) commit(ctx context.Context, o cold.CommitOptions) (cold.ID, error) {
	tree, err := t.wholeTree(o)
	if err != nil {
		return cold.ID{}, err
	}
	id, err := t.putCommit(ctx, tree, o)
	if err != nil {
		return cold.ID{}, err
	}
	if err := ctx.Err(); err != nil {
		return cold.ID{}, err
	}
	return id, t.publish(ctx, id)
}

// wholeTree returns the tree of the commit. Normally that is the root directory that was put, stored together with
// .emberfs. If nothing was put, the commit repeats its base, or main catches up with the live branch, and the tree is
// that of the base commit.
func (t *tx) wholeTree(o cold.CommitOptions) (cold.ID, error) {
	catchUp := !t.live && !t.at.Live.IsZero()
	if t.pending == nil && t.base != nil && o.Root == t.base.root.Dir() && (o.Repeat || catchUp) {
		commit, err := ReadCommit(t.c.db, t.base.info.ID)
		return commit.Tree, err
	}
	d, err := t.rootDir(o.Root)
	if err != nil {
		return cold.ID{}, err
	}
	return t.putRoot(d, o)
}

// Mend is called instead of Commit if the transaction came to the same root as the base commit. If objects that the
// base commit lacks were stored again meanwhile, Mend publishes them without moving the branch; otherwise it writes
// nothing. Afterwards the transaction can only be aborted.
func (t *tx) Mend(root cold.DirID) error {
	if err := t.alive(); err != nil {
		return err
	}
	d, err := t.rootDir(root)
	if err == nil {
		_, err = t.putRoot(d, cold.CommitOptions{})
	}
	if err != nil || !t.w.HasNew() {
		return err
	}
	if err := t.w.Publish(); err != nil {
		return fmt.Errorf("mend: %w", err)
	}
	t.c.log.Warn("stored objects again that the last commit lacked")
	return t.w.Release()
}

// rootDir takes the root directory, which must be the one put last, out of t.pending.
func (t *tx) rootDir(dir cold.DirID) (*dirBuild, error) {
	d := t.pending
	if d == nil || d.id != dir || d.head.Root == nil {
		return nil, fmt.Errorf("directory %s is not the root directory that was put last", dir.Tree)
	}
	t.pending = nil
	return d, nil
}

// putRoot stores the root directory and .emberfs, and returns the tree of the commit.
func (t *tx) putRoot(d *dirBuild, o cold.CommitOptions) (cold.ID, error) {
	if err := t.putObjects(d); err != nil {
		return cold.ID{}, err
	}
	own, err := t.putOwn(d.id.Meta, o.Opened, o.Rules)
	if err != nil {
		return cold.ID{}, fmt.Errorf("%s: %w", format.OwnName, err)
	}
	all, _ := format.UpdateTree(d.tree, map[string]odb.TreeEntry{
		format.OwnName: {Mode: odb.ModeTree, Name: format.OwnName, ID: own}})
	return t.putTree(all)
}

// putOwn stores the directory .emberfs. If opened or rules is nil, that of the base commit is kept.
func (t *tx) putOwn(meta cold.ID, opened []string, rules *[]byte) (cold.ID, error) {
	known := make(map[cold.ID]struct{})
	entries := []odb.TreeEntry{{Mode: odb.ModeTree, Name: format.MetaName, ID: meta}}
	if t.base != nil {
		for _, id := range t.base.own.Known {
			known[id] = struct{}{}
		}
		if rules == nil && t.base.own.Rules.Mode == odb.ModeFile {
			entries = append(entries, t.base.own.Rules)
		}
		// The list of opened files is only a hint: if its object is lost, the commit goes without, rather than name a
		// missing object.
		if e := t.base.own.Opened; opened == nil && e.Mode != 0 && t.c.db.Has(e.ID) {
			entries = append(entries, e)
		}
	}
	volume, err := format.EncodeVolume(t.c.VolumeID())
	if err != nil {
		return cold.ID{}, err
	}
	type ownFile struct {
		name string
		data []byte
	}
	files := []ownFile{{format.VolumeName, volume}, {format.AttributesName, []byte(format.Attributes)}}
	if rules != nil && len(*rules) > 0 {
		files = append(files, ownFile{format.RulesName, *rules})
	}
	if data := encodeOpened(opened); len(data) > 0 {
		files = append(files, ownFile{format.OpenedName, data})
	}
	for _, f := range files {
		id, err := t.putNew(odb.Blob, f.data, known)
		if err != nil {
			return cold.ID{}, fmt.Errorf("%s: %w", f.name, err)
		}
		entries = append(entries, odb.TreeEntry{Mode: odb.ModeFile, Name: f.name, ID: id})
	}
	return t.putTree(entries)
}

func (t *tx) putTree(entries []odb.TreeEntry) (cold.ID, error) {
	data, err := odb.EncodeTree(entries)
	if err != nil {
		return cold.ID{}, err
	}
	return t.w.Put(odb.Tree, data)
}

func (t *tx) putCommit(ctx context.Context, tree cold.ID, o cold.CommitOptions) (cold.ID, error) {
	when := o.When
	if when.IsZero() {
		when = time.Now()
	}
	if o.Machine == "" {
		o.Machine = t.c.o.MachineID
	}
	parent := t.at.Main
	var absorbs []cold.ID
	if t.live {
		parent = t.base.info.ID
	} else if !t.at.Live.IsZero() {
		var err error
		if absorbs, err = t.c.absorbing(ctx, t.at); err != nil {
			return cold.ID{}, err
		}
	}
	if !t.adopts.IsZero() {
		absorbs = append([]cold.ID{t.adopts}, absorbs...)
		absorbs = absorbs[:min(len(absorbs), maxAbsorbed)]
	}
	c := odb.CommitData{Tree: tree}
	o.When = when
	if t.base != nil {
		c.Parents = []cold.ID{parent}
		// git log and merges sort by time, so a commit must not be older than its parent, even if the machine's clock
		// is slow.
		when = after(when, t.base.info.Time)
	}
	when = after(when, time.Unix(0, 0)).UTC().Truncate(time.Second)
	t.c.noteClock(o.When, when)
	c.Message = format.Message(t.c.VolumeID(), o, absorbs, when)
	c.Author = odb.Signature{Name: t.c.o.UserName, Email: t.c.o.UserEmail, When: when}
	c.Committer = c.Author
	data, err := odb.EncodeCommit(c)
	if err != nil {
		return cold.ID{}, err
	}
	return t.w.Put(odb.Commit, data)
}

// clockFar is how far the branch may be ahead of the clock before that is reported.
const clockFar = time.Hour

// noteClock reports in Stats that the branch is far ahead of this machine's clock: one of the two is wrong. now is the
// machine's time, dated that of the new commit.
func (c *Cold) noteClock(now, dated time.Time) {
	ahead := dated.Sub(now)
	if ahead < clockFar {
		c.note("clock", nil)
		return
	}
	c.note("clock", fmt.Errorf("the branch's last commit is dated %s, which is %s ahead of this machine's clock: new "+
		"commits get that date too, and their true one as %s; "+
		"set the clock if it is wrong", cold.DateText(dated), far(ahead), format.TrailerTime))
}

// far formats a long duration for people. A time.Duration ends at 292 years, so longer ones all look the same.
func far(d time.Duration) string {
	if days := int64(d / (24 * time.Hour)); days > 2 {
		return fmt.Sprintf("%d days", days)
	}
	return d.Round(time.Minute).String()
}

// publish makes the objects part of the repository and moves the branch (FORMAT.md section 5).
func (t *tx) publish(ctx context.Context, id cold.ID) error {
	ref, old := t.c.ref, t.at.Main
	if t.live {
		ref, old = t.at.Ref, t.at.Live
	}
	// move checks this again under the lock; the check here saves writing a pack in vain.
	if err := t.unmoved(ctx); err != nil {
		return err
	}
	if err := t.w.Publish(); err != nil {
		return err
	}
	if err := t.move(ctx, ref, old, id); err != nil {
		return t.withdraw(ref, old, err)
	}
	if err := t.w.Release(); err != nil {
		t.c.log.WithError(err).Warn("a commit's pack stays marked as kept until the next start")
	}
	return nil
}

// unmoved returns cold.ErrRefMoved unless both branches are where they were when the Tx began.
func (t *tx) unmoved(ctx context.Context) error {
	now, err := t.c.Position(ctx)
	if err == nil && !now.same(&t.at) {
		err = cold.ErrRefMoved
	}
	return err
}

// move moves the branch, and after a commit to main retires the live branch that it absorbed. It holds c.refs, so that
// no other code in this process moves one of them meanwhile. If the process is killed before it retired the live
// branch, that one does not descend from main's tip any more: nobody reads it, and the next start retires it.
func (t *tx) move(ctx context.Context, ref string, old, id cold.ID) error {
	t.c.refs.Lock()
	defer t.c.refs.Unlock()
	if err := t.unmoved(ctx); err != nil {
		return err
	}
	if err := t.c.db.UpdateRef(ref, old, id); err != nil {
		return err
	}
	if !t.live {
		if !t.at.Live.IsZero() {
			t.c.retire(t.at.Ref, t.at.Live)
		}
		return nil
	}
	// If another program moved main meanwhile, the new live commit does not descend from main's tip: take it back.
	if main, err := t.c.Tip(); err != nil || main != t.at.Main {
		if old.IsZero() {
			err = errors.Join(err, t.c.db.DeleteRef(ref, id))
		} else {
			err = errors.Join(err, t.c.db.UpdateRef(ref, id, old))
		}
		return errors.Join(cold.ErrRefMoved, err)
	}
	return nil
}

// withdraw decides about a published pack after moving the branch failed. Only if the branch certainly did not move may
// Abort remove the pack. Otherwise, for example if the last fsync failed after the branch was written, the branch may
// name the commit, so the transaction ends here and its pack stays.
func (t *tx) withdraw(ref string, old cold.ID, cause error) error {
	now, err := t.c.ReadRef(ref)
	if err == nil && now == old || errors.Is(cause, cold.ErrRefMoved) {
		return cause
	}
	if t.end() {
		t.c.log.WithError(cause).Warn("the branch may have moved although writing it failed; the commit's pack is kept")
		t.c.endTx()
	}
	return errors.Join(cause, err)
}
