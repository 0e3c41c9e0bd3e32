//go:build slow

package integration

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// offlineStatus is what status says of the remote.
func offlineStatus(v *volume) (offline string, contact time.Time) {
	v.t.Helper()
	raw := v.status().raw
	check(v.t, json.Unmarshal(raw["offline"], &offline))
	check(v.t, json.Unmarshal(raw["last_contact"], &contact))
	return offline, contact
}

// TestOfflineMount: a mount without its remote has what is on this machine, and its stderr, its log and status say how
// old that may be; it goes back to the remote by itself. With offline=refuse it fails and changes nothing.
func TestOfflineMount(t *testing.T) {
	t.Parallel()
	deadline(t, 3*time.Minute)
	repo := newBareRepo(t, "remote.git", user{})
	v := newVolume(t, "v", withSource(repo)).mount()
	check(t, os.WriteFile(v.at("f"), []byte("here"), 0o644))
	v.umount()
	away := repo + ".away"
	check(t, os.Rename(repo, away))

	note := func() string {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(v.state, "volume.json"))
		check(t, err)
		return string(b)
	}
	before := note()
	r := v.tryMount("--offline=refuse")
	if r.code != 32 || !strings.Contains(r.stderr, repo) || mountAt(v.mnt) != nil || note() != before {
		t.Errorf("offline=refuse: want exit 32 and nothing changed\n%v\n%s\n%s", r, before, note())
	}
	fresh := newVolume(t, "fresh", withSource(repo))
	if r := fresh.tryMount(); r.code != 32 || !strings.Contains(r.stderr, repo) {
		t.Errorf("with nothing here: want exit 32\n%v", r)
	} else if _, err := os.Stat(fresh.state); !os.IsNotExist(err) {
		t.Errorf("it left a state directory: %v", err)
	}

	r = v.tryMount()
	if r.code != 0 {
		t.Fatalf("%v", r)
	}
	v.mustBeMounted()
	wantFile(t, v.at("f"), "here", "the mount holds")
	log, err := os.ReadFile(v.logFile())
	check(t, err)
	said, contact := offlineStatus(v)
	for where, text := range map[string]string{"stderr": r.stderr, "log": string(log), "status": said} {
		for _, want := range []string{"offline: " + repo, "no such file", "the last commit here is of 2",
			"the remote last answered at 2"} {
			if !strings.Contains(text, want) {
				t.Errorf("%s does not say %q: %s", where, want, text)
			}
		}
	}
	if age := time.Since(contact); age < 0 || age > 3*time.Minute {
		t.Errorf("the last contact was %v ago", age)
	}
	check(t, os.WriteFile(v.at("g"), []byte("offline"), 0o644))
	if r := v.emberfs("sync", v.mnt); r.code != 3 {
		t.Errorf("sync without the remote: want exit 3\n%v", r)
	}
	check(t, os.Rename(away, repo))
	if !waitFor(time.Minute, func() bool { said, _ := offlineStatus(v); return said == "" }) {
		t.Error("it does not go back to the remote by itself")
	}
	v.umount()
	equal(t, show(t, repo, "main:g"), "offline", "the remote holds")
}

// TestOfflineSilent: a server that takes connections and never answers holds up a start for ten seconds, not for ever.
func TestOfflineSilent(t *testing.T) {
	t.Parallel()
	deadline(t, 3*time.Minute)
	repo := newBareRepo(t, "remote.git", user{})
	v := newVolume(t, "v", withSource(repo)).mount()
	check(t, os.WriteFile(v.at("f"), []byte("here"), 0o644))
	v.umount()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	defer l.Close()
	v.source = "http://" + l.Addr().String() + "/volume.git"
	for range 2 { // a killed one as well as one that was unmounted
		r := v.tryMount()
		if r.code != 0 || r.took < 5*time.Second || r.took > 25*time.Second ||
			!strings.Contains(r.stderr, "has not answered in time") {
			t.Fatalf("want a mount after ten seconds\n%v (%v)", r, r.took)
		}
		v.mustBeMounted()
		wantFile(t, v.at("f"), "here", "the mount holds")
		v.kill()
	}
	check(t, l.Close())
	r := v.tryMount() // nobody listens
	if r.code != 0 || r.took > 10*time.Second || !strings.Contains(r.stderr, "connection refused") {
		t.Fatalf("want a mount at once\n%v", r)
	}
	v.mustBeMounted()
	v.source = repo
}

// TestOfflineMovedOn: a volume that was mounted without its remote, which has moved on meanwhile, says so when the
// remote is back, and the next mount has what the other machine pushed.
func TestOfflineMovedOn(t *testing.T) {
	t.Parallel()
	deadline(t, 3*time.Minute)
	repo := newBareRepo(t, "remote.git", user{})
	v := newVolume(t, "v", withSource(repo)).mount()
	check(t, os.WriteFile(v.at("f"), []byte("here"), 0o644))
	v.umount()
	other := newVolume(t, "other", withSource(repo)).mount()
	check(t, os.WriteFile(other.at("g"), []byte("theirs"), 0o644))
	other.umount()
	away := repo + ".away"
	check(t, os.Rename(repo, away))
	v.mount()
	check(t, os.Rename(away, repo))
	if !waitFor(time.Minute, func() bool {
		return strings.Contains(strings.Join(v.status().Errors, "\n"), "mount it again")
	}) {
		t.Errorf("status does not say that the remote has moved on: %q", v.status().Errors)
	}
	v.emberfs("umount", v.mnt)
	v.waitGone()
	v.mount()
	wantFile(t, v.at("g"), "theirs", "the next mount holds")
	v.umount()
}

// TestInit: a repository that lacks the branch, or is not there, is taken for an empty volume only with init; a mount
// that fails leaves nothing behind.
func TestInit(t *testing.T) {
	t.Parallel()
	deadline(t, 2*time.Minute)
	repo := newBareRepo(t, "remote.git", user{})
	newVolume(t, "first", withSource(repo)).mount().writeAndUmount("f")
	wrong := newVolume(t, "wrong", withSource(repo), withOpts("branch=mian"))
	r := wrong.tryMount()
	for _, want := range []string{"mian", "it has main", "--branch", "--init"} {
		if r.code != 32 || !strings.Contains(r.stderr, want) {
			t.Errorf("a branch that is not there: want exit 32 and %q\n%v", want, r)
		}
	}
	if _, err := os.Stat(wrong.state); !os.IsNotExist(err) || mountAt(wrong.mnt) != nil {
		t.Errorf("it left something: %v", err)
	}
	wrong.mount("--init").writeAndUmount("g")
	equal(t, show(t, repo, "mian:g"), "g", "the new branch has")
	wrong.mount() // it is there now
	wrong.umount()

	path := filepath.Join(testDir(t), "new", "volume.git")
	made := newVolume(t, "made", withSource(path))
	if r := made.tryMount(); r.code != 32 || !strings.Contains(r.stderr, "no such repository") {
		t.Errorf("a path that is not there: want exit 32\n%v", r)
	}
	made.opts = []string{"init"} // as fstab has it
	made.mount()
	must(t, "/", made.bin, "mount", path, made.mnt, "-o", "remount,init,offline=refuse")
	made.writeAndUmount("h")
	equal(t, show(t, path, "main:h"), "h", "the new repository has")
	fsck(t, path)
	// The volume is here: a lost repository is not begun anew.
	check(t, os.RemoveAll(path))
	made.mount()
	if said, _ := offlineStatus(made); !strings.Contains(said, path) {
		t.Errorf("status does not say that the repository is gone: %q", said)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the repository is back: %v", err)
	}
}

// writeAndUmount writes a file with its name as its content, and unmounts.
func (v *volume) writeAndUmount(name string) {
	v.t.Helper()
	check(v.t, os.WriteFile(v.at(name), []byte(name), 0o644))
	v.umount()
}

// TestBranchDeleted: a branch that was deleted on the remote while the volume is here comes back, and the log says so.
func TestBranchDeleted(t *testing.T) {
	t.Parallel()
	deadline(t, time.Minute)
	repo := newBareRepo(t, "remote.git", user{})
	v := newVolume(t, "v", withSource(repo)).mount()
	v.writeAndUmount("f")
	must(t, repo, "git", "branch", "other", "main")
	must(t, repo, "git", "update-ref", "-d", "refs/heads/main")
	v.mount()
	log, err := os.ReadFile(v.logFile())
	check(t, err)
	if !strings.Contains(string(log), "branch main was deleted") {
		t.Errorf("the log does not say it: %s", log)
	}
	v.umount()
	equal(t, show(t, repo, "main:f"), "f", "the branch that is back has")
}
