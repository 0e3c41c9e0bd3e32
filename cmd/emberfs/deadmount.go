package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
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

// liveBelow returns where something that is alive is mounted below the dead mount at a path, such as a tmpfs: whoever
// detaches the dead mount takes it away too.
func liveBelow(path string, table []fs.MountEntry) []string {
	var out []string
	above := false
	for _, m := range table { // in the order of mounting: what comes before is hidden by the dead mount
		switch {
		case m.Path == path:
			above, out = true, nil
		case above && below(path, m.Path) && !(m.Ours() && isDead(m.Path)):
			out = append(out, m.Path)
		}
	}
	return out
}

// detachFlags are those of umount2(2) for a mount that has no daemon. If that has died, nobody can use what has been
// opened there any more, which therefore does not count as use.
func detachFlags(path string) int {
	table, err := fs.Mounts()
	if err == nil && isDead(path) && len(liveBelow(path, table)) == 0 {
		return unix.MNT_DETACH
	}
	return 0
}

// takeDeadAway detaches the dead mount at c.Mountpoint, also where programs still hold on to it, and others under it,
// and says so. The lock of c.State is held: the daemon that died is that of this volume, or of another one, whose mount
// stays. So does what is alive, whether it came since the caller looked or is mounted in the dead mount.
func takeDeadAway(c *config, out io.Writer) error {
	const most = 16 // mounts upon mounts
	for n := range most {
		table, err := fs.Mounts()
		if err != nil {
			return mountError(c.Mountpoint, err, "is /proc mounted?")
		}
		_, auto, err := checkMountpoint(c.Mountpoint, table)
		if err == nil {
			return checkPlace(c, auto)
		}
		_, dead := deadMount(c.Mountpoint, table)
		if dead == nil {
			return err
		}
		if err := ofThisVolume(c, *dead); err != nil {
			return err
		}
		if live := liveBelow(c.Mountpoint, table); len(live) > 0 {
			return mountError(c.Mountpoint, fmt.Errorf("its daemon had died, and something is mounted in it: %s",
				strings.Join(live, ", ")), "umount "+shellQuote(live[len(live)-1])+", and mount again")
		}
		if n == 0 {
			fmt.Fprintf(out, "emberfs: warning: %s: its daemon had died: the dead mount is taken away, and this mount "+
				"goes on with everything that was acknowledged\n", c.Mountpoint)
		}
		if err := unmountPath(c.Mountpoint, unix.MNT_DETACH); err != nil && !isGone(err) {
			return mountError(c.Mountpoint, fmt.Errorf("take the dead mount away: %w", err), "umount -l "+
				shellQuote(c.Mountpoint))
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
