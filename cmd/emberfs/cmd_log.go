package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"emberfs/backup/log"
	"emberfs/tiers/cold"
)

// logRequest holds the arguments of `emberfs log`.
type logRequest struct {
	target string
	paths  []string
	branch string
	from   string
	limit  int
	json   bool
}

func logCommand(w world) *cobra.Command {
	var r logRequest
	cmd := &cobra.Command{
		Use:   "log [TARGET] [PATH...] [--limit N] [--json]",
		Short: "List a volume's commits, newest first",
		Long: `This command lists the commits of a volume, newest first and merged branches included: the
id, the time, the reason, the machine, the files and bytes that the commit took, and how many files it had
to leave ("at risk"). A commit of another git client has its author and subject instead. The word "(live)"
marks commits of critical files that were made since the last commit of the branch; the next commit of the
branch takes their place. Branches with work that this one does not have (versions that conflicted, critical
files of a machine that was lost) are named on standard error.

With a PATH the command lists only the commits that changed it or what lies below it: its content, its attributes,
or whether it is there. It does not follow renames. With --limit it reads no more commits than it shows.

` + targetHelp + ` What is no TARGET is a PATH, and so is
everything behind "--". A PATH is a name in the mount or relative to the root of the volume.

` + log.RevisionHelp + `

With --json the command prints a list of objects with id, parents, time, emberfs, reason, machine, files, bytes,
at_risk, live, author, email and subject.`,
		Example: `  emberfs log /mnt/work -n 10
  emberfs log /srv/git/work.git -- src/main.go`,
		DisableFlagsInUseLine: true,
		Args:                  argsBetween(0, -1, ""),
	}
	cmd.Flags().IntVarP(&r.limit, "limit", "n", 0, "show at most `N` commits (default all)")
	cmd.Flags().StringVar(&r.branch, "branch", "", "branch to list (default the volume's, or the repository's HEAD)")
	cmd.Flags().StringVar(&r.from, "commit", "", "begin with `COMMIT` instead of the last one of the branch")
	cmd.Flags().BoolVar(&r.json, "json", false, "print a JSON list")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if r.limit < 0 {
			return usageError("log", "--limit", "less than none", "leave it out to list all")
		}
		ctx, stop := w.interrupts()
		defer stop()
		target, rest, paths, err := splitTarget(args, cmd.ArgsLenAtDash())
		if err != nil {
			return withCode(exitFailed, "log", "", err)
		}
		r.target, r.paths = target, append(rest, paths...)
		return withCode(exitFailed, "log", target, showLog(ctx, r, w))
	}
	return cmd
}

func showLog(ctx context.Context, r logRequest, w world) (err error) {
	h, paths, err := openHistory(ctx, "log", r.target, r.branch, r.paths, r.paths, w)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.cold.Close()) }()
	var tips []cold.ID
	if r.from != "" {
		id, err := h.resolve(ctx, r.from)
		if err != nil {
			return err
		}
		tips = append(tips, id)
	} else if id, ok, err := h.newest(ctx); err != nil {
		return err
	} else if ok {
		tips = append(tips, id)
	}
	terminal := isTerminal(w.out)
	list := jsonList{out: w.out}
	if terminal && !r.json {
		fmt.Fprintf(w.out, logColumns, "COMMIT", timeWidth(terminal), "TIME", "REASON", "MACHINE", "FILES", "BYTES",
			"AT RISK", "")
	}
	shown := 0
	for c, lerr := range log.Of(h.cold).Log(ctx, tips, paths) {
		if lerr != nil {
			err = lerr
			break
		}
		if r.json {
			err = list.add(commitJSON(&c))
		} else {
			err = printCommit(w, &c, terminal)
		}
		if shown++; err != nil || shown == r.limit {
			break
		}
	}
	if r.json {
		err = errors.Join(err, list.end())
	}
	if err != nil && shown > 0 {
		return &failure{code: exitPart, op: "log", path: h.repo, err: err, hint: "the list is not complete"}
	}
	return errors.Join(err, sayBeside(ctx, h, w))
}

// sayBeside mentions work that is not on the branch, for people who expect the log to show everything.
func sayBeside(ctx context.Context, h *history, w world) error {
	list, err := h.cold.Beside(ctx)
	for _, l := range list {
		fmt.Fprintf(w.err, "emberfs: note: %s\n", oneLine(redact(l)))
	}
	return err
}

const logColumns = "%-12.12s  %-*s  %-9s  %-8.8s  %7s  %10s  %7s  %s\n"

func timeWidth(terminal bool) int {
	if terminal {
		return 19
	}
	return 20
}

func printCommit(w world, c *log.Commit, terminal bool) error {
	line := fmt.Sprintf(logColumns, c.ID, timeWidth(terminal), timeText(c.Made, terminal), "-", "-", "-", "-", "-",
		oneLine(fmt.Sprintf("%s <%s>: %s", c.Author, c.Email, c.Subject)))
	if c.Ours {
		line = fmt.Sprintf(logColumns, c.ID, timeWidth(terminal), timeText(c.Made, terminal), oneLine(c.Reason),
			column(oneLine(c.Machine)),
			humanize.Comma(c.Files), size(c.Bytes), humanize.Comma(c.AtRisk), liveMark(c))
	}
	_, err := fmt.Fprintln(w.out, strings.TrimRight(line, " \n"))
	return err
}

// liveMark marks commits of the live branch, which the next commit to the branch will replace.
func liveMark(c *log.Commit) string {
	if c.Live {
		return "(live)"
	}
	return ""
}

// column returns a placeholder for an empty field, so that those after it stay in their columns.
func column(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// commitReply is a commit in JSON.
type commitReply struct {
	ID      string   `json:"id"`
	Parents []string `json:"parents"`
	Time    string   `json:"time"`
	Emberfs bool     `json:"emberfs"` // made by emberfs, so the fields reason to at_risk are set
	Reason  string   `json:"reason,omitempty"`
	Machine string   `json:"machine,omitempty"`
	Files   *int64   `json:"files,omitempty"`
	Bytes   *int64   `json:"bytes,omitempty"`
	AtRisk  *int64   `json:"at_risk,omitempty"`
	Live    bool     `json:"live"` // on the live branch, so the next commit to the branch will replace it
	Author  string   `json:"author"`
	Email   string   `json:"email"`
	Subject string   `json:"subject"`
}

func commitJSON(c *log.Commit) commitReply {
	out := commitReply{ID: c.ID.String(), Parents: []string{}, Time: cold.DateText(c.Made), Emberfs: c.Ours,
		Reason: c.Reason, Machine: c.Machine, Live: c.Live,
		Author: c.Author, Email: c.Email, Subject: c.Subject}
	for _, p := range c.Parents {
		out.Parents = append(out.Parents, p.String())
	}
	if c.Ours {
		out.Files, out.Bytes, out.AtRisk = &c.Files, &c.Bytes, &c.AtRisk
	}
	return out
}
