//go:build slow

package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// smallDisk mounts an image of so many MiB with ext4, or what another mkfs makes.
func smallDisk(t *testing.T, name string, mib int, mkfs ...string) string {
	t.Helper()
	if mkfs == nil {
		mkfs = []string{"mkfs.ext4", "-q", "-m", "0"}
	}
	dir := mkdir(t, filepath.Join(testDir(t), name), user{})
	image := dir + ".img"
	must(t, "/", "truncate", "-s", fmt.Sprintf("%dM", mib), image)
	must(t, "/", append(mkfs, image)...)
	must(t, "/", "mount", "-o", "loop", image, dir)
	t.Cleanup(func() {
		if !waitFor(10*time.Second, func() bool { return unix.Unmount(dir, 0) == nil }) {
			t.Errorf("%s stays busy", dir)
			_ = unix.Unmount(dir, unix.MNT_DETACH)
		}
	})
	return dir
}

// noise is content that does not compress.
func noise(n int, seed string) []byte { return opBytes(seed, n) }

// TestDiskFullWarm: the program gets ENOSPC, what was written before stays readable, and after space was made all goes
// on.
func TestDiskFullWarm(t *testing.T) {
	deadline(t, 2*time.Minute)
	disk := smallDisk(t, "disk", 64)
	v := newVolume(t, "v", withState(filepath.Join(disk, "state"))).mount()
	check(t, os.WriteFile(v.at("kept"), []byte("kept"), 0o644))
	var err error
	files := 0
	for ; err == nil && files < 100; files++ {
		err = os.WriteFile(v.at(fmt.Sprint("fill", files)), noise(1<<20, fmt.Sprint(files)), 0o644)
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("a full disk gives %v", err)
	}
	for i := range files - 1 {
		if b, err := os.ReadFile(v.at(fmt.Sprint("fill", i))); err != nil ||
			string(b) != string(noise(1<<20, fmt.Sprint(i))) {
			t.Fatalf("fill%d, written before the disk was full: %d bytes, %v", i, len(b), err)
		}
	}
	fd, err := unix.Open(v.at("more"), unix.O_CREAT|unix.O_RDWR, 0o644)
	if err == nil {
		if err := unix.Fallocate(fd, 0, 0, 100<<20); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("fallocate beyond the disk: %v", err)
		}
		check(t, unix.Close(fd))
		check(t, os.Remove(v.at("more"))) // blocks that were allocated and never written come back as a hole
	} else if !errors.Is(err, unix.ENOSPC) {
		t.Errorf("create on a full disk: %v", err)
	}
	// cold is on the same disk: the commit must fail, say so, and lose nothing
	if r := v.emberfs("sync", v.mnt); r.code == 0 {
		t.Errorf("a sync that cannot store anything reports success\n%v", r)
	}
	if st := v.status(); st.AtRisk.Files == 0 || len(st.Errors) == 0 {
		t.Errorf("status: at risk %+v, errors %q", st.AtRisk, st.Errors)
	}
	for i := range files {
		if i%4 != 0 {
			if err := os.Remove(v.at(fmt.Sprint("fill", i))); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Errorf("unlink on a full disk: %v", err)
			}
		}
	}
	check(t, os.WriteFile(v.at("again"), []byte("again"), 0o644))
	want := scanTree(t, v.mnt)
	v.umount()
	fsck(t, v.cold())
	two := newVolume(t, "two", withSource(v.cold())).mount()
	sameTree(t, scanTree(t, two.mnt), want, "restored after the disk was full")
	two.umount()
}

// TestDiskFullList: a directory that was not listed yet needs a little room for its names; on a full disk it is made by
// what can leave.
func TestDiskFullList(t *testing.T) {
	deadline(t, 3*time.Minute)
	const names = 3000
	repo := newBareRepo(t, "remote.git", user{})
	one := newVolume(t, "one", withSource(repo)).mount()
	check(t, os.Mkdir(one.at("many"), 0o755))
	for i := range names {
		check(t, os.WriteFile(one.at(fmt.Sprintf("many/%0100d", i)), []byte("x"), 0o644))
	}
	check(t, os.Mkdir(one.at("fewer"), 0o755))
	for i := range 900 {
		check(t, os.WriteFile(one.at(fmt.Sprintf("fewer/%0200d", i)), []byte("x"), 0o644))
	}
	check(t, os.WriteFile(one.at("big"), noise(10<<20, "big"), 0o644))
	one.umount()
	disk := smallDisk(t, "disk", 96)
	v := newVolume(t, "two", withSource(repo), withState(filepath.Join(disk, "state")), onlyByCommand(),
		withOpts("warm_reserve=none")).mount()
	f, err := os.OpenFile(v.at("big"), os.O_WRONLY|os.O_APPEND, 0)
	check(t, err)
	_, err = f.WriteString("and more")
	check(t, errors.Join(err, f.Close()))
	v.sync()
	must(t, "/", "sh", "-c", "head -c 200M /dev/zero >"+disk+"/ballast || true")
	list, err := os.ReadDir(v.at("many"))
	if err != nil || len(list) != names {
		t.Errorf("listed on a full disk: %d names, %v", len(list), err)
	}
	if err := os.WriteFile(v.at("fewer/new"), nil, 0o644); err != nil { // what is there is made before
		t.Errorf("a new file in a directory that is not listed, on a full disk: %v", err)
	}
	wantFile(t, v.at(fmt.Sprintf("many/%0100d", names-1)), "x", "a file in it:")
	check(t, os.Remove(disk+"/ballast"))
	v.umount()
}

// TestDiskFullCold: cold.git lies on a disk of its own that is full. Commits fail and say so, the work goes on in warm,
// and the next commit after space was made takes everything.
func TestDiskFullCold(t *testing.T) {
	deadline(t, 2*time.Minute)
	v := newVolume(t, "v").mount()
	check(t, os.WriteFile(v.at("first"), []byte("first"), 0o644))
	v.umount()
	disk := smallDisk(t, "disk", 24)
	must(t, "/", "cp", "-a", v.cold()+"/.", disk)
	must(t, "/", "mount", "--bind", disk, v.cold())
	t.Cleanup(func() { _ = unix.Unmount(v.cold(), 0) })
	must(t, "/", "sh", "-c", "head -c 100M /dev/zero >"+disk+"/ballast || true")
	v.mount()
	check(t, os.WriteFile(v.at("second"), noise(1<<20, "second"), 0o644))
	r := v.emberfs("sync", v.mnt)
	if r.code != 1 && r.code != 3 {
		t.Errorf("a commit on a full disk reports success\n%v", r)
	}
	if st := v.status(); st.AtRisk.Files == 0 || len(st.Errors) == 0 {
		t.Errorf("status: at risk %+v, errors %q", st.AtRisk, st.Errors)
	}
	if b, err := os.ReadFile(v.at("second")); err != nil || len(b) != 1<<20 {
		t.Errorf("the file of the failed commit: %d bytes, %v", len(b), err)
	}
	check(t, os.WriteFile(v.at("third"), []byte("work goes on"), 0o644))
	fsck(t, v.cold())
	check(t, os.Remove(disk+"/ballast"))
	v.sync()
	if st := v.status(); st.AtRisk.Files != 0 || len(st.Errors) != 0 {
		t.Errorf("after space was made: at risk %+v, errors %q", st.AtRisk, st.Errors)
	}
	v.umount()
	fsck(t, v.cold())
	for name, n := range map[string]int{"first": 5, "second": 1 << 20, "third": 12} {
		if got := show(t, v.cold(), "main:"+name); len(got) != n {
			t.Errorf("%s: %d bytes in cold, want %d", name, len(got), n)
		}
	}
	check(t, unix.Unmount(v.cold(), 0))
}
