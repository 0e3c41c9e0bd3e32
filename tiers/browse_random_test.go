package tiers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand"
	"path"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"emberfs/integration/effort"
	"emberfs/tiers/cold"
)

// TestBrowseRandomly looks at and changes lazy directories at random, with kills at any step, and compares them with a
// model of the tree.
func TestBrowseRandomly(t *testing.T) {
	t.Parallel()
	for _, seed := range effort.Seeds(t, 6, 200) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { browseRandomly(t, rand.New(rand.NewSource(seed))) })
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
			sub, a, err := v.Lookup(context.Background(), n, name)
			must(t, err)
			p := path.Join(at, name)
			if sub.kind == cold.KindDir {
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

// browseStep does one random thing in the directory at, and then the same to the model if it succeeded.
func browseStep(t *testing.T, rnd *rand.Rand, v *Volume, model map[string]string, dirs []string, at string) error {
	n, err := v.find(t.Context(), at)
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
		d, err := v.OpenDir(context.Background(), n)
		if err != nil {
			return err
		}
		d.Close()
		if got, _ := names(t, v, n); !slices.Equal(got, children) {
			t.Errorf("%q holds %q, want %q", at, got, children)
		}
	case 2:
		if _, _, err := v.Lookup(context.Background(), n, fresh); !errors.Is(err, unix.ENOENT) {
			return err
		}
	case 3:
		if at == "" {
			return nil
		}
		mode := uint32(0700 + rnd.Intn(8))
		if _, err := v.Setattr(context.Background(), n, nil, &SetAttr{Mode: &mode}); err != nil {
			return err
		}
		model[at+"/"] = fmt.Sprintf("%o", mode)
	case 4:
		_, h, _, err := v.Create(context.Background(), n, fresh, unix.O_RDWR, 0644, me)
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
		dir, err := v.find(t.Context(), path.Dir("/" + at)[1:])
		if err != nil {
			return err
		}
		newdir, err := v.find(t.Context(), to)
		if err != nil {
			return err
		}
		if err := v.Rename(context.Background(), dir, path.Base(at), newdir, fresh, 0); err != nil {
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
				if err := v.Unlink(context.Background(), n, name); err != nil {
					return err
				}
				delete(model, p)
				return nil
			}
		}
	}
	return nil
}
