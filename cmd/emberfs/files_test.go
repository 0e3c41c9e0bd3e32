package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"emberfs/fs"
	"emberfs/tiers"
	"emberfs/tiers/warm"
)

func write(t *testing.T, dir, name, content string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	noError(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

func noError(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func must[V any](v V, err error) func(*testing.T) V {
	return func(t *testing.T) V {
		t.Helper()
		noError(t, err)
		return v
	}
}

func TestCheckMountpoint(t *testing.T) {
	dir := must(filepath.EvalSymlinks(t.TempDir()))(t)
	empty, full := filepath.Join(dir, "empty"), filepath.Join(dir, "full")
	for _, d := range []string{empty, full} {
		noError(t, os.Mkdir(d, 0o755))
	}
	file := write(t, full, "f", "")
	link := filepath.Join(dir, "link")
	noError(t, os.Symlink(empty, link))
	for path, say := range map[string]string{
		filepath.Join(dir, "none"): "does not exist", file: "not a directory",
		filepath.Join(file, "x"): "not a directory",
	} {
		if _, _, err := checkMountpoint(path, nil); codeOf(err) != exitMount || !strings.Contains(err.Error(), say) {
			t.Errorf("%s: %v", path, err)
		}
	}
	for _, c := range []struct {
		path, fstype, say string
	}{{empty, "fuse.emberfs", "a volume is already mounted"},
		{link, "ext4", "something is already mounted there (ext4)"}} {
		_, _, err := checkMountpoint(c.path, []fs.MountEntry{{Path: empty, FSType: c.fstype}})
		if err == nil || !strings.Contains(err.Error(), c.say) {
			t.Errorf("over %s: %v", c.fstype, err)
		}
	}
	resolved, auto, err := checkMountpoint(link, []fs.MountEntry{{Path: empty, FSType: "autofs"}})
	if err != nil || resolved != empty || !auto {
		t.Errorf("automount point: %s, %v, %v", resolved, auto, err)
	}
	if err := checkEmpty(full); codeOf(err) != exitMount || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("not empty: %v", err)
	}
	if err := checkEmpty(empty); err != nil {
		t.Error(err)
	}
}

func TestPlacesApart(t *testing.T) {
	dir := must(filepath.EvalSymlinks(t.TempDir()))(t)
	mnt, state := filepath.Join(dir, "mnt"), filepath.Join(dir, "state")
	for _, d := range []string{filepath.Join(mnt, "sub"), filepath.Join(state, "warm")} {
		noError(t, os.MkdirAll(d, 0o755))
	}
	noError(t, os.Symlink(mnt, filepath.Join(dir, "alias")))
	for name, c := range map[string]struct {
		mnt string
		c   config
		bad bool
	}{
		"apart":               {mnt, config{State: state, Source: "/srv/x.git"}, false},
		"same prefix":         {mnt, config{State: mnt + "2"}, false},
		"state is mountpoint": {state, config{State: state}, true},
		"mountpoint in state": {filepath.Join(state, "warm"), config{State: state}, true},
		"state below":         {mnt, config{State: filepath.Join(mnt, "new", "state")}, true},
		"state by symlink":    {mnt, config{State: filepath.Join(dir, "alias", "sub")}, true},
		"source below":        {mnt, config{State: state, Source: filepath.Join(mnt, "x.git")}, true},
		"log below":           {mnt, config{State: state, LogFile: filepath.Join(mnt, "log")}, true},
	} {
		if err := checkApart(c.mnt, &c.c); (err != nil) != c.bad {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSources(t *testing.T) {
	for in, want := range map[string]string{"": "", "none": "", "emberfs": "", "/a/b.git": "/a/b.git",
		"file:///a/../b.git": "/b.git", "git@h:x.git": "git@h:x.git", "ssh://h/x": "ssh://h/x",
		"host:path": "host:path", "git://h/x": "git://h/x"} {
		if got, err := sourceOf("mount", in); err != nil || got != want {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
	for _, in := range []string{"https://h/x.git", "git@h:x.git", "ssh://h/x", "host:path"} {
		if got, err := sourceOf("mount", in); err != nil || got != in {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
	for _, in := range []string{"https://u:secret@h/x.git", "https://u:a/secret@h/x.git", "https://u:a@secret@h/x.git",
		"https://u:a secret@h/x.git", "https://u:%secret@h/x.git", "ssh://u:secret@h/x.git", "file://u:secret@h/x",
		"ssh://-h/x", "ftp://h/x", "git://h/"} {
		if _, err := sourceOf("mount", in); codeOf(err) != exitUsage || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", in, err)
		}
	}
	if err := checkSource("git://h/x", false); codeOf(err) != exitUsage || !strings.Contains(err.Error(), "-o ro") {
		t.Errorf("git:// to be written: %v", err)
	}
	if err := checkSource("git://h/x", true); err != nil {
		t.Errorf("git:// to be read: %v", err)
	}
	dir := t.TempDir()
	for _, d := range []string{"bare/objects", "bare/refs", "tree/.git", "empty"} {
		noError(t, os.MkdirAll(filepath.Join(dir, d), 0o755))
	}
	write(t, dir, "bare/HEAD", "ref: refs/heads/main\n")
	write(t, dir, "file", "")
	if err := checkSource(filepath.Join(dir, "bare"), false); err != nil {
		t.Error(err)
	}
	for name, say := range map[string]string{"tree": "work tree", "empty": "not a git repository",
		"file": "not a git repository", "none": "no such repository"} {
		if err := checkSource(filepath.Join(dir, name), false); codeOf(err) != exitMount ||
			!strings.Contains(err.Error(), say) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRedact(t *testing.T) {
	for in, want := range map[string]string{
		"push to https://joe:s3cret@host/x.git failed": "push to https://xxxxx@host/x.git failed",
		"https://token@host/x":                         "https://xxxxx@host/x",
		"a@b plain ssh://host/x":                       "a@b plain ssh://host/x",
	} {
		if got := redact(in); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
}

func TestStateDirectory(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "new", "state")
	s := must(openState(path))(t)
	st := must(os.Stat(path))(t)
	if st.Mode().Perm() != 0o700 {
		t.Errorf("mode %v", st.Mode())
	}
	if _, err := openState(path); codeOf(err) != exitMount {
		t.Errorf("a second daemon: %v", err)
	} else if inUse := new(inUseError); !errors.As(err, &inUse) || inUse.pid != os.Getpid() {
		t.Errorf("the message does not name the pid: %v", err)
	}
	write(t, path, "volume.json", "{}")
	noError(t, s.discard())
	if _, err := os.Stat(filepath.Join(dir, "new")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a failed mount leaves its directories: %v", err)
	}

	noError(t, os.MkdirAll(path, 0o755))
	write(t, path, "volume.json", "{}")
	s = must(openState(path))(t)
	noError(t, s.discard())
	if _, err := os.Stat(filepath.Join(path, "volume.json")); err != nil {
		t.Errorf("a failed mount took what was there before: %v", err)
	}
	must(openState(path))(t) // the lock is free again
}

// TestHalfMadeStateDirectory checks that a state directory is usable even if the power was cut before its first file
// got its name.
func TestHalfMadeStateDirectory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	noError(t, os.Mkdir(path, 0o700))
	write(t, path, warm.TempPrefix+"3125432794", "{")
	s := must(openState(path))(t)
	defer s.lock.Close()
	if _, err := os.Stat(filepath.Join(path, warm.TempPrefix+"3125432794")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the temporary file stays: %v", err)
	}
}

func TestStrangeStateDirectories(t *testing.T) {
	dir := t.TempDir()
	for name, say := range map[string]string{"home": "something else", "newer": "format 99",
		"file": "not a directory"} {
		path := filepath.Join(dir, name)
		if name == "file" {
			write(t, dir, name, "")
		} else if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
		switch name {
		case "home":
			write(t, path, "letter.txt", "dear")
		case "newer":
			write(t, path, "volume.json", `{"format": 99}`)
		}
		before := must(os.Stat(path))(t).Mode()
		if _, err := openState(path); codeOf(err) != exitMount || !strings.Contains(err.Error(), say) {
			t.Errorf("%s: %v", name, err)
		}
		if must(os.Stat(path))(t).Mode() != before {
			t.Errorf("%s: a refused directory changed its mode", name)
		}
	}
}

func TestDefaultState(t *testing.T) {
	none := func(string) string { return "" }
	a := must(defaultState(&config{Mountpoint: "/mnt/a", Source: "/srv/My repo.git", Branch: "main"}, true, none))(t)
	b := must(defaultState(&config{Mountpoint: "/mnt/b", Source: "/srv/My repo.git", Branch: "main"}, true, none))(t)
	c := must(defaultState(&config{Mountpoint: "/mnt/a", Source: "/srv/My repo.git", Branch: "dev"}, true, none))(t)
	d := must(defaultState(&config{Mountpoint: "/mnt/a"}, true, none))(t)
	if a != b || a == c || a == d || !strings.HasPrefix(a, "/var/lib/emberfs/My-repo-") {
		t.Errorf("one state a source and branch: %s %s %s %s", a, b, c, d)
	}
	xdg := func(k string) string { return map[string]string{"XDG_STATE_HOME": "/xdg", "HOME": "/home/u"}[k] }
	if u := must(defaultState(&config{Mountpoint: "/m"}, false, xdg))(t); !strings.HasPrefix(u, "/xdg/emberfs/m-") {
		t.Error(u)
	}
	home := func(k string) string { return map[string]string{"HOME": "/home/u"}[k] }
	if u := must(defaultState(&config{Mountpoint: "/m"}, false, home))(t); !strings.HasPrefix(u,
		"/home/u/.local/state/emberfs/m-") {
		t.Error(u)
	}
	if _, err := userStateHome(none); err != nil {
		t.Errorf("without HOME the account's home directory is asked for: %v", err)
	}
}

func TestReceiptFiles(t *testing.T) {
	state := t.TempDir()
	start := time.Now()
	if _, err := lastReceipt(state, start); err == nil {
		t.Error("a receipt out of nothing")
	}
	for i := range keepReceipts + 3 {
		noError(t, writeReceipt(state, &tiers.Receipt{Files: int64(i)}, start.Add(time.Duration(i)*time.Second)))
	}
	names := must(receiptNames(state))(t)
	if len(names) != keepReceipts {
		t.Errorf("%d receipts", len(names))
	}
	if r := must(lastReceipt(state, start.Add(-time.Minute)))(t); r.Files != keepReceipts+2 {
		t.Errorf("the last receipt: %+v", r)
	}
	if _, err := lastReceipt(state, time.Now().Add(time.Hour)); err == nil {
		t.Error("a receipt of an earlier unmount counts as this one's")
	}
}

func TestSummary(t *testing.T) {
	id := strings.Repeat("ab", 20)
	for _, c := range []struct {
		r    tiers.Receipt
		want string
	}{
		{tiers.Receipt{Complete: true, Took: 1500 * time.Microsecond}, "COMPLETE: the volume has no commit yet (2ms)"},
		{tiers.Receipt{Complete: true, Commit: id, New: true, Files: 1, Bytes: 2048},
			"COMPLETE: commit abababababab: 1 file, 2.0 KiB (0s)"},
		{tiers.Receipt{Complete: true, Commit: id, Pushed: true, Remote: "https://u:p@h/x"},
			"COMPLETE: nothing new since commit abababababab, pushed to https://xxxxx@h/x (0s)"},
		{tiers.Receipt{}, "INCOMPLETE: nothing was committed (0s)"},
		{tiers.Receipt{Commit: id, New: true, Files: 1234, Remote: "/r"},
			"INCOMPLETE: commit abababababab: 1,234 files, 0 B, NOT pushed to /r (0s)"},
	} {
		if got := summary(&c.r); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

func TestLogLines(t *testing.T) {
	line := func(c *config, journal bool, level logrus.Level, text string) string {
		var b bytes.Buffer
		newLogger(c, &b, journal).Log(level, text)
		return b.String()
	}
	text := &config{LogLevel: "info", LogFormat: "text"}
	if got := line(text, true, logrus.ErrorLevel, "push to https://joe:pw@h/x"); !strings.HasPrefix(got,
		"<3>level=error") || strings.Contains(got, "pw") {
		t.Error(got)
	}
	if got := line(text, true, logrus.InfoLevel, "x"); !strings.HasPrefix(got, "<6>") {
		t.Error(got)
	}
	if got := line(text, false, logrus.DebugLevel, "x"); got != "" {
		t.Error(got)
	}
	if got := line(&config{LogLevel: "debug", LogFormat: "json"}, false, logrus.DebugLevel, "x"); !strings.Contains(got,
		`"msg":"x"`) {
		t.Error(got)
	}
}

func TestOwnLogRotates(t *testing.T) {
	dir := t.TempDir()
	path := write(t, dir, logName, strings.Repeat("x", maxLog+1))
	f := must(openLog(path, true))(t)
	defer f.Close()
	if must(os.Stat(path))(t).Size() != 0 || must(os.Stat(path+".1"))(t).Size() != maxLog+1 {
		t.Error("the old log was not put aside")
	}
}

func TestJournalStream(t *testing.T) {
	f := must(os.Open(write(t, t.TempDir(), "f", "")))(t)
	defer f.Close()
	st := must(stat(f.Name()))(t)
	env := func(v string) func(string) string { return func(string) string { return v } }
	if isJournal(f, env("")) || isJournal(f, env("1:2")) || isJournal(f, env("x:y")) {
		t.Error("no journal")
	}
	if !isJournal(f, env(strings.Join([]string{itoa(st.Dev), itoa(st.Ino)}, ":"))) {
		t.Error("the journal was not recognised")
	}
}

// TestPublicSource: what the mount table shows has no token that stands for a user.
func TestPublicSource(t *testing.T) {
	for in, want := range map[string]string{"https://ghp_s3cret@h/x.git": "https://xxxxx@h/x.git",
		"http://u@h:80/x": "http://xxxxx@h:80/x", "https://h/x@y.git": "https://h/x@y.git", "git@h:x": "git@h:x",
		"ssh://git@h/x": "ssh://git@h/x", "/a@b/c": "/a@b/c", "": ""} {
		if got := publicSource(in); got != want {
			t.Errorf("%s: %s", in, got)
		}
	}
}
