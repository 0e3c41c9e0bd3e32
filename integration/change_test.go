//go:build slow

package integration

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// TestCostFollowsChange counts what the daemon reads and stores for small changes in a big tree: the change, its
// directories and their ancestors, and neither clean content nor clean directories.
func TestCostFollowsChange(t *testing.T) {
	deadline(t, 5*time.Minute)
	const dirs, each = 200, 100
	v := newVolume(t, "v").mount()
	text := []byte(strings.Repeat("clean content ", 290)) // 4 KB
	for d := range dirs {
		check(t, os.MkdirAll(v.at(fmt.Sprintf("tree/%d", d)), 0o755))
		for i := range each {
			check(t, os.WriteFile(v.at(fmt.Sprintf("tree/%d/%d", d, i)), fmt.Appendf(text, "%d %d", d, i), 0o644))
		}
	}
	check(t, os.Mkdir(v.at("flat"), 0o755))
	for i := range dirs * each {
		check(t, os.WriteFile(v.at(fmt.Sprintf("flat/%d", i)), nil, 0o644))
	}
	v.sync()
	waitFor(10*time.Second, func() bool { return v.status().AtRisk.Files == 0 })
	// Status counts the last commit's files in the background, in all its directories: it is asked once, and that count
	// let end.
	pid := v.daemon()
	waitFor(30*time.Second, func() bool {
		read := readBytes(t, pid)
		time.Sleep(2 * time.Second)
		return readBytes(t, pid) == read
	})

	// measure changes something, commits, and gives what the daemon read and which objects the commit added.
	measure := func(change func()) (read int64, objects []string) {
		t.Helper()
		before := readBytes(t, pid)
		change()
		v.sync()
		read = readBytes(t, pid) - before
		out := must(t, "/", "git", "-C", v.cold(), "rev-list", "--objects", "main~1..main")
		return read, strings.Split(strings.TrimSpace(out), "\n")
	}
	read, objects := measure(func() { check(t, os.Rename(v.at("tree"), v.at("moved"))) })
	if read > 2<<20 || len(objects) > 12 {
		t.Errorf("rename of a directory of %d files: %d bytes read, %d objects stored: %q", dirs*each, read,
			len(objects), objects)
	}
	read, objects = measure(func() {
		for i := range 10 {
			check(t, os.WriteFile(v.at(fmt.Sprintf("moved/%d/%d", i*17, i)), fmt.Appendf(nil, "changed %d", i), 0o644))
		}
	})
	// Each: the file, its directory's tree, metadata tree and lines; and the same for the two directories above.
	if read > 1<<20 || len(objects) > 10*4+12 {
		t.Errorf("10 changes among %d files: %d bytes read, %d objects stored", dirs*each, read, len(objects))
	}
	read, objects = measure(func() { check(t, os.Chmod(v.at("moved"), 0o700)) })
	if read > 1<<20 || len(objects) > 8 {
		t.Errorf("chmod of a directory: %d bytes read, %d objects stored: %q", read, len(objects), objects)
	}
	_, objects = measure(func() { check(t, os.WriteFile(v.at("flat/777"), []byte("changed"), 0o644)) })
	meta := 0
	for _, o := range objects {
		id, name, _ := strings.Cut(o, " ")
		if strings.HasPrefix(name, ".emberfs") {
			var size int
			_, err := fmt.Sscan(command{args: []string{"git", "-C", v.cold(), "cat-file",
				"--batch-check=%(objectsize:disk)"}, stdin: id + "\n"}.must(t), &size)
			check(t, err)
			meta += size
		}
	}
	if meta > 20_000 || meta == 0 {
		t.Errorf("one change in a directory of %d entries: %d bytes of metadata", dirs*each, meta)
	}
	v.umount()
	fsck(t, v.cold())
}

// readBytes is what a process has read so far by system calls.
func readBytes(t *testing.T, pid int) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	check(t, err)
	var n int64
	if _, err := fmt.Sscanf(string(b), "rchar: %d", &n); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	return n
}
