package integration

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMemoryKill kills the daemon: the next one has all that was acknowledged; after an unmount there is nothing.
func TestMemoryKill(t *testing.T) {
	deadline(t, 2*time.Minute)
	v := newVolume(t, "v", withOpts("memory_class_limit=8MiB"), withMemory("mem", "a/b/mem"))
	other := newVolume(t, "other", withMemory("mem"))
	v.mount()
	other.mount()
	makeFixture(t, v.at("mem"))
	check(t, os.MkdirAll(v.at("a/b/mem"), 0o750))
	check(t, os.WriteFile(v.at("a/b/mem/f"), []byte("two"), 0o600))
	check(t, os.Mkdir(other.at("mem"), 0o755))
	check(t, os.WriteFile(other.at("mem/o"), []byte("other"), 0o644))
	f, err := os.OpenFile(v.at("mem/open"), os.O_CREATE|os.O_WRONLY, 0o644)
	check(t, err)
	_, err = f.WriteString("written")
	check(t, err)
	before := must(t, v.mnt, "sh", "-c", "find . ! -path ./mem/open -printf '%P %y %m %U:%G %s %T@ %C@ %i %l\n' | "+
		"sort; find . -type f | sort | xargs sha1sum")
	v.kill()
	f.Close()
	if len(tmpfsBelow(v.dir)) != 1 {
		t.Fatalf("after the kill: %+v", mountsBelow(v.dir))
	}

	// A mount that fails has not lost it either.
	// mount(2) refuses it, the volume is open by then.
	if r := v.tryMount("-o", "context=no_such:context"); r.code == 0 {
		t.Fatalf("%v", r)
	}
	v.opts = []string{"memory_class_limit=16MiB"}
	v.mount()
	after := must(t, v.mnt, "sh", "-c", "find . ! -path ./mem/open -printf '%P %y %m %U:%G %s %T@ %C@ %i %l\n' | "+
		"sort; find . -type f | sort | xargs sha1sum")
	if before != after {
		t.Errorf("before the kill:\n%s\nafter:\n%s", before, after)
	}
	if st := v.status().Memory; st.Limit != 16<<20 || st.Directories != 2 {
		t.Errorf("status says %+v", st)
	}
	equal(t, read(t, v.at("mem/open")), "written", "the open file:")
	check(t, os.WriteFile(v.at("mem/new"), []byte("new"), 0o644))
	if got := read(t, other.at("mem/o")); got != "other" || names(t, other.at("mem")) != "o" {
		t.Errorf("the other volume's: %q", got)
	}

	// The rule has gone: what is in memory stays there while it is.
	v.kill()
	v.config = ""
	v.mount()
	equal(t, read(t, v.at("mem/new")), "new", "without the rule:")
	check(t, os.WriteFile(v.at("mem/more"), []byte("more"), 0o644))
	equal(t, names(t, filepath.Join(v.state, "warm/mem")), "", "warm holds")
	check(t, os.RemoveAll(v.at("a/b/mem")))
	check(t, os.Mkdir(v.at("a/b/mem"), 0o755))
	check(t, os.WriteFile(v.at("a/b/mem/d"), []byte("disk"), 0o644))
	equal(t, names(t, filepath.Join(v.state, "warm/a/b/mem")), "d", "made without the rule: warm holds")
	v.umount()
	if left := tmpfsBelow(v.dir); len(left) != 0 {
		t.Errorf("umount leaves %+v", left)
	}
	v.mount()
	equal(t, names(t, v.at("mem"))+names(t, v.at("a/b/mem")), "d", "after an unmount:")
	v.umount()
	other.umount()
	fsck(t, v.cold())
}

// TestMemoryForeign: what is mounted where the tmpfs belongs and is not of this volume is left alone, and nothing goes
// to the disk.
func TestMemoryForeign(t *testing.T) {
	deadline(t, time.Minute)
	v := newVolume(t, "v", withMemory("mem"))
	at := filepath.Join(v.state, "memory")
	check(t, os.MkdirAll(at, 0o700))
	check(t, os.Chmod(v.state, 0o700))
	check(t, os.WriteFile(filepath.Join(v.state, "lock"), nil, 0o600))
	check(t, unix.Mount("somebody", at, "tmpfs", 0, "mode=0700"))
	check(t, os.WriteFile(filepath.Join(at, "theirs"), []byte("x"), 0o600))
	v.mount()
	st := v.status()
	if st.Memory.Available || st.Memory.Why == "" || len(st.Notes) == 0 {
		t.Errorf("status says %+v and notes %q", st.Memory, st.Notes)
	}
	check(t, os.Mkdir(v.at("mem"), 0o755))
	wantErrno(t, os.WriteFile(v.at("mem/f"), nil, 0o644), unix.EOPNOTSUPP, "a file")
	wantErrno(t, os.Mkdir(v.at("mem/d"), 0o755), unix.EOPNOTSUPP, "a directory")
	check(t, os.WriteFile(v.at("f"), nil, 0o644))
	wantErrno(t, os.Rename(v.at("f"), v.at("mem/f")), unix.EOPNOTSUPP, "a rename into it")
	wantErrno(t, os.Link(v.at("f"), v.at("mem/f")), unix.EOPNOTSUPP, "a link in it")
	check(t, os.Remove(v.at("mem")))
	v.umount()
	equal(t, read(t, filepath.Join(at, "theirs")), "x", "somebody's file:")
	check(t, unix.Unmount(at, 0))
}

// TestMemoryUser: a plain user cannot mount a tmpfs; the rest of the volume works.
func TestMemoryUser(t *testing.T) {
	deadline(t, time.Minute)
	u := plainUser()
	v := newVolume(t, "v", withUser(u), withMemory("mem")).mount()
	if st := v.status(); st.Memory.Available || len(st.Notes) == 0 {
		t.Errorf("status says %+v and notes %q", st.Memory, st.Notes)
	}
	check(t, asUser(u, func() error {
		if err := os.Mkdir(v.at("mem"), 0o755); err != nil {
			return err
		}
		wantErrno(t, os.WriteFile(v.at("mem/f"), nil, 0o644), unix.EOPNOTSUPP, "a file")
		return os.WriteFile(v.at("f"), []byte("x"), 0o644)
	}))
	v.umount()
}

// TestMemoryLate: a directory becomes one of class memory after programs have got to know it, because one above it was
// renamed.
func TestMemoryLate(t *testing.T) {
	deadline(t, time.Minute)
	v := newVolume(t, "v", withMemory("a/mem", "a/full")).mount()
	check(t, os.MkdirAll(v.at("x/mem"), 0o755))
	check(t, os.MkdirAll(v.at("x/full"), 0o755))
	check(t, os.WriteFile(v.at("x/full/f"), []byte("x"), 0o644))
	check(t, os.WriteFile(v.at("f"), []byte("x"), 0o644))
	if got := names(t, v.at("x/mem")); got != "" {
		t.Fatal(got)
	}
	fd, err := unix.Open(v.at("x/mem"), unix.O_RDONLY|unix.O_DIRECTORY, 0)
	check(t, err)
	check(t, os.Rename(v.at("x"), v.at("a")))
	check(t, os.WriteFile(v.at("a/mem/new"), []byte("x"), 0o644))
	wantErrno(t, os.Rename(v.at("f"), v.at("a/mem/f")), unix.EXDEV, "rename across the border")
	check(t, os.WriteFile(v.at("a/full/new"), []byte("x"), 0o644))
	if got := names(t, v.at("a/mem")) + "," + names(t, filepath.Join(v.state, "warm/a/mem")) + "," +
		names(t, filepath.Join(v.state, "warm/a/full")); got != "new,,f new" {
		t.Errorf("in memory, on disk, on disk: %q", got)
	}
	// What is open is the directory that was: nothing can be made in it behind the other's back.
	wantErrno(t, unix.Mkdirat(fd, "behind", 0o755), unix.ESTALE, "mkdir by the old descriptor")
	check(t, unix.Close(fd))
	v.umount()
}

// TestMemoryEnds ends the mount in all ways that are in good order: no tmpfs is left.
func TestMemoryEnds(t *testing.T) {
	t.Parallel()
	deadline(t, 2*time.Minute)
	for name, end := range map[string]func(v *volume){
		"sigterm": func(v *volume) { check(t, unix.Kill(v.daemon(), unix.SIGTERM)) },
		"umount8": func(v *volume) { must(t, "/", "umount", "-i", v.mnt) },
		"lazy":    func(v *volume) { must(t, "/", "umount", "-i", "-l", v.mnt) },
		"busy": func(v *volume) {
			f, err := os.Create(v.at("mem/open"))
			check(t, err)
			t.Cleanup(func() { f.Close() })
			check(t, unix.Kill(v.daemon(), unix.SIGTERM))
		},
	} {
		t.Run(name, func(t *testing.T) {
			v := newVolume(t, "v", withMemory("mem")).mount()
			check(t, os.MkdirAll(v.at("mem/d"), 0o755))
			check(t, os.WriteFile(v.at("mem/d/f"), []byte("x"), 0o644))
			end(v)
			v.waitGone()
			if left := mountsBelow(v.dir); len(left) != 0 {
				t.Errorf("left: %+v", left)
			}
			if _, err := os.Stat(filepath.Join(v.state, "memory")); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the mountpoint of the tmpfs: %v", err)
			}
		})
	}
}
