package fs

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

func TestSpec(t *testing.T) {
	for _, c := range []struct {
		name   string
		o      Options
		flags  uintptr
		direct string
		helper string
	}{
		{"plain", Options{}, 0,
			"fd=7,rootmode=40000,user_id=1,group_id=2,max_read=1048576",
			"max_read=1048576,fsname=emberfs,subtype=emberfs"},
		{"root's default", Options{AllowOther: true, FsName: `a,b\c`}, 0,
			"fd=7,rootmode=40000,user_id=1,group_id=2,max_read=1048576,allow_other,default_permissions",
			`max_read=1048576,allow_other,default_permissions,fsname=a\,b\\c,subtype=emberfs`},
		{"flags; the last word wins", Options{
			ReadOnly: true, MountOptions: []string{"rw", "nosuid", "suid", "nodev", "noexec", "noatime"}},
			unix.MS_RDONLY | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME,
			"fd=7,rootmode=40000,user_id=1,group_id=2,max_read=1048576",
			"max_read=1048576,rw,nosuid,suid,nodev,noexec,noatime,ro,fsname=emberfs,subtype=emberfs"},
		{"for others", Options{MountOptions: []string{"relatime", "norelatime", "_netdev", "nofail",
			"x-systemd.automount", "user", "defaults", "nonempty", ""}}, 0,
			"fd=7,rootmode=40000,user_id=1,group_id=2,max_read=1048576",
			"max_read=1048576,fsname=emberfs,subtype=emberfs"},
		{"passed on", Options{MountOptions: []string{"default_permissions", "context=system_u:object_r:fusefs_t:s0"}},
			0,
			"fd=7,rootmode=40000,user_id=1,group_id=2,max_read=1048576,default_permissions,context=system_u:object_r:fusefs_t:s0",
			"max_read=1048576,default_permissions,context=system_u:object_r:fusefs_t:s0,fsname=emberfs,subtype=emberfs"},
	} {
		s, err := c.o.spec()
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if s.flags != c.flags {
			t.Errorf("%s: flags %#x, want %#x", c.name, s.flags, c.flags)
		}
		if got := s.direct(7, 1, 2); got != c.direct {
			t.Errorf("%s: mount(2) gets\n%s, want\n%s", c.name, got, c.direct)
		}
		if got := s.helper(); got != c.helper {
			t.Errorf("%s: fusermount3 gets\n%s, want\n%s", c.name, got, c.helper)
		}
	}
	for _, w := range []string{"nosiud", "allow_root", "max_read=1", "ro=1"} {
		_, err := (&Options{MountOptions: []string{w}}).spec()
		var oe *OptionError
		if !errors.As(err, &oe) || oe.Option != w {
			t.Errorf("%s: %v", w, err)
		}
	}
}
