//go:build slow

package integration

import (
	"bytes"
	"emberfs/integration/testprog"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// without gives a volume a daemon and commands that lack capabilities, as in a container.
func without(t testing.TB, caps ...string) volumeOption {
	return func(v *volume) {
		drop := "-" + strings.Join(caps, ",-")
		v.bin = filepath.Join(v.dir, "emberfs")
		mkdir(t, v.dir, user{})
		check(t, testprog.Write(v.bin, fmt.Sprintf(
			"#!/bin/sh\nexec setpriv --bounding-set %s --inh-caps %s %s \"$@\"\n", drop, drop, env.bin)))
	}
}

// inMemory is a state directory on a tmpfs: attributes there may be as big as the kernel lets them.
func inMemory(t *testing.T, name string) volumeOption {
	dir := mkdir(t, filepath.Join(testDir(t), name+".tmpfs"), user{})
	check(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=200m"))
	t.Cleanup(func() {
		if !waitFor(10*time.Second, func() bool { return unix.Unmount(dir, 0) == nil }) {
			t.Errorf("%s stays busy", dir)
			_ = unix.Unmount(dir, unix.MNT_DETACH)
		}
	})
	return withState(filepath.Join(dir, "state"))
}

// editMeta changes the metadata of the volume's root in a repository, as another version, or another system, would have
// written it.
func editMeta(t testing.TB, repo, sed string) {
	t.Helper()
	clone := filepath.Join(testDir(t), "edit")
	shell(t, "/", fmt.Sprintf(`git clone -q %s %s; cd %s
		sed -i '%s' .emberfs/meta/.emberfs%%entries
		git -c user.name=u -c user.email=u@example.org commit -qam edited; git push -q; rm -rf %s`, repo, clone, clone,
		sed, clone))
}

// heldCase is something that the next machine cannot make.
type heldCase struct {
	what    string
	first   func(t *testing.T) volumeOption // how the first and the last machine are; nil: as any
	make    func(t *testing.T, at string)
	edit    string                          // of the metadata
	next    func(t *testing.T) volumeOption // how the next machine is
	says    string
	special bool                                // there is nothing to show
	have    func(t *testing.T, at string) error // that the last machine has it
}

func heldCases() []heldCase {
	big := bytes.Repeat([]byte("thumb"), 1800)
	xattr := func(name string, want []byte) func(*testing.T, string) error {
		return func(t *testing.T, at string) error {
			buf := make([]byte, 64<<10)
			n, err := unix.Lgetxattr(at, name, buf)
			if err == nil && !bytes.Equal(buf[:n], want) {
				err = fmt.Errorf("%s is %q", name, buf[:n])
			}
			return err
		}
	}
	return []heldCase{{
		what:  "big attribute",
		first: func(t *testing.T) volumeOption { return inMemory(t, t.Name()) },
		make:  func(t *testing.T, at string) { check(t, unix.Setxattr(at, "user.thumb", big, 0)) },
		next: func(t *testing.T) volumeOption {
			return withState(smallDisk(t, "ext4", 100) + "/state")
		},
		says: "attribute user.thumb: no space left on device",
		have: xattr("user.thumb", big),
	}, {
		what: "device",
		make: func(t *testing.T, at string) {
			check(t, os.Remove(at))
			check(t, unix.Mknod(at, unix.S_IFCHR, int(unix.Mkdev(1, 3))))
			check(t, unix.Chmod(at, 0o620))
			check(t, unix.Setxattr(at, "trusted.k", []byte("v"), 0))
		},
		next:    func(t *testing.T) volumeOption { return without(t, "mknod") },
		says:    "this char: operation not permitted",
		special: true,
		have: func(t *testing.T, at string) error {
			var st unix.Stat_t
			if err := unix.Lstat(at, &st); err != nil || st.Mode != unix.S_IFCHR|0o620 || st.Rdev != unix.Mkdev(1, 3) {
				return fmt.Errorf("mode %o, device %x, %w", st.Mode, st.Rdev, err)
			}
			return xattr("trusted.k", []byte("v"))(t, at)
		},
	}, {
		what: "owner",
		make: func(t *testing.T, at string) {
			check(t, os.Chown(at, 4711, 815))
			check(t, unix.Chmod(at, 0o4750))
		},
		next: func(t *testing.T) volumeOption { return without(t, "chown") },
		says: "owner 4711:815: ",
		have: func(t *testing.T, at string) error {
			var st unix.Stat_t
			if err := unix.Lstat(at, &st); err != nil || st.Uid != 4711 || st.Gid != 815 ||
				st.Mode != unix.S_IFREG|0o4750 {
				return fmt.Errorf("%d:%d, mode %o, %w", st.Uid, st.Gid, st.Mode, err)
			}
			return nil
		},
	}, {
		what:  "time",
		first: func(t *testing.T) volumeOption { return inMemory(t, t.Name()) },
		make: func(t *testing.T, at string) {
			check(t, unix.UtimesNanoAt(unix.AT_FDCWD, at,
				[]unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: 1 << 34, Nsec: 5}}, 0))
		},
		next: func(t *testing.T) volumeOption { return withState(smallDisk(t, "ext4", 100) + "/state") },
		says: "mtime 2514-05-30T01:53:04.000000005Z: the file system keeps no such times",
		have: func(t *testing.T, at string) error {
			var st unix.Stat_t
			if err := unix.Lstat(at, &st); err != nil || st.Mtim != (unix.Timespec{Sec: 1 << 34, Nsec: 5}) {
				return fmt.Errorf("mtime %v, %w", st.Mtim, err)
			}
			return nil
		},
	}, {
		what: "unknown attributes",
		make: func(t *testing.T, at string) { check(t, unix.Setxattr(at, "user.k", []byte("v"), 0)) },
		edit: `s/"xattrs":\[{"name":"user.k","value":"v"}\]/"xattrs":[{"name":"osx.k","value":"o"},{"name":"system.posix_acl_access","value":"not an ACL"},{"name":"user.k","value":"v"}]/`,
		says: "attribute osx.k: ",
		have: nil, // no machine here takes them: the repository is looked at
	}}
}

// TestHeldBack: what a machine cannot make hides nothing else, is said, and is there for the next machine, through
// renames, kills and changes beside it.
func TestHeldBack(t *testing.T) {
	t.Parallel()
	for _, c := range heldCases() {
		for _, tiering := range []string{"on", "off"} {
			t.Run(strings.ReplaceAll(c.what, " ", "_")+"_tiering_"+tiering, func(t *testing.T) {
				t.Parallel()
				deadline(t, 3*time.Minute)
				heldBack(t, c, tiering)
			})
		}
	}
}

func heldBack(t *testing.T, c heldCase, tiering string) {
	repo := newBareRepo(t, "remote.git", user{})
	plain := func(*volume) {}
	option := func(f func(*testing.T) volumeOption) volumeOption {
		if f == nil {
			return plain
		}
		return f(t)
	}
	one := newVolume(t, "one", withSource(repo), option(c.first)).mount()
	for _, name := range []string{"a", "odd", "z"} {
		check(t, os.WriteFile(one.at(name), []byte("text of "+name), 0o644))
	}
	c.make(t, one.at("odd"))
	one.umount()
	if c.edit != "" {
		editMeta(t, repo, c.edit)
	}
	meta := func() string { return show(t, repo, "main:.emberfs/meta/.emberfs%entries") }
	line := func(name string) string {
		for l := range strings.SplitSeq(meta(), "\n") {
			if strings.HasPrefix(l, `{"name":"`+name+`"`) {
				return strings.Replace(l, `{"name":"`+name+`"`, "", 1)
			}
		}
		return ""
	}
	before := line("odd")

	two := newVolume(t, "two", withSource(repo), option(c.next), withOpts("tiering="+tiering)).mount()
	shown := func(name string) {
		t.Helper()
		for _, other := range []string{"a", "z"} {
			wantFile(t, two.at(other), "text of "+other, "beside it %s reads", other)
		}
		b, err := os.ReadFile(two.at(name))
		if c.special && !errors.Is(err, unix.EIO) || !c.special && (err != nil || string(b) != "text of odd") {
			t.Errorf("%s reads %q, %v", name, b, err)
		}
		r := two.emberfs("status", two.mnt)
		if !strings.Contains(r.stdout, "left out here: "+name+": "+c.says) {
			t.Errorf("status does not list it\n%v", r)
		}
		if r := two.emberfs("status", two.at(name)); !strings.Contains(r.stdout, c.says) {
			t.Errorf("status of the file does not tell\n%v", r)
		}
		if st := two.status(); len(st.Errors) > 0 {
			t.Errorf("errors: %q", st.Errors)
		}
	}
	shown("odd")
	check(t, os.WriteFile(two.at("new"), []byte("new"), 0o644))
	r := two.emberfs("sync", two.mnt)
	if r.code != 0 || !strings.Contains(r.stdout, "COMPLETE") ||
		!strings.Contains(r.stdout, "left out here: odd: "+c.says) {
		t.Errorf("the receipt: %v", r)
	}
	equal(t, line("odd"), before, "the commit has")
	two.kill()
	two.mount()
	shown("odd")
	check(t, os.Rename(two.at("odd"), two.at("moved")))
	check(t, os.Mkdir(two.at("dir"), 0o755))
	check(t, os.Rename(two.at("moved"), two.at("dir/moved")))
	check(t, os.Rename(two.at("dir"), two.at("other")))
	check(t, os.Rename(two.at("other/moved"), two.at("moved")))
	shown("moved")
	two.sync()
	equal(t, line("moved"), before, "after renames the commit has")
	two.mustBeSound(two.mnt)
	two.umount()
	if r := two.emberfs("check", two.state); r.code != 0 || !strings.Contains(r.stdout, "left out here: ") {
		t.Errorf("check: %v", r)
	}
	fsck(t, repo)

	where := filepath.Dir(two.state) // on the file system that cannot
	r = two.emberfs("restore", "--from", repo, "--to", where+"/copy")
	if r.code != 3 || !strings.Contains(r.stderr, "moved") {
		t.Errorf("restore: want exit 3 and the name\n%v", r)
	}
	wantFile(t, where+"/copy/a", "text of a", "restore gives")

	two.mount()
	check(t, os.Rename(two.at("moved"), two.at("odd")))
	two.umount()
	if c.have != nil {
		three := newVolume(t, "three", withSource(repo), option(c.first)).mount()
		if err := c.have(t, three.at("odd")); err != nil {
			t.Errorf("the machine that can make it has: %v", err)
		}
		if st := three.status(); len(st.LeftOut) > 0 {
			t.Errorf("the machine that can make it says %q", st.LeftOut)
		}
		three.umount()
	}
	two.mount()
	check(t, os.Remove(two.at("odd")))
	check(t, os.WriteFile(two.at("odd"), []byte("anew"), 0o644))
	two.sync()
	if got := line("odd"); got == before || strings.Contains(got, "xattrs") {
		t.Errorf("made anew, the commit has\n%s", got)
	}
	if st := two.status(); len(st.LeftOut) > 0 {
		t.Errorf("after it is gone status says %q", st.LeftOut)
	}
	two.umount()
}
