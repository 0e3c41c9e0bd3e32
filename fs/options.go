package fs

import (
	"fmt"
	"strings"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

// subtype is the part of a mount's type that follows "fuse.".
const subtype = "emberfs"

// Options say how a volume is mounted.
type Options struct {
	// Mountpoint is an existing directory.
	Mountpoint string
	// FsName is shown as the source of the mount, for example by df and findmnt. If empty it is emberfs.
	FsName string
	// AllowOther lets other users access the mount. The kernel then checks permissions and ACLs (default_permissions).
	// Without it only the user who mounted has access, and warm's permissions decide what that user may do, which takes
	// fewer round trips.
	AllowOther bool
	// ReadOnly mounts with the option ro.
	ReadOnly bool
	// MountOptions are words of the option -o for the kernel: ro, rw, nosuid, suid, nodev, dev, noexec, exec, noatime,
	// atime, nodiratime, sync, dirsync, default_permissions, allow_other, SELinux contexts. Words that are for other
	// programs (_netdev, nofail, x-*, user...) are ignored; any other is an *OptionError.
	MountOptions []string
	// KernelCache lets the kernel cache names, attributes and pages. False (kernel_cache=off) is meant for tests.
	KernelCache bool
	// Status returns the content of .emberfs/status.json, each time that the file is opened. It must neither block for
	// long nor touch the mount, and must be safe for concurrent use. It may be nil.
	Status func() []byte
	// Notice returns the content of .emberfs/notice.json, or nil while there is no such file. It is bound as Status is.
	Notice func() []byte
	// Debug logs every request and reply at debug level.
	Debug bool
	// Log must not be nil.
	Log logrus.FieldLogger
}

// OptionError says that a mount option is unknown.
type OptionError struct{ Option string }

func (e *OptionError) Error() string { return fmt.Sprintf("mount option %q is unknown", e.Option) }

// mountSpec is the result of evaluating Options.
type mountSpec struct {
	mountpoint         string
	fsname             string
	flags              uintptr  // MS_*
	words              []string // the flags again, as words for fusermount3
	data               []string // options for the file system: SELinux contexts
	allowOther         bool
	defaultPermissions bool
}

// mountFlag is a word that sets or clears a flag of mount(2).
type mountFlag struct {
	flag  uintptr
	clear bool
}

// helperKnows reports whether fusermount3 accepts a word. Those that it does not accept make no difference to a FUSE
// mount.
func helperKnows(word string) bool {
	switch word {
	case "diratime", "nodiratime", "relatime", "norelatime", "strictatime", "nostrictatime":
		return false
	}
	return true
}

// flagOf returns the flag of mount(2) that a word of mount(8) stands for.
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

// spec evaluates the options. Later words override earlier ones, as in mount(8).
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
	if s.allowOther { // only the kernel can check permissions of other users: the daemon acts with its own rights
		s.defaultPermissions = true
	}
	return s, nil
}

// common returns the options that FUSE itself understands.
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

// direct returns the data for mount(2). fd is the connection.
func (s *mountSpec) direct(fd, uid, gid int) string {
	r := []string{fmt.Sprintf("fd=%d", fd), "rootmode=40000", fmt.Sprintf("user_id=%d", uid),
		fmt.Sprintf("group_id=%d", gid)}
	return strings.Join(append(r, s.common()...), ",")
}

// helper returns the options for fusermount3, in which commas and backslashes of values must be escaped.
func (s *mountSpec) helper() string {
	r := append(s.common(), s.words...)
	r = append(r, "fsname="+s.fsname, "subtype="+subtype)
	escape := strings.NewReplacer(`\`, `\\`, `,`, `\,`)
	for i, w := range r {
		r[i] = escape.Replace(w)
	}
	return strings.Join(r, ",")
}
