//go:build slow

package tiers

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"emberfs/tiers/cold"
)

// TestKilledInListing: a listing that was cut off at any step is completed by the next daemon.
func TestKilledInListing(t *testing.T) {
	t.Parallel()
	v, c := newVolume(t)
	sample(t, v)
	v.mustSync(t)
	died := errors.New("died")
	for stop := 1; ; stop++ {
		left := stop
		next := openTiered(t, t.TempDir(), c, func(c *Config) {
			c.Fail = func(s string) error {
				if strings.HasPrefix(s, "list.") {
					if left--; left == 0 {
						return died
					}
				}
				return nil
			}
		})
		_, err := next.find(t.Context(), "far/away/other name")
		if err == nil {
			if stop < 10 {
				t.Fatalf("only %d steps", stop)
			}
			return
		}
		if !errors.Is(err, died) {
			t.Fatal(err)
		}
		again := openTiered(t, next.cfg.State, c)
		if l := mustAttr(t, again, mustFind(t, again, "far/away/other name")); l.Nlink != 2 ||
			l.Ino != mustAttr(t, again, mustFind(t, again, "a/b/linked")).Ino {
			t.Fatalf("step %d: linked: %+v", stop, l)
		}
		again.recallAll(context.Background())
		rsyncEqual(t, filepath.Join(v.cfg.State, "warm"), filepath.Join(again.cfg.State, "warm"))
		if rc := again.mustSync(t); rc.New {
			t.Fatalf("step %d: a commit of nothing: %+v", stop, rc)
		}
	}
}

// TestKilledInListingAbove: the root and x/y share a file and are listed together. x, between them, is listed alone,
// and counts as changed at once since it has a file with several names. The root stays lazy until the end. Whatever
// step the daemon was killed at, the next one shows the same tree.
func TestKilledInListingAbove(t *testing.T) {
	t.Parallel()
	v, c := newVolume(t)
	x := mkdir(t, v, v.root, "x")
	y := mkdir(t, v, x, "y")
	f := write(t, v, v.root, "f", "text")
	_, err := v.Link(context.Background(), f, y, "f2")
	must(t, err)
	g := write(t, v, x, "g", "here")
	_, err = v.Link(context.Background(), g, x, "g2")
	must(t, err)
	for _, n := range []*Inode{y, x, v.root} {
		_, err = v.Setattr(context.Background(), n, nil, &SetAttr{Mtime: &cold.Time{Sec: 77}})
		must(t, err)
	}
	v.mustSync(t)
	for stop := 1; ; stop++ {
		left := stop
		died := errors.New("died")
		next := openTiered(t, t.TempDir(), c, func(c *Config) {
			c.Fail = func(s string) error {
				if strings.HasPrefix(s, "list.") {
					if left--; left == 0 {
						return died
					}
				}
				return nil
			}
		})
		_, err := next.find(t.Context(), "x/y/f2")
		again := openTiered(t, next.cfg.State, c)
		again.recallAll(context.Background())
		for _, at := range []string{"", "x", "x/y"} {
			if a := mustAttr(t, again, mustFind(t, again, at)); a.Mtime != (cold.Time{Sec: 77}) {
				t.Fatalf("step %d: %q shows %v", stop, at, a.Mtime)
			}
		}
		rsyncEqual(t, filepath.Join(v.cfg.State, "warm"), filepath.Join(again.cfg.State, "warm"))
		if rc := again.mustSync(t); rc.New {
			t.Fatalf("step %d: a commit of nothing", stop)
		}
		if err == nil {
			return
		}
	}
}

// TestWarmViewHalfListed: a view of warm shows a half-listed directory as it will be when it is listed.
func TestWarmViewHalfListed(t *testing.T) {
	t.Parallel()
	v, c := newVolume(t)
	sample(t, v)
	v.mustSync(t)
	want := viewAll(t, view(t, v))
	died := errors.New("died")
	for stop := 1; ; stop++ {
		left := stop
		next := openTiered(t, t.TempDir(), c, func(c *Config) {
			c.Fail = func(s string) error {
				if strings.HasPrefix(s, "list.") {
					if left--; left == 0 {
						return died
					}
				}
				return nil
			}
		})
		_, err := next.find(t.Context(), "far/away/other name")
		sameView(t, fmt.Sprint("step ", stop), viewAll(t, view(t, next)), want)
		if err == nil {
			return
		}
	}
}
