//go:build slow

package integration

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// changes gives the differences by path; metadata of directories whose mtime alone is new is left out, for scans cannot
// tell whether it should be there, and so are hard links.
func changes(t *testing.T, dir string, args ...string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, c := range jsonIn[loggedChange](t, dir, append([]string{"diff", "--json"}, args...)...) {
		path := "/" + c.Path + string(c.Path64)
		if c.Path == "." {
			path = ""
		}
		if _, twice := out[path]; twice {
			t.Errorf("%q is there twice", path)
		}
		c.Fields = slices.DeleteFunc(c.Fields, func(f string) bool { return f == "link" })
		if c.Status == "m" && len(c.Fields) == 0 {
			continue
		}
		out[path] = strings.TrimSpace(c.Status + " " + strings.Join(c.Fields, ","))
	}
	return out
}

var scanned = regexp.MustCompile(
	`(?s)^mode (\d+) uid (\d+) gid (\d+) mtime (\S+) size (\d+) rdev (\d+) xattrs (.*) content (.*)$`)

// expectedChanges compares two scans as diff should.
func expectedChanges(t *testing.T, before, after map[string]string) map[string]string {
	t.Helper()
	parse := func(s string) []string {
		s, _, _ = strings.Cut(s, " links [")
		m := scanned.FindStringSubmatch(strings.TrimSuffix(s, " sparse"))
		if m == nil {
			t.Fatalf("scan %q", s)
		}
		return m[1:]
	}
	const format = 6 // digits of a mode but for the permissions: 100644
	typeOf := func(mode string) string { return fmt.Sprintf("%0*s", format, mode)[:2] }
	out := map[string]string{}
	for p, b := range before {
		a, ok := after[p]
		if !ok {
			out[p] = "D"
			continue
		}
		x, y := parse(b), parse(a)
		var fields []string
		differ := func(field string, at ...int) {
			if slices.ContainsFunc(at, func(i int) bool { return x[i] != y[i] }) {
				fields = append(fields, field)
			}
		}
		status := "m"
		switch same := typeOf(x[0]) == typeOf(y[0]); {
		case !same:
			status, fields = "T", append(fields, "type")
		case typeOf(x[0]) == "12":
			differ("target", 7)
		case typeOf(x[0]) == "10":
			differ("content", 4, 7)
			differ("size", 4)
		case typeOf(x[0]) != "04":
			differ("rdev", 5)
		}
		if len(fields) > 0 && status == "m" {
			status = "M"
		}
		differ("mode", 0)
		if status == "T" && strings.HasSuffix(x[0], y[0][len(y[0])-3:]) {
			fields = slices.DeleteFunc(fields, func(f string) bool { return f == "mode" })
		}
		differ("owner", 1, 2)
		differ("mtime", 3)
		differ("xattrs", 6)
		if len(fields) > 0 {
			out[p] = status + " " + strings.Join(fields, ",")
		}
	}
	for p := range after {
		if _, ok := before[p]; !ok {
			out[p] = "A"
		}
	}
	return out
}

// sameChanges compares but for the mtime of directories, which diff leaves out where what is in them changed.
func sameChanges(t *testing.T, what string, got, want, scan map[string]string) {
	t.Helper()
	plain := func(path, change string) string {
		if strings.HasPrefix(scan[path], "mode 4") && change[0] == 'm' {
			change = strings.TrimSuffix(strings.ReplaceAll(change+",", "mtime,", ""), ",")
			if strings.TrimSpace(change) == "m" {
				return ""
			}
		}
		return change
	}
	shown := 0
	for _, m := range []map[string]string{want, got} {
		for p := range m {
			g, w := "", ""
			if c, ok := got[p]; ok {
				g = plain(p, c)
			}
			if c, ok := want[p]; ok {
				w = plain(p, c)
			}
			if g != w {
				if shown++; shown <= 10 {
					t.Errorf("%s: %q: got %q, want %q", what, p, g, w)
				}
			}
		}
	}
}

// TestHistoryOddTree: with a tree of everything odd and changes of every kind, diff finds exactly what two scans of the
// tree differ in: in the directory before the commit, between the commits after it, and the other way round.
func TestHistoryOddTree(t *testing.T) {
	t.Parallel()
	deadline(t, 12*time.Minute)
	v := newVolume(t, "one").mount()
	makeOddTree(t, v.mnt)
	v.sync()
	before := scanTree(t, v.mnt)
	if got := changes(t, "/", v.mnt); len(got) != 0 {
		t.Errorf("right after a commit: %q", got)
	}
	changeOddTree(t, v.mnt)
	after := scanTree(t, v.mnt)
	want := expectedChanges(t, before, after)
	if len(want) < 30 {
		t.Fatalf("only %d changes", len(want))
	}
	now := changes(t, "/", v.mnt)
	sameChanges(t, "now", now, want, after)
	v.sync()
	if got := changes(t, "/", v.mnt); len(got) != 0 {
		t.Errorf("after the second commit: %q", got)
	}
	between := changes(t, "/", v.mnt, "HEAD~1", "HEAD")
	sameChanges(t, "between commits", between, want, after)
	sameChanges(t, "back", changes(t, "/", v.cold(), "HEAD", "HEAD~1"), expectedChanges(t, after, before), before)
	sameChanges(t, "from the first to now", changes(t, "/", v.mnt, "HEAD~1", "now"), want, after)
	// Each path's own log has the commits that the difference says.
	commits := idsOf(jsonIn[loggedCommit](t, v.mnt, "log", "--json"))
	if len(commits) != 2 {
		t.Fatalf("commits %q", commits)
	}
	for _, name := range oddNames() {
		got := idsOf(jsonIn[loggedCommit](t, "/", "log", "--json", v.state, "--", "names/"+name))
		_, changed := want["/names/"+name]
		if changed != (len(got) == 2 || len(got) == 1 && got[0] == commits[0]) {
			t.Errorf("log of %q: %q; in the difference: %q", name, got, want["/names/"+name])
		}
	}
	for _, args := range [][]string{{"diff", v.mnt, "HEAD~1", "HEAD"}, {"diff", v.mnt, "HEAD~1", "HEAD", "--stat"},
		{"diff", v.mnt, "HEAD~1", "HEAD", "--name-only"}} {
		r := v.emberfs(args...)
		if r.code != 0 || r.stderr != "" {
			t.Errorf("%v", r)
		}
		if i := strings.IndexFunc(r.stdout, func(c rune) bool {
			return c < ' ' && c != '\n' && c != '\t'
		}); i >= 0 && args[len(args)-1] != "HEAD" {
			t.Errorf("%q: control character %q", args, r.stdout[max(0, i-40):i+1])
		}
	}
	v.umount()
}
