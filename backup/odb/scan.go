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

// packList is an immutable set of open packs, newest first. It holds a reference to each; the DB and every reader that
// searches it hold one to the list.
type packList struct {
	packs []*pack
	gen   int64 // counts the lists of a DB
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

// tryRetain fails when the list is dead already.
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

// scanState guards looking for packs; one scan at a time.
type scanState struct {
	mu     sync.Mutex
	mtime  time.Time           // of objects/pack when the last complete scan began; zero: scan anyway
	warned map[string]struct{} // packs that were reported as unreadable
	// Why a pack could not be opened in the last scan, damage aside: it may be gone next time.
	unread error
	broken map[string]error    // packs without a usable index, as the last scan saw them
	tried  map[string]struct{} // those that were mended, or could not be
	young  bool                // a pack without index is too young to tell
	// settled says that a pack without index is nobody's of ours on its way. If git is publishing it, it gets the same
	// index twice.
	settled bool
}

const (
	maxScans = 1000 // a directory that changes this often in one go is not settling
	// racy is how young a directory's mtime makes it possible that a later change has the same one.
	racy = 2 * time.Second
	// publishGrace is how long a pack may be without its index before that is worth a word: somebody is publishing it.
	publishGrace = time.Minute
)

// Refresh looks for packs that came or went. Readers do it themselves on a miss.
func (db *DB) Refresh() error {
	l, err := db.acquire()
	if err != nil {
		return err
	}
	defer db.release(l)
	_, err = db.rescan(l.gen)
	return err
}

// rescan reads the directory of packs until a pass shows no change, and puts the new list in place. It says whether the
// list now differs from the one of generation gen, which the caller has searched.
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

// scanOnce is a rescan that takes packs as they are. scan.mu must be held.
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
	// A young mtime may hide a change that comes right after the scan.
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
			p.refs.Add(-1) // scanPacks held it until the list did
		}
	}
	return true, cur.release()
}

// scanPacks opens what is new, until two passes see the same names.
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
			return db.settle(names, have, opened)
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
				// An index without pack is what an interrupted removal leaves; a pack that was listed went away
				// meanwhile.
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

// settle makes the list of the packs that the last pass saw, newest first.
func (db *DB) settle(names []string, have, opened map[string]*pack) ([]*pack, error) {
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
	for _, p := range opened { // seen by an earlier pass, gone since
		err = errors.Join(err, p.release())
	}
	slices.SortStableFunc(packs, func(a, b *pack) int { return int(b.seq - a.seq) })
	return packs, err
}

// unreadable says why the search for an object may have missed it: a pack that cannot be opened now, for want of file
// descriptors or rights, is no proof that the object is missing.
func (db *DB) unreadable() error {
	db.scan.mu.Lock()
	defer db.scan.mu.Unlock()
	return db.scan.unread
}

// packNames lists the packs and indexes in the directory, sorted.
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

// warnOnce reports a pack that cannot be used, the first time it is seen.
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

// noteUnindexed takes down a pack without index, unless it is so young that it may be on its way.
func (db *DB) noteUnindexed(dir, base string) {
	st, err := os.Stat(filepath.Join(dir, base+".pack"))
	if err != nil {
		return
	}
	if !db.scan.settled && time.Since(st.ModTime()) < publishGrace {
		db.scan.young = true
		return
	}
	err = fmt.Errorf("%s.idx: %w", base, cold.ErrMissing)
	db.scan.broken[base] = err
	db.warnOnce(dir, base, "a pack without an index", err)
}
