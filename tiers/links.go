package tiers

import (
	"crypto/rand"
	"encoding/hex"
	"maps"
	"slices"

	"golang.org/x/sys/unix"
)

// linkGroups gives each file with several names a group id that is unique in the volume. Ids of the last commit are kept, so
// that nothing changes where nothing changed: a directory with such a name is never clean and so is always looked at, base
// listing included.
type linkGroups struct {
	byIno  map[uint64]string
	owner  map[string]uint64
	inDirs map[string]map[string]struct{} // group -> directories
}

func (l *linkGroups) group(st *unix.Statx_t, old *Entry, dir string) string {
	if l.byIno == nil {
		l.byIno, l.owner, l.inDirs = map[uint64]string{}, map[string]uint64{}, map[string]map[string]struct{}{}
	}
	g := l.byIno[st.Ino]
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
		l.byIno[st.Ino], l.owner[g] = g, st.Ino
	}
	if l.inDirs[g] == nil {
		l.inDirs[g] = map[string]struct{}{}
	}
	l.inDirs[g][dir] = struct{}{}
	return g
}

// spanning returns the groups with names in more than one directory.
func (l *linkGroups) spanning() map[string][]string {
	out := map[string][]string{}
	for g, dirs := range l.inDirs {
		if len(dirs) > 1 {
			out[g] = slices.Sorted(maps.Keys(dirs))
		}
	}
	return out
}
