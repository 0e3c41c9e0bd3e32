package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/dustin/go-humanize"

	"emberfs/tiers"
)

// fileResult is what `emberfs status PATH --json` prints.
type fileResult struct {
	Mountpoint string `json:"mountpoint"`
	tiers.FileStatus
	Path64 []byte `json:"path64,omitempty"` // set if the name is not UTF-8, which JSON cannot carry
}

// fileStatus prints the status of one file of a mounted volume.
func fileStatus(ctx context.Context, e registration, file string, asJSON bool, w world) error {
	rel, err := insideMount(e.Mountpoint, file)
	if err != nil {
		return err
	}
	st, err := e.client().file(ctx, rel)
	if err != nil {
		return err
	}
	st.Path = rel
	if !asJSON {
		return printFile(w.out, e.Mountpoint, st, time.Now())
	}
	out := fileResult{Mountpoint: e.Mountpoint, FileStatus: st}
	if !utf8.ValidString(rel) {
		out.Path64 = []byte(rel)
	}
	if out.Tiers == nil {
		out.Tiers = []string{} // JSON readers expect a list
	}
	return printJSON(w.out, out)
}

// printFile prints the status of one file for people.
func printFile(out io.Writer, mountpoint string, st tiers.FileStatus, now time.Time) error {
	tab := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		fmt.Fprintf(tab, "%s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	or := func(text, otherwise string) string {
		if text == "" {
			return otherwise
		}
		return text
	}
	row("path", "%s in %s", quotePath(st.Path), mountpoint)
	row("kind", "%s, %s, class %s", st.Kind, size(st.Size), st.Class)
	row("tiers", "%s", or(strings.Join(st.Tiers, ", "), "none"))
	content := "dirty: differs from the last commit"
	if st.Clean {
		content = "clean: as the last commit has it"
	}
	if st.Class == "memory" {
		content = "on a tmpfs: gone with the unmount"
	}
	row("content", "%s", content)
	for _, what := range st.LeftOut {
		row("left out here", "%s", oneLine(redact(what)))
	}
	row("object", "%s", or(st.Object, "none"))
	commit := or(st.Commit, "none has it as it is now")
	if st.Commit != "" && st.Pushed {
		commit += ", pushed"
	}
	row("commit", "%s", commit)
	safe := "yes"
	if !st.Safe {
		safe = "NO: " + or(redact(st.Why), "unknown why")
	}
	row("safe", "%s", safe)
	row("open", "%s", count(int64(st.Open), "handle"))
	used := "not since the mount"
	if !st.Used.IsZero() {
		used = humanize.RelTime(st.Used, now, "ago", "from now")
	}
	row("last use", "%s", used)
	return tab.Flush()
}
