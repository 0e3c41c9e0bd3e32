package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"emberfs/fs"
)

// answerWait is how long a mounted file system may take to answer statfs(2) before it counts as one that lives.
const answerWait = 2 * time.Second

// deadMount returns what is mounted at the path if that is a mount of EmberFS of ours whose daemon has died, and its
// path resolved. Everything below such a mount fails with ENOTCONN.
func deadMount(path string, table []fs.MountEntry) (resolved string, m *fs.MountEntry) {
	resolved, m, err := resolveMountpoint(path, table)
	if err != nil || m == nil || !m.Ours() || m.UID != os.Geteuid() && os.Geteuid() != 0 || !isDead(resolved) {
		return "", nil
	}
	return resolved, m
}

// isDead says whether the kernel has cut the connection to the daemon of what is mounted at the path. A daemon that
// only hangs is alive.
func isDead(path string) bool {
	answer := make(chan error, 1)
	go func() { // of a daemon that hangs it ends with this process
		var st unix.Statfs_t
		answer <- unix.Statfs(path, &st)
	}()
	select {
	case err := <-answer:
		return errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.ECONNABORTED)
	case <-time.After(answerWait):
		return false
	}
}

// takeDeadAway detaches the dead mount at c.Mountpoint, also where programs still hold on to it, and others under it,
// and says so. The lock of c.State is held: the daemon that died is that of this volume, or of another one, whose mount
// stays.
func takeDeadAway(c *config, dead fs.MountEntry, out io.Writer) error {
	if err := ofThisVolume(c, dead); err != nil {
		return err
	}
	fmt.Fprintf(out, "emberfs: warning: %s: its daemon had died: the dead mount is taken away, and this mount goes on "+
		"with everything that was acknowledged\n", c.Mountpoint)
	const most = 16 // mounts upon mounts
	for range most {
		if err := unmountPath(c.Mountpoint, unix.MNT_DETACH); err != nil && !isGone(err) {
			return mountError(c.Mountpoint, fmt.Errorf("take the dead mount away: %w", err), "umount -l "+
				shellQuote(c.Mountpoint))
		}
		table, err := fs.Mounts()
		if err != nil {
			return mountError(c.Mountpoint, err, "is /proc mounted?")
		}
		_, auto, err := checkMountpoint(c.Mountpoint, table)
		if err == nil {
			return checkPlace(c, auto)
		}
		if _, m := deadMount(c.Mountpoint, table); m == nil {
			return err
		}
	}
	return mountError(c.Mountpoint, errors.New("there are too many dead mounts"), "umount -l takes them away")
}

// ofThisVolume refuses a dead mount of another volume than that of c: what its daemon left behind waits elsewhere, and
// whoever mounts over it should know that.
func ofThisVolume(c *config, dead fs.MountEntry) error {
	refuse := func(what string) error {
		return mountError(c.Mountpoint, fmt.Errorf("the dead mount of another volume is there, %s", what),
			"emberfs umount "+shellQuote(c.Mountpoint)+" takes it away")
	}
	list, err := registrations()
	if err != nil {
		return mountError(c.Mountpoint, err, "")
	}
	other := ""
	for _, e := range list {
		switch {
		case e.Mountpoint != c.Mountpoint:
		case e.State == c.State:
			return nil
		default:
			other = e.State
		}
	}
	if other != "" {
		return refuse("whose state is in " + other)
	}
	if dead.Source != shownSource(c) { // nobody knows its state directory
		return refuse("of " + redact(dead.Source))
	}
	return nil
}
