package log

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"emberfs/backup"
	"emberfs/backup/coldtest"
	"emberfs/tiers/cold"
)

func TestResolve(t *testing.T) {
	v := newVolume(t, backup.Options{})
	zone := time.FixedZone("", 2*3600)
	start := time.Date(2026, 11, 20, 10, 0, 0, 0, zone)
	var c []cold.ID
	f := coldtest.NewDir(0o755)
	for i := range 5 {
		f.Text("f", fmt.Sprint(i))
		c = append(c, v.commitAt(f, start.Add(time.Duration(i)*time.Hour)))
	}
	id := func(i int) string { return c[i].String() }
	blob := coldtest.Git(t, v.Dir, "rev-parse", "main:f")
	coldtest.Git(t, v.Dir, "tag", "light", id(1))
	coldtest.Git(t, v.Dir, "tag", "-a", "-m", "m", "heavy", id(2))
	coldtest.Git(t, v.Dir, "tag", "-a", "-m", "m", "heavier", "heavy")
	coldtest.Git(t, v.Dir, "tag", "ablob", blob)
	coldtest.Git(t, v.Dir, "branch", "a/b", id(0))
	coldtest.Git(t, v.Dir, "branch", "both", id(0))
	coldtest.Git(t, v.Dir, "tag", "both", id(1))
	coldtest.Git(t, v.Dir, "branch", "twice", id(3))
	coldtest.Git(t, v.Dir, "tag", "twice", id(3))
	coldtest.Git(t, v.Dir, "update-ref", "refs/remotes/origin/x", id(1))
	coldtest.Git(t, v.Dir, "update-ref", "refs/emberfs/remote/main", id(2))
	coldtest.Git(t, v.Dir, "pack-refs", "--all")
	coldtest.Git(t, v.Dir, "tag", "loose", id(4))
	merge := coldtest.Git(t, v.Dir, "commit-tree", "-p", id(4), "-p", id(1), "-m", "merge", id(4)+"^{tree}")
	coldtest.Git(t, v.Dir, "update-ref", "refs/heads/merge", merge)
	now := start.Add(5 * time.Hour)
	for rev, want := range map[string]string{
		"HEAD": id(4), "@": id(4), "main": id(4), "refs/heads/main": id(4), "heads/main": id(4),
		"HEAD~": id(3), "HEAD~3": id(1), "HEAD^": id(3), "HEAD^^": id(2), "main~2^1": id(1), "HEAD~0": id(4),
		"HEAD^0": id(4),
		"light":  id(1), "heavy": id(2), "heavier~1": id(1), "tags/heavy": id(2), "loose": id(4), "a/b": id(0),
		"twice":      id(3),
		"heads/both": id(0), "tags/both": id(1), "origin/x": id(1), "refs/emberfs/remote/main": id(2),
		"merge^2": id(1), "merge^2~1": id(0), "merge~1": id(4),
		id(2): id(2), id(2)[:12]: id(2), strings.ToUpper(id(2)[:12]): id(2), id(3)[:10] + "~1": id(2),
		merge[:10]:                  merge,
		"2026-11-20T10:00":          id(0),
		"2026-11-20 12:30":          id(2),
		"2026-11-20 12:59:59":       id(2),
		"2026-11-20T13:00:00":       id(3),
		"2026-11-20T11:00:00+02:00": id(1),
		"2026-11-20T10:00:00Z":      id(2),
		"2030-01-01 00:00":          id(4),
		"2h ago":                    id(3),
		"2h30m ago":                 id(2),
		"90m ago":                   id(3),
		"90 minutes ago":            id(3),
		"5400 seconds ago":          id(3),
		"2 hours, 30 minutes ago":   id(2),
	} {
		got, err := v.Resolve(t.Context(), rev, now)
		if err != nil || got.String() != want {
			t.Errorf("%q: %s, %v; want %s", rev, got, err, want)
		}
	}
	for rev, want := range map[string]string{
		"":                      "names no commit",
		"nope":                  "no such commit, branch or tag",
		"~1":                    "names no commit",
		"HEAD~5":                "history begins with",
		"HEAD~99999999999":      "no such",
		"HEAD^2":                "has 1 parents",
		"HEAD~1x":               "want ~N or ^N",
		"both":                  "is both refs/tags/both and refs/heads/both; write it in full",
		"ablob":                 "is a blob, not a commit",
		blob[:12]:               "no such commit, branch or tag",
		"abc":                   "no such commit, branch or tag",
		strings.Repeat("e", 40): "missing",
		strings.Repeat("0", 40): "missing",
		"main@{1}":              "no reflog",
		"main..light":           "range",
		"2026-11-20 09:59":      "was made later",
		"2026-11-20":            "is no time",
		"2026-13-20 10:00":      "is no time",
		"ages ago":              "is no time",
		"6h ago":                "was made later",
		"../../etc/passwd":      "range",
		"refs/heads/x\x00y":     "no such commit, branch or tag",
	} {
		if got, err := v.Resolve(t.Context(), rev, now); err == nil || !strings.Contains(err.Error(), want) ||
			!strings.Contains(err.Error(), fmt.Sprintf("%q", rev)) {
			t.Errorf("%q: %s, %v; want %q", rev, got, err, want)
		}
	}
	empty := newVolume(t, backup.Options{})
	if _, err := empty.Resolve(t.Context(), "HEAD", now); err == nil ||
		!strings.Contains(err.Error(), "has no commit") {
		t.Errorf("HEAD of nothing: %v", err)
	}
}

// TestAbbreviated: other objects with the same beginning are no matter, other commits are named.
func TestAbbreviated(t *testing.T) {
	t.Parallel()
	v := newVolume(t, backup.Options{})
	f := coldtest.NewDir(0o755)
	v.CommitTree(f, nil)
	var in strings.Builder
	for i := range 2000 {
		fmt.Fprintf(&in, "commit refs/heads/other\ncommitter c <c@d> %d +0000\ndata 1\nm\n", 1_600_000_000+i)
	}
	if out, err := coldtest.GitTry(t, v.Dir, []byte(in.String()), "fast-import", "--quiet"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	all := strings.Fields(coldtest.Git(t, v.Dir, "rev-list", "--all"))
	count := map[string]int{}
	for _, id := range all {
		count[id[:4]]++
	}
	shared, unique := "", 0
	for _, id := range all {
		switch got, err := v.Resolve(t.Context(), id[:4], time.Now()); {
		case count[id[:4]] > 1:
			shared = id[:4]
			if err == nil || !strings.Contains(err.Error(), "ambiguous: ") || !strings.Contains(err.Error(), id[:12]) {
				t.Fatalf("%s: %v, %v", shared, got, err)
			}
		default:
			unique++
			if err != nil || got.String() != id {
				t.Fatalf("%s: %v, %v; want %s", id[:4], got, err, id)
			}
		}
	}
	if shared == "" || unique == 0 {
		t.Fatalf("2,000 commits: %d unique, shared %q", unique, shared)
	}
	if _, err := v.Resolve(t.Context(), "ffff~1", time.Now()); err == nil && !errors.Is(err, ErrNoRevision) {
		t.Errorf("ffff: %v", err)
	}
}
