package odb

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/go-git/go-git/v5/plumbing/filemode"
	gitindex "github.com/go-git/go-git/v5/plumbing/format/index"

	"emberfs/tiers/cold"
)

// protected are commits that somebody of ours works on: GC keeps what they reach.
type protected struct {
	mu  sync.Mutex // also held while GC looks for the last time and removes
	ids map[ID]int
}

// Protect keeps what id reaches from GC until release is called, whether or not a reference reaches it.
func (db *DB) Protect(id ID) (release func()) {
	db.protected.mu.Lock()
	defer db.protected.mu.Unlock()
	if db.protected.ids == nil {
		db.protected.ids = map[ID]int{}
	}
	db.protected.ids[id]++
	return sync.OnceFunc(func() {
		db.protected.mu.Lock()
		defer db.protected.mu.Unlock()
		if db.protected.ids[id]--; db.protected.ids[id] == 0 {
			delete(db.protected.ids, id)
		}
	})
}

// rootSet is where the walk of GC begins.
type rootSet struct {
	refs []ID // references, HEAD and protected commits: all they reach must be there
	logs []ID // what reflogs, FETCH_HEAD and the like name: it may be gone
}

// roots reads them all. Unlike Refs it fails where one cannot be read. protected.mu must be held.
func (db *DB) roots() (r rootSet, err error) {
	for id := range db.protected.ids {
		r.refs = append(r.refs, id)
	}
	if r.refs, err = db.looseRoots(r.refs); err != nil {
		return r, fmt.Errorf("read references: %w", err)
	}
	// After the loose ones: git packs a reference before it removes the loose file.
	if err := db.eachPacked(func(_ string, id ID) bool { r.refs = append(r.refs, id); return true }); err != nil {
		return r, err
	}
	top, err := os.ReadDir(db.dir)
	if err != nil {
		return r, fmt.Errorf("read references: %w", err)
	}
	for _, e := range top {
		if strings.HasSuffix(e.Name(), "_HEAD") && e.Type().IsRegular() {
			if r.logs, err = idsIn(filepath.Join(db.dir, e.Name()), r.logs); err != nil {
				return r, err
			}
		}
	}
	if r.logs, err = indexed(filepath.Join(db.dir, indexName), r.logs); err != nil {
		return r, err
	}
	for _, sub := range []string{"logs", "worktrees"} {
		err := walkFiles(filepath.Join(db.dir, sub), func(path string) (err error) {
			// worktrees/W/index; the reflog of a branch may be called index as well.
			if filepath.Base(path) == indexName && filepath.Dir(filepath.Dir(path)) == filepath.Join(db.dir,
				"worktrees") {
				r.logs, err = indexed(path, r.logs)
				return err
			}
			r.logs, err = idsIn(path, r.logs)
			return err
		})
		if err != nil {
			return r, err
		}
	}
	return r, nil
}

func (db *DB) looseRoots(ids []ID) ([]ID, error) {
	add := func(name string) error {
		id, target, err := db.readLoose(name)
		if err == nil && target == "" { // a symbolic one's target has its own turn
			ids = append(ids, id)
		}
		if errors.Is(err, ErrNoRef) {
			return nil
		}
		return err
	}
	if err := add(headRef); err != nil {
		return nil, err
	}
	err := walkFiles(filepath.Join(db.dir, "refs"), func(path string) error {
		rel, err := filepath.Rel(db.dir, path)
		if err != nil || strings.HasSuffix(path, ".lock") {
			return err
		}
		return add(filepath.ToSlash(rel))
	})
	return ids, err
}

// walkFiles calls fn for every file below dir that there is.
func walkFiles(dir string, fn func(path string) error) error {
	return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || e.IsDir() {
			return err
		}
		return fn(path)
	})
}

// indexName is git's list of what the next commit of a working tree has: somebody works here, or in a working tree of
// this repository.
const indexName = "index"

// indexed takes the objects that an index names (gitformat-index(5)). One that cannot be read is an error: nobody knows
// what it needs.
func indexed(path string, ids []ID) ([]ID, error) {
	f, _, err := openRegular(path)
	if errors.Is(err, fs.ErrNotExist) {
		return ids, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var idx gitindex.Index
	if err := gitindex.NewDecoder(bufio.NewReader(f)).Decode(&idx); err != nil {
		return nil, fmt.Errorf("read %s: %w; remove it if nobody works there", path, err)
	}
	for _, e := range idx.Entries {
		if e.Mode != filemode.Submodule {
			ids = append(ids, ID(e.Hash))
		}
	}
	if idx.Cache != nil {
		for _, e := range idx.Cache.Entries {
			if e.Entries >= 0 { // else it is out of date
				ids = append(ids, ID(e.Hash))
			}
		}
	}
	if idx.ResolveUndo != nil {
		for _, e := range idx.ResolveUndo.Entries {
			for _, h := range e.Stages {
				ids = append(ids, ID(h))
			}
		}
	}
	return ids, nil
}

// idsIn takes the object ids that the lines of a file begin with, the two first words of each.
func idsIn(path string, ids []ID) ([]ID, error) {
	f, _, err := openRegular(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, cold.ErrCorrupt) {
		return ids, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		for _, word := range bytes.Fields(lines.Bytes()[:min(len(lines.Bytes()), 100)]) {
			if id, err := cold.ParseID(string(word)); err == nil && !id.IsZero() {
				ids = append(ids, id)
			}
		}
	}
	if err := lines.Err(); err != nil && !errors.Is(err, bufio.ErrTooLong) {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return ids, nil
}

// shallow reads the commits whose parents are not here.
func (db *DB) shallow() (map[ID]struct{}, error) {
	ids, err := idsIn(filepath.Join(db.dir, "shallow"), nil)
	set := map[ID]struct{}{}
	for _, id := range ids {
		set[id] = struct{}{}
	}
	return set, err
}
