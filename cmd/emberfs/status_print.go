package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"

	"emberfs/tiers"
	"emberfs/tiers/cold"
)

// printStatus prints the status of one volume for people.
func printStatus(out io.Writer, st statusReply, now time.Time) error {
	tab := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		for i, a := range args {
			if s, ok := a.(string); ok { // only the format may contain tabs
				args[i] = oneLine(s)
			}
		}
		fmt.Fprintf(tab, "%s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	row("mountpoint", "%s (%s, pid %d)", st.Mountpoint, st.Phase, st.PID)
	if n := st.Notice; n != nil {
		row("NOTICE", "%s", noticeText(n, now))
	}
	row("volume", "%s, branch %s", st.Volume, st.Branch)
	if st.Source != "" {
		row("source", "%s", redact(st.Source))
	} else {
		row("source", "none: the backup is in the state directory alone")
	}
	row("state", "%s", st.State)
	tierRows(row, st.Tiers.Hot, st.Tiers.Warm, st.Tiers.Cold)
	movedRows(row, st.Tiers.Warm, now)
	memoryRow(row, st.Memory)
	riskRows(row, st)
	if c := st.Critical; c.Commits > 0 || c.Waiting > 0 {
		row("critical", "%s waiting, %s; from close to commit %.2f s in the middle, %.2f s for 99 of 100, %.2f s at "+
			"worst",
			count(c.Waiting, "name"), count(c.Commits, "commit"), c.P50, c.P99, c.Worst)
	}
	row("last commit", "%s", pointText(st.LastCommit, now))
	if st.Source != "" {
		row("last push", "%s", pointText(st.LastPush, now))
		if st.LastContact != nil {
			row("last contact", "%s", humanize.RelTime(*st.LastContact, now, "ago", "from now"))
		}
	}
	if st.Offline != "" {
		row("OFFLINE", "%s", redact(st.Offline))
	}
	previousRows(row, st.Previous)
	if !st.Verified {
		row("check", "running: the last stop was not clean")
	}
	if n := len(st.Rules); n > 0 || st.RulesStatus.Withheld > 0 {
		text := fmt.Sprintf("%s, %s", count(int64(n), "rule"), rulesFrom(st.RulesStatus.From))
		if st.RulesStatus.Withheld > 0 {
			text += fmt.Sprintf("; %d withheld", st.RulesStatus.Withheld)
		}
		row("rules", "%s", text)
	}
	for _, r := range st.Rules {
		row("rule", "%s", r)
	}
	for _, n := range st.Notes {
		row("note", "%s", n)
	}
	for _, l := range st.LeftOut {
		row("left out", "%s", redact(l))
	}
	if len(st.Errors) == 0 {
		row("errors", "none")
	}
	for _, e := range st.Errors {
		row("ERROR", "%s", redact(e))
	}
	return tab.Flush()
}

// previousRows prints how the session before this mount ended.
func previousRows(row func(name, format string, args ...any), p *tiers.Previous) {
	switch {
	case p == nil:
		return
	case p.State == tiers.PreviousIncomplete:
		row("INCOMPLETE", "%s", redact(p.Text))
	default:
		row("last session", "%s: %s", p.State, redact(p.Text))
	}
	for _, m := range p.Missing {
		row("missing", "%s", redact(m))
	}
}

// tierRows prints what each tier holds, and which part of the reads it answers.
func tierRows(row func(name, format string, args ...any), hot tiers.HotStatus, warm tiers.WarmStatus,
	cold tiers.ColdStatus) {
	reads := hot.Hits + warm.Hits + cold.Hits
	line := func(name string, use tiers.TierStatus, limit int64, hits uint64, more string) {
		held, share := size(use.Bytes), "no reads"
		if limit > 0 {
			held += " of " + size(limit)
		}
		if reads > 0 {
			share = fmt.Sprintf("%.1f%% of reads", 100*float64(hits)/float64(reads))
		}
		row(name, "%s\t%s\t%s%s", count(use.Files, "file"), held, share, more)
	}
	line("hot", hot.TierStatus, hot.Limit, hot.Hits, "")
	line("warm", warm.TierStatus, warm.Limit, warm.Hits, "")
	line("cold", cold.TierStatus, 0, cold.Hits, fmt.Sprintf(", %s in %s", count(cold.Objects, "object"),
		count(int64(cold.Packs), "pack")))
	row("inodes", "%s in memory, at most %s unless in use", humanize.Comma(hot.Inodes), humanize.Comma(hot.InodesMax))
}

// memoryRow prints what directories of class memory hold, if there are any.
func memoryRow(row func(name, format string, args ...any), m tiers.MemoryStatus) {
	switch {
	case m.Available && m.Swap:
		row("memory", "%s in %s, %s of %s, may be swapped out", count(m.Files, "file"),
			countAs(int64(m.Directories), "directory", "directories"), size(m.Bytes), size(m.Limit))
	case m.Available:
		row("memory", "%s in %s, %s of %s", count(m.Files, "file"),
			countAs(int64(m.Directories), "directory", "directories"), size(m.Bytes), size(m.Limit))
	}
}

// movedRows prints what has left warm, what came back, and what the last tick did.
func movedRows(row func(name, format string, args ...any), warm tiers.WarmStatus, now time.Time) {
	row("in cold only", "%s, %s not listed yet", count(warm.Stubs, "file"),
		countAs(warm.Lazy, "directory", "directories"))
	row("moved", "%s released, %s returned since the mount", count(warm.Released, "file"),
		humanize.Comma(warm.Returned))
	if tick := warm.LastTick; tick != nil {
		row("last tick", "%s (%s): %s", humanize.RelTime(tick.Time, now, "ago", "from now"), tick.Reason,
			tierText(*tick))
	} else {
		row("last tick", "none")
	}
}

func size(n int64) string { return humanize.IBytes(uint64(max(0, n))) }

func riskText(r cold.AtRisk) string {
	if r.Files == 0 && r.Bytes == 0 {
		return "nothing"
	}
	return fmt.Sprintf("%s, %s, the oldest for %s", count(r.Files, "file"), size(r.Bytes),
		time.Duration(r.Seconds*float64(time.Second)).Round(time.Second))
}

// riskRows prints what is at risk, how long it takes to save it, and what bounds it.
func riskRows(row func(name, format string, args ...any), st statusReply) {
	row("at risk", "%s", riskText(st.AtRisk))
	part := func(name string, p *cold.RiskPart) {
		if p == nil || p.Files == 0 && p.Bytes == 0 {
			return
		}
		text := riskText(cold.AtRisk{Files: p.Files, Bytes: p.Bytes, Seconds: p.Age})
		how := "at the speed of the last backups"
		if !p.Measured {
			how = "at a speed that is assumed, as none was measured yet"
		}
		row(name, "%s; about %.1f s to save, %s", text, p.SecondsToSave, how)
	}
	part("  not committed", st.AtRisk.Local)
	part("  not pushed", st.AtRisk.Remote)
	b := st.Budget
	if b.MaxAtRisk != "none" && b.MaxAtRisk != "" {
		row("max at risk", "%s; %s waited for %.1f s in all", b.MaxAtRisk, count(b.Slowed, "write"), b.Waited)
	}
	if b.Expires != nil {
		row("EXPIRES", "%s: the machine goes away, and backups begin at once", b.Expires.Format(time.DateTime))
	}
}

func pointText(p *tiers.Point, now time.Time) string {
	if p == nil {
		return "none"
	}
	return fmt.Sprintf("%.12s, %s", p.ID, humanize.RelTime(p.Time, now, "ago", "from now"))
}
