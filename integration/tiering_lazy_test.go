//go:build slow

package integration

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What programs do in directories of the next machine that nobody has listed yet. Each case has a directory of its own,
// made by makeUnlisted.
func unlistedCases() []stubCase {
	return []stubCase{
		{name: "links_at_first_stat", nothing: true, run: func(s *stub) {
			s.equal(s.lstat(s.p("dir/one")).Nlink, uint64(3), "links at the first stat")
			s.equal(s.lstat(s.p("deep/below/three")).Ino, s.lstat(s.p("dir/one")).Ino,
				"inode of the name in another directory")
			s.equal(s.lstat(s.p("dir/two")).Ino, s.lstat(s.p("dir/one")).Ino, "inode of the name in the same directory")
		}},
		{name: "links_from_the_other_side", nothing: true, run: func(s *stub) {
			s.equal(s.lstat(s.p("deep/below/three")).Nlink, uint64(3), "links at the first stat")
			s.equal(s.lstat(s.p("dir/two")).Ino, s.lstat(s.p("deep/below/three")).Ino, "inode numbers")
		}},
		{name: "write_through_one_link", run: func(s *stub) {
			s.pwrite(s.open(s.p("dir/one"), unix.O_WRONLY, 0), "LINKED", 0)
			s.content(s.p("deep/below/three"), "LINKED"+stubContent("linked")[6:])
		}},
		{name: "unlink_one_link", run: func(s *stub) {
			s.ok(os.Remove(s.p("dir/one")), "unlink")
			s.equal(s.lstat(s.p("deep/below/three")).Nlink, uint64(2), "links")
			s.content(s.p("deep/below/three"), stubContent("linked"))
		}},
		{name: "remove_directory_of_one_link", run: func(s *stub) {
			s.ok(os.RemoveAll(s.p("deep")), "rm -r")
			s.equal(s.lstat(s.p("dir/one")).Nlink, uint64(2), "links")
			s.content(s.p("dir/two"), stubContent("linked"))
		}},
		{name: "directory_links", nothing: true, run: func(s *stub) {
			s.equal(s.lstat(s.dir).Nlink, uint64(6), "links of a directory of four")
			s.equal(s.lstat(s.p("deep")).Nlink, uint64(3), "links of a directory of one")
		}},
		{name: "rename_directory", run: func(s *stub) {
			s.ok(os.Rename(s.p("deep"), s.p("moved")), "rename")
			s.want(errnoOf(s.p("deep"), unix.O_RDONLY, 0), unix.ENOENT, "the old name")
			s.content(s.p("moved/below/plain"), stubContent("plain"))
		}},
		{name: "rename_directory_into_another", run: func(s *stub) {
			s.ok(os.Rename(s.p("dir"), s.p("deep/below/dir")), "rename")
			s.content(s.p("deep/below/dir/two"), stubContent("linked"))
			s.equal(s.lstat(s.p("deep/below")).Nlink, uint64(3), "links")
		}},
		{name: "rename_over_full_directory", nothing: true, run: func(s *stub) {
			s.ok(os.Mkdir(s.p("new"), 0o755), "mkdir")
			s.want(unix.Rename(s.p("new"), s.p("deep")), unix.ENOTEMPTY, "rename over a directory that is not empty")
		}},
		{name: "rename_over_empty_directory", run: func(s *stub) {
			s.ok(unix.Rename(s.p("deep"), s.p("empty")), "rename over an empty directory")
			s.content(s.p("empty/below/plain"), stubContent("plain"))
		}},
		{name: "rmdir_full", nothing: true, run: func(s *stub) {
			s.want(unix.Rmdir(s.p("deep")), unix.ENOTEMPTY, "rmdir")
		}},
		{name: "rmdir_empty", nothing: true, run: func(s *stub) {
			s.ok(unix.Rmdir(s.p("empty")), "rmdir")
			s.want(errnoOf(s.p("empty"), unix.O_RDONLY, 0), unix.ENOENT, "open")
		}},
		{name: "remove_tree", nothing: true, run: func(s *stub) {
			command{args: []string{"rm", "-rf", s.p("dir"), s.p("deep"), s.p("empty"), s.p("tree")}}.must(s)
			s.equal(s.names(s.dir), "", "what is left")
		}},
		{name: "create_in_directory", nothing: true, run: func(s *stub) {
			s.ok(os.WriteFile(s.p("deep/below/new"), []byte("new"), 0o644), "write")
			s.want(errnoOf(s.p("deep/below/plain"), unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o644), unix.EEXIST,
				"O_EXCL of what is there")
			s.equal(s.names(s.p("deep/below")), "new plain three", "names")
		}},
		{name: "open_by_path", run: func(s *stub) { s.content(s.p("deep/below/plain"), stubContent("plain")) }},
		{name: "missing_names", nothing: true, run: func(s *stub) {
			s.want(errnoOf(s.p("deep/none"), unix.O_RDONLY, 0), unix.ENOENT, "a missing file")
			s.want(errnoOf(s.p("deep/none/x"), unix.O_RDONLY, 0), unix.ENOENT, "below a missing directory")
			s.want(errnoOf(s.p("dir/one/x"), unix.O_RDONLY, 0), unix.ENOTDIR, "below a file")
		}},
		{name: "attributes_of_directory", nothing: true, run: func(s *stub) {
			st := s.lstat(s.p("deep"))
			s.truth(st.Mode&0o7777 == 0o2750 && st.Uid == 7 && st.Gid == 8 && st.Mtim == ts(1234567, 89), "%+v", st)
			s.names(s.p("deep"))
			s.equal(s.lstat(s.p("deep")).Mtim, ts(1234567, 89), "mtime after the listing")
			s.ok(unix.Chmod(s.p("deep"), 0o700), "chmod")
			s.equal(s.lstat(s.p("deep")).Mtim, ts(1234567, 89), "mtime after chmod")
		}},
		{name: "sizes", nothing: true, run: func(s *stub) {
			apparent := command{args: []string{"du", "-s", "--apparent-size", "--block-size=1", s.p("dir/one")}}.must(s)
			s.truth(strings.HasPrefix(apparent, fmt.Sprint(stubSize, "\t")), "du --apparent-size says %s", apparent)
			found := command{args: []string{"find", s.dir, "-type", "f", "-size",
				fmt.Sprint("+", stubSize-1, "c")}}.must(s)
			s.equal(strings.Count(found, "\n"), 4+41, "files that find finds by size")
		}},
		{name: "names_alone", nothing: true, run: func(s *stub) {
			found := strings.Fields(command{args: []string{"find", s.p("tree"), "-type", "f"}}.must(s))
			s.equal(len(found), 41, "files that find finds")
			made := command{args: []string{"find", filepath.Join(s.v.state, "warm") + "/" + s.base + "/tree", "-type",
				"f"}}.must(s)
			s.equal(made, "", "files that were made in warm for it")
			s.want(errnoOf(s.p("tree/sub/leaf/none"), unix.O_RDONLY, 0), unix.ENOENT, "a missing file")
			s.equal(s.lstat(s.p("tree/sub/leaf/f7")).Size, int64(stubSize), "size of one")
			for _, d := range []string{"tree", "tree/sub", "tree/sub/leaf"} {
				s.inodesAgree(s.p(d))
			}
			again := strings.Fields(command{args: []string{"find", s.p("tree"), "-type", "f"}}.must(s))
			slices.Sort(found)
			slices.Sort(again)
			s.truth(slices.Equal(found, again), "find finds other names once all is listed")
		}},
		{name: "stream_goes_on_when_listed", nothing: true, run: func(s *stub) {
			d, err := os.Open(s.p("tree/sub/leaf"))
			s.ok(err, "open")
			defer d.Close()
			first, err := d.Readdirnames(5)
			s.ok(err, "readdir")
			s.ok(os.Remove(s.p("tree/sub/leaf/"+first[2])), "unlink") // it is listed
			s.ok(os.WriteFile(s.p("tree/sub/leaf/new"), nil, 0o644), "create")
			rest, err := d.Readdirnames(-1)
			s.ok(err, "readdir")
			seen := map[string]int{}
			for _, n := range append(first, rest...) {
				seen[n]++
			}
			for i := range 40 {
				s.equal(seen[fmt.Sprint("f", i)], 1, "times that the stream had f"+fmt.Sprint(i))
			}
			_, err = d.Seek(0, 0)
			s.ok(err, "rewind")
			again, err := d.Readdirnames(-1)
			s.ok(err, "readdir")
			s.equal(len(again), 40, "names after rewinding")
			s.truth(!slices.Contains(again, first[2]) && slices.Contains(again, "new"), "names after rewinding: %q",
				again)
		}},
		{name: "remove_tree_whose_names_are_told", nothing: true, run: func(s *stub) {
			command{args: []string{"find", s.p("tree")}}.must(s)
			command{args: []string{"rm", "-rf", s.p("tree")}}.must(s)
			s.want(errnoOf(s.p("tree"), unix.O_RDONLY, 0), unix.ENOENT, "open")
		}},
		{name: "attributes_below_unlisted", nothing: true, run: func(s *stub) {
			s.names(s.p("tree/sub"))
			s.ok(unix.UtimesNanoAt(unix.AT_FDCWD, s.p("tree/sub"), []unix.Timespec{ts(1, 0), {Nsec: unix.UTIME_OMIT}},
				0), "touch -a")
			s.equal(s.lstat(s.p("tree/sub")).Mtim, ts(7654321, 98), "mtime after touch -a")
			s.ok(unix.Chmod(s.p("tree/sub/leaf"), 0o710), "chmod")
			s.ok(unix.Setxattr(s.p("tree/sub"), "user.a", []byte("b"), 0), "setxattr")
			s.equal(s.lstat(s.p("tree/sub/leaf")).Mode&0o7777, uint32(0o710), "mode")
			s.equal(s.lstat(s.p("tree/sub")).Mtim, ts(7654321, 98), "mtime")
			s.equal(s.names(s.p("tree")), "sub top", "names")
		}},
		{name: "rename_below_unlisted", run: func(s *stub) {
			s.names(s.p("tree/sub"))
			s.ok(os.Rename(s.p("tree/sub/leaf"), s.p("leaf")), "rename")
			s.equal(s.names(s.p("tree/sub")), "", "names")
			s.content(s.p("leaf/f3"), stubContent("f3"))
			s.ok(os.Rename(s.p("tree"), s.p("leaf/tree")), "rename")
			s.equal(s.names(s.p("leaf/tree/sub")), "", "names")
		}},
	}
}

// inodesAgree compares the inode numbers of a listing with those of stat.
func (s *stub) inodesAgree(dir string) {
	s.Helper()
	d, err := os.Open(dir)
	s.ok(err, "open")
	defer d.Close()
	buf := make([]byte, 64<<10)
	for n := 1; n > 0; {
		n, err = unix.Getdents(int(d.Fd()), buf)
		s.ok(err, "getdents")
		for b := buf[:n]; len(b) > 0; b = b[binary.NativeEndian.Uint16(b[16:]):] {
			name, _, _ := strings.Cut(string(b[19:binary.NativeEndian.Uint16(b[16:])]), "\x00")
			s.equal(binary.NativeEndian.Uint64(b), s.lstat(dir+"/"+name).Ino, "inode number of "+name+" in the listing")
		}
	}
}

// makeUnlisted makes the directory of each case: linked files in two directories, an empty one, attributes.
func makeUnlisted(t *testing.T, v *volume) {
	for _, c := range unlistedCases() {
		at := func(name string) string { return v.at(c.name + "/" + name) }
		for _, d := range []string{"dir", "deep/below", "empty"} {
			check(t, os.MkdirAll(at(d), 0o755))
		}
		check(t, os.WriteFile(at("dir/one"), []byte(stubContent("linked")), 0o644))
		check(t, os.Link(at("dir/one"), at("dir/two")))
		check(t, os.Link(at("dir/one"), at("deep/below/three")))
		check(t, os.WriteFile(at("deep/below/plain"), []byte(stubContent("plain")), 0o644))
		check(t, os.MkdirAll(at("tree/sub/leaf"), 0o755))
		check(t, os.WriteFile(at("tree/top"), []byte(stubContent("top")), 0o644))
		for i := range 40 {
			name := fmt.Sprint("f", i)
			check(t, os.WriteFile(at("tree/sub/leaf/"+name), []byte(stubContent(name)), 0o644))
		}
		check(t, unix.UtimesNanoAt(unix.AT_FDCWD, at("tree/sub"), []unix.Timespec{ts(1, 0), ts(7654321, 98)}, 0))
		check(t, os.Chown(at("deep"), 7, 8))
		check(t, unix.Chmod(at("deep"), 0o2750))
		check(t, unix.UtimesNanoAt(unix.AT_FDCWD, at("deep"), []unix.Timespec{ts(1, 0), ts(1234567, 89)}, 0))
	}
}

// TestUnlistedDirectories runs all cases in directories that the next machine has not listed; the machine after that
// has what they left.
func TestUnlistedDirectories(t *testing.T) {
	onAndOff(t, "cache=", 4*time.Minute, func(t *testing.T, cache string) {
		_, two := lazyPair(t, func(one *volume) { makeUnlisted(t, one) }, withOpts("kernel_cache="+cache))
		runStubCases(t, two, unlistedCases())
		want := scanTree(t, two.mnt)
		two.umount()
		three := newVolume(t, "three", withSource(two.source)).mount()
		sameTree(t, scanTree(t, three.mnt), want, "the machine after that")
		three.umount()
	})
}

// TestColdLacksAnObject: a file whose bytes are gone from cold gives EIO, alone; the log says which object it is.
func TestColdLacksAnObject(t *testing.T) {
	deadline(t, 2*time.Minute)
	v := newVolume(t, "v", onlyByCommand()).mount()
	content := v.fill("d", 5, 50_000)
	v.release()
	v.umount()
	object := strings.TrimSpace(must(t, v.cold(), "git", "rev-parse", "main:d/f2"))
	saved := v.cold() + ".saved"
	must(t, "/", "cp", "-a", v.cold(), saved)
	// one pack of everything else
	shell(t, v.cold(), `git rev-list --objects --all | cut -d" " -f1 | grep -v '`+object+`' >../keep
		mkdir ../packs; git pack-objects -q ../packs/pack <../keep >/dev/null
		rm -f objects/pack/pack-* objects/pack/multi-pack-index; mv ../packs/pack-* objects/pack/`)
	v.mount()
	if names := must(t, v.at("d"), "ls"); strings.Count(names, "\n") != 5 {
		t.Errorf("the listing is %q", names)
	}
	if _, err := os.ReadFile(v.at("d/f2")); !errors.Is(err, unix.EIO) {
		t.Errorf("the file that cold lacks: %v", err)
	}
	lost := content["d/f2"]
	delete(content, "d/f2")
	v.holds(content)
	log, err := os.ReadFile(v.logFile())
	check(t, err)
	if !strings.Contains(string(log), object) {
		t.Errorf("the log does not name object %s", object)
	}
	if err := os.WriteFile(v.at("d/f0"), []byte("work goes on"), 0o644); err != nil {
		t.Error(err)
	}
	content["d/f0"] = "work goes on"
	fd, err := unix.Open(v.at("d/f2"), unix.O_WRONLY, 0)
	if err == nil { // it cannot come back, so it must not be changed into something else
		if _, err := unix.Pwrite(fd, []byte("x"), 10); err == nil {
			t.Error("a write into the middle of lost bytes succeeds")
		}
		check(t, unix.Close(fd))
	}
	v.kill() // a commit may or may not be possible here; it is not what this test is about
	must(t, "/", "sh", "-euc", `cp -an "$1"/objects/pack/. "$2"/objects/pack/`, "sh", saved, v.cold())
	v.mount()
	content["d/f2"] = lost
	v.holds(content)
	v.umount()
	fsck(t, v.cold())
}
