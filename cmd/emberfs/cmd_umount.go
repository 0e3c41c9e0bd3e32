package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"emberfs/tiers"
	"emberfs/tiers/subprocess"
)

func umountCommand(w world) *cobra.Command {
	var deadline time.Duration
	var lazy bool
	cmd := &cobra.Command{
		Use:   "umount MOUNTPOINT",
		Short: "Unmount, take the final backup and print the receipt",
		Long: `This command unmounts the volume, commits what changed, pushes, and prints the receipt. It exits 0
only if the receipt says COMPLETE, and 3 where something is missing: the state directory keeps that for
the next mount. A volume with much to back up may need a longer --deadline, or emberfs-sync(8) before.

A mount that is in use is backed up and stays as it is, and the command exits 1, unless --lazy is given:
then its users may finish. The command also takes away the dead mount of a daemon that was killed. A state
directory may stand for MOUNTPOINT.`,
		Example: `  emberfs umount /mnt/work
  emberfs umount /mnt/work --deadline 10m`,
		Args: argsBetween(1, 1, "MOUNTPOINT"),
	}
	cmd.Flags().DurationVar(&deadline, "deadline", 0,
		"longest `time` for the final backup, 0 until it is done (default the mount's, or 30s)")
	cmd.Flags().BoolVarP(&lazy, "lazy", "l", false,
		"detach also where it is in use, and finish when the last user has left")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if deadline < 0 {
			return usageError("umount", "--deadline "+deadline.String(), "is negative",
				"write --deadline 30s, or 0 to wait until it is done")
		}
		if deadline == 0 && cmd.Flags().Changed("deadline") {
			deadline = -1
		}
		ctx, stop := w.interrupts()
		defer stop()
		return withCode(exitFailed, "umount", args[0],
			umountVolume(ctx, args[0], umountRequest{Deadline: deadline, Lazy: lazy}, w))
	}
	return cmd
}

func umountVolume(ctx context.Context, target string, in umountRequest, w world) error {
	f, err := find(target)
	if err != nil {
		return err
	}
	e, err := f.one(ctx)
	if err != nil {
		if f.mount != nil && f.mount.Ours() && errors.Is(err, errNoDaemon) {
			return umountDead(f, target)
		}
		return &failure{code: exitFailed, op: "umount", path: target, err: err, hint: f.remedy(err)}
	}
	if f.mount != nil && f.mount.Ours() && f.path != e.Mountpoint && e.State != f.path {
		return umountBound(ctx, f, e, in.Lazy, target, w)
	}
	start := time.Now()
	cl := e.client()
	stop := showTransfer(ctx, cl, w)
	r, err := cl.umount(ctx, in)
	stop()
	switch {
	case errors.Is(err, errBusy):
		return &failure{code: exitFailed, op: "umount", path: target, err: err, hint: "fuser -vm " +
			shellQuote(target) + " shows who uses it"}
	case errors.Is(err, errNoDaemon):
		// The daemon may have been ending on its own; then its receipt is on disk.
		if last, lastErr := lastReceipt(e.State, start); lastErr == nil {
			r, err = last, nil
		}
	}
	switch {
	case err != nil && ctx.Err() != nil:
		return &failure{code: exitPart, op: "umount", path: target, err: errors.New("interrupted"),
			hint: "the daemon goes on with it"}
	case errors.Is(err, errNoDaemon):
		return &failure{code: exitPart, op: "umount", path: target, err: err,
			hint: "mount it again: what is missing is in " + e.State}
	case err != nil:
		return &failure{code: exitFailed, op: "umount", path: target, err: err, hint: "emberfs status " +
			shellQuote(target) + " shows how it stands"}
	}
	awaitExit(e.PID, exitGrace) // so that the next mount finds the volume free
	printReceipt(w.out, r)
	return partError("umount", target, r)
}

// umountBound unmounts a place that a mount is bound to. It backs up first, and prints the final receipt if this was
// the last place.
func umountBound(ctx context.Context, f found, e registration, lazy bool, target string, w world) error {
	fail := func(err error, hint string) error {
		return &failure{code: exitFailed, op: "umount", path: target, err: err, hint: hint}
	}
	wait, err := e.client().startWait(ctx)
	if err != nil {
		return fail(err, "")
	}
	last := make(chan *tiers.Receipt, 1)
	go func() {
		r, err := wait.receipt()
		if err != nil {
			r = nil
		}
		last <- r
	}()
	stop := showTransfer(ctx, e.client(), w)
	r, err := e.client().sync(ctx, syncRequest{Reason: tiers.ReasonLeaving})
	stop()
	if err != nil {
		return fail(err, "emberfs status "+shellQuote(e.State)+" shows how it stands")
	}
	flags := 0
	if lazy {
		flags = unix.MNT_DETACH
	}
	if err := unmountPath(f.path, flags); err != nil && !isGone(err) {
		if errors.Is(err, unix.EBUSY) {
			return fail(errBusy, "fuser -vm "+shellQuote(target)+" shows who uses it")
		}
		return fail(err, "")
	}
	select {
	case final := <-last:
		if final != nil {
			r = joinReceipts(r, final)
		}
	case <-time.After(elsewhereSoon):
		fmt.Fprintf(w.err, "emberfs: the volume stays mounted at other places; emberfs status %s shows it\n",
			shellQuote(e.State))
	case <-ctx.Done():
	}
	printReceipt(w.out, r)
	return partError("umount", target, r)
}

// umountDead unmounts a mount whose daemon is gone. What was not backed up stays in the state directory. Whoever still
// has something open there can do nothing with it, so that does not count as use.
func umountDead(f found, target string) error {
	if err := unmountPath(f.path, detachFlags(f.path)); err != nil {
		return &failure{code: exitFailed, op: "umount", path: target, err: err, hint: "umount -l " +
			shellQuote(target) + " takes it away in any case"}
	}
	return umountedDead(f, target)
}

// unmountPath is umount2(2), or fusermount3 for a plain user.
func unmountPath(path string, flags int) error {
	err := unix.Unmount(path, flags|unix.UMOUNT_NOFOLLOW)
	if !errors.Is(err, unix.EPERM) || os.Geteuid() == 0 {
		return err
	}
	fusermount, noHelper := subprocess.Fusermount()
	if noHelper != nil {
		return err
	}
	args := []string{"-u", "-q"}
	if flags&unix.MNT_DETACH != 0 {
		args = append(args, "-z")
	}
	out, err := subprocess.Command(context.Background(), fusermount, append(args, "--", path)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("fusermount3: %w: %s", err, out)
	}
	return nil
}
