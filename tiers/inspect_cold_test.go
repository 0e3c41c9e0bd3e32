package tiers

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/inspect"
	"emberfs/tiers/warm"
)

// lacks is WarmCheck.Lacks by what memCold has.
func (c *memCold) lacks(ctx context.Context, n cold.Need) ([]cold.Lost, error) {
	if !n.Dir {
		if err := c.Holds(ctx, n.ID, n.Size); err != nil {
			return []cold.Lost{{Object: n.ID, Err: err}}, nil
		}
		return nil, nil
	}
	c.mu.Lock()
	l, ok := c.dirs[cold.DirID{Tree: n.ID, Meta: n.Meta}]
	c.mu.Unlock()
	if !ok {
		return []cold.Lost{{Object: n.ID, Err: cold.ErrMissing}}, nil
	}
	var lost []cold.Lost
	for i := range l {
		e := &l[i]
		if e.Kind != cold.KindDir && e.Kind != cold.KindFile {
			continue
		}
		below, err := c.lacks(ctx, cold.Need{Dir: e.Kind == cold.KindDir, ID: e.ID, Meta: e.Meta, Size: e.Size})
		if err != nil {
			return nil, err
		}
		for _, b := range below {
			b.Path = filepath.Join(e.Name, b.Path)
			lost = append(lost, b)
		}
	}
	return lost, nil
}

// lazily is a closed volume with sample's tree, as the next machine has restored it; look may look at it before.
func lazily(t *testing.T, look func(v *Volume)) *checkedWarm {
	t.Helper()
	v, c := newVolume(t)
	sample(t, v)
	v.mustSync(t)
	next := openTiered(t, t.TempDir(), c)
	look(next)
	w := &checkedWarm{t: t, state: next.cfg.State, cold: c}
	w.close(next)
	return w
}

func (w *checkedWarm) again(do func(v *Volume)) {
	w.t.Helper()
	v := openTiered(w.t, w.state, w.cold)
	do(v)
	w.close(v)
}

// problems is check, quick and deep, with what cold lacks; both must say the same.
func (w *checkedWarm) problems() *inspect.Report {
	w.t.Helper()
	info, err := inspect.ReadState(w.state)
	w.must(err)
	head, err := w.cold.Head(w.t.Context())
	w.must(err)
	o := inspect.Options{State: w.state, Info: info, Commits: []cold.Snapshot{head}, Lacks: w.cold.lacks}
	quick, err := inspect.Check(w.t.Context(), o)
	w.must(err)
	o.Same = sameAsMem
	deep, err := inspect.Check(w.t.Context(), o)
	w.must(err)
	if fmt.Sprint(deep.Findings, deep.AtRisk.Files, deep.AtRisk.Bytes) != fmt.Sprint(quick.Findings, quick.AtRisk.Files,
		quick.AtRisk.Bytes) {
		w.t.Errorf("quick %+v, deep %+v", quick, deep)
	}
	return quick
}

// sound requires that nothing is found, and that so much is at risk.
func (w *checkedWarm) sound(what string, files, bytes int64) {
	w.t.Helper()
	if s := w.problems(); len(s.Findings) > 0 || len(s.Lost) > 0 || s.AtRisk.Files != files ||
		s.AtRisk.Bytes != bytes || s.Doubtful > 0 {
		w.t.Errorf("%s: want %d files and %d bytes at risk: %+v", what, files, bytes, s)
	}
}

// TestCheckColdOnly: what has no bytes, or no names, in warm is neither damage nor at risk, at whatever stage.
func TestCheckColdOnly(t *testing.T) {
	w := lazily(t, func(*Volume) {})
	w.sound("nothing is listed", 0, 0)
	w.again(func(v *Volume) { mustFind(t, v, "a") })
	w.sound("the root is listed", 0, 0)
	w.again(func(v *Volume) { mustFind(t, v, "a/b/linked") })
	w.sound("all is listed", 0, 0)
	w.again(func(v *Volume) { must(t, v.recall(t.Context(), mustFind(t, v, "a/b/file 7"))) })
	w.sound("a file came back", 0, 0)
	w.again(func(v *Volume) { mustTier(t, v) })
	w.sound("and went again", 0, 0)
	info, err := inspect.ReadState(w.state)
	w.must(err)
	info.Trusted = false
	if s := w.checkWith(info, true); len(s.Findings) > 0 || s.AtRisk.Files > 0 {
		t.Errorf("after a power cut: %+v", s)
	}
}

// TestCheckColdOnlyChanged: of a stub, or a lazy directory, that changed, the attributes and the name are at risk.
func TestCheckColdOnlyChanged(t *testing.T) {
	chmod := func(at string) func(v *Volume) {
		return func(v *Volume) {
			if _, err := v.Setattr(context.Background(), mustFind(t, v, at), nil,
				&SetAttr{Mode: ptrTo(uint32(0o700))}); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range []struct {
		name   string
		change func(v *Volume)
		files  int64
	}{
		{"chmod of a stub", chmod("a/b/file 3"), 1},
		{"mtime of a stub", func(v *Volume) {
			if _, err := v.Setattr(context.Background(), mustFind(t, v, "a/b/file 3"), nil,
				&SetAttr{Mtime: &cold.Time{Sec: 5}}); err != nil {
				t.Fatal(err)
			}
		}, 1},
		{"chmod of a directory", chmod("a/empty"), 1},
		{"rename of a stub", func(v *Volume) {
			b := mustFind(t, v, "a/b")
			must(t, v.Rename(context.Background(), b, "file 3", b, "file X", 0))
		}, 2},
		{"rename of a stub over another", func(v *Volume) {
			b := mustFind(t, v, "a/b")
			must(t, v.Rename(context.Background(), b, "file 3", b, "file 4", 0))
		}, 2},
		{"rename of an unlisted directory", func(v *Volume) {
			a := mustFind(t, v, "a")
			must(t, v.Rename(context.Background(), a, "empty", a, "moved", 0))
		}, 2},
		{"rename of a directory", func(v *Volume) {
			mustFind(t, v, "a/b/linked")
			must(t, v.Rename(context.Background(), v.root, "a", v.root, "moved", 0))
		}, -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := lazily(t, c.change)
			s := w.problems()
			if len(s.Findings) > 0 || s.AtRisk.Bytes != 0 || c.files >= 0 && s.AtRisk.Files != c.files ||
				s.AtRisk.Files == 0 {
				t.Errorf("%+v", s)
			}
			w.again(func(v *Volume) { v.mustSync(t) })
			w.sound("after a commit", 0, 0)
		})
	}
}

// TestCheckVoidStub: a stub that a killed daemon had emptied counts as changed, with the bytes it has now.
func TestCheckVoidStub(t *testing.T) {
	c := newMemCold()
	v := openTiered(t, t.TempDir(), c)
	write(t, v, v.root, "f", "some text")
	write(t, v, v.root, "g", "some more")
	v.mustSync(t)
	mustTier(t, v)
	w := &checkedWarm{t: t, state: v.cfg.State, cold: c}
	must(t, v.touchName(v.root, "f"))
	w.must(unix.Truncate(w.at("f"), 0))
	w.sound("emptied", 1, 0)
	w.must(unix.Truncate(w.at("f"), 5))
	w.sound("and longer", 1, 5)
	w.close(v)
}

// TestCheckKilledInRelease: a stub whose bytes are still there, or again, is one as any other.
func TestCheckKilledInRelease(t *testing.T) {
	for _, step := range []string{"release.punch", "release.time", "return.durable", "return.record"} {
		c := newMemCold()
		armed := false
		v := openTiered(t, t.TempDir(), c, func(c *Config) {
			c.Fail = func(s string) error {
				if armed && s == step {
					return errors.New("died")
				}
				return nil
			}
		})
		f := write(t, v, v.root, "f", strings.Repeat("text", 5000))
		v.mustSync(t)
		armed = true
		_, _ = v.Tier(t.Context(), nil)
		if strings.HasPrefix(step, "return") {
			_ = v.recall(t.Context(), f)
		}
		w := &checkedWarm{t: t, state: v.cfg.State, cold: c}
		w.sound(step, 0, 0)
	}
}

// TestCheckColdLacks: what cold lacks of what is there only is damage with path and object, and dropping records makes
// it no worse.
func TestCheckColdLacks(t *testing.T) {
	w := lazily(t, func(v *Volume) { mustFind(t, v, "a/b/file 3") })
	var stub, dir cold.ID
	w.again(func(v *Volume) {
		stub = mustFind(t, v, "a/b/file 3").mu.rec.ID
		empty := mustFind(t, v, "a/empty")
		dir = empty.mu.rec.ID
		delete(w.cold.dirs, cold.DirID{Tree: dir, Meta: empty.mu.rec.Meta})
		delete(w.cold.blobs, stub)
	})
	s := w.problems()
	has := func(at string, id cold.ID) bool {
		return slices.ContainsFunc(s.Findings, func(f cold.Finding) bool {
			return f.Severity == cold.Damaged && f.Path == at && f.Object == id.String() && f.Do != ""
		})
	}
	if !has("a/b/file 3", stub) || !has("a/empty", dir) || len(s.Findings) != 2 || len(s.Lost) != 2 ||
		len(s.Untrue) > 0 {
		t.Errorf("%+v", s)
	}
	w.must(inspect.DropRecords(w.state, []string{"a/b/file 3", "a/empty"}))
	again := w.problems()
	if len(again.Findings) != 2 || len(again.Lost) != 2 {
		t.Errorf("after the records were dropped: %+v", again)
	}
	for _, at := range []string{"a/b/file 3", "a/empty"} {
		if r, ok := warm.ReadRecord(warm.ByName(unix.AT_FDCWD, w.at(at))); !ok || !r.IsStub() &&
			!r.Has(warm.FlagLazy) {
			t.Errorf("the record of %s is gone: %+v", at, r)
		}
	}
	if r, ok := warm.ReadRecord(warm.ByName(unix.AT_FDCWD, w.at("a/b"))); ok && r.Has(warm.FlagClean) {
		t.Errorf("the directory above is still clean: %+v", r)
	}
}

// TestCheckUntrueUnlisted: a directory that stands for another tree than the clean one above says is what no commit
// would notice.
func TestCheckUntrueUnlisted(t *testing.T) {
	w := lazily(t, func(v *Volume) { must(t, v.list(context.Background(), v.root)) })
	r, ok := warm.ReadRecord(warm.ByName(unix.AT_FDCWD, w.at("a")))
	if !ok || !r.Has(warm.FlagLazy) {
		t.Fatalf("%+v", r)
	}
	w.must(unix.Setxattr(w.at("far"), warm.RecordAttr, r.Encode(nil), 0))
	s := w.problems()
	if len(s.Findings) != 1 || s.Findings[0].Path != "far" || !slices.Equal(s.Untrue, []string{"far"}) {
		t.Fatalf("%+v", s)
	}
	w.must(inspect.DropRecords(w.state, s.Untrue))
	w.sound("after the records were dropped", 1, 0)
}

func TestColdOnly(t *testing.T) {
	w := lazily(t, func(v *Volume) { mustFind(t, v, "a/b/file 3") })
	if files, dirs, err := inspect.ColdOnly(w.state); err != nil || files != 33 || dirs != 1 {
		t.Errorf("%d files, %d directories, %v", files, dirs, err)
	}
}

// TestCheckBesideChange: what a daemon changes after its directory's clean mark was read is no damage: the mark went
// before.
func TestCheckBesideChange(t *testing.T) {
	for name, change := range map[string]func(v *Volume, d *Inode) error{
		"truncated": func(v *Volume, d *Inode) error {
			_, err := v.Setattr(context.Background(), mustFind(t, v, "d/b"), nil, &SetAttr{Size: new(uint64(5))})
			return err
		},
		"truncated to its size": func(v *Volume, d *Inode) error {
			_, err := v.Setattr(context.Background(), mustFind(t, v, "d/b"), nil, &SetAttr{Size: new(uint64(9))})
			return err
		},
		"stub emptied": func(v *Volume, d *Inode) error {
			_, err := v.Setattr(context.Background(), mustFind(t, v, "d/c"), nil, &SetAttr{Size: new(uint64(0))})
			return err
		},
		"removed": func(v *Volume, d *Inode) error { return v.Unlink(context.Background(), d, "b") },
		"renamed": func(v *Volume, d *Inode) error { return v.Rename(context.Background(), d, "c", d, "b", 0) },
	} {
		t.Run(name, func(t *testing.T) {
			c := newMemCold()
			v := openTiered(t, t.TempDir(), c)
			d := mkdir(t, v, v.root, "d")
			for _, name := range []string{"a", "b", "c"} {
				write(t, v, d, name, "text of "+name)
			}
			v.mustSync(t)
			mustTier(t, v, "d/a", "d/c")
			info, err := inspect.ReadState(v.cfg.State)
			must(t, err)
			head, err := c.Head(t.Context())
			must(t, err)
			o := inspect.Options{State: v.cfg.State, Info: info, Commits: []cold.Snapshot{head}, Live: true,
				Same: sameAsMem}
			changed := false
			o.Lacks = func(context.Context, cold.Need) ([]cold.Lost, error) {
				if !changed {
					changed = true
					return nil, change(v, d)
				}
				return nil, nil
			}
			s, err := inspect.Check(t.Context(), o)
			if err != nil || len(s.Findings) > 0 || !changed {
				t.Errorf("%+v, %v", s, err)
			}
		})
	}
}
