package main

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"emberfs/backup"
	"emberfs/tiers/cold"
)

// stockRepo makes a repository by stock git, with one commit for each script, and with its work tree at dir.
func stockRepo(t *testing.T, scripts ...string) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "repo")
	sh := func(script string) {
		cmd := exec.Command("sh", "-euc", script)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null",
			"GIT_AUTHOR_NAME=Some One",
			"GIT_AUTHOR_EMAIL=so@example.com", "GIT_COMMITTER_NAME=c", "GIT_COMMITTER_EMAIL=c@d")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", script, err, out)
		}
	}
	noError(t, os.Mkdir(dir, 0o755))
	sh("git init -q -b main")
	for i, s := range scripts {
		sh(s + "\ngit add -A; D=$((1700000000+" + string(rune('0'+i)) + "000)); " +
			"GIT_AUTHOR_DATE=\"$D +0000\" GIT_COMMITTER_DATE=\"$D +0000\" git commit -q --allow-empty -m 'commit " +
			string(rune('0'+i)) + "'")
	}
	return dir
}

// emberfs runs a command line in this process.
func emberfs(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err strings.Builder
	code = run(append([]string{"emberfs"}, args...), world{out: &out, err: &err})
	return code, out.String(), err.String()
}

func TestLogCommand(t *testing.T) {
	repo := stockRepo(t, "echo 0 >a", "echo 1 >b", "echo 2 >a")
	code, out, errs := emberfs(t, "log", repo)
	want := regexp.MustCompile(
		`^[0-9a-f]{12}  2023-11-14T22:46:40Z  -          -               -           -        -  Some One <so@example.com>: commit 2\n` +
			`.*commit 1\n.*commit 0\n$`)
	if code != 0 || !want.MatchString(out) || errs != "" {
		t.Errorf("exit %d, %q, %q", code, out, errs)
	}
	for _, c := range []struct {
		args string
		want string
	}{
		{"--limit 1", "commit 2"},
		{"a", "commit 2|commit 0"},
		{"-- b", "commit 1"},
		{"a -n1", "commit 2"},
		{"--commit HEAD~1", "commit 1|commit 0"},
		{"--commit 2023-11-14T22:30:00Z", "commit 1|commit 0"},
		{"no/such/path", ""},
	} {
		code, out, errs := emberfs(t, append([]string{"log", repo, "--json"}, strings.Fields(c.args)...)...)
		var list []commitReply
		if err := json.Unmarshal([]byte(out), &list); err != nil || code != 0 {
			t.Errorf("%s: exit %d, %v\n%s%s", c.args, code, err, out, errs)
		}
		var got []string
		for _, l := range list {
			got = append(got, l.Subject)
		}
		if strings.Join(got, "|") != c.want {
			t.Errorf("%s: %q, want %q", c.args, got, c.want)
		}
	}
	for _, c := range []struct {
		code int
		want string
		args []string
	}{
		{exitUsage, "less than none", []string{"log", repo, "--limit", "-1"}},
		{exitFailed, `revision "nope": no such commit, branch or tag; emberfs log `,
			[]string{"log", repo, "--commit", "nope"}},
		{exitUsage, "no mountpoint, state directory or repository", []string{"log", filepath.Join(repo, "nothing")}},
		{exitFailed, "lies in no mounted volume", []string{"log"}},
		{exitUsage, "bad branch name", []string{"log", repo, "--branch", "a..b"}},
		{exitFailed, `"zz": no such commit, branch or tag`, []string{"restore", "--from", repo, "--commit", "zz",
			"--to", filepath.Join(repo, "to")}},
		{exitFailed, "no such mountpoint, state directory or repository",
			[]string{"restore", "--from", "/nonexistent", "--to", filepath.Join(repo, "to")}},
	} {
		code, out, errs := emberfs(t, c.args...)
		if code != c.code || !strings.Contains(errs, c.want) || out != "" || strings.Count(errs, "\n") != 1 {
			t.Errorf("%q: exit %d, %q, %q; want exit %d, %q", c.args, code, out, errs, c.code, c.want)
		}
	}
	if exists(filepath.Join(repo, "to")) {
		t.Error("a restore that found no commit made its directory")
	}
}

func TestSnapshotsCommand(t *testing.T) {
	repo := stockRepo(t, "echo 0 >a", "mkdir d; echo 1234 >d/b; git tag v1")
	code, out, errs := emberfs(t, "snapshots", repo)
	want := regexp.MustCompile(
		`^[0-9a-f]{12}  2023-11-14T22:30:00Z  -          -                 2         7 B  -       \(main\) Some One: commit 1\n` +
			`.*  1         2 B  -       \(tag: v1\) Some One: commit 0\n$`)
	if code != 0 || !want.MatchString(out) || errs != "" {
		t.Errorf("exit %d, %q, %q", code, out, errs)
	}
	code, out, errs = emberfs(t, "snapshots", repo, "--json", "--limit", "1")
	var list []pointReply
	if err := json.Unmarshal([]byte(out), &list); err != nil || code != 0 || len(list) != 1 {
		t.Fatalf("exit %d, %v\n%s%s", code, err, out, errs)
	}
	if p := list[0]; *p.TreeFiles != 2 || *p.TreeBytes != 7 || p.Remote != nil ||
		!slices.Equal(p.Refs, []string{"main"}) || p.Emberfs || len(p.Parents) != 1 {
		t.Errorf("got %+v", p)
	}
	if code, out, _ := emberfs(t, "snapshots", stockRepo(t), "--json"); code != 0 || out != "[]\n" {
		t.Errorf("no commit: exit %d, %q", code, out)
	}
}

func TestSplitTarget(t *testing.T) {
	repo := stockRepo(t, "")
	bare := filepath.Join(t.TempDir(), "bare.git")
	if out, err := exec.Command("git", "init", "-q", "--bare", bare).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	state := t.TempDir()
	noError(t, os.Mkdir(filepath.Join(state, coldName), 0o755))
	for _, c := range []struct {
		args        []string
		dash        int
		target      string
		rest, paths []string
	}{
		{nil, -1, "", nil, nil},
		{[]string{repo}, -1, repo, nil, nil},
		{[]string{bare, "x"}, -1, bare, []string{"x"}, nil},
		{[]string{state, "x", "y"}, 2, state, []string{"x"}, []string{"y"}},
		{[]string{"x", repo}, -1, "", []string{"x", repo}, nil},
		{[]string{repo}, 0, "", nil, []string{repo}},
		{[]string{t.TempDir()}, -1, "", []string{"DIR"}, nil},
	} {
		target, rest, paths, err := splitTarget(c.args, c.dash)
		if len(c.rest) == 1 && c.rest[0] == "DIR" {
			c.rest = c.args // a directory that is nothing of ours
		}
		if err != nil || target != c.target || !slices.Equal(rest, c.rest) || !slices.Equal(paths, c.paths) {
			t.Errorf("%q, %d: %q, %q, %q, %v", c.args, c.dash, target, rest, paths, err)
		}
	}
}

func TestInside(t *testing.T) {
	resolved := t.TempDir()
	mnt := filepath.Join(resolved, "mnt")
	noError(t, os.MkdirAll(filepath.Join(mnt, "sub"), 0o755))
	link := filepath.Join(resolved, "link")
	noError(t, os.Symlink(mnt, link))
	h := &history{op: "log", mountpoint: mnt}
	for _, c := range []struct{ cwd, path, want string }{
		{"/", "a/b", "a/b"},
		{mnt, "a/b", "a/b"},
		{filepath.Join(mnt, "sub"), "x", "sub/x"},
		{filepath.Join(mnt, "sub"), "../gone/x", "gone/x"},
		{filepath.Join(mnt, "sub"), ".", "sub"},
		{"/", filepath.Join(mnt, "gone"), "gone"},
		{"/", mnt, "."},
		{"/", filepath.Join(link, "gone"), "gone"},
		{resolved, "mnt/a", "a"},
	} {
		t.Chdir(c.cwd)
		if got, err := h.inside([]string{c.path}); err != nil || !slices.Equal(got, []string{c.want}) {
			t.Errorf("%q in %s: %q, %v; want %q", c.path, c.cwd, got, err, c.want)
		}
	}
	if _, err := h.inside([]string{"/etc"}); exitCode(err) != exitUsage {
		t.Errorf("/etc: %v", err)
	}
}

// TestQuotePath checks that paths are quoted as git does it, except that letters of other languages stay as they are,
// which git accepts too.
func TestQuotePath(t *testing.T) {
	for in, want := range map[string]string{
		"plain name":   "plain name",
		"Grüße/日本":     "Grüße/日本",
		"a\nb":         `"a\nb"`,
		"\a\b\t\v\f\r": `"\a\b\t\v\f\r"`,
		"q\"b\\":       `"q\"b\\"`,
		"lat\xe9":      `"lat\351"`,
		"\x1b[2J\x7f":  `"\033[2J\177"`,
		"\u009b":       `"\302\233"`,
		"\u202e":       `"\342\200\256"`,
		"\xe4\nü":      `"\344\nü"`,
		"\uFFFD":       "\uFFFD",
	} {
		if got := quotePath(in); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}

// liveRepo returns a volume's repository with a live commit on top of main's.
func liveRepo(t *testing.T) (dir string, main, live cold.ID) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "live.git")
	c, err := backup.Open(dir, backup.Options{MachineID: "m"})
	noError(t, err)
	commit := func(begin func(context.Context) (cold.Tx, error), text string) cold.ID {
		id, err := func() (id cold.ID, err error) {
			tx, err := begin(t.Context())
			if err != nil {
				return id, err
			}
			defer tx.Abort()
			e := cold.Entry{Name: "f", Kind: cold.KindSymlink, Mode: 0o777, Target: text, Size: int64(len(text))}
			if e.ID, err = tx.PutSymlink(t.Context(), text, cold.ID{}); err != nil {
				return id, err
			}
			root := &cold.Root{Entry: cold.Entry{Kind: cold.KindDir, Mode: 0o755, UID: uint32(os.Geteuid()),
				GID: uint32(os.Getegid())}}
			d, err := tx.PutDir(t.Context(), cold.DirID{}, true, root, []cold.Entry{e}, nil)
			if err != nil {
				return id, err
			}
			return tx.Commit(t.Context(), cold.CommitOptions{Reason: "r", Root: d})
		}()
		noError(t, err)
		return id
	}
	main = commit(c.Begin, "main")
	live = commit(c.BeginLive, "live")
	noError(t, c.Close())
	return dir, main, live
}

// TestLiveCommits checks that commands use the newest commit if none is named.
func TestLiveCommits(t *testing.T) {
	repo, main, live := liveRepo(t)
	code, out, errs := emberfs(t, "log", repo)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if code != 0 || len(lines) != 2 || !strings.HasPrefix(lines[0], live.String()[:12]) ||
		!strings.HasSuffix(lines[0], "(live)") ||
		!strings.HasPrefix(lines[1], main.String()[:12]) || strings.Contains(lines[1], "live") {
		t.Errorf("log: exit %d, %q, %q", code, out, errs)
	}
	code, out, errs = emberfs(t, "diff", repo, "--name-only")
	if code != 0 || !strings.Contains(out, "f") {
		t.Errorf("diff: exit %d, %q, %q", code, out, errs)
	}
	for want, args := range map[string][]string{"live": nil, "main": {"--commit", "HEAD"}} {
		to := filepath.Join(t.TempDir(), "to")
		code, out, errs := emberfs(t, append([]string{"restore", "--from", repo, "--to", to}, args...)...)
		if got, _ := os.Readlink(filepath.Join(to, "f")); code != 0 || got != want {
			t.Errorf("restore %q: exit %d, %q, want %q; %q %q", args, code, got, want, out, errs)
		}
	}
	if code, out, errs := emberfs(t, "check", repo); code != 0 {
		t.Errorf("check: exit %d, %q, %q", code, out, errs)
	}
}
