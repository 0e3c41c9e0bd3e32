package odb

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"emberfs/tiers/cold"
)

// The modes that git stores in trees.
const (
	ModeTree    uint32 = 0o040000
	ModeFile    uint32 = 0o100644
	ModeExec    uint32 = 0o100755
	ModeSymlink uint32 = 0o120000
	ModeGitlink uint32 = 0o160000

	modeGroupWrite uint32 = 0o100664 // written by git before 2005; read as ModeFile
)

// TreeEntry is one entry of a tree.
type TreeEntry struct {
	Mode uint32
	Name string // any bytes but '/' and NUL
	ID   ID
}

func knownMode(m uint32) bool {
	return m == ModeTree || m == ModeFile || m == ModeExec || m == ModeSymlink || m == ModeGitlink
}

// compareEntries compares in git's order: bytewise, with a directory's name counting as if it ended in '/'.
func compareEntries(a, b TreeEntry) int {
	n := min(len(a.Name), len(b.Name))
	if c := strings.Compare(a.Name[:n], b.Name[:n]); c != 0 {
		return c
	}
	return cmp.Compare(sortByte(a, n), sortByte(b, n))
}

// sortByte returns byte n of the name as git compares it; -1 stands for the end.
func sortByte(e TreeEntry, n int) int {
	if n < len(e.Name) {
		return int(e.Name[n])
	}
	if e.Mode == ModeTree {
		return '/'
	}
	return -1
}

// checkName returns what is wrong with a tree entry's name, or "".
func checkName(name string) string {
	switch {
	case name == "":
		return "empty name"
	case name == "." || name == "..":
		return "name " + name
	case strings.IndexByte(name, '/') >= 0:
		return "slash in name"
	case strings.IndexByte(name, 0) >= 0:
		return "NUL in name"
	}
	return ""
}

// checkDuplicate reports whether sorted has another kind of entry with the name of the directory d. The two need not be
// neighbours ("a" sorts before "a.c", "a/" after it).
func checkDuplicate(sorted []TreeEntry, d TreeEntry) bool {
	if d.Mode != ModeTree {
		return false
	}
	_, found := slices.BinarySearchFunc(sorted, TreeEntry{Mode: ModeFile, Name: d.Name}, compareEntries)
	return found
}

// EncodeTree returns the content of the tree with these entries, which may be in any order; the slice is not changed.
// Invalid names, unknown modes, zero ids and duplicates are errors that name the entry.
func EncodeTree(entries []TreeEntry) ([]byte, error) {
	if !slices.IsSortedFunc(entries, compareEntries) {
		entries = slices.Clone(entries)
		slices.SortFunc(entries, compareEntries)
	}
	size := 0
	for _, e := range entries {
		size += len(e.Name) + 28
	}
	out := make([]byte, 0, size)
	for i, e := range entries {
		bad := checkName(e.Name)
		switch {
		case bad != "":
		case !knownMode(e.Mode):
			bad = "mode " + strconv.FormatUint(uint64(e.Mode), 8)
		case e.ID.IsZero():
			bad = "zero id"
		case i > 0 && compareEntries(entries[i-1], e) == 0, checkDuplicate(entries, e):
			bad = "duplicate name"
		}
		if bad != "" {
			return nil, fmt.Errorf("encode tree: entry %q: %s", e.Name, bad)
		}
		out = strconv.AppendUint(out, uint64(e.Mode), 8)
		out = append(out, ' ')
		out = append(out, e.Name...)
		out = append(out, 0)
		out = append(out, e.ID[:]...)
	}
	return out, nil
}

// DecodeTree parses the content of a tree strictly: whatever EncodeTree would not write is cold.ErrCorrupt, with the
// entry's name, except for the group-writable mode of very old repositories, which becomes ModeFile. It takes memory in
// proportion to data, so the caller's limit for the object limits it.
func DecodeTree(data []byte) ([]TreeEntry, error) {
	s := string(data) // one copy, shared by all names
	entries := make([]TreeEntry, 0, bytes.Count(data, []byte{0})/2+1)
	for p := 0; p < len(s); {
		sp := strings.IndexByte(s[p:min(len(s), p+8)], ' ')
		if sp < 0 {
			return nil, corruptf("tree: entry %d: no mode", len(entries))
		}
		digits := s[p : p+sp]
		mode, err := strconv.ParseUint(digits, 8, 32)
		if err != nil || digits[0] == '0' || digits[0] == '+' {
			return nil, corruptf("tree: entry %d: mode %q", len(entries), digits)
		}
		p += sp + 1
		nul := strings.IndexByte(s[p:], 0)
		if nul < 0 || len(s)-p-nul-1 < len(ID{}) {
			return nil, corruptf("tree: entry %d: cut off", len(entries))
		}
		e := TreeEntry{Mode: uint32(mode), Name: s[p : p+nul]}
		copy(e.ID[:], s[p+nul+1:])
		p += nul + 1 + len(e.ID)
		if e.Mode == modeGroupWrite {
			e.Mode = ModeFile
		}
		if bad := checkDecoded(entries, e); bad != "" {
			return nil, corruptf("tree: entry %q: %s", e.Name, bad)
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// checkDecoded returns what is wrong with e as the entry after entries, or "".
func checkDecoded(entries []TreeEntry, e TreeEntry) string {
	if bad := checkName(e.Name); bad != "" {
		return bad
	}
	if !knownMode(e.Mode) {
		return "mode " + strconv.FormatUint(uint64(e.Mode), 8)
	}
	if e.ID.IsZero() {
		return "zero id"
	}
	if n := len(entries); n > 0 {
		switch c := compareEntries(entries[n-1], e); {
		case c == 0 || entries[n-1].Name == e.Name:
			return "duplicate name"
		case c > 0:
			return "out of order"
		}
	}
	if checkDuplicate(entries, e) {
		return "duplicate name"
	}
	return ""
}

// wrongType returns the error for an object of another type than expected.
func wrongType(id ID, got, want Type) error {
	return fmt.Errorf("object %s: %w: is a %s, not a %s", id, cold.ErrCorrupt, got, want)
}
