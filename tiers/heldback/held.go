package heldback

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/warm"
)

// Held is what is held back of one inode.
type Held struct {
	// Owner, uid and gid, is what the commit has; Given what the inode got instead. Who gives it another owner means
	// that one.
	Owner *[2]uint32 `json:"owner,omitempty"`
	Given *[2]uint32 `json:"given,omitempty"`
	// Mode and GivenMode are the same of 07777.
	Mode      *uint32 `json:"mode,omitempty"`
	GivenMode *uint32 `json:"given_mode,omitempty"`
	Xattrs    []Xattr `json:"xattrs,omitempty"`
	// Mtime is one that the file system does not keep, and GivenMtime what it made of it. Who sets another one, or
	// writes, means that.
	Mtime      *cold.Time `json:"mtime,omitempty"`
	GivenMtime *cold.Time `json:"given_mtime,omitempty"`
	// Flags are those of chattr(1), which warm's file does not have: they would hold up the daemon too.
	Flags uint32 `json:"flags,omitempty"`
	// Entry is all of an entry that cannot be made: an empty file stands for it, which opens with EIO.
	Entry *Entry `json:"entry,omitempty"`

	What []string `json:"-"` // for people, in this order
}

// Xattr is an extended attribute, whose name may be any bytes.
type Xattr struct {
	Name  []byte `json:"name"`
	Value []byte `json:"value"`
}

// Entry is an Entry in JSON: texts may be any bytes.
type Entry struct {
	cold.Entry
	Name, Target, Link, Stored []byte
	Others                     []Xattr
}

const FileName = "heldback"

// KeyOf is the key of the inode that was looked at.
func KeyOf(st *unix.Statx_t) Key { return Key{Ino: st.Ino, Gen: warm.GenOf(st)} }

// OpenState reads what is held back of a state directory's warm, and finds the inodes again where that was copied. lost
// are the paths of those that it did not find.
func OpenState(state string, warmFD int, rewrite Rewrite) (t *Table, lost []string, err error) {
	var st unix.Statx_t
	if err := warm.StatAt(warmFD, "", &st); err != nil {
		return nil, nil, err
	}
	t, err = Open(filepath.Join(state, FileName), KeyOf(&st), rewrite)
	if err == nil && t.Copied() {
		lost, err = t.Rekey(func(at string) (Key, bool) { return At(warmFD, at) })
	}
	return t, lost, err
}

// Hold notes what is held back of the inode that st describes, which stands at a path below warm's root; where h holds
// nothing it forgets what was held back.
func (t *Table) Hold(st *unix.Statx_t, at string, h *Held) error {
	if h.Empty() {
		return t.Drop(KeyOf(st))
	}
	raw, err := json.Marshal(h)
	if err != nil {
		return err
	}
	return t.Put(Item{Key: KeyOf(st), Path: at, What: h.What, Mark: h.Mark(), Value: raw})
}

// Holding gives what is held back of an inode; nil: nothing.
func Holding(t *Table, k Key) (*Held, error) {
	if t.Empty() {
		return nil, nil
	}
	it, ok, err := t.Get(k)
	if err != nil || !ok {
		return nil, err
	}
	h := &Held{What: it.What}
	if err := json.Unmarshal(it.Value, h); err != nil {
		return nil, fmt.Errorf("read what is held back of %q: %w", it.Path, err)
	}
	return h, nil
}

// Fill makes of an entry that was looked at the one that a commit is to have.
func (h *Held) Fill(e *cold.Entry) {
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

func (e *Entry) entry() cold.Entry {
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

// EntryOf is an entry as it is kept.
func EntryOf(e *cold.Entry) *Entry {
	h := &Entry{Entry: *e, Name: []byte(e.Name), Target: []byte(e.Target), Link: []byte(e.Link)}
	h.Entry.Name, h.Entry.Target, h.Entry.Link, h.Entry.Xattrs = "", "", "", nil
	for _, x := range e.Xattrs {
		h.Others = append(h.Others, Xattr{Name: []byte(x.Name), Value: x.Value})
	}
	if e.Other != nil {
		h.Stored = []byte(e.Other.Stored)
	}
	return h
}

// Empty says that nothing is held back.
func (h *Held) Empty() bool {
	return h.Owner == nil && h.Mode == nil && len(h.Xattrs) == 0 && h.Entry == nil && h.Flags == 0 && h.Mtime == nil
}

// MarkStandIn is the mark of what stands in; the others are flags.
const MarkStandIn = 1 << 31

// Mark is the mark of the item that keeps h.
func (h *Held) Mark() uint32 {
	if h.Entry != nil {
		return MarkStandIn
	}
	return h.Flags
}

const LeftOutHere = "left out here: "

// At is the inode at a path of warm.
func At(warmFD int, at string) (Key, bool) {
	fd, err := warm.OpenPath(warmFD, cold.NameOf(at))
	if err != nil {
		return Key{}, false
	}
	defer unix.Close(fd)
	var st unix.Statx_t
	err = warm.StatAt(fd, "", &st)
	return KeyOf(&st), err == nil
}

// The kinds of what is held back, as what somebody changes.
const (
	PartOwner = iota
	PartMode
	PartSGID
	PartMtime
	PartXattrs
	PartCaps // capabilities, which any write takes away
)

// Drop takes a part away, and says whether it was there.
func (h *Held) Drop(part int, attr string) (had bool) {
	xattr := func(match func(string) bool) {
		before := len(h.Xattrs)
		h.Xattrs = slices.DeleteFunc(h.Xattrs, func(x Xattr) bool { return match(string(x.Name)) })
		had = had || len(h.Xattrs) < before
		h.What = slices.DeleteFunc(h.What, func(w string) bool {
			name, ok := strings.CutPrefix(w, SaysXattr)
			name, _, _ = strings.Cut(name, ":")
			return ok && match(name)
		})
	}
	switch part {
	case PartOwner:
		if had = h.Owner != nil; had {
			h.Owner, h.Given = nil, nil
			h.unsay(SaysOwner)
		}
	case PartMode:
		if had = h.Mode != nil; had {
			h.Mode, h.GivenMode = nil, nil
			h.unsay(SaysMode)
		}
	case PartMtime:
		if had = h.Mtime != nil; had {
			h.Mtime, h.GivenMtime = nil, nil
			h.unsay(SaysMtime)
		}
	case PartSGID:
		if had = h.Mode != nil && *h.Mode&^*h.GivenMode&unix.S_ISGID != 0; had {
			mode := *h.Mode &^ unix.S_ISGID
			if h.Mode = &mode; mode&^*h.GivenMode == 0 {
				h.Mode, h.GivenMode = nil, nil
			}
			h.unsay(SaysMode)
			if h.Mode != nil {
				h.What = append(h.What, fmt.Sprintf("%s%04o", SaysMode, mode))
			}
		}
	case PartXattrs:
		xattr(func(name string) bool { return name == attr })
	case PartCaps:
		xattr(func(name string) bool { return name == warm.CapsAttr })
	}
	return had
}

const (
	SaysOwner = "owner "
	SaysMode  = "mode "
	SaysXattr = "attribute "
	SaysMtime = "mtime "
)

func (h *Held) unsay(prefix string) {
	h.What = slices.DeleteFunc(h.What, func(w string) bool { return strings.HasPrefix(w, prefix) })
}
