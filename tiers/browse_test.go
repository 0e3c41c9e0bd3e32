package tiers

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/warm"
)

// names returns the sorted names of a whole directory stream, without "." and "..". told says that some were given as
// lazy.
func names(t *testing.T, v *Volume, n *Inode) (names []string, told bool) {
	t.Helper()
	d, err := v.OpenDir(context.Background(), n)
	must(t, err)
	defer d.Close()
	for off, end := uint64(0), false; !end; {
		end = true
		left := 3 // entries of one request
		must(t, d.ReadDir(context.Background(), off, func(e warm.Dirent) bool {
			if left == 0 {
				end = false
				return false
			}
			left--
			off = e.Off
			if e.Name != "." && e.Name != ".." {
				names = append(names, e.Name)
				told = told || e.Lazy
			}
			return true
		}))
	}
	slices.Sort(names)
	return names, told
}

// aboveListed fails if a listed directory lies below a lazy one.
func (v *Volume) aboveListed(t *testing.T) {
	t.Helper()
	v.ns.RLock()
	defer v.ns.RUnlock()
	v.table.mu.RLock()
	defer v.table.mu.RUnlock()
	for _, n := range v.table.byID {
		if n.parent != nil && n.parent.dir.lazy.Load() && (n.dir == nil || !n.dir.lazy.Load()) {
			t.Fatalf("%q is there, and what is above it is not listed", n.name)
		}
	}
}

// TestNamesAlone: reading names makes no file in warm, and looking at a file lists all directories above it.
func TestNamesAlone(t *testing.T) {
	v, c := newVolume(t)
	d := v.root
	for i := range 4 {
		write(t, v, d, "file", "text")
		d = mkdir(t, v, d, fmt.Sprint("d", i))
	}
	write(t, v, d, "last", "text")
	v.mustSync(t)
	next := openTiered(t, t.TempDir(), c)
	n := next.root
	for i := range 4 {
		got, told := names(t, next, n)
		if want := []string{fmt.Sprint("d", i), "file"}; !slices.Equal(got, want) || !told {
			t.Fatalf("level %d: %q, told %v", i, got, told)
		}
		if _, _, err := next.Lookup(context.Background(), n, "none"); !errors.Is(err, unix.ENOENT) {
			t.Fatalf("level %d: a missing name: %v", i, err)
		}
		fd, err := next.dirFD(n)
		must(t, err)
		if l, err := warm.ListNames(fd); err != nil || len(l) != 1 {
			t.Fatalf("level %d: warm holds %v, %v", i, l, err)
		}
		next.unpin(n)
		n, _, err = next.Lookup(context.Background(), n, fmt.Sprint("d", i))
		must(t, err)
	}
	if got, told := names(t, next, n); !slices.Equal(got, []string{"last"}) || !told {
		t.Fatalf("%q, told %v", got, told)
	}
	for _, at := range []string{"d0/d1", ""} { // only its atime moves
		dir := mustFind(t, next, at)
		before := mustAttr(t, next, dir)
		_, err := next.Setattr(context.Background(), dir, nil, &SetAttr{Atime: &cold.Time{Sec: 5}})
		must(t, err)
		if after := mustAttr(t, next, dir); after.Mtime != before.Mtime || after.Atime != (cold.Time{Sec: 5}) {
			t.Errorf("%q: %+v became %+v", at, before, after)
		}
	}
	must(t, next.Setxattr(context.Background(), n, "user.k", []byte("v"), 0, false, me))
	next.aboveListed(t)
	if next.root.dir.lazy.Load() || !n.dir.lazy.Load() {
		t.Error("a change of a directory's attributes lists what is above it, and not itself")
	}
	for i := range absentMax + 1 {
		if !n.dir.lazy.Load() {
			t.Fatalf("listed for %d names that are not there", i)
		}
		if _, _, err := next.Lookup(context.Background(), n, fmt.Sprint("none", i)); !errors.Is(err, unix.ENOENT) {
			t.Fatal(err)
		}
	}
	if n.dir.lazy.Load() {
		t.Error("names that are not there are looked for in the commit for ever")
	}
	next.mustSync(t)
	third := openTiered(t, t.TempDir(), c)
	if got, err := third.Getxattr(mustFind(t, third, "d0/d1/d2/d3"), "user.k", make([]byte, 8)); err != nil ||
		got != 1 {
		t.Errorf("the attribute has %d bytes, %v", got, err)
	}
}

// TestStreamOverListing: a stream that was begun before its directory was listed gives each name once; read anew from
// its beginning, it gives what is there then.
func TestStreamOverListing(t *testing.T) {
	v, c := newVolume(t)
	for i := range 20 {
		write(t, v, v.root, fmt.Sprintf("f%02d", i), "text")
	}
	v.mustSync(t)
	next := openTiered(t, t.TempDir(), c)
	d, err := next.OpenDir(context.Background(), next.root)
	must(t, err)
	var got []string
	var off uint64
	read := func(most int) {
		must(t, d.ReadDir(context.Background(), off, func(e warm.Dirent) bool {
			if most == 0 {
				return false
			}
			most--
			got, off = append(got, e.Name), e.Off
			return true
		}))
	}
	read(7)
	must(t, next.Unlink(context.Background(), next.root, "f03"))
	write(t, next, next.root, "new", "")
	other, err := next.OpenDir(context.Background(), next.root)
	must(t, err)
	if other.Cache() != DirNever {
		t.Error("the kernel is to keep what a stream tells beside one of warm's")
	}
	other.Close()
	read(100)
	if len(got) != 22 {
		t.Fatalf("%q", got)
	}
	slices.Sort(got)
	if len(slices.Compact(got)) != 22 {
		t.Fatalf("twice: %q", got)
	}
	got, off = nil, 0
	read(100)
	if len(got) != 22 || slices.Contains(got, "f03") || !slices.Contains(got, "new") {
		t.Fatalf("after rewinding: %q", got)
	}
	d.Close()
	for _, want := range []DirCache{DirAnew, DirKeep} {
		d, err := next.OpenDir(context.Background(), next.root)
		must(t, err)
		if d.Cache() != want {
			t.Errorf("caching %v, want %v", d.Cache(), want)
		}
		d.Close()
	}
	if next.root.dir.names.Load() != nil {
		t.Error("nobody tells names, and they are kept")
	}
}

// TestBrowseOverLeftovers: a directory that a dead daemon had just made, without its record, and one whose record
// stands for another tree are made anew.
func TestBrowseOverLeftovers(t *testing.T) {
	v, c := newVolume(t)
	for _, name := range []string{"bare", "other"} {
		d := mkdir(t, v, v.root, name)
		write(t, v, d, name, "text of "+name)
		_, err := v.Setattr(context.Background(), d, nil, &SetAttr{Mode: new(uint32(0711)), Mtime: &cold.Time{Sec: 77}})
		must(t, err)
	}
	v.mustSync(t)
	next := openTiered(t, t.TempDir(), c)
	at := func(name string) string { return filepath.Join(next.cfg.State, "warm", name) }
	must(t, unix.Mkdir(at("bare"), 0700))
	must(t, unix.Mkdir(at("other"), 0700))
	next.root.mu.Lock()
	r := next.root.mu.rec // unlisted, of the root's tree
	next.root.mu.Unlock()
	must(t, unix.Setxattr(at("other"), warm.RecordAttr, r.Encode(nil), 0))
	if got, told := names(t, next, next.root); !slices.Equal(got, []string{"bare", "other"}) || !told {
		t.Fatalf("%q, told %v", got, told)
	}
	for _, name := range []string{"bare", "other"} {
		d := mustFind(t, next, name)
		if a := mustAttr(t, next, d); a.Mode&07777 != 0711 || a.Mtime != (cold.Time{Sec: 77}) {
			t.Errorf("%s: %+v", name, a)
		}
		if got, _ := names(t, next, d); !slices.Equal(got, []string{name}) {
			t.Errorf("%s holds %q", name, got)
		}
		if got := read(t, next, mustFind(t, next, name+"/"+name)); got != "text of "+name {
			t.Errorf("%s: %q", name, got)
		}
	}
	if rc := next.mustSync(t); rc.New {
		t.Error("a commit of nothing")
	}
}
