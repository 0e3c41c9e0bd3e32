package tiers

import (
	"encoding/json"
	"errors"
	"path"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/heldback"
)

// This file has what ends or moves a note of what is held back: changes of attributes, writes, and names that come and
// go.

// unhold drops what was held back of a part of n, because somebody changed that part; attr is the attribute's name for
// heldback.PartXattrs. It says whether anything was held back of it. n.mu is held.
func (v *Volume) unhold(n *Inode, part int, attr string) bool {
	if v.held.Empty() || !v.held.Has(n.heldKey()) {
		return false
	}
	it, _, err := v.held.Get(n.heldKey())
	h, herr := heldback.Holding(v.held, n.heldKey())
	if err = errors.Join(err, herr); err == nil && h != nil && h.Drop(part, attr) {
		var raw []byte
		if h.Empty() {
			err = v.held.Drop(n.heldKey())
		} else if raw, err = json.Marshal(h); err == nil {
			err = v.held.Put(heldback.Item{Key: n.heldKey(), Path: it.Path, What: h.What, Mark: h.Mark(), Value: raw})
		}
		if err == nil {
			return true
		}
	}
	if err != nil {
		v.log.WithError(err).WithField("inode", n.ino).Error("cannot note that what was held back of a file was " +
			"changed: the next commit may have its old value")
	}
	return false
}

// KillHeld drops held-back suid and sgid of n, because somebody writes to it. The kernel itself asks for that only
// where it was shown these bits.
func (v *Volume) KillHeld(n *Inode) error {
	if v.held.Empty() || !v.held.Has(n.heldKey()) {
		return nil
	}
	v.begin()
	defer v.end()
	return v.withAttrChange(n, func() error {
		v.unhold(n, heldback.PartMode, "")
		return nil
	})
}

// HoldsMode says whether suid or sgid of n may be held back.
func (v *Volume) HoldsMode(n *Inode) bool { return !v.held.Empty() && v.held.Has(n.heldKey()) }

// wroteHeld notes that somebody writes to n. A write takes capabilities away, and with killPriv suid and sgid; so those
// that are held back go too, and the held-back mtime.
func (v *Volume) wroteHeld(n *Inode, killPriv bool) {
	if v.held.Empty() || !v.held.Has(n.heldKey()) {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	v.unhold(n, heldback.PartCaps, "")
	v.unhold(n, heldback.PartMtime, "")
	if killPriv {
		v.unhold(n, heldback.PartMode, "")
	}
}

// movingHeld prepares for a rename of n; other is the inode with which it changes places, or nil. The caller calls the
// result with the error of the rename.
func (v *Volume) movingHeld(n *Inode, dir *Inode, name string, newdir *Inode, newname string, other *Inode) func(
	error) {
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
			const between = "//" // no path begins with this
			v.sayHeld(errors.Join(v.held.Moved(from, between), v.held.Moved(to, from), v.held.Moved(between, to)))
		case other != nil:
			v.sayHeld(errors.Join(move(n, from, to), move(other, to, from)))
		default:
			v.sayHeld(move(n, from, to))
		}
	}
}

// unnamedHeld notes that n has lost the name (dir, name). If it was the last one, what was held back of n is dropped,
// because no commit takes n any more. n.mu is held.
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

// sayHeld logs err, with which the table could not be written: paths in status may be wrong after the next start.
func (v *Volume) sayHeld(err error) {
	if err != nil {
		v.log.WithError(err).Warn("cannot note a change of what is held back")
	}
}
