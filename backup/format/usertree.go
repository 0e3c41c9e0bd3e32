package format

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

// Objects is what is needed of the object database for reading metadata.
type Objects interface {
	Read(id cold.ID, want odb.Type, limit int64) ([]byte, error)
}

// ReadTree reads a tree. If p is nil it is strict. Otherwise invalid entries become problems and the others are
// returned, because one bad name must not hide a whole directory.
func ReadTree(db Objects, id cold.ID, p *Problems) ([]odb.TreeEntry, error) {
	if id == odb.EmptyTree {
		return nil, nil
	}
	data, err := db.Read(id, odb.Tree, MaxTreeBlob)
	if err != nil {
		return nil, err
	}
	entries, err := odb.DecodeTree(data)
	if err == nil || p == nil {
		return entries, err
	}
	return SalvageTree(data, p), nil
}

// SalvageTree reads what it can of a tree that git would refuse. Of several entries with the same name it keeps the
// first.
func SalvageTree(data []byte, p *Problems) []odb.TreeEntry {
	var entries []odb.TreeEntry
	seen := make(map[string]bool)
	for len(data) > 0 {
		head, rest, ok := bytes.Cut(data, []byte{0})
		if !ok || len(rest) < len(cold.ID{}) {
			p.Add(fmt.Errorf("%w: tree is cut off after %d entries", cold.ErrCorrupt, len(entries)))
			break
		}
		data = rest[len(cold.ID{}):]
		digits, name, _ := strings.Cut(string(head), " ")
		mode, err := strconv.ParseUint(digits, 8, 32)
		e := odb.TreeEntry{Mode: uint32(mode), Name: name, ID: cold.ID(rest[:len(cold.ID{})])}
		switch e.Mode {
		case odb.ModeTree, odb.ModeExec, odb.ModeSymlink, odb.ModeGitlink:
		case odb.ModeFile, 0o100664:
			e.Mode = odb.ModeFile
		default:
			err = errors.Join(err, fmt.Errorf("mode %q", digits))
		}
		if err == nil && (name == "" || name == "." || name == ".." || strings.Contains(name, "/")) {
			err = errors.New("not a name")
		}
		if err == nil && e.ID.IsZero() {
			err = errors.New("no object id")
		}
		if err == nil && seen[name] {
			err = errors.New("name comes twice, the first counts")
		}
		if err != nil {
			p.Add(fmt.Errorf("tree entry %q: %w: %w", name, cold.ErrCorrupt, err))
			continue
		}
		seen[name] = true
		entries = append(entries, e)
	}
	return entries
}

// CompareTree compares tree entries in git's order, in which the name of a directory counts as if it ended in a slash.
func CompareTree(a, b odb.TreeEntry) int {
	n := min(len(a.Name), len(b.Name))
	if c := strings.Compare(a.Name[:n], b.Name[:n]); c != 0 {
		return c
	}
	return sortByte(&a, n) - sortByte(&b, n)
}

func sortByte(e *odb.TreeEntry, n int) int {
	switch {
	case n < len(e.Name):
		return int(e.Name[n])
	case e.Mode == odb.ModeTree:
		return '/'
	}
	return -1
}

// UpdateTree applies changes to the entries of a tree: those in put, which is indexed by name, replace or join the old
// ones, or remove them if Mode is 0. It returns a new, sorted slice, and whether anything changed.
func UpdateTree(old []odb.TreeEntry, put map[string]odb.TreeEntry) ([]odb.TreeEntry, bool) {
	same, removed := 0, false
	for i := range old {
		if n, ok := put[old[i].Name]; ok {
			if n == old[i] {
				same++
			} else {
				removed = true
			}
		}
	}
	var added []odb.TreeEntry
	for _, e := range put {
		if e.Mode != 0 {
			added = append(added, e)
		}
	}
	if !removed && same == len(added) {
		return old, false
	}
	slices.SortFunc(added, CompareTree)
	merged := make([]odb.TreeEntry, 0, len(old)+len(added))
	for i := range old {
		if _, ok := put[old[i].Name]; ok {
			continue // its new version is in added, or it is removed
		}
		for len(added) > 0 && CompareTree(added[0], old[i]) < 0 {
			merged = append(merged, added[0])
			added = added[1:]
		}
		merged = append(merged, old[i])
	}
	return append(merged, added...), true
}
