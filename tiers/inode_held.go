package tiers

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/heldback"
	"emberfs/tiers/warm"
)

// This file has what is held back: what a commit has of an inode and this machine cannot make, or may not show. A
// restore notes it (restore/attrs.go), and commits carry it over until somebody changes the part in question.

func (n *Inode) heldKey() heldback.Key { return heldback.Key{Ino: n.ino, Gen: n.gen} }

// loadHeld opens the volume's table.
func (v *Volume) loadHeld() error {
	t, lost, err := heldback.OpenState(v.cfg.State, v.warmFD, warm.WriteFileDurable)
	if err != nil {
		return err
	}
	v.held = t
	if len(lost) > 0 {
		v.points.setError("left out", fmt.Errorf("what was left out here of %d files cannot be found in this copy of "+
			"the state directory, so commits lose it: the first of %q; "+
			"a new state directory has it", len(lost), lost[0]))
	}
	if v.doubtful { // a kill may have come between a change of a name and its note
		for _, it := range t.All() {
			if !it.Unknown() && !v.isAt(it) {
				v.sayHeld(t.Lost(it.Key, it.Path))
			}
		}
	}
	return nil
}

// standsIn says whether n is an empty file that stands for something that cannot be made here. Programs may only see,
// move and remove its name.
func (v *Volume) standsIn(n *Inode) bool {
	return n.kind == cold.KindFile && v.held.Mark(n.heldKey()) == heldback.MarkStandIn
}

// ErrStandsIn is the EIO that programs get from a file that stands in for something that cannot be made here.
var ErrStandsIn = fmt.Errorf("it stands in for what cannot be made here: %w", unix.EIO)

// errStandsIn returns ErrStandsIn if n stands in for something, else nil.
func (v *Volume) errStandsIn(n *Inode) error {
	if v.standsIn(n) {
		return ErrStandsIn
	}
	return nil
}

// heldLines describes what is held back, for people: at most most lines, and then a count of the rest.
func (v *Volume) heldLines(most int) []string {
	var out []string
	list, more := v.held.List(most)
	for _, it := range list {
		switch {
		case it.Unknown():
			out = append(out, heldback.LeftOutHere+"a file that had several names: "+strings.Join(it.What, "; "))
		case v.isAt(it): // if not, it was removed just before the daemon was killed
			out = append(out, heldLine(it.Path, it.What))
		}
	}
	if more > 0 {
		out = append(out, fmt.Sprintf("%sand of %d more", heldback.LeftOutHere, more))
	}
	return out
}

// heldLine says what is held back at a path.
func heldLine(at string, what []string) string {
	return heldback.LeftOutHere + leftOut{path: cold.NameOf(at), err: errors.New(strings.Join(what, "; "))}.String()
}

// isAt says whether the item's inode is at the item's path.
func (v *Volume) isAt(it heldback.Item) bool {
	k, ok := heldback.At(v.warmFD, it.Path)
	return ok && k == it.Key
}
