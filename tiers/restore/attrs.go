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

// cannot says whether err means that this machine, or its file system, cannot have what was to be made, so that the
// restore may go on without it. Any other error, such as that of a full disk, ends the restore.
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
	// ENOSPC may also mean that one file has more attributes than its file system takes.
	return warm.HasRoom(r.RootFD)
}

// path returns the path of an entry that is being restored.
func (r *Restorer) path(e *cold.Entry) string {
	if r.Vol != nil && r.DirAt != "" {
		return path.Join(r.DirAt, e.Name)
	}
	if r.DirAt == "" && r.at == "" {
		return e.Name
	}
	return r.at
}

// leaveOut notes that a part of an entry, described by what, cannot be made here because of err. In a volume it says so
// in h, and the caller holds the part back. A copy goes without the part, and reports that as one of its failures.
// leaveOut returns an error if err ends the restore.
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

// special makes an entry that is neither a regular file nor a directory.
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

// whyStandIn says, for people, what is held back where an empty file stands in for e, and why.
func whyStandIn(e *cold.Entry, why error) string {
	if e.Kind == cold.KindOther {
		return why.Error()
	}
	return fmt.Sprintf("this %s: %v", e.Kind, why)
}

// standIn makes an empty file in the place of e, which cannot be made because of why. Opening that file fails with EIO,
// and commits have e in its place. A copy has nothing there, and reports that. standIn returns EEXIST if something has
// the name.
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

// errLeftOut is what a copy reports for an entry that no directory can hold, such as a submodule.
var errLeftOut = errors.New("no directory can hold it")

// noID is nobody's uid or gid: chown(2) takes it for "leave it".
const noID = ^uint32(0)

// setAttrs sets owner, mode, extended attributes and mtime of the inode f to those of e, in an order in which none
// undoes another: chown clears suid, and an ACL changes the mode. It skips what the inode has already, by fresh;
// without fresh.attrs the inode was made with the lower nine bits of e's mode. What cannot be set here is held back.
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

// without is leaveOut for what may not be set because the daemon is not root (errPlainUser), or because the source is
// not trusted (errUntrusted). A plain copy does not report these one by one: the first are counted, and reported
// together in the end; the second it was asked to leave out.
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

// xattrs makes the inode's extended attributes those of e, and removes all others. What cannot be set is held back in
// h.
func (r *Restorer) xattrs(at warm.XattrTarget, e *cold.Entry, h *heldback.Held) error {
	have, err := at.All()
	if err != nil {
		return err
	}
	for _, x := range have {
		if !slices.ContainsFunc(e.Xattrs, func(y cold.Xattr) bool { return x.Name == y.Name }) {
			err := at.Remove(x.Name)
			if (errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES)) && guarded(x.Name) {
				continue // a label that the system gave to the new file
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

// withoutXattr leaves out the attribute x because of why: it holds x back in h, and removes an old value of it.
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

// guarded says whether an attribute means something to the system, so that only root may set it.
func guarded(attr string) bool {
	return strings.HasPrefix(attr, "security.") || strings.HasPrefix(attr, "trusted.")
}

// setRecord stores a record that the inode cannot go without. Where the extended attributes of e leave no room for it,
// the biggest of them are held back.
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

// flagged is a path in a copy, with the flags of chattr(1) that it gets once everything is made. Set earlier, flags
// such as immutable would be in the way of the rest.
type flagged struct {
	path  string
	flags uint32
}

// setFlags sets the flags of chattr(1) that a plain copy has, as its last step. What fails is added to r.failures.
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

// Again looks at an entry that a listing finds made already, by an earlier listing that was cut off. Nobody changes
// anything in a directory that is not listed yet, so where the entry is not as the commit has it, something was held
// back, and a power failure may have lost the note of it. Again writes that note anew. standsIn says that an empty file
// stands in for the entry.
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
