package tiers

import (
	"context"
	"testing"
	"time"

	"emberfs/tiers/cold"
)

// TestLeftOutFileLeavesItsGroup checks that a file which replaced one of several names of another, and is left out,
// stands in the commit as before, but not as a name of the other file, which the commit has as it is now.
func TestLeftOutFileLeavesItsGroup(t *testing.T) {
	for _, first := range []string{"a", "z"} { // before and after the names of the other file
		v, c := newVolume(t)
		n := write(t, v, v.root, first, "old")
		_, err := v.Link(t.Context(), n, v.root, "m")
		must(t, err)
		v.mustSync(t)
		overwrite(t, v, n, "new")
		_, err = v.Link(t.Context(), n, v.root, "n")
		must(t, err)
		other := write(t, v, v.root, "other", "other")
		must(t, v.Rename(t.Context(), v.root, "other", v.root, first, 0))
		p := &part{until: time.Now().Add(time.Hour), stays: map[inoKey]struct{}{other.key(): {}}}
		rc := &Receipt{Reason: "unmount"}
		must(t, v.syncBy(t.Context(), rc, true, func(ctx context.Context, rc *Receipt) error {
			return v.commitPart(ctx, rc, p)
		}))
		s, err := c.Newest(t.Context())
		must(t, err)
		l, err := s.ReadDir(t.Context(), cold.RootDir(s))
		must(t, err)
		ids, names := map[string]cold.ID{}, 0
		for _, e := range l.Entries {
			if id, ok := ids[e.Link]; e.Link != "" && ok && id != e.ID {
				t.Errorf("%s has another content than another name of its file: %+v", e.Name, l.Entries)
			}
			if ids[e.Link] = e.ID; e.Link != "" && e.Name != first {
				names++
			}
		}
		if got := newest(t, c); got[first] != "old" || got["m"] != "new" || got["n"] != "new" || names != 2 {
			t.Errorf("%v, %d names of one file", got, names)
		}
		v.mustSync(t)
		if got := newest(t, c); got[first] != "other" || got["m"] != "new" {
			t.Errorf("the next commit: %v", got)
		}
	}
}
