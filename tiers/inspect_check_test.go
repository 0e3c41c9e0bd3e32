package tiers

import (
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/inspect"
	"emberfs/tiers/warm"
)

// checkedWarm is a volume that was committed and closed, so that its warm can be damaged by hand.
type checkedWarm struct {
	t     *testing.T
	state string
	cold  *memCold
}

func newCheckedWarm(t *testing.T) *checkedWarm {
	t.Helper()
	v, c := newVolume(t)
	if !v.records {
		t.Fatal("this test needs trusted.* attributes: run it as root on ext4, xfs, btrfs or tmpfs")
	}
	a := mkdir(t, v, v.root, "a")
	b := mkdir(t, v, a, "b")
	write(t, v, b, "f", "hello")
	write(t, v, a, "g", "again")
	if _, _, err := v.Symlink(context.Background(), a, "link", "b/f", me); err != nil {
		t.Fatal(err)
	}
	h := mkdir(t, v, v.root, "hard")
	if _, err := v.Link(context.Background(), write(t, v, h, "one", "linked"), h, "two"); err != nil {
		t.Fatal(err)
	}
	v.mustSync(t)
	w := &checkedWarm{t: t, state: v.cfg.State, cold: c}
	w.close(v)
	return w
}

func (w *checkedWarm) close(v *Volume) {
	w.t.Helper()
	if err := v.Close(); err != nil {
		w.t.Fatal(err)
	}
}

func (w *checkedWarm) at(name string) string { return filepath.Join(w.state, "warm", name) }

func (w *checkedWarm) open() *Volume {
	w.t.Helper()
	v, err := Open(w.t.Context(), Config{State: w.state, Cold: w.cold, Log: quiet(), Branch: "main",
		MemoryLimit: 64 << 20})
	if err != nil {
		w.t.Fatal(err)
	}
	return v
}

func sameAsMem(_ context.Context, id cold.ID, c cold.Content) (bool, error) {
	data, err := io.ReadAll(io.NewSectionReader(c, 0, c.Size()))
	return cold.ID(sha1.Sum(data)) == id, err
}

func (w *checkedWarm) check(deep bool) *inspect.Report {
	w.t.Helper()
	info, err := inspect.ReadState(w.state)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.checkWith(info, deep)
}

func (w *checkedWarm) checkWith(info inspect.StateInfo, deep bool) *inspect.Report {
	w.t.Helper()
	head, err := w.cold.Head(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	o := inspect.Options{State: w.state, Info: info, Commits: []cold.Snapshot{head}}
	if deep {
		o.Same = sameAsMem
	}
	s, err := inspect.Check(w.t.Context(), o)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func (w *checkedWarm) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// keepTimes runs f and gives the file the mtime back that it had.
func (w *checkedWarm) keepTimes(name string, f func()) {
	w.t.Helper()
	var st unix.Stat_t
	w.must(unix.Lstat(w.at(name), &st))
	f()
	w.must(unix.UtimesNanoAt(unix.AT_FDCWD, w.at(name), []unix.Timespec{st.Atim, st.Mtim}, 0))
}

func TestCheckWarmSound(t *testing.T) {
	w := newCheckedWarm(t)
	for _, deep := range []bool{false, true} {
		if s := w.check(deep); len(s.Findings) > 0 || s.AtRisk != (cold.AtRisk{}) || s.Doubtful > 0 {
			t.Errorf("deep %v: %+v", deep, s)
		}
	}
}

// TestCheckWarmUntrueMarks changes warm behind the daemon's back: under a clean mark no commit would ever notice.
func TestCheckWarmUntrueMarks(t *testing.T) {
	for _, c := range []struct {
		name   string
		damage func(w *checkedWarm)
		quick  bool
		path   string
		what   string
		want   map[string]string // content after records were dropped and a commit made
	}{
		{"bytes alone", func(w *checkedWarm) {
			w.keepTimes("a/b/f", func() { w.must(os.WriteFile(w.at("a/b/f"), []byte("HELLO"), 0o644)) })
		}, false, "a/b/f", "its bytes are not those", map[string]string{"a/b/f": "HELLO"}},
		{"grown", func(w *checkedWarm) {
			w.must(os.WriteFile(w.at("a/b/f"), []byte("hello, longer"), 0o644))
		}, true, "a/b/f", "under a clean mark", map[string]string{"a/b/f": "hello, longer"}},
		{"added", func(w *checkedWarm) {
			w.must(os.WriteFile(w.at("a/b/new"), []byte("new"), 0o644))
		}, true, "a/b/new", "not in the commit", map[string]string{"a/b/new": "new"}},
		{"removed", func(w *checkedWarm) {
			w.must(os.Remove(w.at("a/b/f")))
		}, true, "a/b/f", "missing from warm", map[string]string{"a/b/f": ""}},
		{"another type", func(w *checkedWarm) {
			w.must(os.Remove(w.at("a/b/f")))
			w.must(os.Mkdir(w.at("a/b/f"), 0o755))
		}, true, "a/b/f", "", map[string]string{"a/b/f": ""}},
		{"directory record of another tree", func(w *checkedWarm) {
			buf := make([]byte, warm.RecordMax)
			n, err := unix.Getxattr(w.at("a/b"), warm.RecordAttr, buf)
			w.must(err)
			buf[5] ^= 0xff
			w.must(unix.Setxattr(w.at("a/b"), warm.RecordAttr, buf[:n], 0))
		}, true, "a/b", "marked clean as tree", map[string]string{"a/b/f": "hello"}},
		{"file record of another object", func(w *checkedWarm) {
			buf := make([]byte, warm.RecordMax)
			n, err := unix.Getxattr(w.at("a/g"), warm.RecordAttr, buf)
			w.must(err)
			buf[5] ^= 0xff
			w.must(unix.Setxattr(w.at("a/g"), warm.RecordAttr, buf[:n], 0))
		}, true, "a/g", "its record names object", map[string]string{"a/g": "again"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newCheckedWarm(t)
			c.damage(w)
			has := func(s *inspect.Report) bool {
				return slices.ContainsFunc(s.Findings, func(f cold.Finding) bool {
					return f.Severity == cold.Damaged && f.Path == c.path && strings.Contains(f.What, c.what)
				})
			}
			if got := has(w.check(false)); got != c.quick {
				t.Errorf("quick: found %v, want %v: %+v", got, c.quick, w.check(false))
			}
			s := w.check(true)
			if !has(s) || len(s.Untrue) == 0 {
				t.Fatalf("deep: not found: %+v", s)
			}
			if err := inspect.DropRecords(w.state, s.Untrue); err != nil {
				t.Fatal(err)
			}
			if s := w.check(true); len(s.Findings) > 0 {
				t.Errorf("after the records were dropped: %+v", s)
			}
			v := w.open()
			v.mustSync(t)
			w.close(v)
			if s := w.check(true); len(s.Findings) > 0 || s.AtRisk.Files > 0 {
				t.Errorf("after a commit: %+v", s)
			}
			for name, want := range c.want {
				if got := w.committed(name); got != want {
					t.Errorf("the commit has %q for %s, want %q", got, name, want)
				}
			}
		})
	}
}

// committed is a file's content in the last commit; "" where there is no such file.
func (w *checkedWarm) committed(name string) string {
	w.t.Helper()
	head, err := w.cold.Head(w.t.Context())
	w.must(err)
	dir := cold.RootDir(head)
	parts := strings.Split(name, "/")
	for i, part := range parts {
		l, err := head.ReadDir(w.t.Context(), dir)
		w.must(err)
		at := slices.IndexFunc(l.Entries, func(e cold.Entry) bool { return e.Name == part })
		if at < 0 {
			return ""
		}
		e := l.Entries[at]
		if dir = e.Dir(); i == len(parts)-1 && e.Kind == cold.KindFile {
			return string(w.cold.blobs[e.ID])
		}
	}
	return ""
}

// TestCheckWarmAtRisk: what no commit has is at risk, counted, and no damage; also after the daemon was killed.
func TestCheckWarmAtRisk(t *testing.T) {
	w := newCheckedWarm(t)
	v := w.open()
	a := lookup(t, v, v.root, "a")
	b := lookup(t, v, a, "b")
	write(t, v, b, "f", "changed")      // 7 bytes
	write(t, v, b, "new", "0123456789") // 10
	lookup(t, v, a, "g")
	if err := v.Unlink(context.Background(), a, "g"); err != nil {
		t.Fatal(err)
	}
	mode := uint32(0o600)
	if _, err := v.Setattr(context.Background(), lookup(t, v, a, "b"), nil, &SetAttr{Mode: &mode}); err != nil {
		t.Fatal(err)
	}
	// As after a SIGKILL: nobody closes it.
	for _, deep := range []bool{false, true} {
		s := w.check(deep)
		if len(s.Findings) > 0 || s.AtRisk.Files != 4 || s.AtRisk.Bytes != 17 || s.AtRisk.Seconds > 60 {
			t.Errorf("deep %v: %+v", deep, s)
		}
	}
	w.close(v)
	w.close(w.open())
	if s := w.check(true); len(s.Findings) > 0 || s.AtRisk.Files != 4 {
		t.Errorf("after another start: %+v", s)
	}
}

func lookup(t *testing.T, v *Volume, d *Inode, name string) *Inode {
	t.Helper()
	n, _, err := v.Lookup(context.Background(), d, name)
	if err != nil {
		t.Fatalf("lookup %s: %v", name, err)
	}
	return n
}

// TestCheckWarmHints: after an unclean stop in another boot records prove nothing, and changed bytes are at risk, not
// damage.
func TestCheckWarmHints(t *testing.T) {
	w := newCheckedWarm(t)
	w.keepTimes("a/b/f", func() { w.must(os.WriteFile(w.at("a/b/f"), []byte("HELLO"), 0o644)) })
	info, err := inspect.ReadState(w.state)
	w.must(err)
	info.Trusted = false
	if s := w.checkWith(info, false); len(s.Findings) > 0 || s.AtRisk.Files > 0 || s.Doubtful != 4 {
		t.Errorf("quick: %+v", s)
	}
	if s := w.checkWith(info, true); len(s.Findings) > 0 || s.AtRisk.Files != 1 || s.AtRisk.Bytes != 5 {
		t.Errorf("deep: %+v", s)
	}
}

func TestReadState(t *testing.T) {
	w := newCheckedWarm(t)
	path := filepath.Join(w.state, warm.StateName)
	good, err := os.ReadFile(path)
	w.must(err)
	info, err := inspect.ReadState(w.state)
	if err != nil || info.Head != w.cold.head || !info.Trusted || !info.Clean {
		t.Errorf("%+v, %v", info, err)
	}
	set := func(s string) { w.must(os.WriteFile(path, []byte(s), 0o600)) }
	set(strings.Replace(string(good), `"format": 1`, `"format": 2`, 1))
	if _, err := inspect.ReadState(w.state); !errors.Is(err, warm.ErrNewerState) {
		t.Errorf("newer: %v", err)
	}
	for _, bad := range []string{"", "{", "nonsense", `{"format":1}`,
		strings.Replace(string(good), w.cold.head.String(), "abc", 1)} {
		set(bad)
		if _, err := inspect.ReadState(w.state); err == nil || errors.Is(err, warm.ErrNewerState) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	w.must(os.Remove(path))
	if _, err := inspect.ReadState(w.state); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	set(string(good))
	other := cold.ID{1}
	w.must(inspect.SetHead(w.state, other))
	if info, err := inspect.ReadState(w.state); err != nil || info.Head != other {
		t.Errorf("another head: %+v, %v", info, err)
	}
}

func TestWarmFiles(t *testing.T) {
	w := newCheckedWarm(t)
	got := map[string]string{}
	wanted := cold.ID(sha1.Sum([]byte("again")))
	err := inspect.WarmFiles(t.Context(), w.state, func(path string, id cold.ID) bool {
		return path == "a/link" || path == "a/b/f" || id == wanted
	},
		func(path string, c cold.Content) error {
			data, err := io.ReadAll(io.NewSectionReader(c, 0, c.Size()))
			got[path] = string(data)
			return err
		})
	if err != nil || fmt.Sprint(got) != "map[a/b/f:hello a/g:again a/link:b/f]" {
		t.Errorf("%v, %v", got, err)
	}
}
