package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"emberfs/backup"
	"emberfs/tiers/cold"
	"emberfs/tiers/subprocess"
)

func gcCommand(w world) *cobra.Command {
	var in gcRequest
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "gc MOUNTPOINT|STATE [--dry-run] [--grace 2h] [--json]",
		Short: "Remove from cold what no commit needs any more",
		Long: `This command removes from the repository of the volume the objects that no branch, tag or
other reference reaches any more: those of commits that were not finished and of branches that were
replaced. They stay for the grace period after they were written. The volume may be mounted; otherwise its
state directory is locked meanwhile. Where something that is needed is missing or damaged, the command
removes nothing.

With --json the command prints an object with dry_run, objects, bytes, packs (removed or written anew), kept
(objects that stay) and busy (some came back into use meanwhile). It exits 3 where it removed only a part.`,
		Example: `  emberfs gc /mnt/work --dry-run
  emberfs gc /mnt/work --grace 24h`,
		DisableFlagsInUseLine: true,
		Args:                  argsBetween(1, 1, "MOUNTPOINT or STATE"),
	}
	cmd.Flags().BoolVar(&in.DryRun, "dry-run", false, "change nothing, say what would be removed")
	cmd.Flags().DurationVar(&in.Grace, "grace", cold.DefaultGrace, "`time` that objects stay after they were written")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if in.Grace < 0 {
			return usageError("gc", "--grace "+in.Grace.String(), "less than nothing", "")
		}
		if in.Grace == 0 {
			in.Grace = -1 // in the request 0 means the default
		}
		ctx, stop := w.interrupts()
		defer stop()
		return withCode(exitFailed, "gc", args[0], collectGarbage(ctx, args[0], in, asJSON, w))
	}
	return cmd
}

// gcResult is what `emberfs gc --json` prints.
type gcResult struct {
	DryRun bool `json:"dry_run"`
	cold.GCReport
}

func collectGarbage(ctx context.Context, target string, in gcRequest, asJSON bool, w world) error {
	report, err := findAndCollect(ctx, target, in, w)
	if ctx.Err() != nil {
		err = errors.New("interrupted")
	}
	if err != nil && report.Objects == 0 {
		return withCode(exitFailed, "gc", target, err)
	}
	out := gcResult{in.DryRun, report}
	if asJSON {
		err = errors.Join(err, printJSON(w.out, out))
	} else {
		_, perr := fmt.Fprintln(w.out, out.text())
		err = errors.Join(err, perr)
	}
	switch {
	case err != nil:
		return &failure{code: exitPart, op: "gc", path: target, err: err, hint: "run it again to remove the rest"}
	case report.Busy:
		return &failure{code: exitPart, op: "gc", path: target,
			err: errors.New("some objects came back into use meanwhile"), hint: "run it again to remove the rest"}
	}
	return nil
}

func (r gcResult) text() string {
	if r.Objects == 0 {
		return "nothing to remove; " + count(r.Kept, "object") + " in use or younger than the grace period"
	}
	verb := "removed"
	if r.DryRun {
		verb = "would remove"
	}
	return fmt.Sprintf("%s %s, %s; %s in use or younger than the grace period", verb, count(r.Objects, "object"),
		size(r.Bytes), count(r.Kept, "object"))
}

// findAndCollect makes the volume's daemon collect garbage, or does it itself if there is no daemon.
func findAndCollect(ctx context.Context, target string, in gcRequest, w world) (report cold.GCReport, err error) {
	f, err := findAbove(target)
	if err != nil {
		return report, err
	}
	e, err := f.one(ctx)
	if err == nil {
		return e.client().gc(ctx, in)
	}
	if !errors.Is(err, errNoDaemon) || f.mount != nil || len(f.daemons) != 1 {
		return report, &failure{code: exitFailed, op: "gc", path: target, err: err, hint: f.remedy(err)}
	}
	state := f.daemons[0].State
	lock, err := lockState(state)
	if err != nil {
		var fail *failure
		if errors.As(err, &fail) { // somebody has just locked it; the exit code is not that of a mount
			return report, &failure{code: exitFailed, op: "gc", path: target, err: fail.err, hint: fail.hint}
		}
		return report, err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	repo := filepath.Join(state, coldName)
	if !exists(repo) {
		return report, &failure{code: exitFailed, op: "gc", path: target, err: errors.New("it has no repository"),
			hint: "mount the volume first"}
	}
	shown := newProgress(w, "gc", "object")
	defer shown.done()
	log := newLogger(&config{LogLevel: "warn", LogFormat: "text"}, shown, false)
	subprocess.ClearUmask()
	return backup.Collect(ctx, repo, log, cold.GCOptions{Grace: in.Grace, DryRun: in.DryRun,
		Progress: func(done, total int64) {
			shown.expect(total, 0)
			shown.set(done, 0)
		}})
}
