//go:build slow

package integration

import (
	"emberfs/integration/testprog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// stubSize is that of each case's file: several blocks of hot, no whole number of pages.
const stubSize = 300_001

// stubCase is one thing that a program does to files whose bytes are in cold only. It finds, in a directory of its own,
// what prepareStubs made.
type stubCase struct {
	name    string
	nothing bool // it needs no content from cold
	run     func(*stub)
}

// stub is what a case works on.
type stub struct {
	*tc
	v    *volume
	base string // the case's directory in the volume
}

func stubContent(name string) string { return string(opBytes("stub "+name, stubSize)) }

// prepareStubs makes the files of all cases: two dense ones, a sparse one, a program.
func prepareStubs(t *testing.T, v *volume) {
	t.Helper()
	program, err := os.ReadFile("/bin/echo")
	check(t, err)
	for _, c := range stubCases() {
		dir := v.at(c.name)
		check(t, os.Mkdir(dir, 0o755))
		for _, n := range []string{"f", "g"} {
			check(t, os.WriteFile(filepath.Join(dir, n), []byte(stubContent(n)), 0o644))
		}
		check(t, testprog.Write(filepath.Join(dir, "exe"), program))
		f, err := os.Create(filepath.Join(dir, "sparse"))
		check(t, err)
		check(t, f.Truncate(4<<20))
		_, err = f.WriteAt([]byte(stubContent("sparse")), 1<<20)
		check(t, err)
		check(t, f.Close())
	}
}

// sparseContent is what prepareStubs put into the sparse file.
func sparseContent() string {
	b := make([]byte, 4<<20)
	copy(b[1<<20:], stubContent("sparse"))
	return string(b)
}

// stubCases are all cases, in the order of their names.
func stubCases() []stubCase {
	all := slices.Concat(stubReadCases(), stubWriteCases(), stubCopyCases(), stubNameCases(), stubAttributeCases())
	slices.SortFunc(all, func(a, b stubCase) int { return strings.Compare(a.name, b.name) })
	return all
}

// TestStubOperations runs all cases on stubs that were just released (the kernel may know the bytes), on stubs after a
// restart (nobody does), and on those of a restore on the next machine. What they leave is the same after another
// release and restart.
func TestStubOperations(t *testing.T) {
	for _, mode := range []string{"released", "restarted", "restored"} {
		for _, cache := range []string{"on", "off"} {
			t.Run(mode+",cache="+cache, func(t *testing.T) {
				t.Parallel()
				stubCell(t, mode, cache)
			})
		}
	}
}

func stubCell(t *testing.T, mode, cache string) {
	deadline(t, 5*time.Minute)
	lookPath(t, "tar", "setfacl", "setfattr")
	repo := newBareRepo(t, "remote.git", user{})
	options := []volumeOption{withSource(repo), withOpts("kernel_cache=" + cache), onlyByCommand()}
	v := newVolume(t, "one", options...).mount()
	prepareStubs(t, v)
	v.release()
	switch mode {
	case "restarted":
		v.remount()
	case "restored":
		v.umount()
		v = newVolume(t, "two", options...).mount()
	}
	runStubCases(t, v, stubCases())
	want := scanTree(t, v.mnt)
	v.release()
	v.remount()
	sameTree(t, scanTree(t, v.mnt), want, "released again")
	v.umount()
	fsck(t, repo)
}

// runStubCases runs each case in its directory of a volume.
func runStubCases(t *testing.T, v *volume, cases []stubCase) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := &stub{tc: &tc{T: t, dir: v.at(c.name), root: true}, v: v, base: c.name}
			if c.nothing {
				v.fetchesNothing(c.name, func() { c.run(s) })
			} else {
				c.run(s)
			}
		})
	}
}

// isStub requires that a file's bytes are, or are not, in warm.
func (s *stub) isStub(name string, want bool) {
	s.Helper()
	if s.v.inWarm(filepath.Join(s.base, name)) == want {
		s.Errorf("%s is in warm: %v", name, want)
	}
}

func stubReadCases() []stubCase {
	return []stubCase{
		{name: "read_all", run: func(s *stub) { s.content(s.p("f"), stubContent("f")); s.isStub("f", true) }},
		{name: "read_at_random", run: stubReadAtRandom},
		{name: "read_by_mmap", run: func(s *stub) {
			fd := s.open(s.p("f"), unix.O_RDONLY, 0)
			m := s.mmap(fd, stubSize, unix.PROT_READ, unix.MAP_SHARED)
			s.equal(m[stubSize-1], stubContent("f")[stubSize-1], "the last byte first")
			s.same(m, []byte(stubContent("f")), "map")
			s.isStub("f", true)
		}},
		{name: "read_direct", run: func(s *stub) {
			fd := s.open(s.p("f"), unix.O_RDONLY|unix.O_DIRECT, 0)
			b := aligned(8192)
			n, err := unix.Pread(fd, b, 65536)
			s.ok(err, "pread")
			s.same(b[:n], []byte(stubContent("f"))[65536:65536+8192], "direct read")
		}},
		{name: "exec", run: func(s *stub) {
			s.equal(command{args: []string{s.p("exe"), "ran"}}.must(s), "ran\n", "output")
		}},
	}
}

func stubReadAtRandom(s *stub) {
	fd := s.open(s.p("f"), unix.O_RDONLY, 0)
	want := []byte(stubContent("f"))
	for i, off := range []int{stubSize - 1, 65535, 0, 65536 * 3, 4095, 131_000, 1, stubSize - 70_000} {
		b := make([]byte, 1+i*9973)
		n, err := unix.Pread(fd, b, int64(off))
		s.ok(err, "pread")
		s.same(b[:n], want[off:min(stubSize, off+len(b))], "read at random")
	}
	n, err := unix.Pread(fd, make([]byte, 10), stubSize)
	s.truth(n == 0 && err == nil, "read at the end: %d, %v", n, err)
}

func stubWriteCases() []stubCase {
	splice := func(off int, text string) string {
		want := stubContent("f")
		return want[:off] + text + want[min(len(want), off+len(text)):]
	}
	write := func(flags int, off int64, text string) func(*stub) {
		return func(s *stub) {
			fd := s.open(s.p("f"), flags, 0)
			s.pwrite(fd, text, off)
			s.content(s.p("f"), splice(int(off), text))
			s.isStub("f", false)
		}
	}
	truncate := func(size int64) func(*stub) {
		return func(s *stub) {
			s.ok(unix.Truncate(s.p("f"), size), "truncate")
			want := append([]byte(stubContent("f")), make([]byte, 100_000)...)
			s.content(s.p("f"), string(want[:size]))
			s.equal(s.lstat(s.p("f")).Size, size, "size")
		}
	}
	allocate := func(mode uint32, off, n int64, change func(b []byte) []byte) func(*stub) {
		return func(s *stub) {
			fd := s.open(s.p("f"), unix.O_RDWR, 0)
			s.ok(unix.Fallocate(fd, mode, off, n), "fallocate")
			s.content(s.p("f"), string(change([]byte(stubContent("f")))))
		}
	}
	same := func(b []byte) []byte { return b }
	zeros := func(off, n int) func([]byte) []byte {
		return func(b []byte) []byte { copy(b[off:], make([]byte, n)); return b }
	}
	return []stubCase{
		{name: "append", run: write(unix.O_WRONLY|unix.O_APPEND, stubSize, "MORE")},
		{name: "overwrite_first", run: write(unix.O_RDWR, 0, "FIRST")},
		{name: "overwrite_middle", run: write(unix.O_WRONLY, 150_000, "MIDDLE")},
		{name: "overwrite_last", run: write(unix.O_RDWR, stubSize-4, "LAST+")},
		{name: "write_by_mmap", run: func(s *stub) {
			fd := s.open(s.p("f"), unix.O_RDWR, 0)
			m := s.mmap(fd, stubSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			copy(m[200_000:], "MAPPED")
			s.ok(unix.Msync(m, unix.MS_SYNC), "msync")
			s.content(s.p("f"), splice(200_000, "MAPPED"))
		}},
		{name: "truncate_up", run: truncate(stubSize + 70_000)},
		{name: "truncate_down", run: truncate(70_001)},
		{name: "truncate_to_nothing", nothing: true, run: truncate(0)},
		{name: "truncate_and_grow", nothing: true, run: func(s *stub) {
			s.ok(unix.Truncate(s.p("f"), 0), "truncate")
			s.ok(unix.Truncate(s.p("f"), stubSize), "truncate")
			s.content(s.p("f"), string(make([]byte, stubSize)))
		}},
		{name: "open_truncating", nothing: true, run: func(s *stub) {
			s.ok(os.WriteFile(s.p("f"), []byte("new"), 0o644), "write")
			s.content(s.p("f"), "new")
			s.equal(s.lstat(s.p("f")).Size, int64(3), "size")
		}},
		{name: "fallocate_inside", run: allocate(0, 1000, 1000, same)},
		{name: "fallocate_over_the_end", run: allocate(0, stubSize, 10_000, func(b []byte) []byte {
			return append(b, make([]byte, 10_000)...)
		})},
		{name: "fallocate_keep_size", run: allocate(unix.FALLOC_FL_KEEP_SIZE, stubSize, 100_000, same)},
		{name: "fallocate_punch", run: allocate(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 65536, 131072,
			zeros(65536, 131072))},
		{name: "fallocate_zero", run: allocate(unix.FALLOC_FL_ZERO_RANGE, 100, 70_000, zeros(100, 70_000))},
	}
}

func stubAttributeCases() []stubCase {
	// after a change of its attributes the file has its bytes, and they are still in cold only
	keeps := func(change func(s *stub)) func(*stub) {
		return func(s *stub) {
			before := s.lstat(s.p("f"))
			change(s)
			after := s.lstat(s.p("f"))
			grown := after.Blocks - before.Blocks // by an attribute block at most
			s.truth(after.Size == before.Size && after.Ino == before.Ino && (grown == 0 || grown == 8),
				"%+v became %+v", before, after)
			s.isStub("f", true)
		}
	}
	return []stubCase{
		{name: "chmod", nothing: true, run: keeps(func(s *stub) {
			s.ok(unix.Chmod(s.p("f"), 0o4711), "chmod")
			s.equal(s.perm(s.p("f")), uint32(0o4711), "mode")
		})},
		{name: "chown", nothing: true, run: keeps(func(s *stub) {
			s.ok(unix.Chown(s.p("f"), 12, 34), "chown")
			st := s.lstat(s.p("f"))
			s.truth(st.Uid == 12 && st.Gid == 34, "owner %d:%d", st.Uid, st.Gid)
		})},
		{name: "utimes", nothing: true, run: keeps(func(s *stub) {
			s.ok(unix.UtimesNanoAt(unix.AT_FDCWD, s.p("f"), []unix.Timespec{ts(1, 2), ts(-3, 4)}, 0), "utimensat")
			s.equal(s.lstat(s.p("f")).Mtim, ts(-3, 4), "mtime")
			s.equal(s.lstat(s.p("f")).Atim, ts(1, 2), "atime")
		})},
		{name: "setxattr", nothing: true, run: keeps(func(s *stub) {
			s.ok(unix.Setxattr(s.p("f"), "user.k", []byte("value"), 0), "setxattr")
			b := make([]byte, 10)
			n, err := unix.Getxattr(s.p("f"), "user.k", b)
			s.ok(err, "getxattr")
			s.equal(string(b[:n]), "value", "user.k")
			_, err = unix.Getxattr(s.p("f"), "trusted.emberfs", make([]byte, 100))
			s.want(err, unix.ENODATA, "the record through the mount")
		})},
		{name: "setfacl", nothing: true, run: keeps(func(s *stub) {
			command{args: []string{"setfacl", "-m", "u:1234:rw", s.p("f")}}.must(s)
			s.truth(strings.Contains(command{args: []string{"getfacl", "-n", s.p("f")}}.must(s), "user:1234:rw-"),
				"no ACL")
		})},
		{name: "chmod_then_read", run: func(s *stub) {
			s.ok(unix.Chmod(s.p("f"), 0o600), "chmod")
			s.content(s.p("f"), stubContent("f"))
		}},
		{name: "fsync", nothing: true, run: keeps(func(s *stub) {
			s.ok(unix.Fsync(s.open(s.p("f"), unix.O_RDONLY, 0)), "fsync")
		})},
		{name: "open_for_writing_alone", run: func(s *stub) {
			before := s.lstat(s.p("f"))
			fd, err := unix.Open(s.p("f"), unix.O_RDWR, 0)
			s.ok(err, "open")
			s.ok(unix.Close(fd), "close")
			after := s.lstat(s.p("f"))
			s.truth(after.Mtim == before.Mtim && after.Ctim == before.Ctim && after.Blocks == before.Blocks,
				"%+v became %+v", before, after)
			s.content(s.p("f"), stubContent("f"))
		}},
	}
}
