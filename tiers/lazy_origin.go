package tiers

import (
	"context"
	"fmt"
	"slices"

	"emberfs/tiers/cold"
)

// origin returns the commit that lazy directories are read from: the one that warm was last restored from, or the
// newest one of the branch where that one cannot be read. Directories are named by their content, so a later commit
// lists nearly all of them alike.
func (v *Volume) origin(ctx context.Context) (cold.Snapshot, error) {
	o := &v.restored
	o.mu.Lock()
	snap := o.snap
	o.mu.Unlock()
	if snap != nil {
		return snap, nil
	}

	var err error
	if v.state.Origin != "" {
		var id cold.ID
		if id, err = cold.ParseID(v.state.Origin); err == nil {
			snap, err = v.cold.Snapshot(ctx, id)
		}
		if err == nil {
			o.mu.Lock()
			defer o.mu.Unlock()
			if o.snap == nil { // else a restore began meanwhile, or another opened it too
				o.snap = snap
			}
			return o.snap, nil
		}
		if ctx.Err() != nil {
			return nil, err
		}
		v.log.WithError(err).WithField("commit", v.state.Origin).Warn(
			"the commit that was restored cannot be read: going by the newest one")
	}
	head, err := v.cold.Newest(ctx)
	if err != nil {
		return nil, fmt.Errorf("read branch %s: %w", v.cfg.Branch, err)
	}
	if head == nil {
		return nil, fmt.Errorf("branch %s has no commit: %w", v.cfg.Branch, cold.ErrMissing)
	}
	return head, nil
}

// restored holds the commit that warm was restored from, once it is open, and the listings that were read from it last:
// stat of a lazy directory reads its listing, and so does listing the directory a moment later.
type restored struct {
	mu   mutex[leaf]
	snap cold.Snapshot

	recent struct {
		mutex[leaf]
		ids     []cold.DirID // the oldest first
		byID    map[cold.DirID]*recentListing
		entries int
	}
}

// recentListing is a listing that is kept. names says that it comes from Snapshot.ReadNames, so sizes may be wrong.
type recentListing struct {
	cold.Listing
	names bool
}

// recentEntries bounds the number of entries in all listings that are kept.
const recentEntries = 4096

// readDir returns what the commit has in a directory. The listing is shared, so the caller must not change it.
func (v *Volume) readDir(ctx context.Context, id cold.DirID) (cold.Listing, error) {
	return v.readRecent(ctx, id, false)
}

// readNames is readDir for callers that need only the names and kinds of files.
func (v *Volume) readNames(ctx context.Context, id cold.DirID) (cold.Listing, error) {
	return v.readRecent(ctx, id, true)
}

// namesFor is readNames, run as an errand for n unless the listing is kept. Nothing is locked.
func (v *Volume) namesFor(ctx context.Context, n *Inode, id cold.DirID) (cold.Listing, error) {
	if l, ok := v.recentNames(id); ok {
		return l, nil
	}
	got := make(chan cold.Listing, 1)
	err := v.errand(ctx, n, func(ctx context.Context) error {
		l, err := v.readNames(ctx, id)
		got <- l
		return err
	})
	if err != nil {
		return cold.Listing{}, err
	}
	return <-got, nil
}

// recentNames returns the listing that readNames would return, if it is kept.
func (v *Volume) recentNames(id cold.DirID) (cold.Listing, bool) {
	r := &v.restored.recent
	r.Lock()
	defer r.Unlock()
	if l := r.byID[id]; l != nil && l.Entries != nil {
		return l.Listing, true
	}
	return cold.Listing{}, false
}

func (v *Volume) readRecent(ctx context.Context, id cold.DirID, names bool) (cold.Listing, error) {
	r := &v.restored.recent
	r.Lock()
	var known recentListing
	if l := r.byID[id]; l != nil {
		known = *l
	}
	r.Unlock()
	if known.Entries != nil && (names || !known.names) {
		return known.Listing, nil
	}
	s, err := v.origin(ctx)
	if err != nil {
		return cold.Listing{}, err
	}
	var l cold.Listing
	switch {
	case names:
		l, err = s.ReadNames(ctx, id)
	case known.Entries != nil:
		l, err = s.Sizes(ctx, id, known.Listing)
	default:
		l, err = s.ReadDir(ctx, id)
	}
	if err != nil {
		return cold.Listing{}, err
	}
	r.Lock()
	defer r.Unlock()
	if r.byID == nil {
		r.byID = map[cold.DirID]*recentListing{}
	}
	size := len(l.Entries) + 1
	if size > recentEntries/4 {
		return l, nil
	}
	if old := r.byID[id]; old != nil {
		if old.names && !names {
			r.entries += len(l.Entries) - len(old.Entries)
			old.Listing, old.names = l, false
		}
		return l, nil
	}
	for r.entries+size > recentEntries {
		old := r.ids[0]
		r.ids = slices.Delete(r.ids, 0, 1)
		r.entries -= len(r.byID[old].Entries) + 1
		delete(r.byID, old)
	}
	r.ids, r.byID[id] = append(r.ids, id), &recentListing{l, names}
	r.entries += size
	return l, nil
}

// setOrigin makes s the commit that lazy directories are read from, because it is being restored, and drops all
// listings that are kept.
func (v *Volume) setOrigin(s cold.Snapshot) {
	v.restored.mu.Lock()
	v.restored.snap = s
	v.restored.mu.Unlock()
	r := &v.restored.recent
	r.Lock()
	r.ids, r.byID, r.entries = nil, nil, 0
	r.Unlock()
}
