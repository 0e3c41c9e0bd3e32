//go:build slow

package integration

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"emberfs/integration/effort"
)

// TestInodeTable makes more files than the inode table may hold: the daemon forgets those that nobody uses, and nobody
// who uses one sees it: open files, mappings, working directories, watches, hard links and what is dirty.
func TestInodeTable(t *testing.T) {
	deadline(t, 8*time.Minute)
	const files, each = 36_000, 200
	v := newVolume(t, "v", withOpts("memory_limit=48MiB")).mount()
	check(t, os.MkdirAll(v.at("used/cwd"), 0o755))
	check(t, os.WriteFile(v.at("used/watched"), []byte("w"), 0o644))
	check(t, os.WriteFile(v.at("used/mapped"), make([]byte, 8192), 0o644))
	check(t, os.Link(v.at("used/watched"), v.at("used/cwd/second name")))
	open, err := os.OpenFile(v.at("used/open"), os.O_RDWR|os.O_CREATE, 0o644)
	check(t, err)
	gone, err := os.OpenFile(v.at("used/gone"), os.O_RDWR|os.O_CREATE, 0o644)
	check(t, err)
	check(t, os.Remove(v.at("used/gone")))
	mapped, err := os.OpenFile(v.at("used/mapped"), os.O_RDWR, 0)
	check(t, err)
	m, err := unix.Mmap(int(mapped.Fd()), 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	check(t, err)
	check(t, mapped.Close())
	watch, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	check(t, err)
	_, err = unix.InotifyAddWatch(watch, v.at("used/watched"), unix.IN_MODIFY)
	check(t, err)
	cwd := exec.Command("sh", "-c", "read line; pwd -P; echo from cwd > here")
	cwd.Dir = v.at("used/cwd")
	in, err := cwd.StdinPipe()
	check(t, err)
	var said strings.Builder
	cwd.Stdout = &said
	check(t, cwd.Start())
	before := make(map[string]unix.Stat_t)
	for _, name := range []string{"used", "used/cwd", "used/watched", "used/open", "used/mapped"} {
		var st unix.Stat_t
		check(t, unix.Stat(v.at(name), &st))
		before[name] = st
	}

	made := 0
	for d := range files / each {
		check(t, os.Mkdir(v.at(fmt.Sprint("d", d)), 0o755))
		for i := range each {
			check(t, os.WriteFile(v.at(fmt.Sprintf("d%d/%d", d, i)), fmt.Appendf(nil, "%d", made), 0o644))
			made++
		}
		if d == files/each/2 {
			v.sync()
		}
	}
	limit := v.status().Tiers.Hot.InodesMax
	if limit <= 0 || limit > files*2/3 {
		t.Fatalf("status: inodes_max %d", limit)
	}
	if !waitFor(20*time.Second, func() bool { return v.status().Tiers.Hot.Inodes <= limit }) {
		t.Errorf("the inode table has %d entries, more than %d", v.status().Tiers.Hot.Inodes, limit)
	}

	for name, want := range before {
		var st unix.Stat_t
		check(t, unix.Stat(v.at(name), &st))
		if st.Ino != want.Ino || st.Ctim != want.Ctim || st.Nlink != want.Nlink {
			t.Errorf("%s: %+v became %+v", name, want, st)
		}
	}
	for _, f := range []*os.File{open, gone} {
		_, err = f.WriteString("late")
		check(t, err)
	}
	if to, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", open.Fd())); err != nil || to != v.at("used/open") {
		t.Errorf("the open file is %q, %v", to, err)
	}
	copy(m[4096:], "through the mapping")
	check(t, unix.Msync(m, unix.MS_SYNC))
	if got, err := os.ReadFile(v.at("used/mapped")); err != nil ||
		!strings.HasPrefix(string(got[4096:]), "through the mapping") {
		t.Errorf("the mapped file lacks what was written, %v", err)
	}
	check(t, os.WriteFile(v.at("used/cwd/second name"), []byte("W"), 0o644))
	if n, err := unix.Read(watch, make([]byte, 4096)); n <= 0 || err != nil {
		t.Errorf("the watch saw nothing: %v", err)
	}
	check(t, in.Close())
	check(t, cwd.Wait())
	equal(t, strings.TrimSpace(said.String()), v.at("used/cwd"), "the working directory is")
	for i := 0; i < files; i += 997 {
		got, err := os.ReadFile(v.at(fmt.Sprintf("d%d/%d", i/each, i%each)))
		if err != nil || string(got) != fmt.Sprint(i) {
			t.Fatalf("file %d: %q, %v", i, got, err)
		}
	}
	check(t, unix.Munmap(m))
	check(t, unix.Close(watch))
	check(t, open.Close())
	check(t, gone.Close())
	// Everything's attributes and some contents are the same on the next mount. (scanTree has a dozen calls a file.)
	look := func() string {
		return must(t, v.mnt, "sh", "-c",
			`find . -printf '%P %y %m %U:%G %n %s %T@\n' | sort; find . -path '*7/*9' | sort | xargs sha1sum`)
	}
	want := look()
	var all map[string]string
	if effort.Soaking() {
		all = scanTree(t, v.mnt)
	}
	v.umount()
	v.mount()
	if all != nil {
		sameTree(t, scanTree(t, v.mnt), all, "after a mount with a crowded inode table")
	}
	if got := look(); got != want {
		t.Errorf("after a mount with a crowded inode table: %d bytes of listing, were %d", len(got), len(want))
	}
	v.umount()
	equal(t, show(t, v.cold(), "main:used/open"), "late", "the last commit has")
}
