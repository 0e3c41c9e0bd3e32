package tiers

import (
	"context"
	"crypto/sha1"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/warm"
)

// scan describes all that a volume shows, by path.
func scan(t *testing.T, v *Volume) map[string]string {
	t.Helper()
	s := scanner{t: t, v: v, out: map[string]string{}, links: map[string][]string{}}
	v.ref(v.root)
	s.add("", v.root)
	v.unref(v.root, 1)
	return s.done()
}

type scanner struct {
	t     *testing.T
	v     *Volume
	out   map[string]string
	links map[string][]string
}

// done says of each file with several names which these are.
func (s *scanner) done() map[string]string {
	for _, names := range s.links {
		slices.Sort(names)
		for _, name := range names {
			s.out[name] += fmt.Sprintf(" links %q", names)
		}
	}
	return s.out
}

func (s *scanner) add(at string, n *Inode) {
	s.t.Helper()
	v := s.v
	a, err := v.Getattr(context.Background(), n, nil)
	must(s.t, err)
	e := cold.Entry{Name: path.Base(at), Kind: n.kind, Mode: a.Mode & 07777, UID: a.UID, GID: a.GID, Mtime: a.Mtime}
	list := make([]byte, 1<<12)
	m, err := v.Listxattr(n, list)
	must(s.t, err)
	for _, name := range warm.SplitNames(list[:m]) {
		buf := make([]byte, 1<<12)
		m, err := v.Getxattr(n, name, buf)
		must(s.t, err)
		e.Xattrs = append(e.Xattrs, cold.Xattr{Name: name, Value: buf[:m]})
	}
	warm.SortXattrs(e.Xattrs)
	if a.Nlink > 1 && n.kind != cold.KindDir {
		key := fmt.Sprint(a.Ino)
		s.links[key] = append(s.links[key], at)
	}
	content := ""
	switch n.kind {
	case cold.KindFile:
		h, err := v.Open(context.Background(), n, unix.O_RDONLY, false)
		must(s.t, err)
		buf := make([]byte, a.Size+1)
		m, err := h.Read(context.Background(), buf, 0)
		must(s.t, err)
		h.Release()
		content = string(buf[:m])
	case cold.KindSymlink:
		to, err := v.Readlink(n)
		must(s.t, err)
		content = string(to)
	}
	s.out[at] = describe(&e, content)
	if n.kind != cold.KindDir {
		return
	}
	d, err := v.OpenDir(context.Background(), n)
	must(s.t, err)
	defer d.Close()
	var names []string
	must(s.t, d.ReadDir(context.Background(), 0, func(e warm.Dirent) bool {
		names = append(names, e.Name)
		return true
	}))
	for _, name := range names {
		if name == "." || name == ".." {
			continue
		}
		c, _, err := v.Lookup(context.Background(), n, name)
		must(s.t, err)
		s.add(path.Join(at, name), c)
		v.Forget(c, 1)
	}
}

func describe(e *cold.Entry, content string) string {
	return fmt.Sprintf("kind %d mode %o owner %d:%d mtime %d.%d xattrs %q content %d %x", e.Kind, e.Mode, e.UID, e.GID,
		e.Mtime.Sec, e.Mtime.Nsec,
		e.Xattrs, len(content), sha1.Sum([]byte(content)))
}

// scanCommit describes a commit as scan does a volume.
func scanCommit(t *testing.T, c *memCold, commit string) map[string]string {
	t.Helper()
	id, err := cold.ParseID(commit)
	must(t, err)
	snap, err := c.Snapshot(context.Background(), id)
	must(t, err)
	s := scanner{t: t, out: map[string]string{}, links: map[string][]string{}}
	var add func(at string, e *cold.Entry)
	add = func(at string, e *cold.Entry) {
		content := e.Target
		if e.Kind == cold.KindFile {
			c.mu.Lock()
			b, ok := c.blobs[e.ID]
			c.mu.Unlock()
			if !ok || int64(len(b)) != e.Size {
				t.Errorf("%s: content of %d bytes, there %v, entry of %d", at, len(b), ok, e.Size)
			}
			content = string(b)
		}
		if e.Link != "" {
			s.links[e.Link] = append(s.links[e.Link], at)
		}
		s.out[at] = describe(e, content)
		if e.Kind != cold.KindDir {
			return
		}
		l, err := snap.ReadDir(context.Background(), e.Dir())
		if err != nil {
			t.Errorf("%s: %v", at, err)
		}
		for i := range l.Entries {
			add(path.Join(at, l.Entries[i].Name), &l.Entries[i])
		}
	}
	root := snap.Root()
	add("", &root)
	return s.done()
}

// sameTree compares what scan and scanCommit gave.
func sameTree(t *testing.T, what string, got, want map[string]string) {
	t.Helper()
	bad := 0
	for _, at := range slices.Sorted(maps.Keys(want)) {
		if got[at] != want[at] {
			if bad++; bad < 20 {
				t.Errorf("%s: %q\nis     %s\nshould %s", what, at, or(got[at], "missing"), want[at])
			}
		}
	}
	for _, at := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[at]; !ok {
			if bad++; bad < 20 {
				t.Errorf("%s: %q should not be: %s", what, at, got[at])
			}
		}
	}
	if bad > 0 {
		t.Errorf("%s: %d of %d differ", what, bad, len(want))
	}
}

func or(s, other string) string {
	if strings.TrimSpace(s) == "" {
		return other
	}
	return s
}

// openFDs gives what the process has open.
func openFDs(t *testing.T) (names []string) {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	for _, e := range list {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil {
			names = append(names, to)
		}
	}
	return names
}
