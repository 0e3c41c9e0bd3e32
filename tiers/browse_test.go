package tiers

import (
	"errors"
	"fmt"
	"maps"
	"math/rand"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// names reads a whole directory stream, without "." and "..".
func names(t *testing.T, v *Volume, n *Inode) (names []string, told bool) {
	t.Helper()
	d, err := v.OpenDir(n)
	must(t, err)
	defer d.Close()
	for off, end := uint64(0), false; !end; {
		end = true
		left := 3 // entries of one request
		must(t, d.ReadDir(off, func(e Dirent) bool {
			if left == 0 {
				end = false
				return false
			}
			left--
			off = e.Off
			if e.Name != "." && e.Name != ".." {
				names = append(names, e.Name)
				told = told || e.Told
			}
			return true
		}))
	}
	slices.Sort(names)
	return names, told
}

// aboveListed fails where a listed directory lies below one that is not.
func (v *Volume) aboveListed(t *testing.T) {
	t.Helper()
	v.ns.RLock()
	defer v.ns.RUnlock()
	v.table.mu.RLock()
	defer v.table.mu.RUnlock()
	for _, n := range v.table.byID {
		if n.parent != nil && n.parent.dir.unlisted.Load() && (n.dir == nil || !n.dir.unlisted.Load()) {
			t.Fatalf("%q is there, and what is above it is not listed", n.name)
		}
	}
}

// TestNamesAlone: reading names makes no file, and looking at one of them lists what is above.
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
		if _, _, err := next.Lookup(n, "none"); !errors.Is(err, unix.ENOENT) {
			t.Fatalf("level %d: a missing name: %v", i, err)
		}
		fd, err := next.dirFD(n)
		must(t, err)
		if l, err := listNames(fd); err != nil || len(l) != 1 {
			t.Fatalf("level %d: warm holds %v, %v", i, l, err)
		}
		next.unpin(n)
		n, _, err = next.Lookup(n, fmt.Sprint("d", i))
		must(t, err)
	}
	if got, told := names(t, next, n); !slices.Equal(got, []string{"last"}) || !told {
		t.Fatalf("%q, told %v", got, told)
	}
	for _, at := range []string{"d0/d1", ""} { // only its atime moves
		dir := mustFind(t, next, at)
		before := mustAttr(t, next, dir)
		_, err := next.Setattr(dir, nil, &SetAttr{Atime: &Time{Sec: 5}})
		must(t, err)
		if after := mustAttr(t, next, dir); after.Mtime != before.Mtime || after.Atime != (Time{Sec: 5}) {
			t.Errorf("%q: %+v became %+v", at, before, after)
		}
	}
	must(t, next.Setxattr(n, "user.k", []byte("v"), 0, false, me))
	next.aboveListed(t)
	if next.root.dir.unlisted.Load() || !n.dir.unlisted.Load() {
		t.Error("a change of a directory's attributes lists what is above it, and not itself")
	}
	for i := range absentMax + 1 {
		if !n.dir.unlisted.Load() {
			t.Fatalf("listed for %d names that are not there", i)
		}
		if _, _, err := next.Lookup(n, fmt.Sprint("none", i)); !errors.Is(err, unix.ENOENT) {
			t.Fatal(err)
		}
	}
	if n.dir.unlisted.Load() {
		t.Error("names that are not there are looked for in the commit for ever")
	}
	next.mustSync(t)
	third := openTiered(t, t.TempDir(), c)
	if got, err := third.Getxattr(mustFind(t, third, "d0/d1/d2/d3"), "user.k", make([]byte, 8)); err != nil || got != 1 {
		t.Errorf("the attribute has %d bytes, %v", got, err)
	}
}

// TestStreamOverListing: a stream that was begun before the directory was listed gives each name once, and anew from its beginning what
// is there then.
func TestStreamOverListing(t *testing.T) {
	v, c := newVolume(t)
	for i := range 20 {
		write(t, v, v.root, fmt.Sprintf("f%02d", i), "text")
	}
	v.mustSync(t)
	next := openTiered(t, t.TempDir(), c)
	d, err := next.OpenDir(next.root)
	must(t, err)
	var got []string
	var off uint64
	read := func(most int) {
		must(t, d.ReadDir(off, func(e Dirent) bool {
			if most == 0 {
				return false
			}
			most--
			got, off = append(got, e.Name), e.Off
			return true
		}))
	}
	read(7)
	must(t, next.Unlink(next.root, "f03"))
	write(t, next, next.root, "new", "")
	other, err := next.OpenDir(next.root)
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
		d, err := next.OpenDir(next.root)
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

// TestBrowseOverLeftovers: a directory that a dead daemon had just made, without its record, and one whose record stands for another
// tree are made anew.
func TestBrowseOverLeftovers(t *testing.T) {
	v, c := newVolume(t)
	for _, name := range []string{"bare", "other"} {
		d := mkdir(t, v, v.root, name)
		write(t, v, d, name, "text of "+name)
		_, err := v.Setattr(d, nil, &SetAttr{Mode: new(uint32(0711)), Mtime: &Time{Sec: 77}})
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
	must(t, unix.Setxattr(at("other"), recordName, r.encode(nil), 0))
	if got, told := names(t, next, next.root); !slices.Equal(got, []string{"bare", "other"}) || !told {
		t.Fatalf("%q, told %v", got, told)
	}
	for _, name := range []string{"bare", "other"} {
		d := mustFind(t, next, name)
		if a := mustAttr(t, next, d); a.Mode&07777 != 0711 || a.Mtime != (Time{Sec: 77}) {
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

// TestBrowseRandomly: looking, changing and dying anywhere between unlisted directories, against a model of the tree.
func TestBrowseRandomly(t *testing.T) {
	for seed := range int64(12) {
		browseRandomly(t, rand.New(rand.NewSource(seed)))
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func browseRandomly(t *testing.T, rnd *rand.Rand) {
	v, c := newVolume(t)
	model := map[string]string{"": "dir"} // path: "dir" or content; directories' modes under path + "/"
	dirs := func() (out []string) {
		for at, what := range model {
			if what == "dir" {
				out = append(out, at)
			}
		}
		slices.Sort(out)
		return out
	}
	for i := range 40 {
		all := dirs()
		at := all[rnd.Intn(len(all))]
		name := path.Join(at, fmt.Sprint("n", i))
		if rnd.Intn(2) == 0 {
			mkdir(t, v, mustFind(t, v, at), path.Base(name))
			model[name] = "dir"
		} else {
			write(t, v, mustFind(t, v, at), path.Base(name), name)
			model[name] = name
		}
	}
	v.mustSync(t)
	died := errors.New("died")
	left := 0
	open := func(state string) *Volume {
		return openTiered(t, state, c, func(c *Config) {
			c.Fail = func(s string) error {
				if strings.HasPrefix(s, "list.") || strings.HasPrefix(s, "browse.") {
					if left--; left == 0 {
						return died
					}
				}
				return nil
			}
		})
	}
	next := open(t.TempDir())
	for range 60 {
		left = 0
		if rnd.Intn(3) == 0 {
			left = 1 + rnd.Intn(12)
		}
		all := dirs()
		at := all[rnd.Intn(len(all))]
		err := browseStep(t, rnd, next, model, all, at)
		if errors.Is(err, died) {
			left = 0
			next = open(next.cfg.State)
			continue
		}
		if err != nil {
			t.Fatalf("%q: %v", at, err)
		}
		next.aboveListed(t)
		if rnd.Intn(20) == 0 {
			left = 0
			next.mustSync(t)
		}
	}
	left = 0
	next.mustSync(t)
	third := openTiered(t, t.TempDir(), c)
	var walk func(v *Volume, n *Inode, at string, seen map[string]string)
	walk = func(v *Volume, n *Inode, at string, seen map[string]string) {
		seen[at] = "dir"
		list, _ := names(t, v, n)
		for _, name := range list {
			sub, a, err := v.Lookup(n, name)
			must(t, err)
			p := path.Join(at, name)
			if sub.kind == KindDir {
				walk(v, sub, p, seen)
				if a.Mode&07777 != 0755 {
					seen[p+"/"] = fmt.Sprintf("%o", a.Mode&07777)
				}
			} else {
				seen[p] = read(t, v, sub)
			}
		}
	}
	for what, v := range map[string]*Volume{"this machine": next, "the next machine": third} {
		seen := map[string]string{}
		walk(v, v.root, "", seen)
		if !maps.Equal(seen, model) {
			t.Errorf("%s has\n%v\nwant\n%v", what, seen, model)
		}
	}
}

// browseStep does one thing in directory at, and to the model once it is done.
func browseStep(t *testing.T, rnd *rand.Rand, v *Volume, model map[string]string, dirs []string, at string) error {
	n, err := v.find(at)
	if err != nil {
		return err
	}
	var children []string
	for p := range model {
		if p != "" && !strings.HasSuffix(p, "/") && path.Dir("/"+p) == path.Clean("/"+at) {
			children = append(children, path.Base(p))
		}
	}
	slices.Sort(children)
	fresh := fmt.Sprint("m", rnd.Int31())
	switch rnd.Intn(7) {
	case 0, 1:
		d, err := v.OpenDir(n)
		if err != nil {
			return err
		}
		d.Close()
		if got, _ := names(t, v, n); !slices.Equal(got, children) {
			t.Errorf("%q holds %q, want %q", at, got, children)
		}
	case 2:
		if _, _, err := v.Lookup(n, fresh); !errors.Is(err, unix.ENOENT) {
			return err
		}
	case 3:
		if at == "" {
			return nil
		}
		mode := uint32(0700 + rnd.Intn(8))
		if _, err := v.Setattr(n, nil, &SetAttr{Mode: &mode}); err != nil {
			return err
		}
		model[at+"/"] = fmt.Sprintf("%o", mode)
	case 4:
		_, h, _, err := v.Create(n, fresh, unix.O_RDWR, 0644, me)
		if err != nil {
			return err
		}
		h.Release()
		model[path.Join(at, fresh)] = ""
	case 5:
		to := dirs[rnd.Intn(len(dirs))]
		if at == "" || to == at || strings.HasPrefix(to, at+"/") {
			return nil
		}
		dir, err := v.find(path.Dir("/" + at)[1:])
		if err != nil {
			return err
		}
		newdir, err := v.find(to)
		if err != nil {
			return err
		}
		if err := v.Rename(dir, path.Base(at), newdir, fresh, 0); err != nil {
			return err
		}
		moved := path.Join(to, fresh)
		for p, what := range maps.Clone(model) {
			if p == at || strings.HasPrefix(p, at+"/") {
				delete(model, p)
				model[moved+p[len(at):]] = what
			}
		}
	case 6:
		for _, name := range children {
			if p := path.Join(at, name); model[p] != "dir" {
				if err := v.Unlink(n, name); err != nil {
					return err
				}
				delete(model, p)
				return nil
			}
		}
	}
	return nil
}
