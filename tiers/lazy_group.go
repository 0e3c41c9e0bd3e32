package tiers

import (
	"crypto/rand"
	"encoding/hex"
	"maps"
	"slices"

	"emberfs/tiers/cold"
)

// linkGroups gives each file with several names a group id that is unique in the volume. A file keeps the id that the
// base has for it, so that unchanged files have unchanged entries: a directory with such a name is never clean, so
// every commit looks at it and at what the base has of it.
type linkGroups struct {
	byIno  map[uint64]string
	owner  map[string]uint64
	inDirs map[string]map[string]struct{} // group -> directories
	ids    map[uint64]cold.ID             // content that was read by the first of a file's names

	dropped bool // there were too many for a commit: some names in several directories became files of their own
}

// wasRead notes the content that a commit took of a file with several names. The file is read only once, since it may
// be changed before the commit comes to its next name.
func (l *linkGroups) wasRead(ino uint64, id cold.ID) {
	if l.ids == nil {
		l.ids = map[uint64]cold.ID{}
	}
	l.ids[ino] = id
}

// read sets the content in the entry of a file that was read under another name, and says whether it was.
func (l *linkGroups) read(ino uint64, e *cold.Entry) bool {
	id, ok := l.ids[ino]
	if ok {
		e.ID = id
	}
	return ok
}

func (l *linkGroups) group(ino uint64, old *cold.Entry, dir string) string {
	l.init()
	g := l.byIno[ino]
	if g == "" {
		if old != nil && old.Link != "" {
			if _, taken := l.owner[old.Link]; !taken {
				g = old.Link
			}
		}
		if g == "" {
			var b [8]byte
			_, _ = rand.Read(b[:]) // never fails (crypto/rand)
			g = hex.EncodeToString(b[:])
		}
		l.byIno[ino], l.owner[g] = g, ino
	}
	l.stands(g, dir)
	return g
}

// stays says whether a name that is in the commit as the last one has it, in the group g, may stay in it: ino, which it
// is a name of now, has the group, or takes it. Else another file of that group is in the commit as it is now.
func (l *linkGroups) stays(g string, ino uint64, dir string) bool {
	l.init()
	if owner, taken := l.owner[g]; taken && owner != ino {
		return false
	}
	l.owner[g] = ino
	if l.byIno[ino] == "" {
		l.byIno[ino] = g
	}
	l.stands(g, dir)
	return true
}

func (l *linkGroups) init() {
	if l.byIno == nil {
		l.byIno, l.owner, l.inDirs = map[uint64]string{}, map[string]uint64{}, map[string]map[string]struct{}{}
	}
}

// stands notes that the directory dir holds a name of the group g.
func (l *linkGroups) stands(g, dir string) {
	l.init()
	if l.inDirs[g] == nil {
		l.inDirs[g] = map[string]struct{}{}
	}
	l.inDirs[g][dir] = struct{}{}
}

// spanning returns the groups with names in more than one directory, each with these directories, sorted.
func (l *linkGroups) spanning() map[string][]string {
	out := map[string][]string{}
	for g, dirs := range l.inDirs {
		if len(dirs) > 1 {
			out[g] = slices.Sorted(maps.Keys(dirs))
		}
	}
	return out
}
