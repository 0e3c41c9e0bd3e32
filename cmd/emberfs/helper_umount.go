package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"emberfs/tiers"
)

// runUmountHelper is the program /sbin/umount.fuse.emberfs. It unmounts first, so that it fails at once if that is
// impossible, and then waits until the backup is durable, since systemd waits for the helper before it stops the
// network.
func runUmountHelper(args []string, w world) error {
	h, err := parseHelperArgs(helperUmount, args)
	if err != nil {
		return err
	}
	if len(h.args) != 1 {
		return usageError("umount", "", fmt.Sprintf("want one directory, got %d arguments", len(h.args)),
			"usage: umount DIR")
	}
	if h.namespace != "" {
		return &failure{code: exitMount, op: "umount", path: h.args[0], err: errors.New("-N is not supported"),
			hint: "enter the namespace: nsenter --mount=... umount"}
	}
	return withCode(exitMount, "umount", h.args[0], umountHelper(h, w))
}

// watched is a daemon whose final receipt the helper waits for.
type watched struct {
	registration
	waiting *waiting
}

func umountHelper(h helperArgs, w world) error {
	target := h.args[0]
	fail := func(err error, hint string) error {
		return &failure{code: exitMount, op: "umount", path: target, err: err, hint: hint}
	}
	f, err := find(target)
	if err != nil {
		return fail(err, "")
	}
	if f.mount != nil && !f.mount.Ours() {
		return fail(fmt.Errorf("a %s is mounted there", f.mount.FSType), "umount -i leaves this helper out")
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if e, err := f.one(ctx); err == nil && f.mount != nil && f.mount.Ours() && f.path != e.Mountpoint {
		return withCode(exitMount, "umount", target, umountBound(ctx, f, e, h.lazy, target, w))
	}
	// Ask for the receipt before unmounting, because a quick daemon is gone a moment later. Ask all daemons of this
	// mountpoint, even one that has lost it.
	var daemons []watched
	for _, e := range f.daemons {
		if wait, err := e.client().startWait(ctx); err == nil {
			daemons = append(daemons, watched{e, wait})
		}
	}
	if f.mount == nil && len(daemons) == 0 {
		return fail(errors.New("not mounted"), "")
	}
	start := time.Now()
	if f.mount != nil {
		if len(daemons) == 0 && detachFlags(f.path) != 0 {
			h.lazy = true // nobody can use it any more
		}
		err := detachMount(ctx, h, f)
		if errors.Is(err, errReadOnlyNow) {
			fmt.Fprintf(w.err, "emberfs: umount: %s is busy: it is read-only now, and stays mounted\n", target)
			return syncAll(ctx, daemons, target, w)
		}
		if err != nil {
			if errors.Is(err, unix.EBUSY) || errors.Is(err, errBusy) {
				return fail(errors.New("target is busy"), "fuser -vm "+shellQuote(target)+" shows who uses it")
			}
			return fail(err, "")
		}
		if len(daemons) == 0 {
			return umountedDead(f, target)
		}
	}
	if f.mount != nil && !h.lazy {
		if places := awaitElsewhere(f.mount.Device, daemons); len(places) > 0 {
			err := syncAll(ctx, daemons, target, w)
			for _, p := range places {
				fmt.Fprintf(w.err, "emberfs: umount: the volume is still mounted %s: its daemon goes on\n", p)
			}
			if err == nil {
				err = &failure{code: exitPart, op: "umount", path: target} // the message was printed
			}
			return err
		}
	}
	var worst error
	for _, d := range daemons {
		if err := awaitDaemon(ctx, d, h.lazy, start, target, w); err != nil {
			worst = err
		}
	}
	return worst
}

// errReadOnlyNow says that umount -r could not unmount a busy file system and made it read-only instead.
var errReadOnlyNow = errors.New("busy, made read-only")

// detachMount unmounts. If somebody else did so first, that is a success too. After errReadOnlyNow it is still mounted.
func detachMount(ctx context.Context, h helperArgs, f found) error {
	flags := 0
	if h.force {
		flags |= unix.MNT_FORCE
	}
	if h.lazy {
		flags |= unix.MNT_DETACH
	}
	err := unmountPath(f.path, flags)
	if errors.Is(err, unix.EBUSY) && h.readOnly {
		if err := setMountAttr(f.path, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
			return fmt.Errorf("it is busy, and cannot be made read-only: %w", err)
		}
		return errReadOnlyNow
	}
	if isGone(err) {
		return nil
	}
	return err
}

// awaitElsewhere gives the kernel a moment to release a file system, and returns where else it is still mounted.
func awaitElsewhere(device string, daemons []watched) []string {
	for end := time.Now().Add(elsewhereSoon); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if len(mountedElsewhere(device)) == 0 {
			return nil
		}
		if !slices.ContainsFunc(daemons, func(d watched) bool { return !awaitExit(d.PID, 0) }) {
			return nil
		}
	}
	return mountedElsewhere(device)
}

// syncAll backs up the volume if it stays mounted elsewhere.
func syncAll(ctx context.Context, daemons []watched, target string, w world) error {
	for _, d := range daemons {
		stop := showTransfer(ctx, d.client(), w)
		r, err := d.client().sync(ctx, syncRequest{Reason: tiers.ReasonLeaving})
		stop()
		if err != nil {
			return &failure{code: exitPart, op: "umount", path: target, err: fmt.Errorf("the backup failed: %w", err),
				hint: "emberfs sync " + shellQuote(target) + " tries it again"}
		}
		if !r.Complete {
			printReceipt(w.err, r)
			return partError("umount", target, r)
		}
	}
	return nil
}

// umountedDead returns the error for a mount that was unmounted, but without a daemon that could tell about its backup.
func umountedDead(f found, target string) error {
	out := &failure{code: exitPart, op: "umount", path: target,
		err:  errors.New("unmounted, but its daemon is not known here"),
		hint: "whether its backup is complete, the user who mounted it can see in its state directory"}
	if len(f.daemons) > 0 {
		out.err = errors.New("unmounted, but its daemon had died before the final backup")
		out.hint = "mount it again: what is missing is in " + f.daemons[0].State
	}
	return out
}

// lazyPatience is how long a lazy unmount waits for a final receipt once everything so far is backed up.
const lazyPatience = 500 * time.Millisecond

// awaitDaemon waits for the final receipt. After a lazy unmount, processes may use the volume for days, so all that can
// be waited for is a backup of everything so far.
func awaitDaemon(ctx context.Context, d watched, lazy bool, start time.Time, target string, w world) error {
	type answer struct {
		receipt *tiers.Receipt
		err     error
		final   bool
	}
	answers := make(chan answer, 2)
	go func() {
		r, err := d.waiting.receipt()
		answers <- answer{r, err, true}
	}()
	expected := 1
	if lazy {
		expected++
		go func() {
			r, err := d.client().sync(ctx, syncRequest{Reason: tiers.ReasonLeaving})
			answers <- answer{r, err, false}
		}()
	}
	var last answer
	stop := showTransfer(ctx, d.client(), w)
	defer stop()
	for range expected {
		last = <-answers
		if last.err == nil {
			break
		}
		if last.final {
			// The answer may have been lost, but the receipt is on disk.
			if r, err := lastReceipt(d.State, start); err == nil {
				last = answer{r, nil, true}
				break
			}
		}
	}
	if last.err == nil && !last.final {
		// If nobody uses the mount any more, the daemon ends soon.
		select {
		case a := <-answers:
			if a.err == nil {
				last = a
			}
		case <-time.After(lazyPatience):
		}
	}
	stop()
	if last.err != nil {
		return &failure{code: exitPart, op: "umount", path: target,
			err:  fmt.Errorf("unmounted, but the final backup is not known to be complete: %w", last.err),
			hint: "what is missing is in " + d.State}
	}
	if last.final {
		awaitExit(d.PID, exitGrace) // so that the next mount finds the volume free
	}
	if !last.receipt.Complete {
		printReceipt(w.err, last.receipt)
	} else if !last.final {
		fmt.Fprintf(w.err, "emberfs: %s is detached and backed up, but still in use: its daemon goes on until the "+
			"last user has left\n", target)
	}
	return partError("umount", target, last.receipt)
}
