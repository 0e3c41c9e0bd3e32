package tiers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
)

// afterBoundary opens a volume whose commits call *f right after their boundary.
func afterBoundary(t *testing.T, c cold.Cold, records bool) (v *Volume, f *func() error) {
	t.Helper()
	f = new(func() error)
	v = openTiered(t, t.TempDir(), c, func(c *Config) {
		c.Fail = func(s string) error {
			if g := *f; s == "commit.boundary" && g != nil {
				*f = nil
				return g()
			}
			return nil
		}
	})
	v.records = v.records && records
	return v, f
}

// pitDir is a directory in which one kind of change is tried on a file in one state.
type pitDir struct {
	t    *testing.T
	v    *Volume
	d, f *Inode
	h    *Handle // open for writing, or nil
	o    *Inode  // a directory besides, clean
}

const pitSize = 300_000

func pitText(seed byte) []byte {
	return bytes.Repeat([]byte{seed, 'a', 'b', 'c', 'd', 'e', '\n'}, pitSize/7+1)[:pitSize]
}

func writeAt(t *testing.T, v *Volume, n *Inode, b []byte, off int64) {
	t.Helper()
	h, err := v.Open(context.Background(), n, unix.O_WRONLY, false)
	must(t, err)
	defer h.Release()
	_, err = h.Write(context.Background(), b, off, false)
	must(t, err)
}

func (p *pitDir) write(b string, off int64) { writeAt(p.t, p.v, p.f, []byte(b), off) }
func (p *pitDir) set(n *Inode, in SetAttr) {
	_, err := p.v.Setattr(context.Background(), n, nil, &in)
	must(p.t, err)
}
func (p *pitDir) size(size uint64)          { p.set(p.f, SetAttr{Size: &size}) }
func (p *pitDir) unlink(d *Inode, n string) { must(p.t, p.v.Unlink(context.Background(), d, n)) }
func (p *pitDir) rename(n string, d *Inode, m string, flags uint32) {
	must(p.t, p.v.Rename(context.Background(), p.d, n, d, m, flags))
}
func (p *pitDir) sub() *Inode {
	n, _, err := p.v.Lookup(context.Background(), p.d, "sub")
	must(p.t, err)
	return n
}

// pitState is a state into which a file is brought.
type pitState struct {
	name    string
	before  bool            // the file is made before the commit before
	then    func(p *pitDir) // nil: the file is released
	records bool            // only with these
}

var pitStates = []pitState{
	{"new", false, func(p *pitDir) {}, false},
	{"clean", true, func(p *pitDir) {}, false},
	{"dirty", true, func(p *pitDir) { p.write("dirty", 70_000) }, false},
	{"cut", true, func(p *pitDir) { p.size(100_000) }, false},
	{"chmod", true, func(p *pitDir) { m := uint32(0600); p.set(p.f, SetAttr{Mode: &m}) }, false},
	{"open", true, func(p *pitDir) {
		var err error
		p.h, err = p.v.Open(context.Background(), p.f, unix.O_RDWR, false)
		must(p.t, err)
		_, err = p.h.Write(context.Background(), []byte("open"), 1000, false)
		must(p.t, err)
	}, false},
	{"moved", true, func(p *pitDir) { p.rename("f", p.d, "x", 0); p.rename("x", p.d, "f", 0) }, false},
	{"linked", true, func(p *pitDir) {
		_, err := p.v.Link(context.Background(), p.f, p.o, "link")
		must(p.t, err)
	}, false},
	{"stub", true, nil, true},
}

var pitChanges = []struct {
	name string
	do   func(p *pitDir)
}{
	{"nothing", func(p *pitDir) {}},
	{"write", func(p *pitDir) { p.write("changed", 130_000) }},
	{"append", func(p *pitDir) { p.write("appended", pitSize) }},
	{"overwrite", func(p *pitDir) { p.write(strings.Repeat("new", pitSize/3), 0) }},
	{"extend", func(p *pitDir) { p.write("far", 10*pitSize) }},
	{"truncate to nothing", func(p *pitDir) { p.size(0); p.write("again", 0) }},
	{"truncate down", func(p *pitDir) { p.size(70_000) }},
	{"truncate up", func(p *pitDir) { p.size(pitSize + 70_000); p.write("x", pitSize+10) }},
	{"truncate twice", func(p *pitDir) { p.size(10); p.size(pitSize); p.write("x", pitSize/2) }},
	{"open with O_TRUNC", func(p *pitDir) {
		h, err := p.v.Open(context.Background(), p.f, unix.O_WRONLY|unix.O_TRUNC, false)
		must(p.t, err)
		h.Release()
	}},
	{"punch", func(p *pitDir) { p.fallocate(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 4096, 200_000) }},
	{"zero", func(p *pitDir) { p.fallocate(unix.FALLOC_FL_ZERO_RANGE, 100, 5000) }},
	{"copy over", func(p *pitDir) {
		in, err := p.v.Open(context.Background(), p.f, unix.O_RDWR, false)
		must(p.t, err)
		defer in.Release()
		_, err = p.v.CopyFileRange(context.Background(), in, 0, in, 200_001, 50_000, false)
		must(p.t, err)
	}},
	{"unlink", func(p *pitDir) { p.unlink(p.d, "f") }},
	{"unlink and write", func(p *pitDir) {
		h, err := p.v.Open(context.Background(), p.f, unix.O_RDWR, false)
		must(p.t, err)
		defer h.Release()
		p.unlink(p.d, "f")
		_, err = h.Write(context.Background(), []byte("gone"), 0, false)
		must(p.t, err)
	}},
	{"rename", func(p *pitDir) { p.rename("f", p.d, "renamed", 0) }},
	{"rename and write", func(p *pitDir) { p.rename("f", p.d, "renamed", 0); p.write("renamed", 5) }},
	{"rename away", func(p *pitDir) { p.rename("f", p.o, "renamed", 0) }},
	{"rename over clean", func(p *pitDir) { p.rename("f", p.d, "clean", 0) }},
	{"rename new over", func(p *pitDir) { write(p.t, p.v, p.d, "tmp", "temporary"); p.rename("tmp", p.d, "f", 0) }},
	{"rename clean over", func(p *pitDir) { p.rename("clean", p.d, "f", 0) }},
	{"exchange", func(p *pitDir) { p.rename("f", p.o, "other", unix.RENAME_EXCHANGE); p.write("exchanged", 0) }},
	{"replace", func(p *pitDir) { p.unlink(p.d, "f"); write(p.t, p.v, p.d, "f", "another file") }},
	{"replace by symlink", func(p *pitDir) {
		p.unlink(p.d, "f")
		_, _, err := p.v.Symlink(context.Background(), p.d, "f", "elsewhere", me)
		must(p.t, err)
	}},
	{"replace by directory", func(p *pitDir) {
		p.unlink(p.d, "f")
		write(p.t, p.v, mkdir(p.t, p.v, p.d, "f"), "g", "deep")
	}},
	{"replace symlink", func(p *pitDir) {
		p.unlink(p.d, "symlink")
		_, _, err := p.v.Symlink(context.Background(), p.d, "symlink", "to another", me)
		must(p.t, err)
	}},
	{"link", func(p *pitDir) { _, err := p.v.Link(context.Background(), p.f, p.d, "second"); must(p.t, err) }},
	{"link and unlink", func(p *pitDir) {
		_, err := p.v.Link(context.Background(), p.f, p.o, "second")
		must(p.t, err)
		p.unlink(p.d, "f")
		p.write("by another name", 0)
	}},
	{"unlink one of two", func(p *pitDir) { p.unlink(p.d, "two") }},
	{"write one of two", func(p *pitDir) {
		n, _, err := p.v.Lookup(context.Background(), p.d, "two")
		must(p.t, err)
		writeAt(p.t, p.v, n, []byte("changed"), 0)
		p.unlink(p.d, "one")
		p.unlink(p.d, "two")
	}},
	{"chmod", func(p *pitDir) { m := uint32(0400); p.set(p.f, SetAttr{Mode: &m}) }},
	{"chown", func(p *pitDir) { u := uint32(4711); p.set(p.f, SetAttr{UID: &u}) }},
	{"utimes", func(p *pitDir) { p.set(p.f, SetAttr{Mtime: &cold.Time{Sec: 1}}) }},
	{"setxattr", func(p *pitDir) {
		must(p.t, p.v.Setxattr(context.Background(), p.f, "user.a", []byte("b"), 0, false, me))
	}},
	{"removexattr", func(p *pitDir) { must(p.t, p.v.Removexattr(context.Background(), p.sub(), "user.sub")) }},
	{"chmod directory", func(p *pitDir) { m := uint32(0700); p.set(p.d, SetAttr{Mode: &m}) }},
	{"create", func(p *pitDir) { write(p.t, p.v, p.d, "created", "x"); mkdir(p.t, p.v, p.d, "made") }},
	{"create in clean", func(p *pitDir) { write(p.t, p.v, p.o, "created", "x") }},
	{"rename dirty directory", func(p *pitDir) { p.rename("sub", p.d, "moved", 0) }},
	{"rename directory away", func(p *pitDir) {
		p.rename("sub", p.o, "moved", 0)
		write(p.t, p.v, p.sub2(p.o, "moved"), "more", "x")
	}},
	{"rename itself", func(p *pitDir) {
		must(p.t, p.v.Rename(context.Background(), p.v.root, p.v.nameOf(p.d), p.v.root, "renamed "+p.v.nameOf(p.d), 0))
		p.write("in a renamed directory", 0)
	}},
	{"remove directory", func(p *pitDir) {
		s := p.sub()
		p.unlink(s, "g")
		p.unlink(s, "h")
		must(p.t, p.v.Rmdir(context.Background(), p.d, "sub"))
	}},
	{"remove and make directory", func(p *pitDir) {
		s := p.sub()
		p.unlink(s, "g")
		p.unlink(s, "h")
		must(p.t, p.v.Rmdir(context.Background(), p.d, "sub"))
		write(p.t, p.v, mkdir(p.t, p.v, p.d, "sub"), "g", "another")
	}},
	{"directory into new one", func(p *pitDir) { p.rename("sub", mkdir(p.t, p.v, p.d, "above"), "sub", 0) }},
}

func (p *pitDir) sub2(d *Inode, name string) *Inode {
	n, _, err := p.v.Lookup(context.Background(), d, name)
	must(p.t, err)
	return n
}

func (p *pitDir) fallocate(mode uint32, off, length int64) {
	h, err := p.v.Open(context.Background(), p.f, unix.O_RDWR, false)
	must(p.t, err)
	defer h.Release()
	must(p.t, h.Fallocate(context.Background(), mode, off, length))
}

func (v *Volume) nameOf(n *Inode) string {
	v.ns.RLock()
	defer v.ns.RUnlock()
	return n.name
}

// TestCommitShowsItsBoundary tries each kind of change after a commit's boundary on files in the states that differ
// most: the commit has what was there at the boundary, and the next one what is there then.
// TestCommitShowsItsBoundaryInOtherStates has the other states.
func TestCommitShowsItsBoundary(t *testing.T) {
	eachPitState(t, quickPitState)
}

// quickPitState says that a state is one of those that run often, and with the race detector.
func quickPitState(s *pitState, records bool) bool {
	return s.name == "dirty" || records && (s.name == "stub" || s.name == "new")
}

// eachPitState tries the states that take says, two at a time: each has a volume of its own.
func eachPitState(t *testing.T, take func(s *pitState, records bool) bool) {
	for _, records := range []bool{true, false} {
		for i := range pitStates {
			s := &pitStates[i]
			if s.records && !records || !take(s, records) {
				continue
			}
			t.Run(fmt.Sprintf("%s, records %v", s.name, records), func(t *testing.T) {
				t.Parallel()
				showsItsBoundary(t, s, records)
			})
		}
	}
}

func showsItsBoundary(t *testing.T, s *pitState, records bool) {
	c := newMemCold()
	v, after := afterBoundary(t, c, records)
	var dirs []*pitDir
	create := func(p *pitDir) { p.f = write(t, v, p.d, "f", string(pitText('f'))) }
	for i := range pitChanges {
		p := &pitDir{t: t, v: v}
		p.d = mkdir(t, v, v.root, fmt.Sprintf("%02d %s", i, pitChanges[i].name))
		p.o = mkdir(t, v, v.root, fmt.Sprintf("%02d other", i))
		write(t, v, p.o, "other", "other")
		write(t, v, p.d, "clean", "clean")
		sub := mkdir(t, v, p.d, "sub")
		must(t, v.Setxattr(context.Background(), sub, "user.sub", []byte("x"), 0, false, me))
		write(t, v, sub, "g", "in sub")
		write(t, v, sub, "h", "in sub too")
		_, _, err := v.Symlink(context.Background(), p.d, "symlink", "to somewhere", me)
		must(t, err)
		if i%2 == 0 { // a directory with such a file is read whole
			_, err = v.Link(context.Background(), write(t, v, p.d, "one", "one or two"), p.d, "two")
			must(t, err)
		}
		if s.before {
			create(p)
		}
		dirs = append(dirs, p)
	}
	v.mustSync(t)
	if s.then == nil {
		mustTier(t, v)
	}
	for i, p := range dirs {
		if !s.before {
			create(p)
		}
		if i%4 >= 2 {
			writeAt(t, v, p.sub2(p.sub(), "g"), []byte("dirty"), 0)
		}
		if i%2 == 0 {
			writeAt(t, v, p.sub2(p.d, "one"), []byte("One"), 0)
		} else { // where it must be all the same
			_, err := v.Link(context.Background(), write(t, v, p.d, "one", "one or two"), p.d, "two")
			must(t, err)
		}
		if s.then != nil {
			s.then(p)
		}
	}
	var want map[string]string
	*after = func() error {
		want = scan(t, v)
		for i, p := range dirs {
			pitChanges[i].do(p)
		}
		return nil
	}
	rc := v.mustSync(t)
	sameTree(t, "at the boundary", scanCommit(t, c, rc.Commit), want)
	if v.boundary.Load() != nil {
		t.Error("the moment goes on")
	}
	next := scan(t, v)
	rc = v.mustSync(t)
	sameTree(t, "the next commit", scanCommit(t, c, rc.Commit), next)
	for _, p := range dirs {
		if p.h != nil {
			p.h.Release()
		}
	}
	rc = v.mustSync(t)
	sameTree(t, "once all is closed", scanCommit(t, c, rc.Commit), next)
	for _, name := range openFDs(t) {
		if strings.Contains(name, v.cfg.State+"/warm/#") {
			t.Errorf("what was set aside is still open: %s", name)
		}
	}
}

// TestSpoiledCommit: where the pre-images cannot be kept the changes succeed all the same, the commit fails and says
// so, and the next one has everything.
func TestSpoiledCommit(t *testing.T) {
	const files = 20
	for what, spoil := range map[string]func(v *Volume, f *Inode){
		"too many descriptors": func(v *Volume, _ *Inode) {
			v.boundary.Load().maxFDs = files / 2
			for i := range files { // no commit has them yet
				must(t, v.Unlink(context.Background(), v.root, fmt.Sprint(i)))
			}
		},
		"no space": func(v *Volume, f *Inode) {
			full, err := unix.Open("/dev/full", unix.O_RDWR, 0)
			must(t, err)
			v.boundary.Load().file.fd = full
			writeAt(t, v, f, []byte("another text"), 0)
		},
	} {
		c := newMemCold()
		v, after := afterBoundary(t, c, true)
		f := write(t, v, v.root, "f", "one")
		v.mustSync(t)
		for i := range files {
			write(t, v, v.root, fmt.Sprint(i), "text")
		}
		writeAt(t, v, f, []byte("dirty"), 0)
		*after = func() error { spoil(v, f); return nil }
		if err := v.commit(context.Background(), &Receipt{}); !errors.Is(err, ErrSpoiled) {
			t.Fatalf("%s: commit: %v", what, err)
		}
		want := scan(t, v)
		sameTree(t, what, scanCommit(t, c, v.mustSync(t).Commit), want)
	}
}
