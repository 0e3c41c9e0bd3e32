package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const passthroughRules = "- {match: build/, ignore: true, io: passthrough}\n"

// withRules gives the daemon rules as a settings file would.
func withRules(text string) volumeOption {
	return func(v *volume) { v.config = "rules:\n" + text }
}

// passthroughVolume is mounted and leaves files below build to the kernel.
func passthroughVolume(t *testing.T, name string, options ...volumeOption) *volume {
	t.Helper()
	v := newVolume(t, name, append([]volumeOption{withRules(passthroughRules), onlyByCommand()}, options...)...).mount()
	if p := v.passthrough(); !p.Available {
		if !strings.Contains(strings.Join(v.status().Notes, "\n"), p.Why) || p.Why == "" {
			t.Errorf("status does not say why: %+v", p)
		}
		t.Fatalf("this test needs FUSE passthrough (Linux 6.9, CAP_SYS_ADMIN, warm not on an overlay): %s", p.Why)
	}
	return v
}

type passthroughStatus struct {
	Available bool
	Why       string
	Files     int
}

func (v *volume) passthrough() (p passthroughStatus) {
	v.t.Helper()
	check(v.t, json.Unmarshal(v.status().raw["passthrough"], &p))
	return p
}

// noneOpen waits until the kernel holds no file of warm any more.
func (v *volume) noneOpen() {
	v.t.Helper()
	if !waitFor(5*time.Second, func() bool { return v.passthrough().Files == 0 }) {
		v.t.Errorf("%d files are left to the kernel though all are closed", v.passthrough().Files)
	}
}

// TestPassthroughStat: what stat, fstat and lseek say is exact while a file is written.
func TestPassthroughStat(t *testing.T) {
	deadline(t, time.Minute)
	v := passthroughVolume(t, "v")
	check(t, os.Mkdir(v.at("build"), 0o755))
	file := v.at("build/f")
	check(t, os.WriteFile(file, []byte("x"), 0o644))
	_, err := os.Stat(file)
	check(t, err)
	one, err := os.OpenFile(file, os.O_RDWR|os.O_APPEND, 0)
	check(t, err)
	defer one.Close()
	two, err := os.OpenFile(file, os.O_RDWR|os.O_APPEND, 0)
	check(t, err)
	defer two.Close()
	size := int64(1)
	sizes := func(what string) {
		t.Helper()
		st, err := os.Stat(file)
		check(t, err)
		fst, err := two.Stat()
		check(t, err)
		end, err := two.Seek(0, io.SeekEnd)
		check(t, err)
		es, err := os.ReadDir(v.at("build"))
		check(t, err)
		info, err := es[0].Info()
		check(t, err)
		if st.Size() != size || fst.Size() != size || end != size || info.Size() != size {
			t.Errorf("%s: stat %d, fstat %d, lseek %d, listing %d, want %d", what, st.Size(), fst.Size(), end,
				info.Size(), size)
		}
		if !st.ModTime().Equal(fst.ModTime()) {
			t.Errorf("%s: mtime %v by name, %v by descriptor", what, st.ModTime(), fst.ModTime())
		}
	}
	for range 100 {
		for _, f := range []*os.File{one, two} {
			n, err := f.WriteString("0123456789")
			check(t, err)
			size += int64(n)
			sizes("append")
		}
	}
	check(t, os.Truncate(file, 5))
	size = 5
	sizes("truncate")
	check(t, two.Truncate(100_000))
	size = 100_000
	sizes("ftruncate")
	check(t, unix.Fallocate(int(one.Fd()), 0, 0, 200_000))
	size = 200_000
	sizes("fallocate")
	before, err := os.Stat(file)
	check(t, err)
	m, err := unix.Mmap(int(one.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	check(t, err)
	defer func() { _ = unix.Munmap(m) }()
	if !waitFor(time.Second, func() bool { // the clock that stamps files is coarse
		m[0]++
		_ = unix.Msync(m, unix.MS_SYNC)
		after, err := os.Stat(file)
		return err == nil && after.ModTime().After(before.ModTime())
	}) {
		t.Error("a store through a mapping did not move mtime")
	}
	check(t, os.Remove(file))
	if st, err := one.Stat(); err != nil || st.Size() != size {
		t.Errorf("fstat without a name: %v, %v", st, err)
	}
	_, err = one.WriteString("more")
	check(t, err)
	var st unix.Stat_t
	check(t, unix.Fstat(int(two.Fd()), &st))
	if st.Size != size+4 || st.Nlink != 0 {
		t.Errorf("after an append without a name: size %d, links %d", st.Size, st.Nlink)
	}
}

// TestPassthroughCapability: a plain user's write takes suid and file capabilities away.
func TestPassthroughCapability(t *testing.T) {
	deadline(t, time.Minute)
	v := passthroughVolume(t, "v", withOpts("allow_other"))
	check(t, os.Mkdir(v.at("build"), 0o755))
	file := v.at("build/f")
	check(t, os.WriteFile(file, []byte("x"), 0o666))
	check(t, os.Chmod(file, 0o6777))
	// cap_net_raw, version 2
	caps := []byte{1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	check(t, unix.Setxattr(file, "security.capability", caps, 0))
	check(t, asUser(plainUser(), func() error {
		f, err := os.OpenFile(file, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = f.WriteString("y")
		return err
	}))
	st, err := os.Stat(file)
	check(t, err)
	if st.Mode()&(os.ModeSetuid|os.ModeSetgid) != 0 {
		t.Errorf("mode %v after a plain user's write", st.Mode())
	}
	if n, err := unix.Getxattr(file, "security.capability", nil); err != unix.ENODATA {
		t.Errorf("capabilities of %d bytes after a write: %v", n, err)
	}
}

// TestPassthroughStacked: over a stacked file system the kernel refuses, which is said, and all goes through the
// daemon.
func TestPassthroughStacked(t *testing.T) {
	deadline(t, time.Minute)
	v := newVolume(t, "v", withRules(passthroughRules))
	disk := mkdir(t, filepath.Join(v.dir, "tmpfs"), user{})
	check(t, unix.Mount("tmpfs", disk, "tmpfs", 0, ""))
	for _, d := range []string{"upper", "work", "lower"} {
		mkdir(t, filepath.Join(disk, d), user{})
	}
	mkdir(t, v.state, user{})
	options := fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", disk)
	if err := unix.Mount("overlay", v.state, "overlay", 0, options); err != nil {
		t.Fatalf("this test needs overlayfs: %v", err)
	}
	v.mount()
	p := v.passthrough()
	if p.Available || p.Why == "" || !strings.Contains(strings.Join(v.status().Notes, "\n"), p.Why) {
		t.Errorf("%+v, notes %q", p, v.status().Notes)
	}
	check(t, os.Mkdir(v.at("build"), 0o755))
	check(t, os.WriteFile(v.at("build/f"), []byte("text"), 0o644))
	begins(t, v.at("build/f"), "text")
	v.umount()
	check(t, unix.Unmount(v.state, 0))
	check(t, unix.Unmount(disk, 0))
}

// TestPassthroughCopies: splice, sendfile and copy_file_range to and from a file that the kernel reads and writes
// itself.
func TestPassthroughCopies(t *testing.T) {
	deadline(t, time.Minute)
	v := passthroughVolume(t, "v")
	check(t, os.Mkdir(v.at("build"), 0o755))
	want := bytes.Repeat([]byte("0123456789abcdef"), 10_000)
	open := func(name string, flags int) int {
		t.Helper()
		fd, err := unix.Open(v.at(name), flags|unix.O_CLOEXEC, 0o644)
		check(t, err)
		t.Cleanup(func() { _ = unix.Close(fd) })
		return fd
	}
	check(t, os.WriteFile(v.at("build/from"), want, 0o644))
	check(t, os.WriteFile(v.at("plain"), want, 0o644))
	sendfile := func(in, out int) (int, error) { return unix.Sendfile(out, in, nil, len(want)) }
	ranged := func(in, out int) (int, error) { return unix.CopyFileRange(in, nil, out, nil, len(want), 0) }
	var pipe [2]int
	check(t, unix.Pipe2(pipe[:], unix.O_CLOEXEC))
	spliced := func(in, out int) (int, error) {
		n, err := unix.Splice(in, nil, pipe[1], nil, 32<<10, 0)
		if err != nil || n == 0 {
			return int(n), err
		}
		n, err = unix.Splice(pipe[0], nil, out, nil, int(n), 0)
		return int(n), err
	}
	for how, twin := range map[string]func(in, out int) (int, error){"sendfile": sendfile, "copy_file_range": ranged,
		"splice": spliced} {
		for _, from := range []string{"build/from", "plain"} {
			for _, to := range []string{"build/" + how, how} {
				in, out := open(from, unix.O_RDONLY), open(to, unix.O_RDWR|unix.O_CREAT|unix.O_TRUNC)
				for total := 0; total < len(want); {
					n, err := twin(in, out)
					if err != nil || n == 0 {
						t.Fatalf("%s from %s to %s after %d bytes: %d, %v", how, from, to, total, n, err)
					}
					total += n
				}
				if got, err := os.ReadFile(v.at(to)); err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s from %s to %s: %d bytes, %v", how, from, to, len(got), err)
				}
			}
		}
	}
}
