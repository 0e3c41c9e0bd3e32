package odb

import (
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"emberfs/tiers/cold"
	"emberfs/tiers/warm"
)

// badDir is the directory below objects/pack for packs that were put aside because no index could be made for them. git
// does not look there.
const badDir = "emberfs_bad"

// mend gives the broken packs of the last scan a new index, or puts them aside, and reports whether it changed
// anything. What cannot be mended is logged and stays as it is. scan.mu must be held.
func (db *DB) mend() (changed bool) {
	if db.readOnly {
		return false
	}
	for _, base := range slices.Sorted(maps.Keys(db.scan.broken)) {
		if _, done := db.scan.tried[base]; done {
			continue
		}
		if db.scan.tried == nil {
			db.scan.tried = map[string]struct{}{}
		}
		db.scan.tried[base] = struct{}{}
		if err := db.mendPack(base); err != nil {
			db.warnOnce(db.packDir(), base+".pack", "a pack cannot be mended and stays as it is", err)
			continue
		}
		changed = true
	}
	return changed
}

func (db *DB) mendPack(base string) error {
	path := filepath.Join(db.packDir(), base)
	f, st, err := openRegular(path + ".pack")
	if err != nil {
		return err
	}
	defer f.Close()
	damage := db.rebuildIndex(path, f, st.Size())
	if damage == nil {
		db.log.WithField("pack", path+".pack").Warn("made a new index for a pack")
		return nil
	}
	if !errors.Is(damage, cold.ErrCorrupt) {
		return damage
	}
	if time.Since(st.ModTime()) < publishGrace {
		delete(db.scan.tried, base) // somebody may be copying it here
		db.scan.young = true
		return damage
	}
	if _, err := os.Lstat(path + ".promisor"); err == nil {
		return fmt.Errorf("%w (its objects can be fetched again)", damage)
	}
	saved, err := db.salvage(path, f, st.Size())
	if err != nil {
		return errors.Join(damage, fmt.Errorf("salvage: %w", err))
	}
	db.log.WithError(damage).WithField("pack", filepath.Join(db.packDir(), badDir, base+".pack")).
		Errorf("a damaged pack was put aside; %d objects were saved from it", saved)
	return nil
}

// rebuildIndex makes the index of a pack in the repository. If the pack is damaged, the error is cold.ErrCorrupt.
func (db *DB) rebuildIndex(path string, f *os.File, size int64) error {
	if err := db.step("rebuild.index"); err != nil {
		return err
	}
	in, err := db.readInPlace(path, f, size)
	if err != nil {
		return err
	}
	if err := db.step("rebuild.write"); err != nil {
		return err
	}
	pf := &packFile{db: db, path: path + ".pack", objs: in.objects(), sum: in.pf.sum}
	err = pf.writeIndexFile()
	if err == nil {
		err = syncFile(pf.idxPath)
	}
	if err == nil {
		err = db.step("rebuild.rename")
	}
	if err == nil {
		// A git that is removing the pack has removed its index first. Then no new one must be made.
		_, err = os.Lstat(path + ".pack")
	}
	if err == nil {
		err = os.Rename(pf.idxPath, path+".idx")
	}
	if err != nil {
		if !crashed(err) {
			err = errors.Join(err, removeExisting(pf.idxPath))
		}
		return fmt.Errorf("make an index: %w", err)
	}
	if _, err := os.Lstat(path + ".pack"); errors.Is(err, fs.ErrNotExist) {
		return removeExisting(path + ".idx")
	}
	if err := db.step("rebuild.sync-dir"); err != nil {
		return err
	}
	return warm.SyncDir(db.packDir())
}

// readInPlace reads a whole pack with the code of IndexPack, without writing anything.
func (db *DB) readInPlace(path string, f *os.File, size int64) (_ *fetched, err error) {
	in := newFetched(db, &packFile{db: db, f: f, path: path + ".pack"})
	in.inPlace, in.label = true, filepath.Base(path)
	defer func() { err = errors.Join(err, in.last.close()) }()
	err = in.receive(io.NewSectionReader(f, 0, size), 0)
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		err = corruptf("%v", err)
	}
	if err == nil && in.pf.done != size-hashSize {
		err = corruptf("%d bytes follow the pack's trailer", size-hashSize-in.pf.done)
	}
	if err == nil {
		err = in.resolve()
	}
	if err != nil {
		return nil, fmt.Errorf("read %s.pack: %w", path, err)
	}
	return in, nil
}

// checkIndexes compares each index with its own checksum, once, because a damaged index may be why an object was not
// found. It reports whether one was mended.
func (db *DB) checkIndexes() (mended bool, err error) {
	if db.readOnly {
		return false, nil
	}
	db.scan.mu.Lock()
	defer db.scan.mu.Unlock()
	cur := db.packs.Load()
	if cur == nil {
		return false, ErrClosed
	}
	found := false
	for _, p := range cur.packs {
		if p.checked && p.idx.unread() == nil {
			continue
		}
		p.checked = true
		if err := p.idx.verify(); errors.Is(err, cold.ErrCorrupt) {
			p.stale, found = true, true
			db.scan.broken[p.name()] = err
			db.warnOnce(db.packDir(), p.name(), "a pack's index is damaged", err)
		} else if err != nil {
			p.checked = false // try again
		}
	}
	if !found || !db.mend() {
		for _, p := range cur.packs {
			p.stale = false // a damaged index is better than none
		}
		return false, nil
	}
	db.scan.mtime = db.scan.mtime.Add(-1)
	_, err = db.scanOnce()
	return true, err
}

// verify compares the index with its own checksum. It reads the file, because mapped pages would count as memory of the
// process.
func (x *index) verify() error {
	f, st, err := openRegular(x.path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := x.unread(); err != nil {
		return err
	}
	if st.Size() != int64(len(x.data)) {
		return corruptf("index %s: %d bytes, it had %d", x.path, st.Size(), len(x.data))
	}
	h := sha1.New()
	if _, err := io.CopyN(h, f, st.Size()-hashSize); err != nil {
		return fmt.Errorf("read index %s: %w", x.path, err)
	}
	if [hashSize]byte(h.Sum(nil)) != x.ownSum() {
		return corruptf("index %s: checksum does not match", x.path)
	}
	return nil
}

// Problems returns what is wrong with the repository's packs: which cannot be read, and which were put aside.
func (db *DB) Problems() []error {
	db.scan.mu.Lock()
	defer db.scan.mu.Unlock()
	var out []error
	for _, base := range slices.Sorted(maps.Keys(db.scan.broken)) {
		if _, err := os.Lstat(filepath.Join(db.packDir(), base+".pack")); err == nil {
			out = append(out, fmt.Errorf("pack %s cannot be used: %w", filepath.Join(db.packDir(), base+".pack"),
				db.scan.broken[base]))
		}
	}
	if l := db.packs.Load(); l != nil {
		for _, p := range l.packs {
			if p.damaged.Load() {
				out = append(out, corruptf("pack %s.pack has entries that cannot be read", p.base))
			}
		}
	}
	if db.scan.unread != nil {
		out = append(out, db.scan.unread)
	}
	aside, err := os.ReadDir(filepath.Join(db.packDir(), badDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		out = append(out, err)
	}
	for _, e := range aside {
		if strings.HasSuffix(e.Name(), ".pack") {
			out = append(out, corruptf("pack %s was damaged and put aside; what could be read of it was saved",
				filepath.Join(db.packDir(), badDir, e.Name())))
		}
	}
	return out
}
