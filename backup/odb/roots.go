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

// protected holds the commits that somebody in this process works on; GC keeps what they reach.
type protected struct {
	mu  sync.Mutex // GC also holds it from its last look at the roots until it has removed
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
	refs []ID // references, HEAD and protected commits: everything reachable must exist
	logs []ID // objects named in reflogs, FETCH_HEAD and the like, which may be gone
}

// roots reads all roots. Unlike Refs it fails if one cannot be read. protected.mu must be held.
func (db *DB) roots() (r rootSet, err error) {
	for id := range db.protected.ids {
		r.refs = append(r.refs, id)
	}
	if r.refs, err = db.looseRoots(r.refs); err != nil {
		return r, fmt.Errorf("read references: %w", err)
	}
	// This comes after the loose ones, because git adds a reference to packed-refs before it removes the loose file.
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
			// This is worktrees/W/index. The path is checked because the reflog of a branch may be called index too.
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
		if err == nil && target == "" { // the target of a symbolic reference is added itself
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

// walkFiles calls fn for every file below dir, if dir exists.
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

// indexName is the name of git's index, the list of what the next commit of a working tree contains. A bare repository
// has one if somebody works in it, or in an additional working tree.
const indexName = "index"

// indexed appends the objects that an index names (gitformat-index(5)). If the index cannot be read that is an error,
// because nobody knows what it needs.
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
			if e.Entries >= 0 { // a negative count marks it as outdated
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

// idsIn appends the object ids among the first words of each line (in its first 100 bytes).
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

// shallow returns the commits whose parents are left out on purpose.
func (db *DB) shallow() (map[ID]struct{}, error) {
	ids, err := idsIn(filepath.Join(db.dir, "shallow"), nil)
	set := map[ID]struct{}{}
	for _, id := range ids {
		set[id] = struct{}{}
	}
	return set, err
}
