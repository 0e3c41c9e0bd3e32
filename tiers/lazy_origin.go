package tiers

import (
	"context"
	"fmt"
	"slices"

	"emberfs/tiers/cold"
)

// origin is the commit that lazy directories are read by: the one that warm was last restored from. Directories are
// named by their content, so that a later commit would list nearly all of them alike.
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

// restored is the commit that warm was restored from, opened, and listings of it that were read a moment ago: stat of a
// directory needs what listing it needs next.
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

// recentListing is a listing, perhaps one from Snapshot.ReadNames.
type recentListing struct {
	cold.Listing
	names bool
}

// recentEntries bounds the entries of listings that are kept.
const recentEntries = 4096

// readDir lists a directory as the commit has it. The listing is shared: nobody changes it.
func (v *Volume) readDir(ctx context.Context, id cold.DirID) (cold.Listing, error) {
	return v.readRecent(ctx, id, false)
}

// readNames is readDir for who needs names and kinds, of files nothing else.
func (v *Volume) readNames(ctx context.Context, id cold.DirID) (cold.Listing, error) {
	return v.readRecent(ctx, id, true)
}

// namesFor is readNames as an errand for n.
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

// recentNames gives what readNames needs not read.
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

// setOrigin notes the commit that is being restored.
func (v *Volume) setOrigin(s cold.Snapshot) {
	v.restored.mu.Lock()
	v.restored.snap = s
	v.restored.mu.Unlock()
	r := &v.restored.recent
	r.Lock()
	r.ids, r.byID, r.entries = nil, nil, 0
	r.Unlock()
}
