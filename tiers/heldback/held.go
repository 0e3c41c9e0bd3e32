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
	// Owner is the uid and gid that the commit has; Given is what the inode got instead. When somebody sets another
	// owner than Given, that replaces Owner.
	Owner *[2]uint32 `json:"owner,omitempty"`
	Given *[2]uint32 `json:"given,omitempty"`
	// Mode and GivenMode are the same for the permission bits (07777).
	Mode      *uint32 `json:"mode,omitempty"`
	GivenMode *uint32 `json:"given_mode,omitempty"`
	Xattrs    []Xattr `json:"xattrs,omitempty"`
	// Mtime is a time that the file system cannot store; GivenMtime is what it stored instead. When the inode has
	// another mtime than GivenMtime, Mtime does not count any more.
	Mtime      *cold.Time `json:"mtime,omitempty"`
	GivenMtime *cold.Time `json:"given_mtime,omitempty"`
	// Flags are the chattr(1) flags that the commit has. Warm's file does not have them, because they would stop the
	// daemon too.
	Flags uint32 `json:"flags,omitempty"`
	// Entry is an entry that cannot be made at all. An empty file stands in for it; opening that gives EIO.
	Entry *Entry `json:"entry,omitempty"`

	What []string `json:"-"` // what is held back, for people
}

// Xattr is an extended attribute. Its name may contain any bytes.
type Xattr struct {
	Name  []byte `json:"name"`
	Value []byte `json:"value"`
}

// Entry is a cold.Entry for JSON, with texts that may contain any bytes.
type Entry struct {
	cold.Entry
	Name, Target, Link, Stored []byte
	Others                     []Xattr
}

const FileName = "heldback"

// KeyOf returns the key of the inode that st describes.
func KeyOf(st *unix.Statx_t) Key { return Key{Ino: st.Ino, Gen: warm.GenOf(st)} }

// OpenState opens the table of a state directory. If the directory was copied, it finds the inodes again by their
// paths; lost are the paths at which it did not.
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

// Holding returns what is held back of an inode, or nil if nothing is.
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

// Fill turns an entry as warm has it into the one that a commit should have.
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
	if h.Mode != nil { // adds the bits that are held back; the others are as warm has them
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

// EntryOf converts an entry to the form in which it is stored.
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

// Empty reports whether nothing is held back.
func (h *Held) Empty() bool {
	return h.Owner == nil && h.Mode == nil && len(h.Xattrs) == 0 && h.Entry == nil && h.Flags == 0 && h.Mtime == nil
}

// MarkStandIn is the mark of an entry for which an empty file stands in. Other marks are chattr(1) flags.
const MarkStandIn = 1 << 31

// Mark returns the mark of the item that stores h.
func (h *Held) Mark() uint32 {
	if h.Entry != nil {
		return MarkStandIn
	}
	return h.Flags
}

const LeftOutHere = "left out here: "

// At returns the inode at a path of warm.
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

// The parts of an inode that can be held back, and that a change can replace.
const (
	PartOwner = iota
	PartMode
	PartSGID
	PartMtime
	PartXattrs
	PartCaps // capabilities, which any write removes
)

// Drop removes a part, and reports whether it was there.
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
