package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"emberfs/fs"
)

// mountRequest is a request to mount, from either of the two command lines.
type mountRequest struct {
	config  *config
	options optionList
	source  string // as written; "" leaves it to the settings
	target  string // as written
	fake    bool   // check everything, mount nothing
}

// mountNow checks everything, mounts, and returns once the mount is usable or, with --foreground, once it has ended. A
// failure leaves nothing behind.
func mountNow(r mountRequest, w world) error {
	c := r.config
	c.Flags = r.options.flags
	if r.options.remount {
		return remount(r.target, r.options)
	}
	source := r.source
	if source == "" {
		source = c.Source
	}
	var err error
	if c.Source, err = sourceOf("mount", source); err != nil {
		return err
	}
	c.setPushInterval()
	dead, err := prepare(c, r.target)
	if err != nil {
		return err
	}
	if r.fake {
		return nil
	}
	s, err := openStateWaiting(c.State)
	if err != nil {
		return err
	}
	if dead {
		if err := takeDeadAway(c, w.err); err != nil {
			return errors.Join(err, s.discard())
		}
	}
	undo, err := beginSource(c)
	if err != nil {
		return errors.Join(err, s.discard())
	}
	if c.Foreground {
		err = runVolume(c, s, w, func(told []string) error {
			if c.LogFile != "" { // otherwise the log has said it here
				printTold(w.err, told)
			}
			return nil
		})
	} else {
		err = launch(c, s, w)
	}
	if err != nil && exitCode(err) != exitPart {
		return errors.Join(err, s.discard(), undo())
	}
	return errors.Join(err, s.lock.Close())
}

// printTold prints what a person should know of a mount that succeeded.
func printTold(out io.Writer, told []string) {
	for _, line := range told {
		fmt.Fprintln(out, "emberfs: "+oneLine(redact(line)))
	}
}

// prepare refuses what can be refused before anything is made, and completes the config. It says whether a dead mount
// has to be taken away first; the place is looked at then.
func prepare(c *config, target string) (dead bool, err error) {
	table, err := fs.Mounts()
	if err != nil {
		return false, mountError(target, err, "is /proc mounted?")
	}
	root := os.Geteuid() == 0
	var auto bool
	path, m := deadMount(target, table)
	if c.Mountpoint, dead = path, m != nil; !dead {
		if c.Mountpoint, auto, err = checkMountpoint(target, table); err != nil {
			return false, err
		}
	}
	if err := checkFUSE(c.Mountpoint, root); err != nil {
		return false, err
	}
	if c.State == "" {
		if c.State, err = defaultState(c, root, os.Getenv); err != nil {
			return false, mountError(c.Mountpoint, err, "choose a state directory by --state")
		}
	}
	state, err := resolveExisting(c.State)
	if err != nil {
		return false, mountError("state directory "+c.State, plainError(err), "choose another by --state")
	}
	c.State = state
	if c.LogFile == "" && !c.Foreground && !isJournal(os.Stderr, os.Getenv) {
		c.LogFile = filepath.Join(c.State, logName)
	}
	if err := checkSource(c.Source, slices.Contains(c.Flags, "ro")); err != nil && !mayWait(c) && !c.beginsSource() {
		return false, err
	}
	if err := checkState(c.State); err != nil {
		return false, err
	}
	if dead {
		return true, nil
	}
	return false, checkPlace(c, auto)
}

// checkPlace refuses a mountpoint that does not go with the volume's other paths, or would hide something. auto says
// that it is an automount point.
func checkPlace(c *config, auto bool) error {
	if err := checkApart(c.Mountpoint, c); err != nil {
		return err
	}
	if !c.Nonempty && !auto {
		return checkEmpty(c.Mountpoint)
	}
	return nil
}

// openStateWaiting is openState, but waits for a predecessor that is only finishing its backup.
func openStateWaiting(path string) (*stateDir, error) {
	s, err := openState(path)
	var inUse *inUseError
	if errors.As(err, &inUse) && waitForPredecessor(context.Background(), inUse) {
		return openState(path)
	}
	return s, err
}
