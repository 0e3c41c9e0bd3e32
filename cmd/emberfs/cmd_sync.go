package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

func syncCommand(w world) *cobra.Command {
	return &cobra.Command{
		Use:   "sync MOUNTPOINT [PATH...]",
		Short: "Commit and push now; returns when it is durable",
		Long: `This command commits everything that changed and pushes it where the volume has a source. It
returns when that is durable, and prints the receipt, which says what is safe now. The system calls sync(2)
and syncfs(2) do not reach the daemon: this command does.

A PATH must lie in the mount, and the command checks that it is there; the backup takes everything all the
same. A state directory may stand for MOUNTPOINT. The command exits 0 only if the receipt is COMPLETE, and 3
where something is missing.`,
		Example: `  emberfs sync /mnt/work`,
		Args:    argsBetween(1, -1, "MOUNTPOINT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := w.interrupts()
			defer stop()
			return withCode(exitFailed, "sync", args[0], syncVolume(ctx, args[0], args[1:], w))
		},
	}
}

func syncVolume(ctx context.Context, target string, paths []string, w world) error {
	f, err := findAbove(target)
	if err != nil {
		return err
	}
	e, err := f.one(ctx)
	if err != nil {
		return &failure{code: exitFailed, op: "sync", path: target, err: err, hint: f.remedy(err)}
	}
	in := syncRequest{Reason: "sync"}
	for _, p := range paths {
		rel, err := insideMount(e.Mountpoint, p)
		if err != nil {
			return &failure{code: exitFailed, op: "sync", path: p, err: err, hint: "name files below " + e.Mountpoint}
		}
		in.Paths = append(in.Paths, rel)
	}
	if unmounted(e.Mountpoint) {
		// What is at the mountpoint now is not the volume, whose final backup is running.
	} else if err := flushMappings(ctx, e.Mountpoint); err != nil {
		fmt.Fprintf(w.err, "emberfs: warning: sync: %s: %v; what programs wrote through mappings in the last seconds "+
			"may be missing\n", e.Mountpoint, plainError(err))
	}
	stop := showTransfer(ctx, e.client(), w)
	r, err := e.client().sync(ctx, in)
	stop()
	if err != nil && ctx.Err() != nil {
		err = errors.New("interrupted")
	}
	if r != nil && (err == nil || len(r.Missing) > 0) {
		printReceipt(w.out, r)
	}
	if err != nil {
		return &failure{code: exitFailed, op: "sync", path: target, err: err, hint: "emberfs status " +
			shellQuote(target) + " shows what is at risk"}
	}
	return partError("sync", target, r)
}

// flushMappings makes the kernel send the daemon what programs wrote through shared mappings; only the kernel knows
// these pages. The daemon cannot ask for that itself, because it would wait for its own answer.
func flushMappings(ctx context.Context, mountpoint string) error {
	done := make(chan error, 1)
	go func() {
		d, err := os.Open(mountpoint)
		if err == nil {
			err = errors.Join(unix.Syncfs(int(d.Fd())), d.Close())
		}
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// errOutside says that a path of the command line is not below the mountpoint.
var errOutside = errors.New("lies outside of the mount")

// insideMount returns p, which must exist, relative to the mountpoint. A relative p may be relative to the working
// directory or to the mountpoint. Nothing is opened, and if the last component is a symbolic link it is not followed.
func insideMount(mountpoint, p string) (string, error) {
	candidates := []string{p}
	if !filepath.IsAbs(p) {
		if abs, err := filepath.Abs(p); err == nil {
			candidates = []string{abs, filepath.Join(mountpoint, p)}
		}
	}
	for _, c := range candidates {
		c = filepath.Clean(c)
		if dir, err := filepath.EvalSymlinks(filepath.Dir(c)); err == nil && c != mountpoint {
			c = filepath.Join(dir, filepath.Base(c))
		}
		if c != mountpoint && !strings.HasPrefix(c, mountpoint+"/") {
			continue
		}
		if _, err := os.Lstat(c); err != nil {
			return "", fmt.Errorf("not in the mount: %w", plainError(err))
		}
		return filepath.Rel(mountpoint, c)
	}
	return "", errOutside
}
