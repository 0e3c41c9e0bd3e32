//go:build slow

package integration

import (
	"os"

	"golang.org/x/sys/unix"
)

// The cases of this file are about names of stubs; none needs bytes but those that read.
func stubNameCases() []stubCase {
	return []stubCase{
		{name: "rename", nothing: true, run: func(s *stub) {
			s.ok(os.Rename(s.p("f"), s.p("moved")), "rename")
			s.equal(s.lstat(s.p("moved")).Size, int64(stubSize), "size")
			s.isStub("moved", true)
		}},
		{name: "rename_then_read", run: func(s *stub) {
			s.ok(os.Mkdir(s.p("dir"), 0o755), "mkdir")
			s.ok(os.Rename(s.p("f"), s.p("dir/moved")), "rename")
			s.content(s.p("dir/moved"), stubContent("f"))
		}},
		{name: "rename_over_stub", run: func(s *stub) {
			s.ok(os.Rename(s.p("f"), s.p("g")), "rename")
			s.content(s.p("g"), stubContent("f"))
		}},
		{name: "rename_present_over_stub", nothing: true, run: func(s *stub) {
			s.ok(os.WriteFile(s.p("new"), []byte("new"), 0o644), "write")
			s.ok(os.Rename(s.p("new"), s.p("f")), "rename")
			s.content(s.p("f"), "new")
		}},
		{name: "rename_over_open_stub", run: func(s *stub) {
			fd := s.open(s.p("f"), unix.O_RDONLY, 0)
			s.ok(os.WriteFile(s.p("new"), []byte("new"), 0o644), "write")
			s.ok(os.Rename(s.p("new"), s.p("f")), "rename")
			s.reads(fd, stubContent("f"))
			s.content(s.p("f"), "new")
		}},
		{name: "rename_exchange", run: func(s *stub) {
			s.ok(unix.Renameat2(unix.AT_FDCWD, s.p("f"), unix.AT_FDCWD, s.p("g"), unix.RENAME_EXCHANGE), "exchange")
			s.content(s.p("f"), stubContent("g"))
			s.content(s.p("g"), stubContent("f"))
		}},
		{name: "rename_directory_of_stubs", run: func(s *stub) {
			s.ok(os.Mkdir(s.p("dir"), 0o755), "mkdir")
			s.ok(os.Rename(s.p("f"), s.p("dir/f")), "rename")
			s.ok(os.Rename(s.p("dir"), s.p("moved")), "rename of the directory")
			s.content(s.p("moved/f"), stubContent("f"))
		}},
		{name: "link", nothing: true, run: func(s *stub) {
			s.ok(os.Link(s.p("f"), s.p("second")), "link")
			s.equal(s.lstat(s.p("f")).Nlink, uint64(2), "links")
			s.equal(s.lstat(s.p("second")).Ino, s.lstat(s.p("f")).Ino, "inode numbers")
			s.isStub("second", true)
		}},
		{name: "link_then_write", run: func(s *stub) {
			s.ok(os.Link(s.p("f"), s.p("second")), "link")
			s.pwrite(s.open(s.p("second"), unix.O_RDWR, 0), "LINKED", 100)
			want := stubContent("f")
			s.content(s.p("f"), want[:100]+"LINKED"+want[106:])
		}},
		{name: "unlink", nothing: true, run: func(s *stub) {
			s.ok(os.Remove(s.p("f")), "unlink")
			s.want(errnoOf(s.p("f"), unix.O_RDONLY, 0), unix.ENOENT, "open")
		}},
		{name: "unlink_while_open", run: func(s *stub) {
			fd := s.open(s.p("f"), unix.O_RDWR, 0)
			s.ok(os.Remove(s.p("f")), "unlink")
			s.reads(fd, stubContent("f"))
			s.pwrite(fd, "GONE", 0)
			s.reads(fd, "GONE"+stubContent("f")[4:])
			s.equal(s.fstat(fd).Nlink, uint64(0), "links")
		}},
		{name: "unlink_and_create_again", nothing: true, run: func(s *stub) {
			s.ok(os.Remove(s.p("f")), "unlink")
			s.ok(os.WriteFile(s.p("f"), []byte("another"), 0o644), "write")
			s.content(s.p("f"), "another")
		}},
		{name: "unlink_one_of_two_links", run: func(s *stub) {
			s.ok(os.Link(s.p("f"), s.p("second")), "link")
			s.ok(os.Remove(s.p("f")), "unlink")
			s.content(s.p("second"), stubContent("f"))
			s.equal(s.lstat(s.p("second")).Nlink, uint64(1), "links")
		}},
	}
}

// reads requires that a descriptor gives the content.
func (s *stub) reads(fd int, want string) {
	s.Helper()
	s.same(s.pread(fd, len(want)+1, 0), []byte(want), "through the descriptor")
}
