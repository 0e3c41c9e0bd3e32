package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"emberfs/tiers"
)

func tierCommand(w world) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "tier MOUNTPOINT [PATH...] [--json]",
		Short: "Age files now: give back the disk that files in cold take",
		Long: `This command lets all files below each PATH, or all that there are, leave memory and the
warm tier as if they had aged. It first commits and pushes what is not backed up. Files that are open stay,
and so does what is not safe in the cold tier, and on the remote where there is one. The bytes come back
when they are read. A PATH is a name in the mount or relative to its root.

The command prints how many files and bytes left, and how many stay and why. With --json it prints an object with
reason, time, files, bytes, hot (the files that left memory) and kept (the files that stay, by the reason).

It exits 3 where files stay because they are not safe, and 1 where there is no tiering: the setting is off, or the
mount is a plain user's.`,
		Example: `  emberfs tier /mnt/work
  emberfs tier /mnt/work dumps/`,
		DisableFlagsInUseLine: true,
		Args:                  argsBetween(1, -1, "MOUNTPOINT"),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx, stop := w.interrupts()
		defer stop()
		return withCode(exitFailed, "tier", args[0], tierNow(ctx, args[0], args[1:], asJSON, w))
	}
	return cmd
}

// The keys of TierReport.Kept that mean that a file is not safe yet; the others are no cause for concern.
const (
	keptUncommitted = tiers.KeptUncommitted
	keptUnpushed    = tiers.KeptUnpushed
)

func tierNow(ctx context.Context, target string, args []string, asJSON bool, w world) error {
	f, inside, err := findFile(target)
	if err != nil {
		return err
	}
	if inside != "" {
		return usageError("tier", target, "lies inside a mount", "emberfs tier "+shellQuote(f.path)+" "+
			shellQuote(target)+" ages it alone")
	}
	e, err := f.one(ctx)
	if err != nil {
		return &failure{code: exitFailed, op: "tier", path: target, err: err, hint: f.remedy(err)}
	}
	paths, err := pathsInMount("tier", e.Mountpoint, args)
	if err != nil {
		return err
	}
	report, err := e.client().tier(ctx, paths)
	if err != nil && ctx.Err() != nil {
		err = errors.New("interrupted")
	}
	if err != nil && report.Files == 0 && len(report.Kept) == 0 {
		return &failure{code: exitFailed, op: "tier", path: target, err: err}
	}
	if asJSON {
		if report.Kept == nil {
			report.Kept = map[string]int64{} // JSON readers expect an object
		}
		if perr := printJSON(w.out, report); perr != nil {
			return perr
		}
	} else {
		fmt.Fprintln(w.out, tierText(report))
	}
	if unsafe := report.Kept[keptUncommitted] + report.Kept[keptUnpushed]; err == nil && unsafe > 0 {
		err = fmt.Errorf("%s not safe in cold yet", isOrAre(unsafe, "file"))
	}
	if err != nil {
		return &failure{code: exitPart, op: "tier", path: target, err: err, hint: "emberfs status " +
			shellQuote(target) + " shows what is at risk"}
	}
	return nil
}

func isOrAre(n int64, what string) string {
	if n == 1 {
		return count(n, what) + " is"
	}
	return count(n, what) + " are"
}

// pathsInMount returns the arguments relative to the mountpoint.
func pathsInMount(op, mountpoint string, args []string) ([]string, error) {
	var out []string
	for _, p := range args {
		rel, err := insideMount(mountpoint, p)
		switch {
		case errors.Is(err, errOutside):
			return nil, usageError(op, p, err.Error(), "name files below "+mountpoint)
		case err != nil:
			return nil, &failure{code: exitFailed, op: op, path: p, err: err, hint: "name files below " + mountpoint}
		}
		out = append(out, rel)
	}
	return out, nil
}

// tierText returns a report as one line: what left warm, what stays and why, the most frequent reason first.
func tierText(r tiers.TierReport) string {
	text := "nothing to release"
	if r.Files > 0 {
		text = fmt.Sprintf("released %s, %s", count(r.Files, "file"), size(r.Bytes))
	}
	if r.Hot > 0 {
		text += fmt.Sprintf("; %s left memory", count(r.Hot, "file"))
	}
	reasons := slices.SortedFunc(maps.Keys(r.Kept), func(a, b string) int {
		return cmp.Or(cmp.Compare(r.Kept[b], r.Kept[a]), cmp.Compare(a, b))
	})
	var kept []string
	for _, why := range reasons {
		if n := r.Kept[why]; n > 0 {
			kept = append(kept, humanize.Comma(n)+" "+why)
		}
	}
	if len(kept) > 0 {
		text += "; kept: " + strings.Join(kept, ", ")
	}
	return text
}
