package integration

import (
	"encoding/binary"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

func aclCases() []pcase {
	return []pcase{
		{name: "acl_mask_and_mode_in_step", run: aclMask},
		{name: "acl_minimal_becomes_mode", run: aclMinimal},
		{name: "acl_inheritance", run: aclInheritance},
		{name: "acl_default_replaces_umask", run: aclUmask},
		{name: "acl_access_by_other_users", root: true, run: aclAccess},
		{name: "acl_removed", run: aclRemoved},
		{name: "acl_errors", run: aclErrors},
		{name: "acl_seen_at_once", root: true, run: aclSeen},
	}
}

const (
	aclAccessName  = "system.posix_acl_access"
	aclDefaultName = "system.posix_acl_default"
	aclUserObj     = 0x01
	aclUser        = 0x02
	aclGroupObj    = 0x04
	aclGroup       = 0x08
	aclMaskTag     = 0x10
	aclOther       = 0x20
)

// acl encodes entries given as in setfacl: "u::rw- u:12:r-- g::r-- m::rwx o::---".
func acl(text string) string {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range strings.Fields(text) {
		f := strings.Split(e, ":")
		id := uint32(0xffffffff)
		tag := map[string]uint16{"u": aclUserObj, "g": aclGroupObj, "m": aclMaskTag, "o": aclOther}[f[0]]
		if f[1] != "" {
			_, _ = fmt.Sscan(f[1], &id)
			tag <<= 1 // aclUser, aclGroup
		}
		var perm uint16
		for _, p := range f[2] {
			perm |= map[rune]uint16{'r': 4, 'w': 2, 'x': 1}[p]
		}
		b = binary.LittleEndian.AppendUint16(b, tag)
		b = binary.LittleEndian.AppendUint16(b, perm)
		b = binary.LittleEndian.AppendUint32(b, id)
	}
	return string(b)
}

// aclText is the inverse of acl.
func aclText(b string) string {
	if len(b) < 4 {
		return ""
	}
	var out []string
	for e := []byte(b)[4:]; len(e) >= 8; e = e[8:] {
		tag, perm := binary.LittleEndian.Uint16(e), binary.LittleEndian.Uint16(e[2:])
		name := map[uint16]string{aclUserObj: "u:", aclUser: "u:", aclGroupObj: "g:", aclGroup: "g:", aclMaskTag: "m:",
			aclOther: "o:"}[tag]
		if tag == aclUser || tag == aclGroup {
			name += fmt.Sprint(binary.LittleEndian.Uint32(e[4:]))
		}
		s := []byte("---")
		for i, c := range "rwx" {
			if perm&(4>>i) != 0 {
				s[i] = byte(c)
			}
		}
		out = append(out, name+":"+string(s))
	}
	return strings.Join(out, " ")
}

func (c *tc) getACL(path, name string) string { c.Helper(); return aclText(c.getx(path, name)) }

func aclMask(c *tc) {
	f := c.file("f", "x")
	c.setx(f, aclAccessName, acl("u::rw- u:1234:rwx g::r-- m::rw- o::---"))
	c.equal(c.perm(f), uint32(0o660), "mode: the group bits show the mask")
	c.ok(unix.Chmod(f, 0o640), "chmod")
	c.equal(c.getACL(f, aclAccessName), "u::rw- u:1234:rwx g::r-- m::r-- o::---", "acl after chmod")
	c.ok(unix.Chmod(f, 0o777), "chmod")
	c.equal(c.getACL(f, aclAccessName), "u::rwx u:1234:rwx g::r-- m::rwx o::rwx", "acl after chmod")
	c.setx(f, aclAccessName, acl("u::r-- u:1234:r-- g::r-- m::r-- o::r--"))
	c.equal(c.perm(f), uint32(0o444), "mode after setting another acl")
	fd := c.open(f, unix.O_RDONLY, 0)
	c.equal(c.fstat(fd).Mode&0o777, uint32(0o444), "mode by descriptor")
}

func aclMinimal(c *tc) {
	f := c.file("f", "x")
	c.setx(f, aclAccessName, acl("u::rwx g::r-x o::--x"))
	c.equal(c.perm(f), uint32(0o751), "mode")
	_, err := unix.Lgetxattr(f, aclAccessName, make([]byte, 100))
	c.want(err, unix.ENODATA, "an acl that is only the mode is not kept")
}

func aclInheritance(c *tc) {
	d := c.mkdir("d")
	def := "u::rwx u:1234:rwx g::r-x m::rwx o::---"
	c.setx(d, aclDefaultName, acl(def))
	c.equal(c.perm(d), uint32(0o755), "a default acl leaves the mode alone")
	c.ok(unix.Mkdir(d+"/sub", 0o777), "mkdir")
	c.equal(c.getACL(d+"/sub", aclDefaultName), def, "default acl of a new directory")
	c.equal(c.getACL(d+"/sub", aclAccessName), def, "access acl of a new directory")
	c.equal(c.perm(d+"/sub"), uint32(0o770), "mode of a new directory")
	fd := c.open(d+"/f", unix.O_CREAT|unix.O_WRONLY, 0o644)
	c.equal(c.fstat(fd).Mode&0o777, uint32(0o640), "mode of a new file")
	c.equal(c.getACL(d+"/f", aclAccessName), "u::rw- u:1234:rwx g::r-x m::r-- o::---", "acl of a new file")
	_, err := unix.Lgetxattr(d+"/f", aclDefaultName, make([]byte, 100))
	c.truth(err == unix.ENODATA || err == unix.EACCES || err == unix.EOPNOTSUPP, "a file has a default acl: %v", err)
	c.ok(unix.Mkfifo(d+"/p", 0o666), "mkfifo")
	c.equal(c.getACL(d+"/p", aclAccessName), "u::rw- u:1234:rwx g::r-x m::rw- o::---", "acl of a new fifo")
	c.ok(os.Symlink("x", d+"/l"), "symlink")
	tmp := c.open(d, unix.O_TMPFILE|unix.O_WRONLY, 0o600)
	c.equal(c.fstat(tmp).Mode&0o777, uint32(0o600), "mode of an O_TMPFILE")
	c.ok(os.Rename(c.file("moved", "x"), d+"/moved"), "rename in")
	_, err = unix.Lgetxattr(d+"/moved", aclAccessName, make([]byte, 100))
	c.want(err, unix.ENODATA, "a moved file inherits nothing")
}

func aclUmask(c *tc) {
	d := c.mkdir("d")
	c.setx(d, aclDefaultName, acl("u::rwx g::rwx o::rwx"))
	c.ok(isolated(func() error {
		unix.Umask(0o077)
		fd, err := unix.Open(d+"/f", unix.O_CREAT|unix.O_WRONLY, 0o666)
		if err == nil {
			err = unix.Close(fd)
		}
		if err == nil {
			err = unix.Mkdir(d+"/sub", 0o777)
		}
		if err == nil {
			err = unix.Mkdir(c.p("plain"), 0o777)
		}
		return err
	}), "create")
	c.equal(c.perm(d+"/f"), uint32(0o666), "mode of a file: the default acl counts, not the umask")
	c.equal(c.perm(d+"/sub"), uint32(0o777), "mode of a directory")
	c.equal(c.perm(c.p("plain")), uint32(0o700), "mode without a default acl: the umask counts")
}

func aclAccess(c *tc) {
	f := c.file("f", "x")
	c.setx(f, aclAccessName, acl("u::rw- u:4711:rw- g::--- g:4800:r-- m::rw- o::---"))
	try := func(u user, flags int) (err error) {
		c.ok(asUser(u, func() error { err = errnoOf(f, flags, 0); return nil }), "as user")
		return err
	}
	c.ok(try(user{uid: 4711, gid: 1}, unix.O_RDWR), "the named user")
	c.ok(try(user{uid: 4712, gid: 4800}, unix.O_RDONLY), "the named group")
	c.ok(try(user{uid: 4712, gid: 1, groups: []uint32{4800}}, unix.O_RDONLY), "the named group as a supplementary one")
	c.want(try(user{uid: 4712, gid: 4800}, unix.O_WRONLY), unix.EACCES, "the named group, writing")
	c.want(try(user{uid: 4712, gid: 1}, unix.O_RDONLY), unix.EACCES, "others")
	c.ok(unix.Chmod(f, 0o640), "chmod")
	c.want(try(user{uid: 4711, gid: 1}, unix.O_WRONLY), unix.EACCES, "the named user under a smaller mask")
	c.ok(try(user{uid: 4711, gid: 1}, unix.O_RDONLY), "the named user reading under a smaller mask")
}

func aclRemoved(c *tc) {
	d := c.mkdir("d")
	f := c.file("f", "x")
	c.setx(f, aclAccessName, acl("u::rw- u:1:rwx g::r-- m::rwx o::---"))
	c.ok(unix.Lremovexattr(f, aclAccessName), "remove the access acl")
	c.equal(len(c.listx(f)), 0, "attributes")
	c.setx(d, aclDefaultName, acl("u::rwx u:1:rwx g::r-x m::rwx o::---"))
	c.equal(strings.Join(c.listx(d), " "), aclDefaultName, "attributes")
	c.ok(unix.Lremovexattr(d, aclDefaultName), "remove the default acl")
	c.file("d/f", "x")
	c.equal(len(c.listx(c.p("d/f"))), 0, "attributes of a file made after the default acl went")
}

func aclErrors(c *tc) {
	f := c.file("f", "x")
	c.want(unix.Lsetxattr(f, aclDefaultName, []byte(acl("u::rw- g::r-- o::---")), 0), unix.EACCES,
		"default acl of a file")
	c.want(unix.Lsetxattr(f, aclAccessName, []byte(acl("u::rw- g::r-- o::---")[:15]), 0), unix.EINVAL,
		"an acl cut short")
	c.want(unix.Lsetxattr(f, aclAccessName, []byte(acl("u::rw- u:1:rwx g::r-- o::---")), 0), unix.EINVAL, "no mask")
	c.equal(c.perm(f), uint32(0o644), "mode")
}

// aclSeen looks before and after each change, so that what the kernel remembers must be dropped.
func aclSeen(c *tc) {
	f := c.file("f", "x")
	c.ok(unix.Chmod(f, 0o600), "chmod")
	u := user{uid: 4711, gid: 4711}
	may := func() bool {
		var err error
		c.ok(asUser(u, func() error { err = errnoOf(f, unix.O_RDONLY, 0); return nil }), "as user")
		return err == nil
	}
	for range 3 {
		c.truth(!may(), "a stranger may read")
		c.setx(f, aclAccessName, acl("u::rw- u:4711:r-- g::--- m::r-- o::---"))
		c.truth(may(), "the named user may not read right after the acl was set")
		c.ok(unix.Lremovexattr(f, aclAccessName), "remove")
		c.ok(unix.Chmod(f, 0o600), "chmod")
	}
}
