package tiers

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
)

const someCaps = "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// heldSample commits files d/0... of which an untrusted restore holds back suid and two attributes, and a device
// d/null.
func heldSample(t *testing.T, files int) *memCold {
	t.Helper()
	v, c := newVolume(t)
	d := mkdir(t, v, v.root, "d")
	mode := uint32(0o4755)
	for i := range files {
		f := write(t, v, d, fmt.Sprint(i), "x")
		for _, k := range []string{"trusted.k1", "trusted.k2"} {
			must(t, v.Setxattr(context.Background(), f, k, []byte(k), 0, false, me))
		}
		_, err := v.Setattr(context.Background(), f, nil, &SetAttr{Mode: &mode})
		must(t, err)
	}
	if _, _, err := v.Mknod(context.Background(), d, "null", unix.S_IFCHR|0666, 1<<8|3, me); err != nil {
		t.Fatal(err)
	}
	v.mustSync(t)
	return c
}

// committedIn returns what the newest commit has in the root's directories: kind, mode and attributes by name.
func committedIn(t *testing.T, c *memCold) map[string]string {
	t.Helper()
	s, err := c.Newest(t.Context())
	must(t, err)
	root := s.Root()
	l, err := s.ReadDir(t.Context(), root.Dir())
	must(t, err)
	out := map[string]string{}
	for _, e := range l.Entries {
		if e.Kind != cold.KindDir {
			continue
		}
		sub, err := s.ReadDir(t.Context(), e.Dir())
		must(t, err)
		for _, e := range sub.Entries {
			out[e.Name] = fmt.Sprintf("%s %o %s", e.Kind, e.Mode, e.Xattrs)
		}
	}
	return out
}

func untrusted(c *Config) { c.Untrusted = true }

func copyState(t *testing.T, state string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	if out, err := exec.Command("cp", "-a", state, to).CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
	return to
}

// TestHeldChangesApart: several goroutines change held-back parts of files at a time. For each file only what was
// changed of that file is dropped.
func TestHeldChangesApart(t *testing.T) {
	c := heldSample(t, 40)
	w := openTiered(t, t.TempDir(), c, untrusted)
	mustFind(t, w, "d/0")
	mode := uint32(0o700)
	var wg sync.WaitGroup
	for k := range 4 {
		wg.Go(func() {
			for i := k; i < 30; i += 4 {
				n, err := w.find(t.Context(), fmt.Sprint("d/", i))
				if err == nil {
					_, err = w.Setattr(context.Background(), n, nil, &SetAttr{Mode: &mode})
				}
				if err == nil && i%2 == 0 {
					err = w.Removexattr(context.Background(), n, "trusted.k1")
				}
				if err != nil {
					t.Error(err)
				}
				w.Status()
			}
		})
	}
	wg.Wait()
	for i := range 40 {
		st, err := w.FileStatus(t.Context(), fmt.Sprint("d/", i))
		must(t, err)
		want := []string{"mode 4755: the source is not trusted", "attribute trusted.k1: the source is not trusted",
			"attribute trusted.k2: the source is not trusted"}
		if i < 30 {
			want = want[1:]
			if i%2 == 0 {
				want = want[1:]
			}
		}
		if !slices.Equal(st.LeftOut, want) {
			t.Errorf("d/%d: %q, want %q", i, st.LeftOut, want)
		}
	}
	w.mustSync(t)
	got := committedIn(t, c)
	if got["0"] != "file 700 [{trusted.k2 trusted.k2}]" ||
		got["1"] != "file 700 [{trusted.k1 trusted.k1} {trusted.k2 trusted.k2}]" ||
		!strings.HasPrefix(got["39"], "file 4755 [{trusted.k1") {
		t.Errorf("committed: %q", got)
	}
}

// TestHeldListedTwice: a listing that was cut off is done again, and each thing is held back once. What the user
// removes then does not come back in a copy of the state directory.
func TestHeldListedTwice(t *testing.T) {
	c := heldSample(t, 8)
	before := committedIn(t, c)
	state := t.TempDir()
	fail := false
	w := openTiered(t, state, c, untrusted, func(c *Config) {
		c.Fail = func(s string) error {
			if fail && s == "list.record" {
				fail = false
				return unix.EIO
			}
			return nil
		}
	})
	must(t, w.list(context.Background(), w.root))
	d := mustFind(t, w, "d")
	fail = true
	if err := w.list(context.Background(), d); !errors.Is(err, unix.EIO) {
		t.Fatal(err)
	}
	w.cfg.Untrusted = false // now mknod(2) is tried, and finds what stands in
	must(t, w.list(context.Background(), d))
	if n := w.held.Len(); n != 9 {
		t.Errorf("of %d inodes something is held back, want 9", n)
	}
	if _, err := w.Open(context.Background(), mustFind(t, w, "d/null"), unix.O_RDONLY, false); !errors.Is(err,
		ErrStandsIn) {
		t.Errorf("the device opens: %v", err)
	}
	w.mustSync(t)
	if got := committedIn(t, c); got["null"] != before["null"] {
		t.Errorf("the commit has %q, before %q", got["null"], before["null"])
	}

	state = t.TempDir()
	w = openTiered(t, state, c, untrusted, func(c *Config) {
		c.Fail = func(s string) error {
			if fail && s == "list.record" {
				fail = false
				return unix.EIO
			}
			return nil
		}
	})
	must(t, w.list(context.Background(), w.root))
	d = mustFind(t, w, "d")
	fail = true
	if err := w.list(context.Background(), d); !errors.Is(err, unix.EIO) {
		t.Fatal(err)
	}
	must(t, w.list(context.Background(), d))
	if n := w.held.Len(); n != 9 {
		t.Errorf("of %d inodes something is held back, want 9", n)
	}
	for i := range 8 {
		must(t, w.Removexattr(context.Background(), mustFind(t, w, fmt.Sprint("d/", i)), "trusted.k1"))
	}
	w.mustSync(t)
	must(t, w.Close())
	x := openTiered(t, copyState(t, state), c, untrusted)
	write(t, x, mustFind(t, x, "d"), "new", "new")
	must(t, x.Unlink(context.Background(), mustFind(t, x, "d"), "new"))
	x.mustSync(t)
	if got := committedIn(t, c); got["3"] != "file 4755 [{trusted.k2 trusted.k2}]" || got["null"] != before["null"] {
		t.Errorf("the copy commits %q", got)
	}
}

// TestHeldOfSeveralNames: what is held back of a file stays with it when it loses one of its names. No other file that
// gets that name gets it, not even in a copy of the state directory.
func TestHeldOfSeveralNames(t *testing.T) {
	v, c := newVolume(t)
	d := mkdir(t, v, v.root, "d")
	f := write(t, v, d, "odd", "odd")
	must(t, v.Setxattr(context.Background(), f, "security.capability", []byte(someCaps), 0, false, me))
	v.mustSync(t)
	state := t.TempDir()
	w := openTiered(t, state, c, untrusted)
	d = mustFind(t, w, "d")
	_, err := w.Link(context.Background(), mustFind(t, w, "d/odd"), d, "other")
	must(t, err)
	must(t, w.Unlink(context.Background(), d, "odd"))
	write(t, w, d, "odd", "written by somebody else")
	w.mustSync(t)
	if got := w.Status().LeftOut; len(got) != 1 || !strings.Contains(got[0], "security.capability") {
		t.Errorf("status lists %q", got)
	}
	if got := committedIn(t, c); strings.Contains(got["odd"], "capability") ||
		!strings.Contains(got["other"], "capability") {
		t.Errorf("committed: %q", got)
	}
	// It is dropped with the last name, although the file is still in use: a kill may come before it is closed.
	u := openTiered(t, t.TempDir(), c, untrusted)
	gone := mustFind(t, u, "d/other")
	must(t, u.Unlink(context.Background(), mustFind(t, u, "d"), "other"))
	if n := u.held.Len(); n != 0 || gone.Kind() != cold.KindFile {
		t.Errorf("of %d inodes something is held back after the only one is gone", n)
	}
	must(t, w.Close())
	x := openTiered(t, copyState(t, state), c, untrusted)
	if got := x.Status().Errors; len(got) != 1 || !strings.Contains(got[0], "cannot be found in this copy") {
		t.Errorf("what the copy cannot find: %q", got)
	}
	mode := uint32(0o640)
	_, err = x.Setattr(context.Background(), mustFind(t, x, "d/odd"), nil, &SetAttr{Mode: &mode})
	must(t, err)
	x.mustSync(t)
	if got := committedIn(t, c); strings.Contains(got["odd"], "capability") {
		t.Errorf("the copy commits %q", got)
	}
}

// TestHeldMode: suid that is held back is dropped by chmod, and by any call that writes for a caller who may not keep
// it. A failed call changes nothing, and other bits that are set of the mode count.
func TestHeldMode(t *testing.T) {
	c := heldSample(t, 9)
	w := openTiered(t, t.TempDir(), c, untrusted)
	d := mustFind(t, w, "d")
	n := func(i int) *Inode { return mustFind(t, w, fmt.Sprint("d/", i)) }
	open := func(i int) *Handle {
		t.Helper()
		h, err := w.Open(context.Background(), n(i), unix.O_RDWR, false)
		must(t, err)
		t.Cleanup(h.Release)
		return h
	}
	mode := uint32(0o711)
	_, err := w.Setattr(context.Background(), n(0), nil, &SetAttr{Mode: &mode})
	must(t, err)
	_, err = open(1).Write(context.Background(), []byte("y"), 0, true)
	must(t, err)
	_, err = open(2).Write(context.Background(), []byte("y"), 0, false)
	must(t, err)
	_, err = w.Open(context.Background(), n(3), unix.O_WRONLY|unix.O_TRUNC, true)
	must(t, err)
	must(t, w.KillHeld(n(4)))
	// Rwx--x--x.
	acl := "\x02\x00\x00\x00\x01\x00\x07\x00\xff\xff\xff\xff\x04\x00\x01\x00\xff\xff\xff\xff\x20\x00\x01\x00\xff\xff\xff\xff"
	must(t, w.Setxattr(context.Background(), n(5), "system.posix_acl_access", []byte(acl), 0, false, me))
	if err := w.Removexattr(context.Background(), n(6), "osx.nothing"); err == nil {
		t.Error("an attribute that is nowhere was removed")
	}
	if _, err := w.Link(context.Background(), n(7), d, "8"); !errors.Is(err, unix.EEXIST) {
		t.Error(err)
	}
	w.mustSync(t)
	got := committedIn(t, c)
	for i, want := range []string{"711", "755", "4755", "755", "755", "4711", "4755", "4755", "4755"} {
		if !strings.HasPrefix(got[fmt.Sprint(i)], "file "+want+" ") {
			t.Errorf("%d is committed as %q, want mode %s", i, got[fmt.Sprint(i)], want)
		}
	}
}
