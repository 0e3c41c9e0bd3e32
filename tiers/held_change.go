package tiers

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/heldback"
)

// This file: what ends that something is held back, and what moves it: changes of attributes, writes, and names that come and go.

// The kinds of what is held back, as what somebody changes.
const (
	heldOwner = iota
	heldMode
	heldSGID
	heldMtime
	heldXattrs
	heldCaps // capabilities, which any write takes away
)

// unhold notes that somebody changed a part of n: what was held back of that is no more. n.mu is held. It says whether anything was.
func (v *Volume) unhold(n *Inode, part int, attr string) bool {
	if v.held.Empty() || !v.held.Has(n.heldKey()) {
		return false
	}
	it, _, err := v.held.Get(n.heldKey())
	h, herr := holding(v.held, n.heldKey())
	if err = errors.Join(err, herr); err == nil && h != nil && h.drop(part, attr) {
		var raw []byte
		if h.empty() {
			err = v.held.Drop(n.heldKey())
		} else if raw, err = json.Marshal(h); err == nil {
			err = v.held.Put(heldback.Item{Key: n.heldKey(), Path: it.Path, What: h.what, Mark: h.mark(), Value: raw})
		}
		if err == nil {
			return true
		}
	}
	if err != nil {
		v.log.WithError(err).WithField("inode", n.ino).Error("cannot note that what was held back of a file was changed: the next commit may have its old value")
	}
	return false
}

// drop takes a part away, and says whether it was there.
func (h *held) drop(part int, attr string) (had bool) {
	xattr := func(match func(string) bool) {
		before := len(h.Xattrs)
		h.Xattrs = slices.DeleteFunc(h.Xattrs, func(x heldXattr) bool { return match(string(x.Name)) })
		had = had || len(h.Xattrs) < before
		h.what = slices.DeleteFunc(h.what, func(w string) bool {
			name, ok := strings.CutPrefix(w, whatXattr)
			name, _, _ = strings.Cut(name, ":")
			return ok && match(name)
		})
	}
	switch part {
	case heldOwner:
		if had = h.Owner != nil; had {
			h.Owner, h.Given = nil, nil
			h.unsay(whatOwner)
		}
	case heldMode:
		if had = h.Mode != nil; had {
			h.Mode, h.GivenMode = nil, nil
			h.unsay(whatMode)
		}
	case heldMtime:
		if had = h.Mtime != nil; had {
			h.Mtime, h.GivenMtime = nil, nil
			h.unsay(whatMtime)
		}
	case heldSGID:
		if had = h.Mode != nil && *h.Mode&^*h.GivenMode&unix.S_ISGID != 0; had {
			mode := *h.Mode &^ unix.S_ISGID
			if h.Mode = &mode; mode&^*h.GivenMode == 0 {
				h.Mode, h.GivenMode = nil, nil
			}
			h.unsay(whatMode)
			if h.Mode != nil {
				h.what = append(h.what, fmt.Sprintf("%s%04o", whatMode, mode))
			}
		}
	case heldXattrs:
		xattr(func(name string) bool { return name == attr })
	case heldCaps:
		xattr(func(name string) bool { return name == capability })
	}
	return had
}

const (
	whatOwner = "owner "
	whatMode  = "mode "
	whatXattr = "attribute "
	whatMtime = "mtime "
)

func (h *held) unsay(prefix string) {
	h.what = slices.DeleteFunc(h.what, func(w string) bool { return strings.HasPrefix(w, prefix) })
}

// KillHeld is what the kernel's own request for suid and sgid to go does, which it does not make where it was not shown them.
func (v *Volume) KillHeld(n *Inode) error {
	if v.held.Empty() || !v.held.Has(n.heldKey()) {
		return nil
	}
	v.begin()
	defer v.end()
	return v.withAttrChange(n, func() error {
		v.unhold(n, heldMode, "")
		return nil
	})
}

// HoldsMode says whether suid or sgid of n may be held back.
func (v *Volume) HoldsMode(n *Inode) bool { return !v.held.Empty() && v.held.Has(n.heldKey()) }

// wroteHeld notes that somebody writes to n: as the kernel takes capabilities away then, and suid and sgid where the writer may not
// keep them, so does the next commit.
func (v *Volume) wroteHeld(n *Inode, killPriv bool) {
	if v.held.Empty() || !v.held.Has(n.heldKey()) {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	v.unhold(n, heldCaps, "")
	v.unhold(n, heldMtime, "")
	if killPriv {
		v.unhold(n, heldMode, "")
	}
}

// movingHeld prepares for a rename of n, and of other where the two change places: what it returns is called with how that ended.
func (v *Volume) movingHeld(n *Inode, dir *Inode, name string, newdir *Inode, newname string, other *Inode) func(error) {
	if v.held.Empty() {
		return func(error) {}
	}
	from, to := path.Join(v.pathOf(dir), name), path.Join(v.pathOf(newdir), newname)
	move := func(n *Inode, from, to string) error {
		if n.kind == cold.KindDir {
			return v.held.Moved(from, to)
		}
		return v.held.MovedOne(n.heldKey(), from, to)
	}
	return func(err error) {
		switch {
		case err != nil || from == to:
		case other != nil && (n.kind == cold.KindDir || other.kind == cold.KindDir):
			const aside = "//" // no path begins so
			v.sayHeld(errors.Join(v.held.Moved(from, aside), v.held.Moved(to, from), v.held.Moved(aside, to)))
		case other != nil:
			v.sayHeld(errors.Join(move(n, from, to), move(other, to, from)))
		default:
			v.sayHeld(move(n, from, to))
		}
	}
}

// unnamedHeld notes that n, whose mu is held, has lost a name. With its last one goes what was held back of it: no commit takes it any more.
func (v *Volume) unnamedHeld(n *Inode, dir *Inode, name string) {
	if v.held.Empty() || !v.held.Has(n.heldKey()) {
		return
	}
	var st unix.Statx_t
	if v.statNode(n, &st) == nil && st.Nlink == 0 {
		v.sayHeld(v.held.Drop(n.heldKey()))
		return
	}
	v.sayHeld(v.held.Lost(n.heldKey(), path.Join(v.pathOf(dir), name)))
}

// sayHeld logs that the table could not be written: paths in status may be wrong after the next start.
func (v *Volume) sayHeld(err error) {
	if err != nil {
		v.log.WithError(err).Warn("cannot note a change of what is held back")
	}
}
