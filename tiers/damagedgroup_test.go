package tiers

import (
	"context"
	"errors"
	"testing"

	"emberfs/tiers/cold"
)

// TestDamagedGroup: where one of the directories that share files cannot be read, the volume opens and what is listed
// is readable.
func TestDamagedGroup(t *testing.T) {
	v, c := newVolume(t)
	a, b := mkdir(t, v, v.root, "a"), mkdir(t, v, v.root, "b")
	f := write(t, v, a, "f", "x")
	_, err := v.Link(context.Background(), f, b, "g")
	must(t, err)
	v.mustSync(t)
	n := 0
	next := openTiered(t, t.TempDir(), c, func(c *Config) {
		c.Fail = func(s string) error {
			if s == "list.record" {
				if n++; n == 3 { // of the root, a and b
					return errors.New("died")
				}
			}
			return nil
		}
	})
	if _, err := next.find(t.Context(), "a/f"); err == nil {
		t.Fatal("listed")
	}
	must(t, next.Close())
	c.mu.Lock()
	for _, e := range c.dirs[cold.RootDir(c.commits[c.head])] {
		if e.Name == "b" {
			delete(c.dirs, e.Dir())
		}
	}
	c.mu.Unlock()
	w := openTiered(t, next.cfg.State, c)
	if read(t, w, mustFind(t, w, "a/f")) != "x" {
		t.Fatal("a/f")
	}
	if _, err := w.find(t.Context(), "b/g"); !errors.Is(err, cold.ErrMissing) {
		t.Fatal(err)
	}
}

// TestDamagedInGroup: a directory that cannot be read does not keep those that share files with it from being listed,
// and finds its names' files when it can be read again.
func TestDamagedInGroup(t *testing.T) {
	v, c := newVolume(t)
	a, b := mkdir(t, v, v.root, "a"), mkdir(t, v, v.root, "b")
	f := write(t, v, a, "f", "x")
	_, err := v.Link(context.Background(), f, b, "g")
	must(t, err)
	v.mustSync(t)
	var id cold.DirID
	for _, e := range c.dirs[cold.RootDir(c.commits[c.head])] {
		if e.Name == "b" {
			id = e.Dir()
		}
	}
	lost := c.dirs[id]
	c.mu.Lock()
	delete(c.dirs, id)
	c.mu.Unlock()
	w := openTiered(t, t.TempDir(), c)
	if read(t, w, mustFind(t, w, "a/f")) != "x" {
		t.Fatal("a/f")
	}
	if _, err := w.find(t.Context(), "b/g"); !errors.Is(err, cold.ErrMissing) {
		t.Fatal(err)
	}
	c.mu.Lock()
	c.dirs[id] = lost
	c.mu.Unlock()
	if l := mustAttr(t, w, mustFind(t, w, "b/g")); l.Nlink != 2 || l.Ino != mustAttr(t, w, mustFind(t, w, "a/f")).Ino {
		t.Fatalf("%+v", l)
	}
}
