package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"emberfs/backup/log"
	"emberfs/tiers/inspect"
)

// revNow is the revision that stands for the present content of a volume's directory.
const revNow = "now"

// diffRequest holds the arguments of `emberfs diff`.
type diffRequest struct {
	target   string
	revs     []string // none, FROM, or FROM and TO
	paths    []string
	branch   string
	json     bool
	nameOnly bool
	stat     bool
}

func diffCommand(w world) *cobra.Command {
	var r diffRequest
	cmd := &cobra.Command{
		Use:   "diff [TARGET] [FROM [TO]] [-- PATH...] [--name-only|--stat|--json]",
		Short: "Show what changed between commits, or since the last one",
		Long: `This command shows what changed between two commits, or between a commit and what the
directory of a volume holds now. It compares a mounted volume or a state directory with its last commit, or
with FROM; the word "now" as TO says the same. In a repository alone FROM is the commit before the last by
default, and TO is the last. Between commits the cost follows what changed; in a directory it does too where
files have records, as emberfs-status(8) shows, and otherwise the command looks at all of it.

Text is shown as git-diff(1) does, and git-apply(1) takes it. Files over 8 MiB count as binary. A line that begins
with "= " tells what git has no words for: attributes, hard links, directories and special files. The mtime of a
directory counts only where nothing in it changed. With --name-only there is a letter before each path, and names
that would break a line are quoted as git does:

  A  added
  D  deleted
  M  modified
  T  of another type
  m  only attributes changed: mode, owner, mtime, xattrs or hard links

` + targetHelp + ` What is no TARGET is FROM and TO, and
everything behind "--" is a PATH. A PATH is a name in the mount or relative to the root of the volume.

` + log.RevisionHelp + `

With --json the command prints a list of objects with status, path (path64 where the name is not UTF-8), fields,
old and new. It exits 3 where something could not be compared.`,
		Example: `  emberfs diff /mnt/work
  emberfs diff /mnt/work HEAD~1 HEAD --name-only
  emberfs diff /srv/git/work.git "2h ago" -- src`,
		DisableFlagsInUseLine: true,
		Args:                  argsBetween(0, -1, ""),
	}
	cmd.Flags().StringVar(&r.branch, "branch", "",
		"the branch meant by HEAD (default the volume's, or the repository's HEAD)")
	cmd.Flags().BoolVar(&r.json, "json", false, "print a JSON list")
	cmd.Flags().BoolVar(&r.nameOnly, "name-only", false, "print only what happened to which path")
	cmd.Flags().BoolVar(&r.stat, "stat", false, "print only how much changed in which path")
	cmd.MarkFlagsMutuallyExclusive("json", "name-only", "stat")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		target, rest, paths, err := splitTarget(args, cmd.ArgsLenAtDash())
		if err != nil {
			return withCode(exitFailed, "diff", "", err)
		}
		r.target, r.revs, r.paths = target, rest, paths
		if len(rest) > 2 {
			return usageError("diff", rest[2], "one commit too many", "write -- before paths; usage: "+cmd.UseLine())
		}
		ctx, stop := w.interrupts()
		defer stop()
		return withCode(exitFailed, "diff", target, showDiff(ctx, r, w))
	}
	return cmd
}

func showDiff(ctx context.Context, r diffRequest, w world) (err error) {
	h, paths, err := openHistory(ctx, "diff", r.target, r.branch, r.revs, r.paths, w)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.cold.Close()) }()
	from, to, err := h.diffSides(ctx, r.revs, w)
	if err != nil {
		return err
	}
	if view, ok := to.(*inspect.View); ok {
		defer func() { err = errors.Join(err, view.Close()) }()
	}
	p := diffPrinter{ctx: ctx, w: w, from: from, to: to, list: jsonList{out: w.out}}
	visit := p.patch
	switch {
	case r.json:
		visit = func(c log.Change) error { return p.list.add(changeJSON(&c)) }
	case r.nameOnly:
		visit = p.name
	case r.stat:
		visit = p.stat
	}
	o := log.DiffOptions{Paths: paths, Problem: func(at string, err error) {
		fmt.Fprintf(w.err, "emberfs: warning: diff: %s: %v\n", quotePath("/"+at), err)
	}}
	err = log.Diff(ctx, from, to, o, visit)
	switch {
	case r.json:
		err = errors.Join(err, p.list.end())
	case r.stat:
		err = errors.Join(err, p.summary())
	}
	if err = errors.Join(append(p.failed, err)...); err != nil {
		return &failure{code: exitPart, op: "diff", path: h.repo, err: err, hint: "what could be compared is shown"}
	}
	return nil
}

// diffSides determines the two sides to compare.
func (h *history) diffSides(ctx context.Context, revs []string, w world) (from, to log.Side, err error) {
	newest, some, err := h.newest(ctx)
	if err != nil {
		return nil, nil, err
	}
	fromRev, toRev, last := "", "HEAD", "HEAD"
	if some {
		toRev, last = newest.String(), newest.String()
	}
	if h.state != "" {
		toRev = revNow
	}
	switch {
	case len(revs) == 2:
		fromRev, toRev = revs[0], revs[1]
	case len(revs) == 1 && revs[0] != revNow:
		fromRev = revs[0]
	case len(revs) == 1:
		toRev = revNow
	}
	if fromRev == revNow {
		return nil, nil, usageError("diff", revNow, "stands for the state after a commit", "name it as TO")
	}
	if toRev == revNow && h.state == "" {
		return nil, nil, usageError("diff", revNow, "a repository alone has no directory to compare with",
			"name a mountpoint or a state directory as TARGET")
	}
	from = log.Of(h.cold).Side(nil) // the empty volume before the first commit
	switch {
	case fromRev != "":
		from, err = h.side(ctx, fromRev)
	case toRev == revNow && some:
		from, err = h.side(ctx, last)
	case toRev != revNow:
		id, rerr := h.resolve(ctx, toRev)
		if rerr != nil {
			return nil, nil, rerr
		}
		var c log.Commit
		if c, err = log.Of(h.cold).Commit(id); err == nil && !c.Parent.IsZero() {
			from, err = h.side(ctx, c.Parent.String())
		}
	}
	if err != nil {
		return nil, nil, err
	}
	if toRev != revNow {
		to, err = h.side(ctx, toRev)
		return from, to, err
	}
	view, err := inspect.OpenView(h.state, h.cold)
	if err != nil {
		return from, nil, err
	}
	if h.mountpoint != "" && !unmounted(h.mountpoint) && !view.Untouched() {
		within, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		if err := flushMappings(within, h.mountpoint); err != nil {
			fmt.Fprintf(w.err, "emberfs: warning: diff: %s: %v; what programs wrote through mappings in the last "+
				"seconds may be missing\n",
				h.mountpoint, plainError(err))
		}
	}
	return from, view, nil
}

// side opens a commit as a side of a comparison.
func (h *history) side(ctx context.Context, rev string) (log.Side, error) {
	id, err := h.resolve(ctx, rev)
	if err != nil {
		var f *failure
		if errors.As(err, &f) && errors.Is(err, log.ErrNoRevision) {
			f.hint += "; write -- before paths"
		}
		return nil, err
	}
	s, err := h.cold.Snapshot(ctx, id)
	if err != nil {
		return nil, err
	}
	return log.Of(h.cold).Side(s), nil
}
