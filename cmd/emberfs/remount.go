package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"emberfs/backup/wire"
	"emberfs/fs"
)

// remount changes those per-mount flags of a mounted volume that the options name. Settings cannot change while the
// volume is mounted, but may be repeated, as by the line in fstab.
func remount(target string, o optionList) error {
	refuse := func(err error, hint string) error {
		return &failure{code: exitMount, op: "remount", path: target, err: err, hint: hint}
	}
	if target == "" {
		return refuse(errors.New("nothing is mounted"), "mount it without remount")
	}
	table, err := fs.Mounts()
	if err != nil {
		return refuse(err, "is /proc mounted?")
	}
	path, m, err := resolveMountpoint(target, table)
	if m == nil || !m.Ours() {
		if err == nil {
			err = errors.New("no emberfs is mounted there")
		}
		return refuse(plainError(err), "mount it without remount")
	}
	if name, err := changedSetting(target, o); err != nil {
		return refuse(err, "")
	} else if name != "" {
		return refuse(fmt.Errorf("%s cannot change while the volume is mounted", name), "unmount it and mount it again")
	}
	attr, unknown := remountAttr(o)
	if unknown != "" {
		return refuse(fmt.Errorf("%s cannot change while the volume is mounted", unknown),
			"unmount it and mount it again")
	}
	if attr.Attr_clr&unix.MOUNT_ATTR_RDONLY != 0 {
		if err := takesPushes(target); err != nil {
			return err
		}
		if err := writable(path); err != nil {
			return refuse(fmt.Errorf("make it writable: %w", err), "unmount it and mount it again")
		}
	}
	if err := setMountAttr(path, &attr); err != nil {
		return refuse(err, "")
	}
	const atimes = unix.MOUNT_ATTR__ATIME | unix.MOUNT_ATTR_NODIRATIME
	if (attr.Attr_set|attr.Attr_clr)&atimes == 0 {
		return nil
	}
	if err := tellAtime(target, path); err != nil {
		return refuse(fmt.Errorf("the flags are changed, but the daemon was not told of the access times: %w", err),
			"try it again, or unmount it and mount it again")
	}
	return nil
}

// takesPushes refuses to make a volume writable if its source can only be read.
func takesPushes(target string) error {
	f, err := find(target)
	if err != nil {
		return err
	}
	ctx := context.Background()
	e, err := f.one(ctx)
	if err != nil {
		return nil // whoever serves it, nothing can be written without a daemon
	}
	c, err := call[config](ctx, e.client(), "/v1/config", nil, "")
	if err == nil && wire.ReadOnly(c.Source) {
		return usageError("remount", target, "its source is "+redact(c.Source)+", and "+wire.ErrReadOnly.Error(),
			"leave it read-only, or unmount it and name the source by ssh:// or https://")
	}
	return nil
}

// tellAtime tells the daemon, which maintains access times, how the mount at path is to keep them now.
func tellAtime(target, path string) error {
	table, err := fs.Mounts()
	if err != nil {
		return err
	}
	m, ok := fs.MountAt(table, path)
	if !ok {
		return errors.New("it is not mounted any more")
	}
	words := slices.DeleteFunc(m.Flags, func(f string) bool { return !isAtime(f) && f != "nodiratime" })
	if !slices.ContainsFunc(words, isAtime) {
		words = append(words, "strictatime") // the kernel's mount table has no word for this
	}
	f, err := find(target)
	if err != nil {
		return err
	}
	ctx := context.Background()
	e, err := f.one(ctx)
	if err != nil {
		return err
	}
	_, err = call[struct{}](ctx, e.client(), "/v1/atime", atimeRequest{Words: words}, "")
	return err
}

// setMountAttr is mount_setattr(2), which changes the given flags and keeps the others.
func setMountAttr(path string, attr *unix.MountAttr) error {
	if *attr == (unix.MountAttr{}) {
		return nil
	}
	return unix.MountSetattr(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, attr)
}

// writable removes the file system's own read-only flag, which it has if it was mounted with ro.
func writable(path string) error {
	fd, err := unix.Fspick(unix.AT_FDCWD, path,
		unix.FSPICK_CLOEXEC|unix.FSPICK_SYMLINK_NOFOLLOW|unix.FSPICK_NO_AUTOMOUNT)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.FsconfigSetFlag(fd, "rw"); err != nil {
		return err
	}
	return unix.FsconfigReconfigure(fd)
}

// remountAttr returns what a remount changes. unknown is a flag that cannot be changed.
func remountAttr(o optionList) (attr unix.MountAttr, unknown string) {
	set := func(flag string) bool {
		bit, ok := mountAttr(flag)
		if attr.Attr_set |= bit; isAtime(flag) {
			attr.Attr_clr |= unix.MOUNT_ATTR__ATIME
		}
		return ok
	}
	for _, f := range o.flags {
		if f == "default_permissions" {
			continue // mount(8) repeats what /proc/mounts shows
		}
		if !set(f) {
			return attr, f
		}
	}
	back := o.back
	if o.merged {
		for flag := range flagPairs() {
			if !slices.Contains(o.flags, flag) && !isAtime(flag) {
				back = append(back, flag)
			}
		}
		if !slices.ContainsFunc(o.flags, isAtime) {
			set("strictatime") // for which /proc/mounts has no word
		}
	}
	for _, f := range back {
		if isAtime(f) {
			if !slices.ContainsFunc(o.flags, isAtime) {
				set("relatime") // the kernel's default
			}
			continue
		}
		if bit, ok := mountAttr(f); ok {
			attr.Attr_clr |= bit
		}
	}
	return attr, ""
}

// mountAttr returns the bit of mount_setattr(2) for a per-mount flag.
func mountAttr(name string) (bit uint64, ok bool) {
	switch name {
	case "ro":
		return unix.MOUNT_ATTR_RDONLY, true
	case "nosuid":
		return unix.MOUNT_ATTR_NOSUID, true
	case "nodev":
		return unix.MOUNT_ATTR_NODEV, true
	case "noexec":
		return unix.MOUNT_ATTR_NOEXEC, true
	case "nodiratime":
		return unix.MOUNT_ATTR_NODIRATIME, true
	case "noatime":
		return unix.MOUNT_ATTR_NOATIME, true
	case "relatime":
		return unix.MOUNT_ATTR_RELATIME, true
	case "strictatime":
		return unix.MOUNT_ATTR_STRICTATIME, true
	}
	return 0, false
}

// changedSetting returns a setting to which the options give another value than the mounted volume has, or "" if there
// is none. Settings files are not read.
func changedSetting(target string, o optionList) (string, error) {
	// init and offline are about the start alone, and stand in fstab.
	names := slices.DeleteFunc(sortedKeys(o.values), func(n string) bool {
		return slices.Contains([]string{"allow_other", "config", "init", "offline"}, n)
	})
	if len(names) == 0 {
		return "", nil
	}
	f, err := find(target)
	if err != nil {
		return "", err
	}
	ctx := context.Background()
	e, err := f.one(ctx)
	if err != nil {
		return "", fmt.Errorf("the settings that it has cannot be asked for: %w", err)
	}
	have, err := call[config](ctx, e.client(), "/v1/config", nil, "")
	if err != nil {
		return "", fmt.Errorf("the settings that it has cannot be asked for: %w", err)
	}
	values := layer{}
	for _, n := range names {
		values[n] = o.values[n]
	}
	want, err := resolve("remount", nil, values, nil)
	if err != nil {
		return "", err
	}
	for _, n := range names {
		a, b := have.field(n).Interface(), want.field(n).Interface()
		if s, ok := b.(string); ok && s != "" && n != "branch" {
			if abs, err := filepath.Abs(s); err == nil && abs == a {
				continue // a path
			}
		}
		if a != b {
			return n, nil
		}
	}
	return "", nil
}
