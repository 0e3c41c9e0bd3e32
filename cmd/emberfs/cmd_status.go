package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

// phaseDead is the phase that status shows for a mount whose daemon is gone.
const phaseDead = "dead"

func statusCommand(w world) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status [MOUNTPOINT|PATH]",
		Short: "Show tiers, what is at risk, the last backup and what is wrong",
		Long: `This command shows the state of the volume at MOUNTPOINT, or of the mounted volume with that
state directory: where the bytes are, which tier answers the reads, what moved between the tiers, what would
be lost if machine and disk went away now ("at risk"), the last commit and push, how the session before this
mount ended, and what is wrong. The files of the cold tier are those of the last commit, wherever their bytes are; while they are being counted,
the command shows those of an earlier commit, or about as many as the warm tier says. Without an argument it
lists all volumes that this user has mounted.

A PATH in a mount shows that file or directory: which tiers it is in, whether it is as the last commit has it,
the object and the commit, whether it would survive the loss of machine and disk, or why not, how many programs
have it open, and its last use. The command does not open it, and shows a symlink itself.

With --json the command prints an object with pid, mountpoint, phase, version, volume, source, branch, state,
tiers, at_risk (files, bytes and seconds in all; and for local, what no commit on this machine has, and remote,
what SOURCE lacks: files, bytes, age and seconds_to_save, estimated at the speed of the last backups, and measured,
which is false while a speed is only assumed), budget (max_at_risk, risk_warn, how many writes were slowed, for how
many seconds they waited, and when the machine goes away), last_commit, last_push, last_contact (when the remote
last answered), offline (why the mount began without the remote, until that answers), previous (how the session
before ended: state, which is complete, incomplete or unknown, machine, own, commit, last_sign, at_risk, missing and
text), records, verified, errors,
rules, rules_status (where the rules are from, and how many are withheld), left_out (what commits have and this
machine cannot make) and notes, or a list of such objects. For a PATH the object has mountpoint, path, kind, size,
tiers, class, clean, object, commit, pushed, safe, why, open and used, and also path64 where the name is not UTF-8.

The command exits 1 where there is no volume or no such file, or where the daemon is gone.`,
		Example: `  emberfs status
  emberfs status /mnt/work --json
  emberfs status /mnt/work/state/notes.md`,
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
	f, file, err := findFile(target)
	if err != nil {
		return err
	}
	e, err := f.one(ctx)
	if err != nil {
		return &failure{code: exitFailed, op: "status", path: target, err: err, hint: f.remedy(err)}
	}
	if file != "" {
		return fileStatus(ctx, e, file, asJSON, w)
	}
	st, err := e.client().status(ctx)
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
		st, err := e.client().status(ctx)
		if err != nil {
			// The daemon is gone or does not answer; show the mount all the same.
			st = statusReply{daemonReply: daemonReply{PID: e.PID, Mountpoint: e.Mountpoint, Phase: phaseDead}}
			st.State = e.State
			st.Errors = []string{redact(err.Error())}
			st.Rules, st.Notes, st.LeftOut = []string{}, []string{}, []string{}
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
		fmt.Fprintf(tab, "%s\t%s\t%d\t%s\t%s\t%s\n", oneLine(st.Mountpoint), st.Phase, st.PID, risk, commit,
			oneLine(st.State))
	}
	return tab.Flush()
}

func printJSON(out io.Writer, v any) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}
