package tiers

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/heldback"
	"emberfs/tiers/warm"
)

// This file: what a commit has of an inode and this machine cannot make, or may not show. A restore notes it (restore_held.go), commits
// carry it over, and whoever changes that very thing ends that.

// held is what is held back of one inode.
type held struct {
	// Owner, uid and gid, is what the commit has; Given what the inode got instead. Who gives it another owner means that one.
	Owner *[2]uint32 `json:"owner,omitempty"`
	Given *[2]uint32 `json:"given,omitempty"`
	// Mode and GivenMode are the same of 07777.
	Mode      *uint32     `json:"mode,omitempty"`
	GivenMode *uint32     `json:"given_mode,omitempty"`
	Xattrs    []heldXattr `json:"xattrs,omitempty"`
	// Mtime is one that the file system does not keep, and GivenMtime what it made of it. Who sets another one, or writes, means that.
	Mtime      *cold.Time `json:"mtime,omitempty"`
	GivenMtime *cold.Time `json:"given_mtime,omitempty"`
	// Flags are those of chattr(1), which warm's file does not have: they would hold up the daemon too.
	Flags uint32 `json:"flags,omitempty"`
	// Entry is all of an entry that cannot be made: an empty file stands for it, which opens with EIO.
	Entry *heldEntry `json:"entry,omitempty"`

	what []string // for people, in this order
}

type heldXattr struct {
	Name  []byte `json:"name"`
	Value []byte `json:"value"`
}

// heldEntry is an Entry in JSON: texts may be any bytes.
type heldEntry struct {
	cold.Entry
	Name, Target, Link, Stored []byte
	Others                     []heldXattr
}

const heldName = "heldback"

func heldKey(st *unix.Statx_t) heldback.Key { return heldback.Key{Ino: st.Ino, Gen: warm.GenOf(st)} }

func (n *Inode) heldKey() heldback.Key { return heldback.Key{Ino: n.ino, Gen: n.gen} }

// openHeld reads what is held back of a state directory's warm, and finds the inodes again where that was copied. lost are the paths of
// those that it did not find.
func openHeld(state string, warmFD int, rewrite heldback.Rewrite) (t *heldback.Table, lost []string, err error) {
	var st unix.Statx_t
	if err := warm.StatAt(warmFD, "", &st); err != nil {
		return nil, nil, err
	}
	t, err = heldback.Open(filepath.Join(state, heldName), heldKey(&st), rewrite)
	if err == nil && t.Copied() {
		lost, err = t.Rekey(func(at string) (heldback.Key, bool) { return heldAt(warmFD, at) })
	}
	return t, lost, err
}

// loadHeld opens the volume's table.
func (v *Volume) loadHeld() error {
	t, lost, err := openHeld(v.cfg.State, v.warmFD, warm.WriteFileDurable)
	if err != nil {
		return err
	}
	v.held = t
	if len(lost) > 0 {
		v.points.setError("left out", fmt.Errorf("what was left out here of %d files cannot be found in this copy of the state directory, so commits lose it: the first of %q; "+
			"a new state directory has it", len(lost), lost[0]))
	}
	if v.doubtful { // a kill may have come between a name and the note of it
		for _, it := range t.All() {
			if !it.Unknown() && !v.isAt(it) {
				v.sayHeld(t.Lost(it.Key, it.Path))
			}
		}
	}
	return nil
}

// holding gives what is held back of an inode; nil: nothing.
func holding(t *heldback.Table, k heldback.Key) (*held, error) {
	if t.Empty() {
		return nil, nil
	}
	it, ok, err := t.Get(k)
	if err != nil || !ok {
		return nil, err
	}
	h := &held{what: it.What}
	if err := json.Unmarshal(it.Value, h); err != nil {
		return nil, fmt.Errorf("read what is held back of %q: %w", it.Path, err)
	}
	return h, nil
}

// fill makes of an entry that was looked at the one that a commit is to have.
func (h *held) fill(e *cold.Entry) {
	if h == nil {
		return
	}
	if h.Entry != nil {
		name := e.Name
		*e = h.Entry.entry()
		e.Name, e.Lost = name, e.Kind == cold.KindFile
		return
	}
	e.Flags = h.Flags
	if h.Owner != nil && *h.Given == [2]uint32{e.UID, e.GID} {
		e.UID, e.GID = h.Owner[0], h.Owner[1]
	}
	if h.Mtime != nil && *h.GivenMtime == e.Mtime {
		e.Mtime = *h.Mtime
	}
	if h.Mode != nil { // suid and sgid: what somebody set of the rest counts
		e.Mode |= *h.Mode &^ *h.GivenMode
	}
	for _, x := range h.Xattrs {
		if !slices.ContainsFunc(e.Xattrs, func(y cold.Xattr) bool { return y.Name == string(x.Name) }) {
			e.Xattrs = append(slices.Clip(e.Xattrs), cold.Xattr{Name: string(x.Name), Value: x.Value})
		}
	}
	warm.SortXattrs(e.Xattrs)
}

func (e *heldEntry) entry() cold.Entry {
	out := e.Entry
	out.Name, out.Target, out.Link = string(e.Name), string(e.Target), string(e.Link)
	for _, x := range e.Others {
		out.Xattrs = append(out.Xattrs, cold.Xattr{Name: string(x.Name), Value: x.Value})
	}
	if out.Other != nil {
		o := *out.Other
		o.Stored = string(e.Stored)
		out.Other = &o
	}
	return out
}

func heldEntryOf(e *cold.Entry) *heldEntry {
	h := &heldEntry{Entry: *e, Name: []byte(e.Name), Target: []byte(e.Target), Link: []byte(e.Link)}
	h.Entry.Name, h.Entry.Target, h.Entry.Link, h.Entry.Xattrs = "", "", "", nil
	for _, x := range e.Xattrs {
		h.Others = append(h.Others, heldXattr{Name: []byte(x.Name), Value: x.Value})
	}
	if e.Other != nil {
		h.Stored = []byte(e.Other.Stored)
	}
	return h
}

// empty says that nothing is held back.
func (h *held) empty() bool {
	return h.Owner == nil && h.Mode == nil && len(h.Xattrs) == 0 && h.Entry == nil && h.Flags == 0 && h.Mtime == nil
}

// markStandIn is the mark of what stands in; the others are flags.
const markStandIn = 1 << 31

func (h *held) mark() uint32 {
	if h.Entry != nil {
		return markStandIn
	}
	return h.Flags
}

// hold notes what is held back of the inode that st describes, which stands at a path; of nothing it forgets what was.
func (v *Volume) hold(st *unix.Statx_t, at string, h *held) error {
	if h.empty() {
		return v.held.Drop(heldKey(st))
	}
	raw, err := json.Marshal(h)
	if err != nil {
		return err
	}
	return v.held.Put(heldback.Item{Key: heldKey(st), Path: at, What: h.what, Mark: h.mark(), Value: raw})
}

// standsIn says whether n stands for something that cannot be made here. All but its name is closed to programs.
func (v *Volume) standsIn(n *Inode) bool {
	return n.kind == cold.KindFile && v.held.Mark(n.heldKey()) == markStandIn
}

// ErrStandsIn is EIO of a file that stands in for something that cannot be made here.
var ErrStandsIn = fmt.Errorf("it stands in for what cannot be made here: %w", unix.EIO)

// errStandsIn is ErrStandsIn for what stands in.
func (v *Volume) errStandsIn(n *Inode) error {
	if v.standsIn(n) {
		return ErrStandsIn
	}
	return nil
}

// heldLines lists what is held back for people: so many lines, and then a count.
func (v *Volume) heldLines(most int) []string {
	var out []string
	list, more := v.held.List(most)
	for _, it := range list {
		switch {
		case it.Unknown():
			out = append(out, leftOutHere+"a file that had several names: "+strings.Join(it.What, "; "))
		case v.isAt(it): // else it was removed while the daemon was being killed
			out = append(out, heldLine(it.Path, it.What))
		}
	}
	if more > 0 {
		out = append(out, fmt.Sprintf("%sand of %d more", leftOutHere, more))
	}
	return out
}

// heldLine says what is held back at a path.
func heldLine(at string, what []string) string {
	return leftOutHere + leftOut{path: nameOf(at), err: errors.New(strings.Join(what, "; "))}.String()
}

const leftOutHere = "left out here: "

// heldAt is the inode at a path of warm.
func heldAt(warmFD int, at string) (heldback.Key, bool) {
	fd, err := warm.OpenPath(warmFD, nameOf(at))
	if err != nil {
		return heldback.Key{}, false
	}
	defer unix.Close(fd)
	var st unix.Statx_t
	err = warm.StatAt(fd, "", &st)
	return heldKey(&st), err == nil
}

// isAt says whether an item's inode is where its path says.
func (v *Volume) isAt(it heldback.Item) bool {
	k, ok := heldAt(v.warmFD, it.Path)
	return ok && k == it.Key
}

// again looks at what a listing finds made already, by one that was cut off: in a directory that is not listed yet nobody has changed
// anything, so where it is not as the commit has it, that is held back, and the note of it may be lost with the power.
func (l *lister) again(e *cold.Entry) (standsIn bool, err error) {
	fd, err := warm.OpenAt(l.fd, e.Name, unix.O_PATH, 0)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	var st unix.Statx_t
	if err := warm.StatAt(fd, "", &st); err != nil {
		return false, err
	}
	h, err := holding(l.v.held, heldKey(&st))
	if err != nil || h != nil && h.Entry != nil {
		return true, err
	}
	if warm.KindOf(uint32(st.Mode)) == e.Kind {
		return false, l.r.attrsOf(fd, warm.ByName(l.fd, e.Name), e)
	}
	return true, l.v.hold(&st, l.r.path(e), &held{Entry: heldEntryOf(e), what: []string{whyStandIn(e, errors.New("it could not be made"))}})
}
