package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"emberfs/backup/log"
)

// maxCounted is how many directory entries are counted, newest snapshots first, to show how big whole trees are.
const maxCounted = 50_000

// snapshotsRequest holds the arguments of `emberfs snapshots`.
type snapshotsRequest struct {
	target string
	branch string
	limit  int
	json   bool
}

func snapshotsCommand(w world) *cobra.Command {
	var r snapshotsRequest
	cmd := &cobra.Command{
		Use:   "snapshots [TARGET] [--limit N] [--json]",
		Short: "List what can be restored, branches and tags included",
		Long: `This command lists every commit that can be restored, newest first: those of the volume's
branch, of other branches and of tags, with the names that are at it. Work that was set aside after a
conflict is on branches named emberfs-side/BRANCH/MACHINE-TIME, and frequent commits of critical files are
on branches named emberfs-live/BRANCH/EPOCH. Branches with work that this one does not have are named on
standard error.

FILES and BYTES are those of the whole tree, for as many of the newest commits as are quickly counted; each name of a
file counts. REMOTE says whether the source of the volume is known to have the commit; "remote: BRANCH" is what that
branch of the source was last seen to be at.

` + targetHelp + `

With --json the command prints a list of objects as emberfs-log(8) does, with tree_files, tree_bytes, remote and refs.`,
		Example: `  emberfs snapshots /mnt/work
  emberfs snapshots /srv/git/work.git --limit 5 --json`,
		DisableFlagsInUseLine: true,
		Args:                  argsBetween(0, 1, ""),
	}
	cmd.Flags().IntVarP(&r.limit, "limit", "n", 0, "show at most `N` (default all)")
	cmd.Flags().StringVar(&r.branch, "branch", "", "the volume's branch (default the repository's HEAD)")
	cmd.Flags().BoolVar(&r.json, "json", false, "print a JSON list")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if r.limit < 0 {
			return usageError("snapshots", "--limit", "less than none", "leave it out to list all")
		}
		if len(args) > 0 {
			r.target = args[0]
		}
		ctx, stop := w.interrupts()
		defer stop()
		return withCode(exitFailed, "snapshots", r.target, showSnapshots(ctx, r, w))
	}
	return cmd
}

// pointReply is a snapshot in JSON.
type pointReply struct {
	commitReply
	TreeFiles *int64   `json:"tree_files,omitempty"`
	TreeBytes *int64   `json:"tree_bytes,omitempty"`
	Remote    *bool    `json:"remote,omitempty"`
	Refs      []string `json:"refs"`
}

func showSnapshots(ctx context.Context, r snapshotsRequest, w world) (err error) {
	h, err := findHistory(ctx, "snapshots", r.target)
	if err != nil {
		return err
	}
	if err := h.open(r.branch, w.err); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.cold.Close()) }()
	remote, err := log.Of(h.cold).HasTracking()
	if err != nil {
		return err
	}
	terminal := isTerminal(w.out)
	list := jsonList{out: w.out}
	if terminal && !r.json {
		fmt.Fprintf(w.out, pointColumns, "COMMIT", timeWidth(terminal), "TIME", "REASON", "MACHINE", "FILES", "BYTES",
			"REMOTE", "")
	}
	counter := log.Of(h.cold).Counter(maxCounted)
	shown := 0
	for p, perr := range log.Of(h.cold).Points(ctx) {
		if perr != nil {
			err = perr
			break
		}
		reply := pointReply{commitReply: commitJSON(&p.Commit), Refs: append([]string{}, p.Refs...)}
		if remote {
			reply.Remote = &p.Remote
		}
		if !counter.Spent() {
			if s, err := h.cold.Snapshot(ctx, p.ID); err == nil {
				if t, ok := counter.Count(ctx, s); ok {
					reply.TreeFiles, reply.TreeBytes = &t.Files, &t.Bytes
				}
			}
		}
		if r.json {
			err = list.add(reply)
		} else {
			err = printPoint(w, &p, &reply, terminal)
		}
		if shown++; err != nil || shown == r.limit {
			break
		}
	}
	if r.json {
		err = errors.Join(err, list.end())
	}
	if err != nil && shown > 0 {
		return &failure{code: exitPart, op: "snapshots", path: h.repo, err: err, hint: "the list is not complete"}
	}
	return errors.Join(err, sayBeside(ctx, h, w))
}

const pointColumns = "%-12.12s  %-*s  %-9s  %-8.8s  %9s  %10s  %-6s  %s\n"

func printPoint(w world, p *log.Point, reply *pointReply, terminal bool) error {
	files, bytes, remote := "-", "-", "-"
	if reply.TreeFiles != nil {
		files, bytes = humanize.Comma(*reply.TreeFiles), size(*reply.TreeBytes)
	}
	if reply.Remote != nil {
		remote = "no"
		if *reply.Remote {
			remote = "yes"
		}
	}
	text := ""
	if len(p.Refs) > 0 {
		text = "(" + oneLine(strings.Join(p.Refs, ", ")) + ")"
	}
	if !p.Ours {
		text = strings.TrimSpace(text + " " + oneLine(p.Author+": "+p.Subject))
	}
	line := fmt.Sprintf(pointColumns, p.ID, timeWidth(terminal), timeText(p.Made, terminal), column(oneLine(p.Reason)),
		column(oneLine(p.Machine)),
		files, bytes, remote, text)
	_, err := fmt.Fprintln(w.out, strings.TrimRight(line, " \n"))
	return err
}
