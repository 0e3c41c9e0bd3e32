package restore

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/heldback"
	"emberfs/tiers/warm"
)

// This file: what a restore sets of an entry, and what becomes of what it cannot.

// cannot says whether an error is about what was to be made alone: this machine, or this file system, has no such
// thing. All else, a full disk for one, ends the restore.
func (r *Restorer) cannot(err error) bool {
	for _, e := range []error{unix.EDQUOT, unix.EIO, unix.EROFS, unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.ESTALE,
		context.Canceled, context.DeadlineExceeded, errReplaced} {
		if errors.Is(err, e) {
			return false
		}
	}
	if !errors.Is(err, unix.ENOSPC) {
		return true
	}
	// The same error says that the attributes of one file are as many as its file system takes.
	return warm.HasRoom(r.RootFD)
}

// path is where an entry is that is being restored.
func (r *Restorer) path(e *cold.Entry) string {
	if r.Vol != nil && r.DirAt != "" {
		return path.Join(r.DirAt, e.Name)
	}
	if r.DirAt == "" && r.at == "" {
		return e.Name
	}
	return r.at
}

// leaveOut notes that a part of an entry cannot be made here: a copy has the rest, and says so; in a volume it is held
// back.
func (r *Restorer) leaveOut(e *cold.Entry, h *heldback.Held, what string, err error) error {
	if !r.cannot(err) {
		return fmt.Errorf("%s: %w", what, err)
	}
	if r.Vol != nil {
		h.What = append(h.What, fmt.Sprintf("%s: %v", what, err))
		return nil
	}
	if !r.keepGoing {
		return fmt.Errorf("%s: %w", what, err)
	}
	err = fmt.Errorf("restore %q: %s%s: %w", r.path(e), heldback.LeftOutHere, what, err)
	r.Log.Warn(err)
	r.failures = append(r.failures, err)
	return nil
}

var (
	errUntrusted = errors.New("the source is not trusted")
	errPlainUser = errors.New("only root may")
	errTimes     = errors.New("the file system keeps no such times")
)

// special makes what is neither file nor directory.
func (r *Restorer) special(fd int, e *cold.Entry) error {
	switch e.Kind {
	case cold.KindSymlink:
		return unix.Symlinkat(e.Target, fd, e.Name)
	case cold.KindOther:
		return errors.New(e.Other.Why)
	case cold.KindChar, cold.KindBlock:
		if r.Untrusted {
			return errUntrusted
		}
	}
	return unix.Mknodat(fd, e.Name, e.Kind.Format()|e.Mode&0777, int(e.Rdev))
}

// whyStandIn is what is held back where something stands in.
func whyStandIn(e *cold.Entry, why error) string {
	if e.Kind == cold.KindOther {
		return why.Error()
	}
	return fmt.Sprintf("this %s: %v", e.Kind, why)
}

// standIn makes an empty file in the place of an entry that cannot be made because of why: it opens with EIO, and
// commits have the entry. A copy has nothing there, and says so. EEXIST where something is there.
func (r *Restorer) standIn(fd int, e *cold.Entry, why error) error {
	if r.Vol == nil {
		if errors.Is(why, errUntrusted) {
			r.Log.WithField("path", r.path(e)).Warn("device not restored: the source is not trusted")
			return nil
		}
		if e.Kind != cold.KindOther || !r.keepGoing {
			return why
		}
		return r.leaveOut(e, nil, whyStandIn(e, why), errLeftOut)
	}
	if !r.cannot(why) {
		return why
	}
	f, err := warm.OpenAt(fd, e.Name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0)
	if err != nil {
		return err
	}
	defer unix.Close(f)
	if e.Mtime != (cold.Time{}) {
		if err := warm.Utimens(f, []unix.Timespec{{Nsec: unix.UTIME_OMIT}, e.Mtime.Timespec()}); err != nil {
			return err
		}
	}
	var st unix.Statx_t
	if err := warm.StatAt(f, "", &st); err != nil {
		return err
	}
	r.count(0)
	return r.Vol.Held.Hold(&st, r.path(e), &heldback.Held{Entry: heldback.EntryOf(e),
		What: []string{whyStandIn(e, why)}})
}

// errLeftOut is what a copy says of what no directory can hold.
var errLeftOut = errors.New("no directory can hold it")

// noID is nobody's uid or gid: chown(2) takes it for "leave it".
const noID = ^uint32(0)

// setAttrs sets owner, mode, xattrs and mtime, as far as fresh has not got them, in the order in which none undoes
// another: chown clears suid, an ACL changes the mode, everything but the mtime itself changes the mtime of nothing.
// What fresh.attrs does not warn of was made with the mode's 0777.
func (r *Restorer) setAttrs(f int, at warm.XattrTarget, e *cold.Entry, fresh Fresh) error {
	h := heldback.Held{Flags: e.Flags & cold.KeptFlags}
	if r.Vol == nil && h.Flags != 0 {
		r.flags = append(r.flags, flagged{r.path(e), h.Flags})
	}
	if err := r.setOwner(f, e, fresh, &h); err != nil {
		return err
	}
	mode, err := r.setMode(f, e, fresh, &h)
	if err != nil {
		return err
	}
	if fresh.Attrs || len(e.Xattrs) > 0 {
		if err := r.xattrs(at, e, &h); err != nil {
			return err
		}
	}
	if e.Kind != cold.KindSymlink && len(e.Xattrs) > 0 {
		if err := unix.Chmod(warm.FDPath(f), mode); err != nil { // an ACL may have changed the mode
			return fmt.Errorf("chmod %o: %w", mode, err)
		}
	}
	ts := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, r.Times.Clamp(e.Mtime).Timespec()}
	if err := warm.Utimens(f, ts); err != nil {
		return fmt.Errorf("set the mtime: %w", err)
	}
	if !r.Times.Keeps(e.Mtime) {
		h.Mtime = &e.Mtime
		if err := r.leaveOut(e, &h, heldback.SaysMtime+cold.ClockText(e.Mtime), errTimes); err != nil {
			return err
		}
	}
	if r.Vol == nil || h.Empty() && r.Vol.Held.Empty() {
		return nil
	}
	var st unix.Statx_t
	if err := warm.StatAt(f, "", &st); err != nil {
		return err
	}
	if h.Mtime != nil {
		given := warm.TimeOf(st.Mtime)
		h.GivenMtime = &given
	}
	if h.Owner != nil {
		h.Given = &[2]uint32{st.Uid, st.Gid}
	}
	if h.Mode != nil {
		given := uint32(st.Mode) & 07777
		h.GivenMode = &given
	}
	return r.Vol.Held.Hold(&st, r.path(e), &h)
}

func (r *Restorer) setOwner(f int, e *cold.Entry, fresh Fresh, h *heldback.Held) error {
	if e.UID == fresh.UID && e.GID == fresh.GID {
		return nil
	}
	why := errUntrusted
	if !r.Untrusted {
		why = errPlainUser
		if r.Owner == 0 {
			why = unix.Fchownat(f, "", int(e.UID), int(e.GID), unix.AT_EMPTY_PATH)
		}
	}
	if why == nil {
		return nil
	}
	var st unix.Statx_t
	if err := warm.StatAt(f, "", &st); err != nil {
		return err
	}
	if st.Uid == e.UID && st.Gid == e.GID {
		return nil
	}
	h.Owner = &[2]uint32{e.UID, e.GID}
	return r.without(e, h, fmt.Sprintf("%s%d:%d", heldback.SaysOwner, e.UID, e.GID), why)
}

func (r *Restorer) setMode(f int, e *cold.Entry, fresh Fresh, h *heldback.Held) (uint32, error) {
	mode := e.Mode
	if r.Untrusted {
		mode &^= unix.S_ISUID | unix.S_ISGID
	}
	if e.Kind == cold.KindSymlink {
		return mode, nil
	}
	if fresh.Attrs || mode&^0777 != 0 {
		if err := unix.Chmod(warm.FDPath(f), mode); err != nil {
			return mode, fmt.Errorf("chmod %o: %w", mode, err)
		}
	}
	why := errUntrusted
	if mode == e.Mode {
		if mode&unix.S_ISGID == 0 {
			return mode, nil
		}
		var st unix.Statx_t // chmod(2) drops sgid silently where the caller is not in the group
		if err := warm.StatAt(f, "", &st); err != nil || uint32(st.Mode)&07777 == mode {
			return mode, err
		}
		why = errPlainUser
	}
	h.Mode = &e.Mode
	return mode, r.without(e, h, fmt.Sprintf("%s%04o", heldback.SaysMode, e.Mode), why)
}

// without is leaveOut for what root alone may set, or nobody of a source that is not trusted: a plain copy leaves that
// out because it was asked to, or says so of all files together.
func (r *Restorer) without(e *cold.Entry, h *heldback.Held, what string, why error) error {
	switch {
	case r.Vol == nil && errors.Is(why, errUntrusted):
		return nil
	case r.Vol == nil && errors.Is(why, errPlainUser):
		if r.rootOnly++; r.rootOnly == 1 {
			r.rootOnlyAt = r.path(e)
		}
		return nil
	}
	return r.leaveOut(e, h, what, why)
}

// xattrs makes the extended attributes what e says.
func (r *Restorer) xattrs(at warm.XattrTarget, e *cold.Entry, h *heldback.Held) error {
	have, err := at.All()
	if err != nil {
		return err
	}
	for _, x := range have {
		if !slices.ContainsFunc(e.Xattrs, func(y cold.Xattr) bool { return x.Name == y.Name }) {
			err := at.Remove(x.Name)
			if (errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES)) && guarded(x.Name) {
				continue // the system labels what it makes
			}
			if err != nil && !errors.Is(err, unix.ENODATA) {
				return fmt.Errorf("remove attribute %s: %w", x.Name, err)
			}
		}
	}
	for i := range e.Xattrs {
		x := &e.Xattrs[i]
		if warm.ReservedXattr(x.Name) {
			continue
		}
		why := errUntrusted
		if !r.Untrusted || !guarded(x.Name) {
			why = errPlainUser
			if r.Owner == 0 || !guarded(x.Name) {
				why = at.Set(x.Name, x.Value, 0)
			}
		}
		if why == nil {
			continue
		}
		if err := r.withoutXattr(at, e, x, h, why); err != nil {
			return err
		}
	}
	return nil
}

// withoutXattr leaves an attribute out.
func (r *Restorer) withoutXattr(at warm.XattrTarget, e *cold.Entry, x *cold.Xattr, h *heldback.Held, why error) error {
	if err := r.without(e, h, heldback.SaysXattr+x.Name, why); err != nil {
		return err
	}
	if err := at.Remove(x.Name); err != nil && r.Vol != nil { // an old value of it
		if _, there := at.Get(x.Name, nil); there == nil {
			return fmt.Errorf("remove attribute %s: %w", x.Name, err)
		}
	}
	h.Xattrs = append(h.Xattrs, heldback.Xattr{Name: []byte(x.Name), Value: x.Value})
	return nil
}

// guarded says that root alone may set an attribute, and that it means something to the system.
func guarded(attr string) bool {
	return strings.HasPrefix(attr, "security.") || strings.HasPrefix(attr, "trusted.")
}

// setRecord stores a record that has to be there. Where the entry's attributes leave no room for it the biggest of them
// are held back.
func (r *Restorer) setRecord(f int, at warm.XattrTarget, e *cold.Entry, rec *warm.Record) error {
	value := rec.Encode(make([]byte, 0, warm.RecordMax))
	err := at.Set(warm.RecordAttr, value, 0)
	if err == nil || len(e.Xattrs) == 0 || !r.cannot(err) {
		return err
	}
	bySize := slices.Clone(e.Xattrs)
	slices.SortFunc(bySize, func(a, b cold.Xattr) int { return len(b.Value) - len(a.Value) })
	var st unix.Statx_t
	if err := warm.StatAt(f, "", &st); err != nil {
		return err
	}
	h, herr := heldback.Holding(r.Vol.Held, heldback.KeyOf(&st))
	if herr != nil {
		return herr
	}
	if h == nil {
		h = &heldback.Held{}
	}
	for i := range bySize {
		if warm.ReservedXattr(bySize[i].Name) {
			continue
		}
		if err := r.withoutXattr(at, e, &bySize[i], h, unix.ENOSPC); err != nil {
			return err
		}
		if err = at.Set(warm.RecordAttr, value, 0); err == nil {
			return r.Vol.Held.Hold(&st, r.path(e), h)
		}
	}
	return err
}

// flagged is a path of a copy that gets flags when all is made: they would hold up the rest.
type flagged struct {
	path  string
	flags uint32
}

// setFlags ends a plain copy.
func (r *Restorer) setFlags() {
	for _, f := range r.flags {
		err := func() error {
			fd, err := warm.OpenPath(r.RootFD, cold.NameOf(f.path))
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			rd, err := unix.Open(warm.FDPath(fd), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(rd)
			old, err := unix.IoctlGetInt(rd, unix.FS_IOC_GETFLAGS)
			if err != nil {
				return err
			}
			return unix.IoctlSetPointerInt(rd, unix.FS_IOC_SETFLAGS, old|int(f.flags))
		}()
		if err != nil {
			err = fmt.Errorf("restore %q: %sflags %#x of chattr(1): %w", f.path, heldback.LeftOutHere, f.flags, err)
			r.Log.Warn(err)
			r.failures = append(r.failures, err)
		}
	}
}

// Again looks at what a listing finds made already, by one that was cut off: in a directory that is not listed yet
// nobody has changed anything, so where it is not as the commit has it, that is held back, and the note of it may be
// lost with the power.
func (r *Restorer) Again(dirfd int, e *cold.Entry) (standsIn bool, err error) {
	fd, err := warm.OpenAt(dirfd, e.Name, unix.O_PATH, 0)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	var st unix.Statx_t
	if err := warm.StatAt(fd, "", &st); err != nil {
		return false, err
	}
	h, err := heldback.Holding(r.Vol.Held, heldback.KeyOf(&st))
	if err != nil || h != nil && h.Entry != nil {
		return true, err
	}
	if warm.KindOf(uint32(st.Mode)) == e.Kind {
		return false, r.attrsOf(fd, warm.ByName(dirfd, e.Name), e)
	}
	return true, r.Vol.Held.Hold(&st, r.path(e), &heldback.Held{Entry: heldback.EntryOf(e),
		What: []string{whyStandIn(e, errors.New("it could not be made"))}})
}
