package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"emberfs/tiers"
)

// phaseDead is what status shows of a mount whose daemon is gone.
const phaseDead = "dead"

func statusCommand(w world) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status [MOUNTPOINT]",
		Short: "Show tiers, what is at risk, the last backup and what is wrong",
		Long: `Show the state of the volume at MOUNTPOINT (or with that state directory); without MOUNTPOINT list all
volumes that this user has mounted. Exit 1 where there is no volume, or its daemon is gone.`,
		Args: argsBetween(0, 1, ""),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON: an object, or without MOUNTPOINT a list of them")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := context.Background()
		if len(args) == 0 {
			return withCode(exitFailed, "status", "", listStatus(ctx, asJSON, w))
		}
		return withCode(exitFailed, "status", args[0], oneStatus(ctx, args[0], asJSON, w))
	}
	return cmd
}

func oneStatus(ctx context.Context, target string, asJSON bool, w world) error {
	f, err := findAbove(target)
	if err != nil {
		return err
	}
	e, err := f.one(ctx)
	if err != nil {
		return &failure{code: exitFailed, op: "status", path: target, err: err, hint: f.remedy(err)}
	}
	st, err := newClient(e.State).status(ctx)
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(w.out, st)
	}
	return printStatus(w.out, st, time.Now())
}

func listStatus(ctx context.Context, asJSON bool, w world) error {
	list, err := registrations()
	if err != nil {
		return err
	}
	all := []statusReply{}
	for _, e := range list {
		st, err := newClient(e.State).status(ctx)
		if err != nil {
			// Gone, or not answering: still worth a line.
			st = statusReply{daemonReply: daemonReply{PID: e.PID, Mountpoint: e.Mountpoint, Phase: phaseDead}}
			st.State = e.State
			st.Errors = []string{redact(err.Error())}
			st.Rules, st.Notes = []string{}, []string{}
			if !errors.Is(err, errNoDaemon) {
				st.Phase = "silent"
			}
		}
		all = append(all, st)
	}
	if asJSON {
		return printJSON(w.out, all)
	}
	if len(all) == 0 {
		_, err := fmt.Fprintln(w.out, "no volume is mounted")
		return err
	}
	tab := tabwriter.NewWriter(w.out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(tab, "MOUNTPOINT\tPHASE\tPID\tAT RISK\tLAST COMMIT\tSTATE")
	for _, st := range all {
		risk, commit := riskText(st.AtRisk), pointText(st.LastCommit, time.Now())
		if st.Phase != phaseMounted && st.Phase != phaseFinishing {
			risk, commit = "unknown", "unknown"
		}
		fmt.Fprintf(tab, "%s\t%s\t%d\t%s\t%s\t%s\n", st.Mountpoint, st.Phase, st.PID, risk, commit, st.State)
	}
	return tab.Flush()
}

func printJSON(out io.Writer, v any) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// printStatus writes one volume for people.
func printStatus(out io.Writer, st statusReply, now time.Time) error {
	tab := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		fmt.Fprintf(tab, "%s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	row("mountpoint", "%s (%s, pid %d)", st.Mountpoint, st.Phase, st.PID)
	row("volume", "%s, branch %s", st.Volume, st.Branch)
	if st.Source != "" {
		row("source", "%s", redact(st.Source))
	} else {
		row("source", "none: the backup is in the state directory alone")
	}
	row("state", "%s", st.State)
	hot := st.Tiers.Hot
	row("hot", "%s of %s, %s hits, %s misses", size(hot.Bytes), size(hot.Limit), humanize.Comma(int64(hot.Hits)), humanize.Comma(int64(hot.Misses)))
	row("warm", "%s, %s", count(st.Tiers.Warm.Files, "file"), size(st.Tiers.Warm.Bytes))
	row("cold", "%s in %s, %s", count(st.Tiers.Cold.Objects, "object"), count(int64(st.Tiers.Cold.Packs), "pack"), size(st.Tiers.Cold.Bytes))
	row("at risk", "%s", riskText(st.AtRisk))
	row("last commit", "%s", pointText(st.LastCommit, now))
	if st.Source != "" {
		row("last push", "%s", pointText(st.LastPush, now))
	}
	if !st.Verified {
		row("check", "running: the last stop was not clean")
	}
	for _, r := range st.Rules {
		row("rule", "%s", r)
	}
	for _, n := range st.Notes {
		row("note", "%s", n)
	}
	if len(st.Errors) == 0 {
		row("errors", "none")
	}
	for _, e := range st.Errors {
		row("ERROR", "%s", redact(e))
	}
	return tab.Flush()
}

func size(n int64) string { return humanize.IBytes(uint64(max(0, n))) }

func riskText(r tiers.AtRisk) string {
	if r.Files == 0 && r.Bytes == 0 {
		return "nothing"
	}
	return fmt.Sprintf("%s, %s, the oldest for %s", count(r.Files, "file"), size(r.Bytes), time.Duration(r.Seconds*float64(time.Second)).Round(time.Second))
}

func pointText(p *tiers.Point, now time.Time) string {
	if p == nil {
		return "none"
	}
	return fmt.Sprintf("%.12s, %s", p.ID, humanize.RelTime(p.Time, now, "ago", "from now"))
}
