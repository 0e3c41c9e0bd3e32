package odb

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"emberfs/tiers/cold"
)

// WithPrefix returns the ids that begin with prefix, 2 to 40 lower-case hex digits. They are sorted, and at most limit
// of them are returned. It looks only at indexes and file names, so an object that it returns may not be readable.
func (db *DB) WithPrefix(prefix string, limit int) ([]ID, error) {
	if len(prefix) < 2 || len(prefix) > 2*hashSize || strings.Trim(prefix, "0123456789abcdef") != "" {
		return nil, fmt.Errorf("abbreviated object id %q: want 2 to 40 hex digits", prefix)
	}
	if err := db.Refresh(); err != nil {
		return nil, err
	}
	l, err := db.acquire()
	if err != nil {
		return nil, err
	}
	defer db.release(l)
	var ids []ID
	for _, p := range l.packs {
		ids = append(ids, p.idx.withPrefix(prefix, limit)...)
	}
	loose, err := db.looseWithPrefix(prefix, limit)
	if err != nil {
		return nil, err
	}
	ids = append(ids, loose...)
	slices.SortFunc(ids, func(a, b ID) int { return slices.Compare(a[:], b[:]) })
	ids = slices.Compact(ids)
	return ids[:min(len(ids), limit)], nil
}

func (x *index) withPrefix(prefix string, limit int) []ID {
	var low ID // the smallest id with the prefix
	_, err := hex.Decode(low[:], []byte(prefix+strings.Repeat("0", 2*hashSize-len(prefix))))
	if err != nil {
		return nil
	}
	var ids []ID
	for i := x.from(low); i < x.count && len(ids) < limit; i++ {
		id := x.id(i)
		if !strings.HasPrefix(id.String(), prefix) {
			break
		}
		ids = append(ids, id)
	}
	return ids
}

func (db *DB) looseWithPrefix(prefix string, limit int) ([]ID, error) {
	entries, err := os.ReadDir(filepath.Join(db.dir, "objects", prefix[:2]))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list loose objects: %w", err)
	}
	var ids []ID
	for _, e := range entries {
		name := prefix[:2] + e.Name()
		if id, err := cold.ParseID(name); err == nil && strings.HasPrefix(name, prefix) && len(ids) < limit {
			ids = append(ids, id)
		}
	}
	return ids, nil
}
