//go:build slow

package integration

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// cnode is what the model of a churn knows of one inode. Times, and an inode number, of zero are not known.
type cnode struct {
	kind         uint32 // unix.S_IF*
	data         []byte
	target       string
	mode         uint32
	uid, gid     int
	mtime, ctime unix.Timespec
	ino          uint64
	links        uint64 // as seen; the model counts its names
	xattrs       map[string]string
	kids         map[string]*cnode

	// What an operation that was cut off may have left: each byte of the old or of the new content, or a part from its
	// beginning.
	mixed  bool
	before []byte
	prefix bool
}

func newDir() *cnode {
	return &cnode{kind: unix.S_IFDIR, mode: 0o755, xattrs: map[string]string{}, kids: map[string]*cnode{}}
}

// at is the inode at a slash path, nil where there is none.
func (n *cnode) at(p string) *cnode {
	for p = strings.Trim(p, "/"); p != "" && n != nil; {
		var name string
		name, p, _ = strings.Cut(p, "/")
		n = n.kids[name]
	}
	return n
}

func (n *cnode) put(p string, c *cnode) { n.at(path.Dir("/" + p)).kids[path.Base(p)] = c }

// walk visits every name below n, parents first, in a fixed order.
func (n *cnode) walk(at string, f func(p string, c *cnode)) {
	f(at, n)
	for _, name := range slices.Sorted(maps.Keys(n.kids)) {
		n.kids[name].walk(path.Join(at, name), f)
	}
}

// names counts the names of an inode below n.
func (n *cnode) names(of *cnode) (count uint64, one string) {
	n.walk("", func(p string, c *cnode) {
		if c == of {
			count++
			one = p
		}
	})
	return count, one
}

func (n *cnode) clone(seen map[*cnode]*cnode) *cnode {
	if c := seen[n]; c != nil {
		return c
	}
	c := *n
	seen[n] = &c
	c.xattrs = maps.Clone(n.xattrs)
	c.data = slices.Clone(n.data)
	if n.kids != nil {
		c.kids = map[string]*cnode{}
		for name, k := range n.kids {
			c.kids[name] = k.clone(seen)
		}
	}
	return &c
}

// fromStat fills in what stat says.
func (n *cnode) fromStat(st *unix.Stat_t) {
	n.kind, n.mode, n.uid, n.gid = st.Mode&unix.S_IFMT, st.Mode&07777, int(st.Uid), int(st.Gid)
	n.mtime, n.ctime, n.ino, n.links = st.Mtim, st.Ctim, st.Ino, uint64(st.Nlink)
}

// scanChurn reads a whole tree.
func scanChurn(at string, seen map[uint64]*cnode) (*cnode, error) {
	var st unix.Stat_t
	if err := unix.Lstat(at, &st); err != nil {
		return nil, fmt.Errorf("stat %s: %w", at, err)
	}
	if n := seen[st.Ino]; n != nil {
		return n, nil
	}
	n := &cnode{xattrs: map[string]string{}}
	n.fromStat(&st)
	seen[st.Ino] = n
	var err error
	switch n.kind {
	case unix.S_IFDIR:
		n.kids = map[string]*cnode{}
		es, err := os.ReadDir(at)
		if err != nil {
			return nil, err
		}
		for _, e := range es {
			if n.kids[e.Name()], err = scanChurn(at+"/"+e.Name(), seen); err != nil {
				return nil, err
			}
		}
	case unix.S_IFREG:
		if n.data, err = os.ReadFile(at); err == nil && int64(len(n.data)) != st.Size {
			err = fmt.Errorf("%s: %d bytes, stat says %d", at, len(n.data), st.Size)
		}
	case unix.S_IFLNK:
		n.target, err = os.Readlink(at)
	}
	if err != nil {
		return nil, err
	}
	return n, xattrsInto(n.xattrs, at)
}

func xattrsInto(m map[string]string, at string) error {
	buf := make([]byte, 4096)
	size, err := unix.Llistxattr(at, buf)
	if err != nil {
		return fmt.Errorf("listxattr %s: %w", at, err)
	}
	value := make([]byte, 4096)
	for _, name := range strings.Split(strings.TrimRight(string(buf[:size]), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		k, err := unix.Lgetxattr(at, name, value)
		if err != nil {
			return fmt.Errorf("getxattr %s of %s: %w", name, at, err)
		}
		m[name] = string(value[:k])
	}
	return nil
}

// churnDiff says where a tree differs from the model; nextMachine: inode numbers and ctimes are others.
func churnDiff(have, want *cnode, nextMachine bool) (diffs []string) {
	say := func(p, format string, a ...any) {
		if len(diffs) < 10 {
			diffs = append(diffs, fmt.Sprintf("%q: ", p)+fmt.Sprintf(format, a...))
		}
	}
	same := map[*cnode]*cnode{} // want -> have
	counts := map[*cnode]uint64{}
	want.walk("", func(_ string, n *cnode) { counts[n]++ })
	var compare func(p string, h, w *cnode)
	compare = func(p string, h, w *cnode) {
		if was := same[w]; was != nil {
			if was != h {
				say(p, "is another file, not one more name of the same")
			}
			return
		}
		same[w] = h
		if h.kind != w.kind {
			say(p, "kind %o, want %o", h.kind, w.kind)
			return
		}
		if d := attrDiff(h, w, nextMachine); d != "" {
			say(p, "%s", d)
		}
		if h.kind != unix.S_IFDIR && h.links != counts[w] {
			say(p, "%d links, want %d", h.links, counts[w])
		}
		if !maps.Equal(h.xattrs, w.xattrs) {
			say(p, "xattrs %q, want %q", h.xattrs, w.xattrs)
		}
		if h.target != w.target {
			say(p, "target %q, want %q", h.target, w.target)
		}
		if d := dataDiff(h.data, w); d != "" {
			say(p, "%s", d)
		}
		for name := range h.kids {
			if w.kids[name] == nil {
				say(path.Join(p, name), "should not be there")
			}
		}
		subdirs := uint64(0)
		for _, name := range slices.Sorted(maps.Keys(w.kids)) {
			if w.kids[name].kind == unix.S_IFDIR {
				subdirs++
			}
			if k := h.kids[name]; k != nil {
				compare(path.Join(p, name), k, w.kids[name])
			} else {
				say(path.Join(p, name), "is missing")
			}
		}
		if h.kind == unix.S_IFDIR && h.links != 1 && h.links != 2+subdirs {
			say(p, "%d links with %d subdirectories", h.links, subdirs)
		}
	}
	compare("", have, want)
	return diffs
}

func attrDiff(h, w *cnode, nextMachine bool) string {
	var d []string
	if h.mode != w.mode || h.uid != w.uid || h.gid != w.gid {
		d = append(d, fmt.Sprintf("mode %o owner %d:%d, want %o %d:%d", h.mode, h.uid, h.gid, w.mode, w.uid, w.gid))
	}
	zero := unix.Timespec{}
	if w.mtime != zero && h.mtime != w.mtime {
		d = append(d, fmt.Sprintf("mtime %d.%09d, want %d.%09d", h.mtime.Sec, h.mtime.Nsec, w.mtime.Sec, w.mtime.Nsec))
	}
	if w.ctime != zero && h.ctime != w.ctime && !nextMachine {
		d = append(d, fmt.Sprintf("ctime %d.%09d, want %d.%09d", h.ctime.Sec, h.ctime.Nsec, w.ctime.Sec, w.ctime.Nsec))
	}
	if w.ino != 0 && h.ino != w.ino && !nextMachine {
		d = append(d, fmt.Sprintf("inode %d, want %d", h.ino, w.ino))
	}
	return strings.Join(d, "; ")
}

func dataDiff(have []byte, w *cnode) string {
	switch {
	case bytes.Equal(have, w.data):
		return ""
	case w.prefix && bytes.HasPrefix(w.data, have):
		return ""
	case w.mixed && mixOf(have, w.before, w.data):
		return ""
	}
	at := 0
	for at < min(len(have), len(w.data)) && have[at] == w.data[at] {
		at++
	}
	zeros := len(have) > at && len(bytes.TrimLeft(have[at:], "\x00")) == 0
	return fmt.Sprintf("%d bytes, want %d; the first other one is at %d (only zeros from there: %v)", len(have),
		len(w.data), at, zeros)
}

// mixOf says that each byte is the old or the new one, and the length between the two.
func mixOf(have, before, after []byte) bool {
	if len(have) < min(len(before), len(after)) || len(have) > max(len(before), len(after)) {
		return false
	}
	for i, c := range have {
		if !(i < len(after) && c == after[i] || i < len(before) && c == before[i]) {
			return false
		}
	}
	return true
}
