//go:build slow

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// badCase is a command that must fail with a clear message and change nothing.
type badCase struct {
	name  string
	as    user
	setUp func(t *testing.T, v *volume)
	args  []string // default: the volume's own mount command
	code  int
	says  []string // what the message must contain
}

func badCases() []badCase {
	opts := func(o ...string) func(*testing.T, *volume) { return func(_ *testing.T, v *volume) { v.opts = o } }
	return []badCase{
		{name: "mountpoint missing", code: 32, says: []string{"MNT", "does not exist"},
			setUp: func(t *testing.T, v *volume) { check(t, os.Remove(v.mnt)) }},
		{name: "mountpoint is a file", code: 32, says: []string{"MNT", "not a directory"},
			setUp: func(t *testing.T, v *volume) {
				check(t, os.Remove(v.mnt))
				check(t, os.WriteFile(v.mnt, nil, 0o644))
			}},
		{name: "mountpoint not empty", code: 32, says: []string{"MNT", "not empty", "nonempty"},
			setUp: func(t *testing.T, v *volume) {
				check(t, os.WriteFile(v.at("f"), nil, 0o644))
			}},
		{name: "already a mount", code: 32, says: []string{"MNT", "mount"}, setUp: func(t *testing.T, v *volume) {
			check(t, unix.Mount("none", v.mnt, "tmpfs", 0, ""))
			t.Cleanup(func() { _ = unix.Unmount(v.mnt, unix.MNT_DETACH) })
		}},
		{name: "mountpoint below the state directory", code: 32, says: []string{"state"},
			setUp: func(t *testing.T, v *volume) {
				v.mnt = filepath.Join(v.dir, "mnt", "sub")
				v.state = filepath.Join(v.dir, "mnt")
				check(t, os.Mkdir(v.mnt, 0o755))
			}},
		{name: "state directory below the mountpoint", code: 32, says: []string{"state"},
			setUp: func(_ *testing.T, v *volume) { v.state = filepath.Join(v.mnt, "state") }},
		{name: "state directory is the mountpoint", code: 32, says: []string{"state"},
			setUp: func(_ *testing.T, v *volume) { v.state = v.mnt }},
		{name: "source below the mountpoint", code: 32, says: []string{"MNT"}, setUp: func(t *testing.T, v *volume) {
			v.opts = []string{"nonempty"}
			v.source = filepath.Join(v.mnt, "repo.git")
			must(t, "/", "git", "init", "-q", "--bare", v.source)
		}},
		{name: "unknown option", code: 2, says: []string{"memroy_limit"}, setUp: opts("memroy_limit=1GB")},
		{name: "bad size", code: 2, says: []string{"memory_limit", "lots"}, setUp: opts("memory_limit=lots")},
		{name: "negative size", code: 2, says: []string{"memory_limit"}, setUp: opts("memory_limit=-5MB")},
		{name: "bad time", code: 2, says: []string{"backup_interval", "soon"}, setUp: opts("backup_interval=soon")},
		{name: "bad switch", code: 2, says: []string{"kernel_cache", "maybe"}, setUp: opts("kernel_cache=maybe")},
		{name: "unknown flag", code: 2, says: []string{"nonsense"}, args: []string{"mount", "MNT", "--nonsense"}},
		{name: "unknown command", code: 2, says: []string{"frobnicate"}, args: []string{"frobnicate"}},
		{name: "no mountpoint", code: 2, args: []string{"mount"}},
		{name: "too many arguments", code: 2, args: []string{"mount", "a", "b", "c"}},
		{name: "source missing", code: 32, says: []string{"nowhere"}, setUp: func(_ *testing.T, v *volume) {
			v.source = filepath.Join(v.dir, "nowhere.git")
		}},
		{name: "source is not a repository", code: 32, says: []string{"DIR/plain"},
			setUp: func(_ *testing.T, v *volume) {
				v.source = mkdir(t0(v), filepath.Join(v.dir, "plain"), v.as)
			}},
		{name: "source is a file", code: 32, says: []string{"DIR/file"}, setUp: func(t *testing.T, v *volume) {
			v.source = filepath.Join(v.dir, "file")
			check(t, os.WriteFile(v.source, nil, 0o644))
		}},
		{name: "source without permission", as: plainUser(), code: 32, says: []string{"permission"},
			setUp: func(t *testing.T, v *volume) {
				v.source = filepath.Join(v.dir, "closed.git")
				must(t, "/", "git", "init", "-q", "--bare", v.source)
				check(t, os.Chmod(v.source, 0o700))
			}},
		{name: "state directory without permission", as: plainUser(), code: 32, says: []string{"permission"},
			setUp: func(t *testing.T, v *volume) {
				v.state = filepath.Join(mkdir(t, filepath.Join(v.dir, "closed"), user{}), "state")
			}},
		{name: "mountpoint of somebody else", as: plainUser(), code: 32, says: []string{"MNT"},
			setUp: func(t *testing.T, v *volume) {
				check(t, os.Chown(v.mnt, 0, 0))
			}},
		{name: "newer format", code: 32, says: []string{"newer"}, setUp: func(t *testing.T, v *volume) {
			v.mount()
			check(t, os.WriteFile(v.at("f"), []byte("x"), 0o644))
			v.umount()
			must(t, v.state, "sed", "-i", "-E", `s/("(format|version|format_version)": *)1/\1999/`, "volume.json")
			if b, err := os.ReadFile(filepath.Join(v.state, "volume.json")); err != nil ||
				!strings.Contains(string(b), "999") {
				t.Fatalf("volume.json has no format version to change: %s %v", b, err)
			}
		}},
		{name: "repository of a newer format", code: 32, says: []string{"newer"}, setUp: newerRepository},
		{name: "sha256 repository", code: 32, says: []string{"sha256"}, setUp: func(t *testing.T, v *volume) {
			v.source = filepath.Join(v.dir, "sha256.git")
			must(t, "/", "git", "init", "-q", "--bare", "--object-format=sha256", v.source)
		}},
		{name: "umount of no mount", code: 1, args: []string{"umount", "MNT"}, says: []string{"MNT"}},
		{name: "sync of no mount", code: 1, args: []string{"sync", "MNT"}, says: []string{"MNT"}},
		{name: "restore without --to", code: 2, args: []string{"restore", "--from", "DIR"}, says: []string{"to"}},
		{name: "restore from nothing", code: 1, args: []string{"restore", "--from", "DIR/nowhere", "--to", "DIR/new"},
			says: []string{"nowhere"}},
	}
}

func t0(v *volume) testing.TB { return v.t }

// newerRepository makes a source whose commit says that its format is version 999.
func newerRepository(t *testing.T, v *volume) {
	work := filepath.Join(v.dir, "work")
	v.source = filepath.Join(v.dir, "newer.git")
	first := newVolume(t, "first", withSource(newBareRepo(t, "first.git", user{}))).mount()
	check(t, os.WriteFile(first.at("f"), []byte("x"), 0o644))
	first.umount()
	must(t, "/", "git", "clone", "-q", first.source, work)
	must(t, work, "sed", "-i", "-E", `s/("(format|version)": *)1/\1999/`, ".emberfs/volume.json")
	must(t, work, "git", "commit", "-qam", "newer")
	must(t, "/", "git", "clone", "-q", "--bare", work, v.source)
}

// TestBadInput: each mistake gets a clear message, its exit code, and changes nothing.
func TestBadInput(t *testing.T) {
	for _, b := range badCases() {
		t.Run(b.name, func(t *testing.T) {
			deadline(t, time.Minute)
			v := newVolume(t, "v", withUser(b.as))
			if b.setUp != nil {
				b.setUp(t, v)
			}
			fill := strings.NewReplacer("MNT", v.mnt, "DIR", v.dir)
			before := listing(t, v.dir)
			var r result
			if b.args == nil {
				r = v.tryMount()
			} else {
				var args []string
				for _, a := range b.args {
					args = append(args, fill.Replace(a))
				}
				r = v.emberfs(args...)
			}
			expectFailure(t, r, b.code)
			for _, s := range b.says {
				if !strings.Contains(strings.ToLower(r.stderr), strings.ToLower(fill.Replace(s))) {
					t.Errorf("the message does not say %q: %s", fill.Replace(s), r.stderr)
				}
			}
			equal(t, listing(t, v.dir), before, "something changed:\nbefore\n%s\nafter", before)
			if m := mountAt(v.mnt); m != nil && m.fstype != "tmpfs" {
				t.Errorf("mounted all the same: %+v", *m)
			}
		})
	}
}

// expectFailure requires the exit code and one message, no stack and no usage page.
func expectFailure(t testing.TB, r result, code int) {
	t.Helper()
	if r.code != code {
		t.Errorf("want exit %d\n%v", code, r)
	}
	if !strings.HasPrefix(r.stderr, "emberfs: ") || strings.Contains(r.stderr, "goroutine ") ||
		strings.Count(strings.TrimSpace(r.stderr), "\n") > 2 {
		t.Errorf("not a clear message: %q", r.stderr)
	}
	for _, line := range strings.Split(strings.TrimSpace(r.stderr), "\n") {
		if strings.TrimSpace(strings.TrimPrefix(line, "emberfs:")) == "" {
			t.Errorf("an empty line in the message: %q", r.stderr)
		}
	}
}

// listing shows names, types, sizes and times of all below dir but logs.
func listing(t testing.TB, dir string) string {
	t.Helper()
	return shell(t, dir, `find . -mindepth 1 ! -name '*.log' ! -path './run*' -printf '%p %y %s %T@\n' | sort`)
}

// TestStateInUse: a second daemon on the same volume is refused with the process that holds it.
func TestStateInUse(t *testing.T) {
	deadline(t, time.Minute)
	one := newVolume(t, "one").mount()
	two := newVolume(t, "two", withState(one.state))
	r := two.tryMount()
	expectFailure(t, r, 32)
	if !strings.Contains(r.stderr, fmt.Sprint(one.daemon())) {
		t.Errorf("the message does not name process %d: %s", one.daemon(), r.stderr)
	}
	check(t, os.WriteFile(one.at("f"), []byte("x"), 0o644))
	r = one.tryMount()
	expectFailure(t, r, 32)
	one.umount()
}

// TestNonempty: -o nonempty mounts over files, which are back afterwards.
func TestNonempty(t *testing.T) {
	deadline(t, time.Minute)
	v := newVolume(t, "v", withOpts("nonempty"))
	check(t, os.WriteFile(v.at("below"), []byte("x"), 0o644))
	v.mount()
	if _, err := os.Stat(v.at("below")); !os.IsNotExist(err) {
		t.Errorf("what lies below the mount shows: %v", err)
	}
	v.umount()
	if _, err := os.Stat(v.at("below")); err != nil {
		t.Error(err)
	}
}

// TestNoFuse: without /dev/fuse, and for a user without fusermount3, the message says what to install or allow.
func TestNoFuse(t *testing.T) {
	deadline(t, time.Minute)
	hide := func(v *volume, as user, script string) result {
		args := append([]string{"unshare", "-m", "sh", "-euc", script + `; exec "$@"`, "sh"}, v.mountArgs()...)
		if !as.isRoot() {
			args = append([]string{"unshare", "-m", "sh", "-euc",
				script + `; exec setpriv --reuid=1 --regid=1 --clear-groups "$@"`, "sh"}, v.mountArgs()...)
		}
		return command{args: args, env: v.userEnv()}.run(t)
	}
	v := newVolume(t, "nodev")
	r := hide(v, user{}, "mount -t tmpfs none /dev")
	expectFailure(t, r, 32)
	if !strings.Contains(r.stderr, "/dev/fuse") {
		t.Errorf("the message does not name /dev/fuse: %s", r.stderr)
	}
	u := plainUser()
	v = newVolume(t, "nohelper", withUser(u))
	empty := filepath.Join(testDir(t), "empty")
	check(t, os.WriteFile(empty, nil, 0o644))
	r = hide(v, u, `for f in /bin/fusermount3 /usr/bin/fusermount3; do mount --bind `+empty+` $f; done`)
	expectFailure(t, r, 32)
	if !strings.Contains(r.stderr, "fusermount3") {
		t.Errorf("the message does not name fusermount3: %s", r.stderr)
	}
}
