//go:build slow

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// quickAges lets everything that is not used for a second leave warm, and commits what is dirty every second.
func quickAges() volumeOption {
	return withOpts("hot_age=500ms", "warm_age=1s", "tier_interval=200ms", "backup_interval=1s", "prefetch=off")
}

// leaves waits until a file has left warm by itself.
func (v *volume) leaves(name string) bool {
	v.t.Helper()
	return waitFor(30*time.Second, func() bool { return !v.inWarm(name) })
}

// TestAgedFilesLeave: closed and unused files become stubs by themselves, and say so in status.
func TestAgedFilesLeave(t *testing.T) {
	deadline(t, 2*time.Minute)
	v := newVolume(t, "v", withSource(newBareRepo(t, "remote.git", user{})), quickAges()).mount()
	content := v.fill("d", 20, 100_000)
	for name := range content {
		if !v.leaves(name) {
			t.Errorf("%s is still in warm", name)
		}
	}
	st := v.status()
	if w := st.Tiers.Warm; w.Released < 20 || w.LastTick == nil || w.LastTick.Reason != "age" || st.AtRisk.Files != 0 {
		t.Errorf("status: %+v, at risk %+v", w, st.AtRisk)
	}
	v.holds(content)
	v.umount()
	fsck(t, v.source)
}

// TestAgeKeepsOpenFiles: what is open stays, for reading, writing or by a mapping, while the others go.
func TestAgeKeepsOpenFiles(t *testing.T) {
	deadline(t, 2*time.Minute)
	v := newVolume(t, "v", quickAges()).mount()
	v.fill("d", 4, 100_000)
	r, err := os.Open(v.at("d/f0"))
	check(t, err)
	w, err := os.OpenFile(v.at("d/f1"), os.O_RDWR, 0)
	check(t, err)
	fd, err := unix.Open(v.at("d/f2"), unix.O_RDWR, 0)
	check(t, err)
	m, err := unix.Mmap(fd, 0, 100_000, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	check(t, err)
	check(t, unix.Close(fd))
	if !v.leaves("d/f3") {
		t.Error("the closed file stays")
	}
	v.fill("later", 1, 100_000) // which goes through a whole age from now on
	if !v.leaves("later/f0") {
		t.Error("the closed file of later stays")
	}
	for _, name := range []string{"d/f0", "d/f1", "d/f2"} {
		if !v.inWarm(name) {
			t.Errorf("%s has left although it is in use", name)
		}
	}
	copy(m[5000:], "through the mapping")
	_, err = w.WriteAt([]byte("written"), 99_000)
	check(t, err)
	check(t, unix.Munmap(m))
	check(t, w.Close())
	check(t, r.Close())
	for _, name := range []string{"d/f0", "d/f1", "d/f2"} {
		if !v.leaves(name) {
			t.Errorf("%s stays after it was closed", name)
		}
	}
	for name, want := range map[string]string{"d/f2": "through the mapping", "d/f1": "written"} {
		at := map[string]int{"d/f2": 5000, "d/f1": 99_000}[name]
		if got, err := os.ReadFile(v.at(name)); err != nil || string(got[at:at+len(want)]) != want {
			t.Errorf("%s lacks what was written while it was kept, %v", name, err)
		}
	}
	v.umount()
}

// TestAgeKeepsDirtyFiles: what no commit has stays in warm however old it is; once backed up it goes.
func TestAgeKeepsDirtyFiles(t *testing.T) {
	deadline(t, 2*time.Minute)
	v := newVolume(t, "v", quickAges(), withOpts("backup_interval=1h")).mount()
	v.fill("old", 1, 100_000)
	v.sync()
	v.fill("dirty", 1, 100_000)
	_, err := os.ReadFile(v.at("old/f0")) // so that it is used later than the dirty one
	check(t, err)
	if !v.leaves("old/f0") {
		t.Error("the committed file stays")
	}
	if !v.inWarm("dirty/f0") {
		t.Error("the only copy of a file has left warm")
	}
	v.sync()
	if !v.leaves("dirty/f0") {
		t.Error("it stays after it was committed")
	}
	v.umount()
}

// TestUnpushedFilesStay: with a source that does not answer nothing leaves warm, however old.
func TestUnpushedFilesStay(t *testing.T) {
	deadline(t, 2*time.Minute)
	repo := newBareRepo(t, "remote.git", user{})
	v := newVolume(t, "v", withSource(repo), quickAges()).mount()
	v.fill("pushed", 1, 100_000)
	v.sync()
	if !v.leaves("pushed/f0") {
		t.Error("the pushed file stays")
	}
	check(t, os.Rename(repo, repo+".away"))
	v.fill("unpushed", 1, 100_000)
	if r := v.emberfs("sync", v.mnt); r.code != 3 {
		t.Errorf("want exit 3\n%v", r)
	}
	if v.emberfs("tier", v.mnt); !v.inWarm("unpushed/f0") {
		t.Error("a file that the remote does not have has left warm")
	}
	check(t, os.Rename(repo+".away", repo))
	v.sync()
	if !v.leaves("unpushed/f0") {
		t.Error("it stays after it was pushed")
	}
	v.umount()
}

// TestReadAgainReturns: a stub that is read again and again comes back to warm in the background.
func TestReadAgainReturns(t *testing.T) {
	deadline(t, 2*time.Minute)
	v := newVolume(t, "v", onlyByCommand(), withOpts("kernel_cache=off")).mount()
	content := v.fill("d", 3, 100_000)
	v.release()
	v.remount()
	if !waitFor(30*time.Second, func() bool { v.holds(content); return v.status().Tiers.Warm.Returned >= 3 }) {
		t.Error("files that are read all the time are still in cold only")
	}
	v.holds(content)
	if st := v.status(); !v.inWarm("d/f0") || !v.inWarm("d/f1") || !v.inWarm("d/f2") || st.AtRisk.Files != 0 {
		t.Errorf("status: %+v, at risk %+v", st.Tiers.Warm, st.AtRisk)
	}
	v.umount()
}

// TestWarmLimit: three times the limit is written; warm stays near it, no write fails, and every byte is right.
func TestWarmLimit(t *testing.T) {
	deadline(t, 4*time.Minute)
	const limit, each = 32 << 20, 1 << 20
	v := newVolume(t, "v", withSource(newBareRepo(t, "remote.git", user{})),
		withOpts(fmt.Sprint("warm_limit=", limit), "warm_age=none", "tier_interval=200ms", "backup_interval=1s",
			"prefetch=off")).mount()
	content := map[string]string{}
	check(t, os.Mkdir(v.at("d"), 0o755))
	for i := range 3 * limit / each {
		name := fmt.Sprint("d/f", i)
		content[name] = string(opBytes(name, each))
		check(t, os.WriteFile(v.at(name), []byte(content[name]), 0o644))
	}
	v.sync()
	if !waitFor(30*time.Second, func() bool { return v.warmUse() < limit*11/10 }) {
		t.Errorf("warm uses %d bytes, the limit is %d", v.warmUse(), limit)
	}
	if use := v.warmUse(); use < limit/2 {
		t.Errorf("warm uses %d bytes, more has left than the limit %d asks for", use, limit)
	}
	if w := v.status().Tiers.Warm; w.Limit != limit || w.LastTick == nil || w.LastTick.Reason != "limit" {
		t.Errorf("status: %+v", w)
	}
	if v.inWarm("d/f0") || !v.inWarm(fmt.Sprint("d/f", 3*limit/each-1)) {
		t.Error("it was not the least recently used that left")
	}
	v.holds(content)
	v.umount()
	fsck(t, v.source)
}

// TestWarmReserve: warm's disk is full of files that could leave: a writer gets no ENOSPC, and nothing is lost.
func TestWarmReserve(t *testing.T) {
	deadline(t, 4*time.Minute)
	disk := smallDisk(t, "disk", 128)
	v := newVolume(t, "v", withState(filepath.Join(disk, "state")),
		withOpts("warm_reserve=24MiB", "warm_age=none", "tier_interval=1s", "backup_interval=1h", "prefetch=off"))
	v.mount()
	v.umount()
	cold := mkdir(t, filepath.Join(testDir(t), "cold"), user{}) // on another disk: the test is about warm
	must(t, "/", "cp", "-a", v.cold()+"/.", cold)
	must(t, "/", "mount", "--bind", cold, v.cold())
	t.Cleanup(func() { _ = unix.Unmount(v.cold(), 0) })
	v.mount()
	content := map[string]string{}
	for d := range 4 { // 160 MiB in all
		for name, c := range v.fill(fmt.Sprintf("d%d", d), 40, 1<<20) { // fill fails the test at the first ENOSPC
			content[name] = c
		}
		v.sync()
	}
	v.holds(content)
	if w := v.status().Tiers.Warm; w.Released == 0 {
		t.Errorf("status: %+v", w)
	}
	v.remount()
	v.holds(content)
	v.umount()
	check(t, unix.Unmount(v.cold(), 0))
}
