//go:build slow

package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The cases of this file are those where a program could take the hole of a stub for a hole of the file.
func stubCopyCases() []stubCase {
	cp := func(args ...string) func(*stub) {
		return func(s *stub) {
			for name, want := range map[string]string{"f": stubContent("f"), "sparse": sparseContent()} {
				command{args: append(append([]string{"cp"}, args...), s.p(name), s.p(name+".copy"))}.must(s)
				s.content(s.p(name+".copy"), want)
				s.isStub(name, true)
			}
		}
	}
	return []stubCase{
		{name: "cp_sparse_auto", run: cp("--sparse=auto")},
		{name: "cp_sparse_always", run: cp("--sparse=always")},
		{name: "cp_sparse_never", run: cp("--sparse=never")},
		{name: "cp_reflink_auto", run: cp("--reflink=auto")},
		{name: "cp_archive", run: cp("-a")},
		{name: "cp_outside", run: func(s *stub) {
			to := filepath.Join(testDir(s.T), "copy")
			command{args: []string{"cp", "-a", s.p("sparse"), to}}.must(s)
			s.content(to, sparseContent())
			s.truth(s.lstat(to).Blocks*512 < 2<<20, "the holes of a sparse file are gone")
		}},
		{name: "tar_sparse", run: func(s *stub) {
			to := filepath.Join(testDir(s.T), "tar")
			s.ok(os.MkdirAll(to, 0o755), "mkdir")
			command{args: []string{"sh", "-euc",
				`tar --sparse --hole-detection=seek -cf - f sparse | tar -xf - -C "$1"`, "sh", to}, dir: s.dir}.must(s)
			s.content(filepath.Join(to, "f"), stubContent("f"))
			s.content(filepath.Join(to, "sparse"), sparseContent())
		}},
		{name: "seek_dense", nothing: true, run: func(s *stub) {
			fd := s.open(s.p("f"), unix.O_RDONLY, 0)
			s.seeks(fd, 0, unix.SEEK_DATA, 0)
			s.seeks(fd, 100_000, unix.SEEK_DATA, 100_000)
			s.seeks(fd, 0, unix.SEEK_HOLE, stubSize)
			_, err := unix.Seek(fd, stubSize, unix.SEEK_DATA)
			s.want(err, unix.ENXIO, "SEEK_DATA at the end")
		}},
		{name: "seek_sparse", run: func(s *stub) {
			// Where holes are is the system's choice, but what it calls a hole holds no data: walking the data finds
			// all bytes.
			fd := s.open(s.p("sparse"), unix.O_RDONLY, 0)
			got := make([]byte, 4<<20)
			for off := int64(0); ; {
				data, err := unix.Seek(fd, off, unix.SEEK_DATA)
				if err == unix.ENXIO {
					break
				}
				s.ok(err, "SEEK_DATA")
				off, err = unix.Seek(fd, data, unix.SEEK_HOLE)
				s.ok(err, "SEEK_HOLE")
				_, err = unix.Pread(fd, got[data:off], data)
				s.ok(err, "pread")
			}
			s.same(got, []byte(sparseContent()), "the data that seeking finds")
		}},
		{name: "blocks", nothing: true, run: func(s *stub) {
			s.truth(s.lstat(s.p("f")).Blocks*512 >= stubSize, "%d blocks of a dense file", s.lstat(s.p("f")).Blocks)
			s.truth(s.lstat(s.p("sparse")).Blocks*512 < 2<<20, "%d blocks of a sparse file",
				s.lstat(s.p("sparse")).Blocks)
			du := command{args: []string{"du", "--block-size=1", s.p("f")}}.must(s)
			s.truth(!strings.HasPrefix(du, "0\t"), "du says %s", du)
		}},
		{name: "copy_file_range_from", run: func(s *stub) {
			s.copyRange("f", "new", stubContent("f"))
			s.isStub("f", true)
		}},
		{name: "copy_file_range_to", run: func(s *stub) {
			s.ok(os.WriteFile(s.p("short"), []byte("SHORT"), 0o644), "write")
			s.copyRange("short", "f", "SHORT"+stubContent("f")[5:])
		}},
		{name: "copy_file_range_between", run: func(s *stub) { s.copyRange("f", "g", stubContent("f")) }},
		{name: "sendfile", run: func(s *stub) {
			in, out := s.open(s.p("f"), unix.O_RDONLY, 0), s.open(s.p("new"), unix.O_CREAT|unix.O_WRONLY, 0o644)
			for done := 0; done < stubSize; {
				n, err := unix.Sendfile(out, in, nil, stubSize-done)
				s.ok(err, "sendfile")
				s.truth(n > 0, "sent nothing")
				done += n
			}
			s.content(s.p("new"), stubContent("f"))
		}},
	}
}

func (s *stub) seeks(fd int, off int64, whence int, want int64) {
	s.Helper()
	got, err := unix.Seek(fd, off, whence)
	s.ok(err, "lseek")
	s.equal(got, want, "position")
}

// copyRange copies a whole file over the beginning of another.
func (s *stub) copyRange(from, to, want string) {
	s.Helper()
	in, out := s.open(s.p(from), unix.O_RDONLY, 0), s.open(s.p(to), unix.O_CREAT|unix.O_RDWR, 0o644)
	for left := int(s.fstat(in).Size); left > 0; {
		n, err := unix.CopyFileRange(in, nil, out, nil, left, 0)
		s.ok(err, "copy_file_range")
		s.truth(n > 0, "copied nothing")
		left -= n
	}
	s.content(s.p(to), want)
}

// TestStubBigFileByChunk: of a big file cold reads the chunks that are asked for, and the rest of it stays where it is.
func TestStubBigFileByChunk(t *testing.T) {
	const size = 64 << 20
	v := newVolume(t, "v", onlyByCommand()).mount()
	randomFile(t, v.at("big"), size)
	want, err := os.ReadFile(v.at("big"))
	check(t, err)
	v.release()
	v.remount()
	fd, err := unix.Open(v.at("big"), unix.O_RDONLY, 0)
	check(t, err)
	check(t, unix.Fadvise(fd, 0, 0, unix.FADV_RANDOM)) // no readahead of the kernel's
	const piece = 100_000
	offsets := []int64{size - piece, 0, 33<<20 + 123}
	pages := v.fetched(func() {
		for _, off := range offsets {
			b := make([]byte, piece)
			if n, err := unix.Pread(fd, b, off); err != nil || string(b[:n]) != string(want[off:off+piece]) {
				t.Errorf("at %d: %d bytes, %v", off, n, err)
			}
		}
	})
	asked := int64(len(offsets) * piece / 4096)
	if pages < asked || pages > 8*asked {
		t.Errorf("%d pages were asked for, cold read %d", asked, pages)
	}
	if v.inWarm("big") {
		t.Error("reading a part brought the file back to warm")
	}
	check(t, unix.Close(fd))
	v.umount()
}
