package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// tierReport is what `emberfs tier --json` prints.
type tierReport struct {
	Reason            string
	Time              time.Time
	Files, Bytes, Hot int64
	Kept              map[string]int64
}

// fileReport is what `emberfs status PATH --json` prints.
type fileReport struct {
	Mountpoint, Path, Kind, Class, Object, Commit, Why string

	Size                int64
	Tiers               []string
	Clean, Pushed, Safe bool
	Open                int
	Used                time.Time
}

// onlyByCommand lets nothing move by itself, so that a test says when.
func onlyByCommand() volumeOption { return withOpts("tier_interval=none", "prefetch=off") }

// tier runs `emberfs tier` and requires success.
func (v *volume) tier(paths ...string) tierReport {
	v.t.Helper()
	r := v.emberfs(append([]string{"tier", "--json", v.mnt}, paths...)...)
	if r.code != 0 {
		v.t.Fatalf("%v", r)
	}
	var out tierReport
	if err := json.Unmarshal([]byte(r.stdout), &out); err != nil {
		v.t.Fatalf("tier --json: %v\n%v", err, r)
	}
	return out
}

// file asks where one file of the mount is.
func (v *volume) file(name string) fileReport {
	v.t.Helper()
	r := v.emberfs("status", "--json", v.at(name))
	var out fileReport
	if err := json.Unmarshal([]byte(r.stdout), &out); err != nil || r.code != 0 {
		v.t.Fatalf("status PATH --json: %v\n%v", err, r)
	}
	return out
}

// release makes stubs of everything and requires that nothing stays.
func (v *volume) release() {
	v.t.Helper()
	v.sync()
	r := v.tier()
	delete(r.Kept, "has file capabilities") // making a hole would take them away
	if len(r.Kept) > 0 {
		v.t.Fatalf("some files stay in warm: %+v", r)
	}
}

func (v *volume) remount() {
	v.t.Helper()
	v.umount()
	v.mount()
}

// warmUse is what du says of warm, in bytes.
func (v *volume) warmUse() int64 {
	v.t.Helper()
	n, err := strconv.ParseInt(strings.Fields(must(v.t, "/", "du", "-s", "--block-size=1",
		filepath.Join(v.state, "warm")))[0], 10, 64)
	check(v.t, err)
	return n
}

// inWarm says whether the bytes of a file that has some are in warm.
func (v *volume) inWarm(name string) bool {
	v.t.Helper()
	var st unix.Stat_t
	check(v.t, unix.Lstat(filepath.Join(v.state, "warm", name), &st))
	const attributes = 8 // an attribute block, where the record does not fit into the inode
	return st.Blocks > attributes
}

// fetched says how many pages of 4 KiB cold had to read for f.
func (v *volume) fetched(f func()) int64 {
	v.t.Helper()
	before := v.status().Tiers.Cold.Hits
	f()
	return int64(v.status().Tiers.Cold.Hits - before)
}

// fetchesNothing requires that f needs no content from cold.
func (v *volume) fetchesNothing(what string, f func()) {
	v.t.Helper()
	if n := v.fetched(f); n != 0 {
		v.t.Errorf("%s read %d pages from cold", what, n)
	}
}

// fill writes n files of a size below the mount and gives their contents by name.
func (v *volume) fill(dir string, n, size int) map[string]string {
	v.t.Helper()
	check(v.t, os.MkdirAll(v.at(dir), 0o755))
	content := map[string]string{}
	for i := range n {
		name := fmt.Sprintf("%s/f%d", dir, i)
		content[name] = string(opBytes(name, size))
		check(v.t, os.WriteFile(v.at(name), []byte(content[name]), 0o644))
	}
	return content
}

func (v *volume) holds(content map[string]string) {
	v.t.Helper()
	for name, want := range content {
		if got, err := os.ReadFile(v.at(name)); err != nil || string(got) != want {
			v.t.Errorf("%s: %d bytes of %d, or others; %v", name, len(got), len(want), err)
		}
	}
}

// TestTierRelease: after `emberfs sync` and `emberfs tier` warm has less than 1% of the bytes, and they are all there.
func TestTierRelease(t *testing.T) {
	deadline(t, time.Minute)
	v := newVolume(t, "v", withSource(newBareRepo(t, "remote.git", user{})), onlyByCommand()).mount()
	const files, size = 40, 512 << 10
	content := v.fill("d", files, size)
	before := v.warmUse()
	v.sync()
	r := v.tier()
	if r.Files != files || r.Bytes < files*size || len(r.Kept) != 0 || r.Reason != "command" {
		t.Errorf("tier: %+v", r)
	}
	if after := v.warmUse(); before < files*size || after*100 >= files*size {
		t.Errorf("warm uses %d bytes, %d before", after, before)
	}
	st := v.status()
	if w := st.Tiers.Warm; w.Stubs != files || w.Released != files || w.Files != 0 || w.Bytes != 0 ||
		w.LastTick == nil || st.AtRisk.Files != 0 {
		t.Errorf("status: %+v, at risk %+v", w, st.AtRisk)
	}
	if again := v.tier(); again.Files != 0 {
		t.Errorf("there is nothing left to release: %+v", again)
	}
	v.holds(content)
	v.remount()
	if pages := v.fetched(func() { v.holds(content) }); pages < files*size/4096 {
		t.Errorf("%d pages came from cold", pages)
	}
	v.umount()
	fsck(t, v.source)
}

// TestTierCommitsFirst: what is dirty is backed up and then leaves, without a sync by hand.
func TestTierCommitsFirst(t *testing.T) {
	deadline(t, time.Minute)
	v := newVolume(t, "v", withSource(newBareRepo(t, "remote.git", user{})), onlyByCommand()).mount()
	content := v.fill("d", 3, 100_000)
	if r := v.tier(); r.Files != 3 {
		t.Errorf("%+v", r)
	}
	if st := v.status(); st.AtRisk.Files != 0 || st.LastPush == nil {
		t.Errorf("at risk %+v, pushed %+v", st.AtRisk, st.LastPush)
	}
	v.remount()
	v.holds(content)
	v.umount()
}

// TestTierPaths: only what is named leaves.
func TestTierPaths(t *testing.T) {
	deadline(t, time.Minute)
	v := newVolume(t, "v", onlyByCommand()).mount()
	v.fill("a", 2, 100_000)
	v.fill("b", 2, 100_000)
	check(t, os.WriteFile(v.at("odd \xff\nname"), opBytes("odd", 100_000), 0o644))
	if r := v.tier(v.at("a/f0"), "b", v.at("odd \xff\nname")); r.Files != 4 {
		t.Errorf("%+v", r)
	}
	for name, want := range map[string]bool{"a/f0": false, "a/f1": true, "b/f0": false, "b/f1": false,
		"odd \xff\nname": false} {
		if v.inWarm(name) != want {
			t.Errorf("%q in warm: want %v", name, want)
		}
	}
	v.umount()
}

// TestTierKeepsOpenFiles: a file that somebody has open stays, and is named as such; once closed it goes.
func TestTierKeepsOpenFiles(t *testing.T) {
	deadline(t, time.Minute)
	v := newVolume(t, "v", onlyByCommand()).mount()
	v.fill("d", 3, 100_000)
	v.sync()
	for _, flags := range []int{unix.O_RDONLY, unix.O_RDWR} {
		fd, err := unix.Open(v.at("d/f0"), flags, 0)
		check(t, err)
		if r := v.tier(); r.Kept["open"] != 1 || !v.inWarm("d/f0") {
			t.Errorf("open by %#x: %+v", flags, r)
		}
		if st := v.file("d/f0"); st.Open == 0 {
			t.Errorf("status of an open file: %+v", st)
		}
		check(t, unix.Close(fd))
	}
	// RELEASE comes some time after close has returned
	if !waitFor(10*time.Second, func() bool { v.tier(); return !v.inWarm("d/f0") }) {
		t.Error("it stays although nobody has it open")
	}
	v.umount()
}

// TestTierExitCodes: 2 for mistakes, 1 where nothing was done, 3 where files stay because they are not safe.
func TestTierExitCodes(t *testing.T) {
	deadline(t, time.Minute)
	repo := newBareRepo(t, "remote.git", user{})
	v := newVolume(t, "v", withSource(repo), onlyByCommand()).mount()
	v.fill("d", 2, 100_000)
	for _, c := range []struct {
		code int
		args []string
		say  string
	}{
		{2, nil, "MOUNTPOINT"},
		{2, []string{v.mnt, "/etc/passwd"}, "/etc/passwd"},
		{2, []string{v.at("d")}, v.mnt},
		{1, []string{v.mnt, v.at("d/missing")}, "missing"},
		{1, []string{"/etc"}, "no emberfs"},
	} {
		if r := v.emberfs(append([]string{"tier"}, c.args...)...); r.code != c.code ||
			!strings.Contains(r.stderr, c.say) {
			t.Errorf("want exit %d and %q\n%v", c.code, c.say, r)
		}
	}
	check(t, os.Rename(repo, repo+".away"))
	r := v.emberfs("tier", v.mnt)
	if r.code != 3 || r.stderr == "" || !v.inWarm("d/f0") {
		t.Errorf("a push that fails: want exit 3 and the file in warm\n%v", r)
	}
	if st := v.file("d/f0"); st.Safe || st.Why == "" || st.Pushed {
		t.Errorf("status of a file that is not pushed: %+v", st)
	}
	check(t, os.Rename(repo+".away", repo))
	if r := v.emberfs("tier", v.mnt); r.code != 0 || !strings.Contains(r.stdout, "released 2 files") {
		t.Errorf("%v", r)
	}
	v.umount()
}

// TestFileStatus: `emberfs status PATH` follows a file through its life, and is no use of it.
func TestFileStatus(t *testing.T) {
	deadline(t, time.Minute)
	v := newVolume(t, "v", withSource(newBareRepo(t, "remote.git", user{})), onlyByCommand()).mount()
	v.fill("d", 1, 100_000)
	check(t, os.Symlink("d/f0", v.at("link")))
	is := func(stage string, ok bool) {
		t.Helper()
		if !ok {
			t.Errorf("%s: %+v", stage, v.file("d/f0"))
		}
	}
	st := v.file("d/f0")
	is("new", st.Mountpoint == v.mnt && st.Path == "d/f0" && st.Size == 100_000 && slices.Contains(st.Tiers, "warm") &&
		!slices.Contains(st.Tiers, "cold") &&
		!st.Clean && !st.Safe && st.Why != "" && st.Commit == "" && st.Object == "" && !st.Used.IsZero())
	v.sync()
	id := func(rev string) string {
		return strings.TrimSpace(must(t, "/", "git", "-C", v.source, "rev-parse", rev))
	}
	tip, object := id("main"), id("main:d/f0")
	st = v.file("d/f0")
	is("committed", st.Clean && st.Safe && st.Pushed && st.Why == "" && st.Commit == tip && st.Object == object &&
		slices.Contains(st.Tiers, "warm") && slices.Contains(st.Tiers, "cold"))
	v.tier()
	v.remount()
	st = v.file("d/f0")
	is("released", st.Clean && st.Safe && st.Object == object && slices.Equal(st.Tiers, []string{"cold"}) &&
		st.Used.IsZero() && st.Open == 0)
	check(t, os.WriteFile(v.at("d/f0"), []byte("new"), 0o644))
	st = v.file("d/f0")
	is("written again", !st.Clean && !st.Safe && st.Why != "" && st.Size == 3 && slices.Contains(st.Tiers, "warm"))
	if link := v.file("link"); link.Path != "link" || link.Kind == st.Kind || link.Size != 4 {
		t.Errorf("a symlink is shown itself: %+v", link)
	}
	if dir := v.file("d"); dir.Clean || dir.Kind == st.Kind {
		t.Errorf("a directory above a change: %+v", dir)
	}
	if r := v.emberfs("status", v.at("d/f0")); r.code != 0 || !strings.Contains(r.stdout, "d/f0") ||
		!strings.Contains(r.stdout, "NO: ") {
		t.Errorf("for people\n%v", r)
	}
	if r := v.emberfs("status", v.at("d/none")); r.code != 1 || !strings.Contains(r.stderr, "d/none") {
		t.Errorf("a missing file\n%v", r)
	}
	v.umount()
}

// TestTieringOffForUsers: without records there are no stubs; status and `emberfs tier` say so, and nothing is lost.
func TestTieringOffForUsers(t *testing.T) {
	deadline(t, time.Minute)
	u := plainUser()
	repo := newBareRepo(t, "remote.git", u)
	v := newVolume(t, "v", withUser(u), withSource(repo), withOpts("warm_age=1s", "tier_interval=200ms")).mount()
	content := string(opBytes("f", 100_000))
	check(t, asUser(u, func() error { return os.WriteFile(v.at("f"), []byte(content), 0o600) }))
	if st := v.status(); !strings.Contains(strings.Join(st.Notes, "\n"), "tiering is off") {
		t.Errorf("status says %q", st.Notes)
	}
	if r := v.emberfs("tier", v.mnt); r.code != 1 || !strings.Contains(r.stderr, "tier") || !v.inWarm("f") {
		t.Errorf("%v", r)
	}
	v.umount()
	two := newVolume(t, "two", withUser(u), withSource(repo)).mount()
	if !two.inWarm("f") {
		t.Error("a restore without records leaves bytes in cold")
	}
	check(t, asUser(u, func() error {
		got, err := os.ReadFile(two.at("f"))
		if err == nil && string(got) != content {
			err = errors.New("other content")
		}
		return err
	}))
	two.umount()
}

// TestTieringSetOff: tiering=off keeps files where they are and brings everything at mount.
func TestTieringSetOff(t *testing.T) {
	deadline(t, time.Minute)
	repo := newBareRepo(t, "remote.git", user{})
	v := newVolume(t, "v", withSource(repo), withOpts("tiering=off")).mount()
	content := v.fill("d", 5, 100_000)
	v.sync()
	if r := v.emberfs("tier", v.mnt); r.code != 1 || !strings.Contains(r.stderr, "tiering") || !v.inWarm("d/f0") {
		t.Errorf("%v", r)
	}
	v.umount()
	two := newVolume(t, "two", withSource(repo), withOpts("tiering=off")).mount()
	for name := range content {
		if !two.inWarm(name) {
			t.Errorf("%s is not in warm after the mount", name)
		}
	}
	two.fetchesNothing("reading with everything in warm", func() { two.holds(content) })
	if st := two.status(); st.Tiers.Warm.Stubs != 0 || st.Tiers.Warm.Unlisted != 0 {
		t.Errorf("%+v", st.Tiers.Warm)
	}
	two.umount()
}

// stubs lists regular files with bytes below warm that are not there.
func (v *volume) stubs() []string {
	v.t.Helper()
	var out []string
	warm := filepath.Join(v.state, "warm")
	check(v.t, filepath.WalkDir(warm, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		if fi, err := d.Info(); err != nil || fi.Size() < 8192 {
			return err
		}
		if rel := strings.TrimPrefix(p, warm+"/"); !v.inWarm(rel) {
			out = append(out, rel)
		}
		return nil
	}))
	return out
}
