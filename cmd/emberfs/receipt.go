package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"emberfs/tiers"
	"emberfs/tiers/warm"
)

// keepReceipts is how many receipts a state directory keeps.
const keepReceipts = 100

// startSuffix ends the names of receipts of starts.
const startSuffix = "-start.json"

// writeReceipt stores a receipt durably as STATE/receipts/TIME.json, or TIME-start.json if it is that of a start, and
// removes the oldest ones over keepReceipts.
func writeReceipt(state string, r *tiers.Receipt, now time.Time) error {
	dir := filepath.Join(state, receiptsName)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("write receipt: %w", err)
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("write receipt: %w", err)
	}
	name := now.UTC().Format("20060102T150405.000000000Z")
	if r.Before != nil {
		name += startSuffix
	} else {
		name += ".json"
	}
	if err := warm.WriteFileDurable(filepath.Join(dir, name), append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("write receipt: %w", err)
	}
	names, err := receiptNames(state)
	for len(names) > keepReceipts && err == nil {
		err = os.Remove(filepath.Join(dir, names[0]))
		names = names[1:]
	}
	return err
}

// receiptNames returns the names of the receipts in a state directory, oldest first.
func receiptNames(state string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(state, receiptsName))
	if err != nil {
		return nil, fmt.Errorf("list receipts: %w", err)
	}
	var names []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".json") && !strings.HasPrefix(e.Name(), warm.TempPrefix) {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

// lastReceipt reads the newest receipt of an end, if it was written after since; an older one is that of an earlier
// daemon.
func lastReceipt(state string, since time.Time) (*tiers.Receipt, error) {
	names, err := receiptNames(state)
	if err != nil {
		return nil, err
	}
	names = slices.DeleteFunc(names, func(name string) bool { return strings.HasSuffix(name, startSuffix) })
	if len(names) == 0 {
		return nil, errors.New("no receipt")
	}
	path := filepath.Join(state, receiptsName, names[len(names)-1])
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if st.ModTime().Before(since) {
		return nil, errors.New("no receipt of this unmount")
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := new(tiers.Receipt)
	if err := json.Unmarshal(data, r); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return r, nil
}

// joinReceipts combines the receipts of the two backups at an end: the one before the unmount, and that of what came
// after it.
func joinReceipts(first, last *tiers.Receipt) *tiers.Receipt {
	if first == nil {
		return last
	}
	out := *last
	out.New = first.New || last.New
	out.Files += first.Files
	out.Bytes += first.Bytes
	out.Started = first.Started
	out.Took = last.Started.Add(last.Took).Sub(first.Started)
	if !last.Complete && !last.New { // keep the first list: the last backup may have been stopped before it had one
		out.Missing = slices.Clone(first.Missing)
		for _, line := range last.Missing {
			if !slices.Contains(out.Missing, line) {
				out.Missing = append(out.Missing, line)
			}
		}
	}
	return &out
}

// incomplete adds a line to what a receipt lists as missing.
func incomplete(r *tiers.Receipt, line string) *tiers.Receipt {
	if r == nil {
		r = &tiers.Receipt{Started: time.Now()}
	}
	r.Complete = false
	if !slices.Contains(r.Missing, line) {
		r.Missing = append(r.Missing, line)
	}
	return r
}

// summary returns a receipt as one line.
func summary(r *tiers.Receipt) string {
	var b strings.Builder
	if r.Complete {
		b.WriteString("COMPLETE")
	} else {
		b.WriteString("INCOMPLETE")
	}
	switch {
	case !r.Complete && !r.New && r.Commit == "":
		b.WriteString(": nothing was committed")
	case r.Commit == "":
		b.WriteString(": the volume has no commit yet")
	case r.New:
		fmt.Fprintf(&b, ": commit %.12s: %s, %s", r.Commit, count(r.Files, "file"),
			humanize.IBytes(uint64(max(0, r.Bytes))))
	case r.Complete:
		fmt.Fprintf(&b, ": nothing new since commit %.12s", r.Commit)
	default:
		fmt.Fprintf(&b, ": no new commit after %.12s", r.Commit)
	}
	if r.Remote != "" {
		if r.Pushed {
			fmt.Fprintf(&b, ", pushed to %s", redact(r.Remote))
		} else {
			fmt.Fprintf(&b, ", NOT pushed to %s", redact(r.Remote))
		}
	}
	fmt.Fprintf(&b, " (%s)", shortDuration(r.Took))
	return b.String()
}

func shortDuration(d time.Duration) string {
	if d < 10*time.Second {
		return d.Round(time.Millisecond).String()
	}
	return d.Round(100 * time.Millisecond).String()
}

func count(n int64, what string) string { return countAs(n, what, what+"s") }

func countAs(n int64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return humanize.Comma(n) + " " + many
}

// printReceipt prints a receipt for people: the summary, then a line for each thing that is missing.
func printReceipt(w io.Writer, r *tiers.Receipt) {
	fmt.Fprintln(w, summary(r))
	for _, m := range r.Missing {
		fmt.Fprintln(w, "  missing: "+oneLine(redact(m)))
	}
	for _, m := range r.LeftOut {
		fmt.Fprintln(w, "  "+oneLine(redact(m)))
	}
}

// partError returns the error with which a command ends after an incomplete receipt. It has no text, because the
// receipt was printed.
func partError(op, path string, r *tiers.Receipt) error {
	if r.Complete {
		return nil
	}
	return &failure{code: exitPart, op: op, path: path}
}

// said reports whether an error needs no message: its receipt was printed, or the launcher prints it.
func said(err error) bool {
	var f *failure
	return errors.As(err, &f) && f.err == nil && (f.code == exitPart || f.op == "")
}
