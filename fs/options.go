package fs

import (
	"fmt"
	"strings"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

// subtype is what stands after "fuse." in the type of a mount.
const subtype = "emberfs"

// Options say how a volume is mounted.
type Options struct {
	// Mountpoint is an existing directory.
	Mountpoint string
	// FsName is shown as the source of the mount (df, findmnt); empty: emberfs.
	FsName string
	// AllowOther lets other users in. The kernel then checks permissions and ACLs itself (default_permissions). Without
	// it only the user who mounts may enter, and what the user may do is what warm allows: fewer round trips.
	AllowOther bool
	// ReadOnly mounts with ro.
	ReadOnly bool
	// MountOptions are -o words for the kernel: ro, rw, nosuid, suid, nodev, dev, noexec, exec, noatime, atime,
	// nodiratime, sync, dirsync, default_permissions, allow_other, SELinux contexts. Those that are for other programs
	// (_netdev, nofail, x-*, user...) are ignored; any other is an *OptionError.
	MountOptions []string
	// KernelCache lets the kernel keep names, attributes and pages. False (kernel_cache=off) is for tests.
	KernelCache bool
	// Status makes what .emberfs/status.json holds, each time that is opened. It must neither block for long nor touch
	// the mount, and be safe for concurrent use. May be nil.
	Status func() []byte
	// Debug logs every request and reply at debug level.
	Debug bool
	// Log must not be nil.
	Log logrus.FieldLogger
}

// OptionError is a mount option that is unknown.
type OptionError struct{ Option string }

func (e *OptionError) Error() string { return fmt.Sprintf("mount option %q is unknown", e.Option) }

// mountSpec is what the options come to.
type mountSpec struct {
	mountpoint         string
	fsname             string
	flags              uintptr  // MS_*
	words              []string // the same flags as words, for fusermount3
	data               []string // options of the filesystem: contexts
	allowOther         bool
	defaultPermissions bool
}

// mountFlag is a word that sets or clears a flag of mount(2).
type mountFlag struct {
	flag  uintptr
	clear bool
}

// helperKnows says which of these words fusermount3 takes; the others make no difference to a FUSE mount.
func helperKnows(word string) bool {
	switch word {
	case "diratime", "nodiratime", "relatime", "norelatime", "strictatime", "nostrictatime":
		return false
	}
	return true
}

// flagOf knows the words of mount(8) that are flags of mount(2).
func flagOf(word string) (mountFlag, bool) {
	f, ok := map[string]mountFlag{
		"ro": {unix.MS_RDONLY, false}, "rw": {unix.MS_RDONLY, true},
		"nosuid": {unix.MS_NOSUID, false}, "suid": {unix.MS_NOSUID, true},
		"nodev": {unix.MS_NODEV, false}, "dev": {unix.MS_NODEV, true},
		"noexec": {unix.MS_NOEXEC, false}, "exec": {unix.MS_NOEXEC, true},
		"noatime": {unix.MS_NOATIME, false}, "atime": {unix.MS_NOATIME, true},
		"nodiratime": {unix.MS_NODIRATIME, false}, "diratime": {unix.MS_NODIRATIME, true},
		"relatime": {unix.MS_RELATIME, false}, "norelatime": {unix.MS_RELATIME, true},
		"strictatime": {unix.MS_STRICTATIME, false}, "nostrictatime": {unix.MS_STRICTATIME, true},
		"sync": {unix.MS_SYNCHRONOUS, false}, "async": {unix.MS_SYNCHRONOUS, true},
		"dirsync": {unix.MS_DIRSYNC, false},
	}[word]
	return f, ok
}

// forOthers says of an option that it is meant for mount(8), fstab or systemd.
func forOthers(word string) bool {
	switch word {
	case "", "defaults", "_netdev", "nofail", "auto", "noauto", "user", "nouser", "users", "owner", "group", "nonempty",
		"silent", "loud":
		return true
	}
	return strings.HasPrefix(word, "x-") || strings.HasPrefix(word, "comment=")
}

// spec works the options out. Later words win over earlier ones, as in mount(8).
func (o *Options) spec() (*mountSpec, error) {
	s := &mountSpec{mountpoint: o.Mountpoint, fsname: o.FsName, allowOther: o.AllowOther}
	if s.fsname == "" {
		s.fsname = subtype
	}
	words := o.MountOptions
	if o.ReadOnly {
		words = append(words[:len(words):len(words)], "ro")
	}
	for _, w := range words {
		key, _, _ := strings.Cut(w, "=")
		f, isFlag := flagOf(w)
		switch {
		case isFlag:
			if f.clear {
				s.flags &^= f.flag
			} else {
				s.flags |= f.flag
			}
			if helperKnows(w) {
				s.words = append(s.words, w)
			}
		case w == "allow_other":
			s.allowOther = true
		case w == "default_permissions":
			s.defaultPermissions = true
		case key == "context" || key == "fscontext" || key == "defcontext" || key == "rootcontext":
			s.data = append(s.data, w)
		case !forOthers(w):
			return nil, &OptionError{w}
		}
	}
	if s.allowOther { // other users are held off by the kernel or not at all: the daemon acts with its own rights
		s.defaultPermissions = true
	}
	return s, nil
}

// common are the options that FUSE itself understands.
func (s *mountSpec) common() []string {
	r := []string{fmt.Sprintf("max_read=%d", maxRequest)}
	if s.allowOther {
		r = append(r, "allow_other")
	}
	if s.defaultPermissions {
		r = append(r, "default_permissions")
	}
	return append(r, s.data...)
}

// direct is the data of mount(2), fd being the connection.
func (s *mountSpec) direct(fd, uid, gid int) string {
	r := []string{fmt.Sprintf("fd=%d", fd), "rootmode=40000", fmt.Sprintf("user_id=%d", uid),
		fmt.Sprintf("group_id=%d", gid)}
	return strings.Join(append(r, s.common()...), ",")
}

// helper are the options for fusermount3, which wants commas and backslashes in values escaped.
func (s *mountSpec) helper() string {
	r := append(s.common(), s.words...)
	r = append(r, "fsname="+s.fsname, "subtype="+subtype)
	escape := strings.NewReplacer(`\`, `\\`, `,`, `\,`)
	for i, w := range r {
		r[i] = escape.Replace(w)
	}
	return strings.Join(r, ",")
}
