package tiers

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"emberfs/tiers/cold"
)

// TestTooMuch: what a commit cannot hold stays out of it, at risk and named, whatever it is, and is taken once it fits.
func TestTooMuch(t *testing.T) {
	has := func(put []cold.Entry, name string) bool {
		return slices.ContainsFunc(put, func(e cold.Entry) bool { return e.Name == name })
	}
	for _, c := range []struct {
		what    string
		tooMuch func(root *cold.Root, put []cold.Entry) error
		out     string // what status says
		missing []string
	}{
		{"a file", func(_ *cold.Root, put []cold.Entry) error {
			if has(put, "f") {
				return &cold.TooMuchError{Names: []string{"f"}, Err: errors.New("long")}
			}
			return nil
		}, "d/s/f: ", []string{"d/s/f"}},
		{"a directory by its own attributes", func(_ *cold.Root, put []cold.Entry) error {
			if has(put, "s") {
				return &cold.TooMuchError{Names: []string{"s"}, Err: errors.New("long")}
			}
			return nil
		}, "d/s: ", []string{"d/s", "d/s/f", "d/s/t", "d/s/t/h"}},
		{"a directory as a whole", func(_ *cold.Root, put []cold.Entry) error {
			if has(put, "f") {
				return &cold.TooMuchError{Err: errors.New("wide")}
			}
			return nil
		}, "d/s: ", []string{"d/s", "d/s/f", "d/s/t", "d/s/t/h"}},
		{"the root's attributes", func(root *cold.Root, _ []cold.Entry) error {
			if root != nil && len(root.Xattrs) > 0 {
				return &cold.TooMuchError{Names: []string{""}, Err: errors.New("long")}
			}
			return nil
		}, ".: ", nil},
		{"hard links", func(root *cold.Root, _ []cold.Entry) error {
			if root != nil && len(root.Links) > 0 {
				return &cold.TooMuchError{Links: true, Err: errors.New("many")}
			}
			return nil
		}, "hard links: ", nil},
	} {
		t.Run(c.what, func(t *testing.T) {
			v, cold := newVolume(t)
			d := mkdir(t, v, v.root, "d")
			s := mkdir(t, v, d, "s")
			sub := mkdir(t, v, s, "t")
			write(t, v, s, "f", "one")
			write(t, v, sub, "h", "two")
			g := write(t, v, v.root, "g", "three")
			_, err := v.Link(context.Background(), g, d, "g2")
			must(t, err)
			must(t, v.Setxattr(context.Background(), v.root, "user.x", []byte("y"), 0, false, me))
			cold.tooMuch = c.tooMuch
			for range 2 {
				rc, err := v.Sync(t.Context(), "test")
				must(t, err)
				if rc.Complete || !strings.Contains(strings.Join(rc.Missing, "\n"), c.out) {
					t.Errorf("the receipt says complete %v, missing %q", rc.Complete, rc.Missing)
				}
				if st := v.Status(); st.AtRisk.Files == 0 ||
					!strings.Contains(strings.Join(st.Errors, "\n"), "left out: "+c.out) {
					t.Errorf("at risk %+v, errors %q", st.AtRisk, st.Errors)
				}
			}
			for _, name := range []string{"g", "d", "d/g2", "d/s", "d/s/f", "d/s/t", "d/s/t/h"} {
				if ok := slices.Contains(committed(t, cold), name); ok == slices.Contains(c.missing, name) {
					t.Errorf("%s is in the commit: %v", name, ok)
				}
			}
			cold.tooMuch = nil
			write(t, v, v.root, "late", "x")
			v.mustSync(t)
			for _, name := range []string{"g", "d", "d/g2", "d/s", "d/s/f", "d/s/t", "d/s/t/h", "late"} {
				if !slices.Contains(committed(t, cold), name) {
					t.Errorf("%s is not in the commit though it fits now", name)
				}
			}
			if st := v.Status(); st.AtRisk.Files != 0 || len(st.Errors) != 0 {
				t.Errorf("then at risk %+v, errors %q", st.AtRisk, st.Errors)
			}
			must(t, v.Close())
		})
	}
}
