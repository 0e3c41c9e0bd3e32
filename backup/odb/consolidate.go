package odb

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"emberfs/tiers/warm"
)

// PackLimit is how many packs there may be before Consolidate merges some.
const PackLimit = 32

// ConsolidateOptions configure Consolidate. The zero value works.
type ConsolidateOptions struct {
	// Limit is how many packs there may be without any being merged; the default is PackLimit.
	Limit int
	// BytesPerSecond limits the speed of copying, to at least 1 MiB; the default is no limit.
	BytesPerSecond int64
}

// Consolidate merges packs if there are more than the limit, so that afterwards each pack has at least twice the bytes
// of the next smaller one, as with git repack --geometric; that leaves fewer than 64. It returns how many packs were
// merged into one. Packs with .keep (of commits under way, or a user's), .promisor or .mtimes are left alone. No object
// is removed. One Consolidate or GC runs at a time; commits, readers and stock git may go on meanwhile. If ctx is
// cancelled everything stays as it was.
func (db *DB) Consolidate(ctx context.Context, o ConsolidateOptions) (merged int, err error) {
	if db.readOnly {
		return 0, fmt.Errorf("merge packs: %w", ErrReadOnly)
	}
	def(&o.Limit, PackLimit)
	done, err := db.exclusive(ctx)
	if err != nil {
		return 0, fmt.Errorf("merge packs: %w", err)
	}
	defer done()
	if err := db.Refresh(); err != nil {
		return 0, fmt.Errorf("merge packs: %w", err)
	}
	l, err := db.acquire()
	if err != nil {
		return 0, err
	}
	defer db.release(l)
	var packs []*pack
	for _, p := range l.packs {
		if free, err := db.mergeable(p); err != nil {
			return 0, fmt.Errorf("merge packs: %w", err)
		} else if free {
			packs = append(packs, p)
		}
	}
	if len(packs) <= o.Limit {
		return 0, nil
	}
	src := geometric(packs)
	if len(src) < 2 {
		return 0, nil
	}
	if _, err := db.replace(ctx, src, nil, pace(o.BytesPerSecond), nil); err != nil {
		return 0, fmt.Errorf("merge %d packs: %w", len(src), err)
	}
	return len(src), nil
}

// exclusive waits until no other Consolidate or GC runs. The caller must call the function that it returns when it is
// done.
func (db *DB) exclusive(ctx context.Context) (func(), error) {
	select {
	case db.upkeep <- struct{}{}:
		return func() { <-db.upkeep }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func pace(bytesPerSecond int64) *rate.Limiter {
	if bytesPerSecond <= 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(max(bytesPerSecond, paceBurst)), paceBurst)
}

// mergeable reports whether a pack may be replaced. A pack with an entry that could not be copied may not, so that the
// others can be merged.
func (db *DB) mergeable(p *pack) (bool, error) {
	if p.damaged.Load() {
		return false, nil
	}
	for _, ext := range []string{".keep", ".promisor", ".mtimes"} {
		if there, err := exists(p.base + ext); there || err != nil {
			return false, err
		}
	}
	// git may have removed it, or its index, since the list was made.
	return exists(p.base + ".idx")
}

func exists(path string) (bool, error) {
	_, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// geometric returns the packs to merge so that afterwards each pack has at least twice the bytes of the next smaller
// one, as git repack --geometric does with numbers of objects. Bytes are what merging costs. The result is in the order
// of packs.
func geometric(packs []*pack) []*pack {
	by := slices.Clone(packs)
	slices.SortStableFunc(by, func(a, b *pack) int { return int(max(-1, min(1, a.size-b.size))) })
	split := len(by) - 1
	for split > 0 && by[split].size/2 >= by[split-1].size {
		split--
	}
	if split == 0 {
		return nil
	}
	split++ // the larger one of the pair that breaks the progression
	total := int64(0)
	for _, p := range by[:split] {
		total += p.size
	}
	for split < len(by) && by[split].size/2 < total {
		total += by[split].size
		split++
	}
	return slices.DeleteFunc(slices.Clone(packs), func(p *pack) bool { return !slices.Contains(by[:split], p) })
}

// replace publishes one pack with the objects of src for which want returns true (nil: all), and removes src. If agree
// is not nil, it is called before anything is removed and may refuse; then src stays beside the new pack. replace
// returns the bytes of the new pack and its index.
func (db *DB) replace(ctx context.Context, src []*pack, want func(p *pack, i int) bool, pace *rate.Limiter,
	agree func() (ok bool, done func(), err error)) (size int64, err error) {
	if err := db.step("consolidate.merge"); err != nil {
		return 0, err
	}
	youngest, err := newest(src)
	if err != nil {
		return 0, err
	}
	r, err := db.newRepacker(ctx, src, want, pace)
	if err != nil {
		return 0, err
	}
	pf, err := r.run()
	if err != nil {
		return 0, err
	}
	if err := allRead(src); err != nil {
		return 0, errors.Join(err, pf.discard())
	}
	var packs []*packFile
	if pf.count == 0 {
		err = pf.discard()
	} else {
		packs = append(packs, pf)
		err = db.publishPacks(packs)
	}
	if err != nil {
		return 0, err
	}
	// From here on the new pack must stay, because git may rely on it already.
	defer func() {
		if !crashed(err) {
			err = errors.Join(err, db.unkeep(packs))
		}
	}()
	for _, pf := range packs {
		if err := db.step("consolidate.age"); err != nil {
			return 0, err
		}
		// Keep the time, by which git gc judges for how long an unreachable object has existed.
		if err := os.Chtimes(pf.final+".pack", youngest, youngest); err != nil {
			return 0, fmt.Errorf("set the time of a pack: %w", err)
		}
		for _, path := range pf.moved {
			if st, err := os.Stat(path); err == nil {
				size += st.Size()
			}
		}
	}
	if agree != nil {
		ok, done, err := agree()
		if err != nil || !ok {
			return size, err
		}
		defer done()
	}
	if err := allRead(src); err != nil {
		return size, err
	}
	return size, db.removePacks(src)
}

// newest returns the modification time of the youngest of the packs.
func newest(src []*pack) (t time.Time, err error) {
	for _, p := range src {
		st, err := p.f.Stat()
		if err != nil {
			return t, err
		}
		if m := st.ModTime(); m.After(t) {
			t = m
		}
	}
	return t, nil
}

// removePacks removes packs whose replacement is published: first the multi-pack-index, then for each pack its index
// before its other files. A pack that somebody has given a .keep meanwhile stays.
func (db *DB) removePacks(src []*pack) error {
	if err := db.step("consolidate.remove-midx"); err != nil {
		return err
	}
	names, err := os.ReadDir(db.packDir())
	if err != nil {
		return fmt.Errorf("remove packs: %w", err)
	}
	for _, e := range names {
		if strings.HasPrefix(e.Name(), "multi-pack-index") {
			if err := os.RemoveAll(filepath.Join(db.packDir(), e.Name())); err != nil {
				return fmt.Errorf("remove packs: %w", err)
			}
		}
	}
	for _, p := range src {
		kept, err := exists(p.base + ".keep")
		if err != nil {
			return fmt.Errorf("remove packs: %w", err)
		}
		if kept {
			continue
		}
		if err := db.step("consolidate.remove-index"); err != nil {
			return err
		}
		err = removeExisting(p.base + ".idx")
		for _, ext := range []string{".rev", ".bitmap", ".mtimes"} {
			err = errors.Join(err, removeExisting(p.base+ext))
		}
		if err != nil {
			return fmt.Errorf("remove packs: %w", err)
		}
		if err := db.step("consolidate.remove-pack"); err != nil {
			return err
		}
		if err := removeExisting(p.base + ".pack"); err != nil {
			return fmt.Errorf("remove packs: %w", err)
		}
	}
	if err := db.step("consolidate.sync-dir"); err != nil {
		return err
	}
	if err := warm.SyncDir(db.packDir()); err != nil {
		return err
	}
	return db.Refresh()
}
