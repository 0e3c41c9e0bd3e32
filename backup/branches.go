package backup

import (
	"fmt"
	"slices"
	"strings"

	"emberfs/backup/wire"
	"emberfs/tiers/cold"
)

// branches lists the branches that are not EmberFS's own.
func branches(refs map[string]cold.ID) (names []string) {
	for ref := range refs {
		if name, ok := strings.CutPrefix(ref, "refs/heads/"); ok && !strings.HasPrefix(name, "emberfs-") {
			names = append(names, name)
		}
	}
	return names
}

// isEmpty reports whether a repository has no references but carriers: of a first push that was broken only parts have
// arrived, and they are no volume.
func isEmpty(refs map[string]cold.ID) bool {
	for ref := range refs {
		if !IsCarrier(ref) {
			return false
		}
	}
	return true
}

// someBranches lists the branches as branches does, sorted, and only the first few.
func someBranches(refs map[string]cold.ID) []string {
	names := branches(refs)
	slices.Sort(names)
	if len(names) > 5 {
		names = append(names[:5], fmt.Sprintf("and %d more", len(names)-5))
	}
	return names
}

// noteMissing notes that the remote has no branch of ours, whose tip here is main: in the log where it had one, since
// the next push creates again what somebody deleted; and as a problem where it has others, and the user may not have
// wanted an empty volume.
func (c *Cold) noteMissing(refs map[string]cold.ID, main cold.ID) error {
	had, err := c.ReadRef(c.TrackingRef())
	if err != nil {
		return err
	}
	if !had.IsZero() && !main.IsZero() {
		c.log.Warnf("branch %s was deleted on %s, where it was at %s: the next push creates it again from what is here",
			c.o.Branch, c.o.Source, had)
	}
	names := someBranches(refs)
	switch {
	case len(names) == 0:
		c.note("branch", nil)
	case main.IsZero():
		c.note("branch", fmt.Errorf("%s has no branch %s yet, so this volume begins empty; it has %s (--branch)",
			c.o.Source, c.o.Branch, wire.Clean(strings.Join(names, ", "))))
	default:
		c.note("branch", fmt.Errorf("%s has no branch %s, until the next push creates it; it has %s", c.o.Source,
			c.o.Branch, wire.Clean(strings.Join(names, ", "))))
	}
	return nil
}
