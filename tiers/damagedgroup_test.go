package tiers

import (
	"errors"
	"testing"
)

// TestDamagedGroup: where one of the directories that share files cannot be read, the volume opens and what is listed is readable.
func TestDamagedGroup(t *testing.T) {
	v, c := newVolume(t)
	a, b := mkdir(t, v, v.root, "a"), mkdir(t, v, v.root, "b")
	f := write(t, v, a, "f", "x")
	_, err := v.Link(f, b, "g")
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
	if _, err := next.find("a/f"); err == nil {
		t.Fatal("listed")
	}
	must(t, next.Close())
	c.mu.Lock()
	for _, e := range c.dirs[rootDir(c.commits[c.head])] {
		if e.Name == "b" {
			delete(c.dirs, e.Dir())
		}
	}
	c.mu.Unlock()
	w := openTiered(t, next.cfg.State, c)
	if read(t, w, mustFind(t, w, "a/f")) != "x" {
		t.Fatal("a/f")
	}
	if _, err := w.find("b/g"); !errors.Is(err, ErrMissing) {
		t.Fatal(err)
	}
}
