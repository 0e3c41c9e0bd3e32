//go:build slow

package integration

import (
	"fmt"
	"math/rand"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// churn is a program that works in a directory of a volume and knows all that must be in it.
type churn struct {
	dir  string // in the mount
	tag  string
	rnd  *rand.Rand
	tree *cnode
	held []held
	n    int      // of names
	log  []string // the last operations

	unsure *cop // the operation that the daemon did not live to acknowledge
}

// held is a file that stays open over several operations; it may lose its names.
type held struct {
	fd    int
	flags int
	file  *cnode
}

// cop is one operation: what it does, and what the model says of it.
type cop struct {
	what string
	run  func() error
	// apply does the same to a model, nil where nothing changes.
	apply func(t *cnode)
	// touched are the paths, after it, of what gets another mtime and ctime, changed of what gets another ctime alone.
	touched, changed []string
	// part is the file that may hold a part of what is written when the operation is cut off; prefix: from an empty
	// file on.
	part   string
	prefix bool
}

// mismatch is a difference between the mount and the model, whatever else happens.
type mismatch struct{ text string }

func (m mismatch) Error() string { return m.text }

func wrong(format string, a ...any) error { return mismatch{fmt.Sprintf(format, a...)} }

func (w *churn) at(p string) string { return path.Join(w.dir, p) }

// pick chooses a path of a kind, "" where there is none but the root.
func (w *churn) pick(kind uint32) (string, *cnode) {
	var all []string
	w.tree.walk("", func(p string, c *cnode) {
		if c.kind == kind && p != "" {
			all = append(all, p)
		}
	})
	if len(all) == 0 {
		return "", nil
	}
	p := all[w.rnd.Intn(len(all))]
	return p, w.tree.at(p)
}

// pickDir chooses a directory, the root included.
func (w *churn) pickDir() string {
	if w.rnd.Intn(4) == 0 {
		return ""
	}
	p, _ := w.pick(unix.S_IFDIR)
	return p
}

func (w *churn) fresh() string {
	w.n++
	return path.Join(w.pickDir(), fmt.Sprintf("n%s-%d", w.tag, w.n))
}

func (w *churn) size() int {
	switch w.rnd.Intn(10) {
	case 0:
		return 0
	case 1, 2, 3, 4, 5:
		return 1 + w.rnd.Intn(5000)
	case 6, 7, 8:
		return 1 + w.rnd.Intn(70_000)
	}
	return 1 + w.rnd.Intn(400_000) // chunks, where the threshold is low
}

// bytes are sometimes zeros, as files hold them.
func (w *churn) bytes(n int) []byte {
	b := make([]byte, n)
	if w.rnd.Intn(8) > 0 {
		w.rnd.Read(b)
	}
	return b
}

func parent(p string) string { return path.Dir("/" + p)[1:] }

// next chooses an operation.
func (w *churn) next() cop {
	files := 0
	w.tree.walk("", func(string, *cnode) { files++ })
	k := w.rnd.Intn(100)
	if files < 12 {
		k = w.rnd.Intn(12)
	} else if files > 70 {
		k = 50 + w.rnd.Intn(8)
	}
	switch {
	case k < 8:
		return w.create()
	case k < 12:
		return w.mkdir()
	case k < 30:
		return w.change()
	case k < 38:
		return w.rename()
	case k < 41:
		return w.link()
	case k < 43:
		return w.symlink()
	case k < 48:
		return w.attributes()
	case k < 50:
		return w.copyRange()
	case k < 58:
		return w.remove()
	case k < 75:
		return w.useHeld()
	}
	return w.look()
}

func (w *churn) create() cop {
	p, b := w.fresh(), w.bytes(w.size())
	sync := w.rnd.Intn(8) == 0
	return cop{
		what: fmt.Sprintf("create %s of %d bytes, fsync %v", p, len(b), sync), touched: []string{p, parent(p)}, part: p,
		prefix: true,
		run: func() error {
			return withFD(w.at(p), unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, func(fd int) error {
				err := writeAll(fd, b, 0)
				if err == nil && sync {
					err = unix.Fsync(fd)
				}
				return err
			})
		},
		apply: func(t *cnode) {
			t.put(p, &cnode{kind: unix.S_IFREG, mode: 0o644, data: b, xattrs: map[string]string{}})
		},
	}
}

func (w *churn) mkdir() cop {
	p := w.fresh()
	return cop{what: "mkdir " + p, touched: []string{p, parent(p)}, run: func() error {
		return unix.Mkdir(w.at(p), 0o755)
	}, apply: func(t *cnode) { t.put(p, newDir()) }}
}

func (w *churn) symlink() cop {
	p, target := w.fresh(), fmt.Sprintf("../target %d", w.rnd.Intn(1000))
	return cop{what: "symlink " + p, touched: []string{p, parent(p)}, run: func() error {
		return unix.Symlink(target, w.at(p))
	}, apply: func(t *cnode) {
		t.put(p, &cnode{kind: unix.S_IFLNK, mode: 0o777, target: target, xattrs: map[string]string{}})
	}}
}

func (w *churn) link() cop {
	old, n := w.pick(unix.S_IFREG)
	if n == nil {
		return w.create()
	}
	p := w.fresh()
	return cop{what: "link " + old + " " + p, touched: []string{parent(p)}, changed: []string{p, old},
		run: func() error { return unix.Link(w.at(old), w.at(p)) }, apply: func(t *cnode) { t.put(p, t.at(old)) }}
}

// rename moves a file or directory to a new name, or over a file.
func (w *churn) rename() cop {
	kind := uint32(unix.S_IFREG)
	if w.rnd.Intn(4) == 0 {
		kind = unix.S_IFDIR
	}
	from, n := w.pick(kind)
	if n == nil {
		return w.create()
	}
	to := w.fresh()
	over, o := w.pick(unix.S_IFREG)
	if kind == unix.S_IFREG && w.rnd.Intn(2) == 0 && o != n {
		to = over
	}
	if kind == unix.S_IFDIR && (parent(to) == from || len(to) > len(from) && to[:len(from)+1] == from+"/") {
		return w.look() // into itself
	}
	return cop{
		what: "rename " + from + " " + to, touched: []string{parent(from), parent(to)}, changed: []string{to, from},
		run: func() error { return unix.Rename(w.at(from), w.at(to)) },
		apply: func(t *cnode) {
			lost := t.at(to)
			t.put(to, t.at(from))
			delete(t.at(parent(from)).kids, path.Base(from))
			lostName(t, lost)
		},
	}
}

// lostName: an inode with other names got another ctime.
func lostName(_ *cnode, n *cnode) {
	if n != nil {
		n.ctime = unix.Timespec{}
	}
}

func (w *churn) remove() cop {
	kind := uint32(unix.S_IFREG)
	if w.rnd.Intn(5) == 0 {
		kind = unix.S_IFLNK
	}
	gone := func(p string) func(t *cnode) {
		return func(t *cnode) {
			lostName(t, t.at(p))
			delete(t.at(parent(p)).kids, path.Base(p))
		}
	}
	if d, n := w.pick(unix.S_IFDIR); n != nil && len(n.kids) == 0 && w.rnd.Intn(2) == 0 {
		return cop{what: "rmdir " + d, touched: []string{parent(d)}, changed: []string{d}, run: func() error {
			return unix.Rmdir(w.at(d))
		}, apply: gone(d)}
	}
	p, n := w.pick(kind)
	if n == nil {
		return w.create()
	}
	keep := kind == unix.S_IFREG && len(w.held) < 6 && w.rnd.Intn(3) == 0
	what := "unlink "
	if keep {
		what = "open and unlink "
	}
	return cop{what: what + p, touched: []string{parent(p)}, changed: []string{p}, apply: gone(p), run: func() error {
		if keep {
			fd, err := unix.Open(w.at(p), unix.O_RDWR|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			w.held = append(w.held, held{fd, unix.O_RDWR, n})
		}
		return unix.Unlink(w.at(p))
	}}
}

// attributes changes mode, owner, times or extended attributes.
func (w *churn) attributes() cop {
	kind := uint32(unix.S_IFREG)
	if w.rnd.Intn(4) == 0 {
		kind = unix.S_IFDIR
	}
	p, n := w.pick(kind)
	if n == nil {
		return w.create()
	}
	c := cop{changed: []string{p}}
	_, hasACL := n.xattrs[aclAccessName]
	switch k := w.rnd.Intn(6); {
	case k == 0 && !hasACL: // with one it would change with the mode
		mode := uint32(0o600 + w.rnd.Intn(0o200))
		c.what, c.run, c.apply = fmt.Sprintf("chmod %o %s", mode, p), func() error {
			return unix.Chmod(w.at(p), mode)
		}, func(t *cnode) { t.at(p).mode = mode }
	case k == 1:
		uid, gid := w.rnd.Intn(3)*1000, w.rnd.Intn(3)*1000
		c.what, c.run, c.apply = fmt.Sprintf("chown %d:%d %s", uid, gid, p), func() error {
			return unix.Lchown(w.at(p), uid, gid)
		}, func(t *cnode) { t.at(p).uid, t.at(p).gid = uid, gid }
	case k == 2:
		m := unix.Timespec{Sec: w.rnd.Int63n(4e9), Nsec: w.rnd.Int63n(1e9)}
		c.what, c.run = fmt.Sprintf("utimes %d.%09d %s", m.Sec, m.Nsec, p), func() error {
			return unix.UtimesNanoAt(unix.AT_FDCWD, w.at(p), []unix.Timespec{{Nsec: unix.UTIME_OMIT}, m},
				unix.AT_SYMLINK_NOFOLLOW)
		}
		c.apply = func(t *cnode) { t.at(p).mtime = m }
	case k == 3 && kind == unix.S_IFREG:
		c.what, c.run = "setfacl "+p, func() error {
			return unix.Lsetxattr(w.at(p), aclAccessName, []byte(acl("u::rw- u:1234:r-- g::r-- m::rw- o::---")), 0)
		}
		c.apply = func(t *cnode) {
			t.at(p).mode, t.at(p).xattrs[aclAccessName] = 0o660, acl("u::rw- u:1234:r-- g::r-- m::rw- o::---")
		}
	default:
		name := []string{"user.a", "user.b", "trusted.c"}[w.rnd.Intn(3)]
		if _, ok := n.xattrs[name]; ok && w.rnd.Intn(2) == 0 {
			c.what, c.run, c.apply = "removexattr "+name+" "+p, func() error {
				return unix.Lremovexattr(w.at(p), name)
			}, func(t *cnode) { delete(t.at(p).xattrs, name) }
			break
		}
		value := w.bytes(w.rnd.Intn(100))
		c.what, c.run, c.apply = fmt.Sprintf("setxattr %s of %d %s", name, len(value), p), func() error {
			return unix.Lsetxattr(w.at(p), name, value, 0)
		}, func(t *cnode) { t.at(p).xattrs[name] = string(value) }
	}
	return c
}

// look compares something with the model.
func (w *churn) look() cop {
	if w.rnd.Intn(4) == 0 {
		d := w.pickDir()
		return cop{what: "list " + d, run: func() error { return w.sameNames(d) }}
	}
	p, n := w.pick(unix.S_IFREG)
	if n == nil {
		return w.create()
	}
	switch w.rnd.Intn(4) {
	case 0:
		return cop{what: "holes of " + p, run: func() error {
			return withFD(w.at(p), unix.O_RDONLY, func(fd int) error { return holesAreZeros(fd, n.data) })
		}}
	case 1:
		return cop{what: "read a part of " + p, run: func() error {
			return withFD(w.at(p), unix.O_RDONLY, func(fd int) error { return sameFD(fd, n.data, w.rnd) })
		}}
	}
	return cop{what: "read " + p, run: func() error {
		b, err := os.ReadFile(w.at(p))
		if d := dataDiff(b, n); err == nil && d != "" {
			err = wrong("read %s: %s", p, d)
		}
		return err
	}}
}

func (w *churn) sameNames(d string) error {
	es, err := os.ReadDir(w.at(d))
	if err != nil {
		return err
	}
	kids := w.tree.at(d).kids
	for _, e := range es {
		if kids[e.Name()] == nil {
			return wrong("%q lists %q", d, e.Name())
		}
	}
	if len(es) != len(kids) {
		return wrong("%q lists %d names, want %d", d, len(es), len(kids))
	}
	return nil
}
