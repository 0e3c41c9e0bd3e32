package odb

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"emberfs/tiers/cold"
	"emberfs/tiers/warm"
)

// Mend gives a pack (by its name without extension) a new index or, if the pack itself is damaged, saves what can be
// read of it and puts it aside. Open does the same by itself with packs that are older than a minute; the caller of
// Mend must know that nobody is publishing the pack. aside reports which of the two it was, saved how many objects were
// written anew.
func (db *DB) Mend(name string) (aside bool, saved int, err error) {
	if db.readOnly {
		return false, 0, fmt.Errorf("mend %s: %w", name, ErrReadOnly)
	}
	path := filepath.Join(db.packDir(), name)
	f, st, err := openRegular(path + ".pack")
	if err != nil {
		return false, 0, fmt.Errorf("mend pack: %w", err)
	}
	defer f.Close()
	db.scan.mu.Lock()
	defer db.scan.mu.Unlock()
	err = db.rebuildIndex(path, f, st.Size())
	if errors.Is(err, cold.ErrCorrupt) {
		aside = true
		saved, err = db.salvage(path, f, st.Size())
	}
	if err != nil {
		return aside, saved, fmt.Errorf("mend %s: %w", name, err)
	}
	if cur := db.packs.Load(); cur != nil {
		for _, p := range cur.packs {
			p.stale = p.stale || p.name() == name // it has a new index now, or none
		}
	}
	db.scan.mtime = time.Time{}
	_, err = db.scanOnce()
	return aside, saved, err
}

// SetAside moves a damaged loose object, or an index whose pack is missing, to the directory for damaged packs. path is
// relative to the repository.
func (db *DB) SetAside(path string) error {
	if db.readOnly {
		return fmt.Errorf("put %s aside: %w", path, ErrReadOnly)
	}
	dir := filepath.Join(db.packDir(), badDir)
	if err := mkdirDurable(0o755, dir); err != nil {
		return fmt.Errorf("put %s aside: %w", path, err)
	}
	from := filepath.Join(db.dir, path)
	name := filepath.Base(from)
	if up := filepath.Base(filepath.Dir(from)); len(up) == 2 {
		name = "loose-" + up + name
	}
	if err := os.Rename(from, filepath.Join(dir, name)); err != nil {
		return fmt.Errorf("put aside: %w", err)
	}
	return errors.Join(warm.SyncDir(dir), warm.SyncDir(filepath.Dir(from)))
}

// brokenDir is the directory in which the content of damaged files is kept when they are repaired.
const brokenDir = "emberfs_broken"

// KeepBroken copies a damaged file of the repository (a reference, HEAD, the configuration) to a place at which git
// does not look, and returns that place relative to the repository, or "" if there was no file. The copy is durable
// when it returns.
func (db *DB) KeepBroken(name string) (string, error) { return keepBroken(db.dir, name) }

func keepBroken(dir, name string) (string, error) {
	data, err := readSmall(filepath.Join(dir, filepath.FromSlash(name)), maxConfig)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("keep a copy: %w", err)
	}
	to := filepath.Join(brokenDir, time.Now().UTC().Format("20060102T150405.000000000Z-")+escapeSlashes(name))
	if err := mkdirDurable(0o755, filepath.Join(dir, brokenDir)); err != nil {
		return "", fmt.Errorf("keep a copy: %w", err)
	}
	return to, warm.WriteFileDurable(filepath.Join(dir, to), data, 0o644)
}

func escapeSlashes(name string) string {
	b := []byte(name)
	for i := range b {
		if b[i] == '/' {
			b[i] = '-'
		}
	}
	return string(b)
}

// ForgetRef removes, under its lock, the loose file of a reference that has no valid content or points to nothing. The
// content is kept, as by KeepBroken. If packed-refs has a value for the reference, that applies again.
func (db *DB) ForgetRef(name string) (kept string, err error) {
	if err := checkRefName(name); err != nil || name == headRef {
		return "", errors.Join(err, fmt.Errorf("forget reference %s: refused", name))
	}
	if db.readOnly {
		return "", fmt.Errorf("forget reference %s: %w", name, ErrReadOnly)
	}
	path := db.refPath(name)
	l, err := db.lock(path)
	if err != nil {
		return "", fmt.Errorf("forget reference %s: %w", name, err)
	}
	defer func() { err = errors.Join(err, l.unlock()) }()
	if kept, err = db.KeepBroken(name); err != nil {
		return kept, err
	}
	if err := removeExisting(path); err != nil {
		return kept, fmt.Errorf("forget reference %s: %w", name, err)
	}
	return kept, warm.SyncDir(filepath.Dir(path))
}

// RepairBase makes what Open needs in the repository at dir: its directories, HEAD on the branch, and a configuration
// with our settings. Invalid files are kept, as by KeepBroken. The caller must own the repository.
func RepairBase(dir, branch string) (kept []string, err error) {
	if err := mkdirDurable(0o755, baseDirs(dir)...); err != nil {
		return nil, fmt.Errorf("repair %s: %w", dir, err)
	}
	keep := func(name string) error {
		k, err := keepBroken(dir, name)
		if k != "" {
			kept = append(kept, k)
		}
		if err == nil {
			err = removeExisting(filepath.Join(dir, name))
		}
		return err
	}
	if _, _, err := readConfig(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		if err := keep("config"); err != nil {
			return kept, err
		}
	}
	if _, err := headTarget(dir); err != nil {
		if err := keep(headRef); err != nil {
			return kept, err
		}
		// Init would refuse a repository without HEAD.
		if err := warm.WriteFileDurable(filepath.Join(dir, headRef), []byte("ref: refs/heads/"+branch+"\n"),
			0o644); err != nil {
			return kept, err
		}
	}
	return kept, Init(dir, branch)
}

// RepairPackedRefs rewrites packed-refs without its invalid lines. The old file is kept, as by KeepBroken.
func (db *DB) RepairPackedRefs() (kept string, err error) {
	if db.readOnly {
		return "", fmt.Errorf("repair packed references: %w", ErrReadOnly)
	}
	path := filepath.Join(db.dir, "packed-refs")
	l, err := db.lock(path)
	if err != nil {
		return "", fmt.Errorf("repair packed references: %w", err)
	}
	defer func() { err = errors.Join(err, l.unlock()) }()
	if kept, err = db.KeepBroken("packed-refs"); err != nil {
		return kept, err
	}
	data, err := readSmall(path, maxPackedRefs)
	if err != nil {
		return kept, fmt.Errorf("repair packed references: %w", err)
	}
	var good []byte
	peels := false
	for line := range bytes.Lines(data) {
		text := bytes.TrimSuffix(line, []byte{'\n'})
		switch {
		case len(text) > 0 && text[0] == '#':
		case len(text) == 41 && text[0] == '^' && peels:
			peels = false
		default:
			name, _, err := parsePackedRef(text)
			if peels = err == nil && checkRefName(name) == nil; !peels {
				continue
			}
		}
		good = append(append(good, text...), '\n')
	}
	return kept, warm.WriteFileDurable(path, good, 0o644)
}

// HasNew reports whether this Writer has an object that the repository lacks.
func (w *Writer) HasNew() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id := range w.mu.seen {
		if !w.db.Has(id) {
			return true
		}
	}
	return false
}
