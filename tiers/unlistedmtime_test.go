package tiers

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"emberfs/tiers/cold"
)

// TestCommitOfHalfListed: a listing that was cut off moved the mtime of warm's directory; a commit takes the one that
// stat shows.
func TestCommitOfHalfListed(t *testing.T) {
	for _, at := range []string{"d", ""} {
		v, c := newVolume(t)
		d := mkdir(t, v, v.root, "d")
		for i := range 5 {
			write(t, v, d, fmt.Sprint(i), "x")
			write(t, v, v.root, fmt.Sprint(i), "x")
		}
		when := cold.Time{Sec: 1234, Nsec: 5}
		for _, n := range []*Inode{d, v.root} {
			_, err := v.Setattr(context.Background(), n, nil, &SetAttr{Mtime: &when})
			must(t, err)
		}
		v.mustSync(t)
		left := 0
		next := openTiered(t, t.TempDir(), c, func(c *Config) {
			c.Fail = func(s string) error {
				if s == "list.entry" {
					if left--; left == 0 {
						return errors.New("died")
					}
				}
				return nil
			}
		})
		n := mustFind(t, next, at)
		left = 3
		if _, _, err := next.Lookup(context.Background(), n, "4"); err == nil {
			t.Fatal("listed")
		}
		again := openTiered(t, next.cfg.State, c)
		n = mustFind(t, again, at)
		if a := mustAttr(t, again, n); a.Mtime != when {
			t.Fatalf("%q: shows %v", at, a.Mtime)
		}
		_, err := again.Setattr(context.Background(), n, nil, &SetAttr{Mode: new(uint32(0700))})
		must(t, err)
		again.mustSync(t)
		third := openTiered(t, t.TempDir(), c)
		if a := mustAttr(t, third, mustFind(t, third, at)); a.Mtime != when || a.Mode&07777 != 0700 {
			t.Fatalf("%q: restored %+v", at, a)
		}
	}
}
