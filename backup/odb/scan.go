package odb

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"emberfs/tiers/cold"
)

// packList is an immutable list of open packs, newest first. It holds a reference to each pack. The DB, and every
// reader that is searching the list, hold a reference to the list.
type packList struct {
	packs []*pack
	gen   int64 // number of this list among those of the DB
	refs  atomic.Int64
}

func newPackList(packs []*pack, gen int64) *packList {
	l := &packList{packs: packs, gen: gen}
	l.refs.Store(1)
	for _, p := range packs {
		p.retain()
	}
	return l
}

// tryRetain takes a reference. It returns false if the list has been released completely.
func (l *packList) tryRetain() bool {
	for {
		n := l.refs.Load()
		if n == 0 {
			return false
		}
		if l.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (l *packList) release() error {
	if l.refs.Add(-1) != 0 {
		return nil
	}
	var err error
	for _, p := range l.packs {
		err = errors.Join(err, p.release())
	}
	return err
}

// acquire returns the current list with a reference for the caller.
func (db *DB) acquire() (*packList, error) {
	for {
		l := db.packs.Load()
		if l == nil {
			return nil, ErrClosed
		}
		if l.tryRetain() {
			return l, nil
		}
	}
}

func (db *DB) release(l *packList) {
	if err := l.release(); err != nil {
		db.log.WithError(err).Warn("closing a pack that was removed")
	}
}

// scanState is the state of looking for packs. mu guards it and allows one scan at a time.
type scanState struct {
	mu     sync.Mutex
	mtime  time.Time           // of objects/pack when the last complete scan began; zero forces a scan
	warned map[string]struct{} // packs that were reported as unreadable
	// unread says why a pack could not be opened in the last scan, for reasons other than damage, which may be
	// temporary.
	unread error
	broken map[string]error    // packs without a usable index, as the last scan saw them
	tried  map[string]struct{} // packs that were mended, or could not be mended
	young  bool                // there is a pack without index that is so young that it may just be being published
	// noPublisher says that no process of ours is publishing a pack, so a pack without index needs one. If git is
	// publishing it, git writes the same index again.
	noPublisher bool
}

const (
	maxScans = 1000 // after so many passes in one scan give up
	// racy is how young a directory's mtime must be for a later change to possibly get the same mtime.
	racy = 2 * time.Second
	// publishGrace is how long a pack may be without its index before that is reported; somebody may be publishing it.
	publishGrace = time.Minute
)

// Refresh looks for packs that were added or removed. Readers do that themselves if they do not find an object.
func (db *DB) Refresh() error {
	l, err := db.acquire()
	if err != nil {
		return err
	}
	defer db.release(l)
	_, err = db.rescan(l.gen)
	return err
}

// rescan reads the directory of packs until a pass shows no change, and installs the new list. It reports whether the
// list now differs from that of generation gen, which the caller has searched.
func (db *DB) rescan(gen int64) (changed bool, err error) {
	db.scan.mu.Lock()
	defer db.scan.mu.Unlock()
	cur := db.packs.Load()
	if cur == nil {
		return false, ErrClosed
	}
	if cur.gen != gen {
		return true, nil
	}
	if changed, err = db.scanOnce(); err != nil {
		return changed, err
	}
	mended := db.mend()
	if mended || db.scan.young {
		db.scan.mtime = time.Time{}
	}
	if mended {
		changed = true
		_, err = db.scanOnce()
	}
	return changed, err
}

// scanOnce is rescan without mending packs. scan.mu must be held.
func (db *DB) scanOnce() (changed bool, err error) {
	cur := db.packs.Load()
	dir := filepath.Join(db.dir, "objects", "pack")
	st, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for packs: %w", err)
	}
	if st.ModTime().Equal(db.scan.mtime) {
		return false, nil
	}
	// If the mtime is young, a change right after the scan might not change it.
	young := time.Since(st.ModTime()) < racy
	packs, err := db.scanPacks(dir, cur)
	if err != nil {
		return false, err
	}
	db.scan.mtime = st.ModTime()
	if young || db.scan.unread != nil || db.scan.young {
		db.scan.mtime = time.Time{}
	}
	if slices.Equal(packs, cur.packs) {
		return false, nil
	}
	db.packs.Store(newPackList(packs, cur.gen+1))
	for _, p := range packs {
		if !slices.Contains(cur.packs, p) {
			p.refs.Add(-1) // the reference of scanPacks; now the list has one
		}
	}
	return true, cur.release()
}

// scanPacks opens new packs, until two passes see the same names.
func (db *DB) scanPacks(dir string, cur *packList) (_ []*pack, err error) {
	have := make(map[string]*pack, len(cur.packs))
	for _, p := range cur.packs {
		if !p.stale {
			have[p.name()] = p
		}
	}
	opened := map[string]*pack{}
	defer func() {
		if err != nil {
			for _, p := range opened {
				err = errors.Join(err, p.release())
			}
		}
	}()
	var last []string
	for range maxScans {
		names, err := packNames(dir)
		if err != nil {
			return nil, fmt.Errorf("look for packs: %w", err)
		}
		if last != nil && slices.Equal(names, last) {
			return db.seenPacks(names, have, opened)
		}
		gone := false
		db.scan.unread, db.scan.broken, db.scan.young = nil, map[string]error{}, false
		for _, n := range names {
			base, isIdx := strings.CutSuffix(n, ".idx")
			if !isIdx || have[base] != nil || opened[base] != nil {
				continue
			}
			p, err := openPack(filepath.Join(dir, base))
			switch {
			case err == nil:
				p.seq = db.seq.Add(1)
				p.retain()
				opened[base] = p
			case errors.Is(err, fs.ErrNotExist):
				// An index without a pack is left by an interrupted removal. But if the pack was listed too, it was
				// removed just now.
				gone = gone || slices.Contains(names, base+".pack")
			default:
				if errors.Is(err, cold.ErrCorrupt) {
					db.scan.broken[base] = err
				} else {
					db.scan.unread = fmt.Errorf("pack %s: %w", base, err)
				}
				db.warnOnce(dir, base, "a pack cannot be read", err)
			}
		}
		last = names
		if gone {
			last = nil
		}
	}
	return nil, fmt.Errorf("look for packs: %s changes all the time", dir)
}

// takeEffect returns the packs that the last pass saw, newest first.
func (db *DB) seenPacks(names []string, have, opened map[string]*pack) ([]*pack, error) {
	var packs []*pack
	for _, n := range names {
		if base, ok := strings.CutSuffix(n, ".idx"); ok {
			if p := have[base]; p != nil {
				packs = append(packs, p)
			} else if p := opened[base]; p != nil {
				packs = append(packs, p)
				delete(opened, base)
			}
		} else if base, ok := strings.CutSuffix(n, ".pack"); ok && !slices.Contains(names, base+".idx") {
			db.noteUnindexed(filepath.Join(db.dir, "objects", "pack"), base)
		}
	}
	var err error
	for _, p := range opened { // an earlier pass saw these, but they are gone
		err = errors.Join(err, p.release())
	}
	slices.SortStableFunc(packs, func(a, b *pack) int { return int(b.seq - a.seq) })
	return packs, err
}

// unreadable returns why the search for an object may have missed it: if a pack cannot be opened now, for lack of file
// descriptors or permission, that is no proof that the object is missing.
func (db *DB) unreadable() error {
	db.scan.mu.Lock()
	defer db.scan.mu.Unlock()
	return db.scan.unread
}

// packNames returns the names of the packs and indexes in the directory, sorted.
func packNames(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	names := []string{}
	for _, e := range entries {
		n := e.Name()
		if strings.HasPrefix(n, "pack-") && (strings.HasSuffix(n, ".idx") || strings.HasSuffix(n, ".pack")) {
			names = append(names, n)
		}
	}
	return names, nil
}

// warnOnce logs that a pack cannot be used, the first time that it is seen.
func (db *DB) warnOnce(dir, base, msg string, err error) {
	if _, done := db.scan.warned[base]; done {
		return
	}
	if db.scan.warned == nil {
		db.scan.warned = map[string]struct{}{}
	}
	db.scan.warned[base] = struct{}{}
	db.log.WithError(err).WithField("pack", filepath.Join(dir, base)).Warn(msg)
}

// noteUnindexed notes a pack without index, unless it is so young that it may be being published.
func (db *DB) noteUnindexed(dir, base string) {
	st, err := os.Stat(filepath.Join(dir, base+".pack"))
	if err != nil {
		return
	}
	if !db.scan.noPublisher && time.Since(st.ModTime()) < publishGrace {
		db.scan.young = true
		return
	}
	err = fmt.Errorf("%s.idx: %w", base, cold.ErrMissing)
	db.scan.broken[base] = err
	db.warnOnce(dir, base, "a pack without an index", err)
}
