package tiers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/inspect"
	"emberfs/tiers/warm"
)

// viewAll is everything that the view shows, by path: entries, with hard-link groups only as "linked", and contents.
func viewAll(t *testing.T, w *inspect.View) map[string]string {
	t.Helper()
	out := map[string]string{}
	var dir func(at string, e *cold.Entry)
	show := func(at string, e *cold.Entry) string {
		line := fmt.Sprintf("%s %o %d:%d %v size %d target %q xattrs %v linked %v", e.Kind, e.Mode, e.UID, e.GID,
			e.Mtime, e.Size, e.Target, e.Xattrs, e.Link != "")
		if e.Kind != cold.KindFile {
			return line
		}
		r, err := w.Open(t.Context(), at, e)
		if err != nil {
			t.Fatalf("open %s: %v", at, err)
		}
		data, err := io.ReadAll(r)
		if err = errors.Join(err, r.Close()); err != nil {
			t.Fatalf("read %s: %v", at, err)
		}
		return line + " " + string(data)
	}
	dir = func(at string, e *cold.Entry) {
		out[at] = show(at, e)
		l, err := w.List(t.Context(), at, e)
		if err != nil {
			t.Fatalf("list %q: %v", at, err)
		}
		for i := range l.Entries {
			e := &l.Entries[i]
			if e.Kind == cold.KindDir {
				dir(path.Join(at, e.Name), e)
			} else {
				out[path.Join(at, e.Name)] = show(path.Join(at, e.Name), e)
			}
		}
	}
	root, err := w.Root()
	if err != nil {
		t.Fatal(err)
	}
	dir("", &root)
	return out
}

func sameView(t *testing.T, what string, got, want map[string]string) {
	t.Helper()
	for at := range want {
		if got[at] != want[at] {
			t.Errorf("%s: %q: %.200s\nwant %.200s", what, at, got[at], want[at])
		}
	}
	for at := range got {
		if _, ok := want[at]; !ok {
			t.Errorf("%s: %q should not be there", what, at)
		}
	}
}

// warmNames lists warm's names with their blocks: what looking must not change.
func warmNames(t *testing.T, v *Volume) string {
	t.Helper()
	var b strings.Builder
	must(t, filepath.WalkDir(filepath.Join(v.cfg.State, "warm"), func(p string, _ fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil {
			err = unix.Lstat(p, &st)
		}
		fmt.Fprintln(&b, p, st.Blocks, st.Mtim, st.Ctim)
		return err
	}))
	return b.String()
}

// TestWarmViewWithoutBytes: wherever names and bytes are, a view shows the same, and leaves them there.
func TestWarmViewWithoutBytes(t *testing.T) {
	v, c := newVolume(t)
	sample(t, v)
	v.mustSync(t)
	want := viewAll(t, view(t, v))
	if len(want) < 40 {
		t.Fatalf("only %d names", len(want))
	}
	next := openTiered(t, t.TempDir(), c)
	look := func(what string) {
		t.Helper()
		before := warmNames(t, next)
		sameView(t, what, viewAll(t, view(t, next)), want)
		if after := warmNames(t, next); after != before {
			t.Errorf("%s: looking changed warm:\n%s\nbefore\n%s", what, after, before)
		}
	}
	look("nothing is listed")
	w := view(t, next)
	root, err := w.Root()
	head, _ := c.Head(t.Context())
	if err != nil || root.Dir() != cold.RootDir(head) || !w.Untouched() {
		t.Errorf("the root is %+v, %v", root, err)
	}
	mustFind(t, next, "a/b")
	look("directories are made")
	must(t, next.list(context.Background(), next.root))
	if w.Untouched() {
		t.Error("the root is listed and counts as untouched")
	}
	look("the root is listed")
	if got := knownAs(t, view(t, next), ""); got != `"a" true, "far" true` {
		t.Errorf("known: %s", got)
	}
	mustFind(t, next, "a/b/linked")
	look("all is listed, the files are stubs")
	if got := knownAs(t, view(t, next), "a/b"); !strings.HasPrefix(got, `"file 0" true, "file 1" true`) {
		t.Errorf("known: %s", got)
	}
	must(t, next.recall(t.Context(), mustFind(t, next, "a/b/file 7")))
	look("a file came back")
	// After a power cut the records of files that are there are hints, of those that are not they are true.
	must(t, next.state.Update(func(f *warm.StateFile) { f.Boot = "another boot" }))
	look("after a power cut")
	if got := knownAs(t, view(t, next), "a/b"); !strings.HasPrefix(got, `"file 0" false, "file 1" true`) ||
		!strings.Contains(got, `"file 7" false, "file 8" true`) {
		t.Errorf("known: %s", got)
	}
}

// TestWarmViewOfChangedStubs: what changed of a stub since shows: its attributes, and its bytes where it was emptied.
func TestWarmViewOfChangedStubs(t *testing.T) {
	c := newMemCold()
	v := openTiered(t, t.TempDir(), c)
	for _, name := range []string{"attrs", "emptied", "mtime", "sparse"} {
		write(t, v, v.root, name, "some text of "+name)
	}
	v.mustSync(t)
	mustTier(t, v)
	if _, err := v.Setattr(context.Background(), mustFind(t, v, "attrs"), nil,
		&SetAttr{Mode: ptrTo(uint32(0o4711))}); err != nil {
		t.Fatal(err)
	}
	when := cold.Time{Sec: 5, Nsec: 6}
	if _, err := v.Setattr(context.Background(), mustFind(t, v, "mtime"), nil, &SetAttr{Mtime: &when}); err != nil {
		t.Fatal(err)
	}
	// As a kill between that and the record leaves it.
	must(t, unix.Truncate(filepath.Join(v.cfg.State, "warm/emptied"), 0))
	l, err := view(t, v).List(t.Context(), "", nil)
	must(t, err)
	for _, e := range l.Entries {
		want := map[string]string{"attrs": "4711 true 18", "emptied": "644 false 0", "mtime": "644 true 18",
			"sparse": "644 true 19"}[e.Name]
		if got := fmt.Sprintf("%o %v %d", e.Mode, !e.ID.IsZero(), e.Size); got != want {
			t.Errorf("%s: %s, want %s", e.Name, got, want)
		}
		if e.Name == "mtime" && e.Mtime != when {
			t.Errorf("mtime %v", e.Mtime)
		}
	}
}

// TestWarmViewWhileReleased: a file that leaves warm while it is read is read to its end.
func TestWarmViewWhileReleased(t *testing.T) {
	c := newMemCold()
	v := openTiered(t, t.TempDir(), c)
	text := strings.Repeat("0123456789abcdef", 8000)
	write(t, v, v.root, "f", text)
	v.mustSync(t)
	r, err := view(t, v).Open(t.Context(), "f", nil)
	must(t, err)
	head := make([]byte, 70_001)
	_, err = io.ReadFull(r, head)
	must(t, err)
	mustTier(t, v)
	rest, err := io.ReadAll(r)
	if err = errors.Join(err, r.Close()); err != nil || string(head)+string(rest) != text {
		t.Errorf("%d bytes, or others; %v", len(head)+len(rest), err)
	}
}

// TestWarmViewMissing: what cold lacks is an error of that name, never zeros and never an empty directory.
func TestWarmViewMissing(t *testing.T) {
	v, c := newVolume(t)
	sample(t, v)
	v.mustSync(t)
	next := openTiered(t, t.TempDir(), c)
	mustFind(t, next, "a/b/file 3")
	f := mustFind(t, next, "a/b/file 5")
	empty := mustFind(t, next, "a/empty")
	c.mu.Lock()
	delete(c.blobs, f.mu.rec.ID)
	delete(c.dirs, cold.DirID{Tree: empty.mu.rec.ID, Meta: empty.mu.rec.Meta})
	c.mu.Unlock()
	must(t, next.Close())
	w, err := inspect.OpenView(next.cfg.State, c)
	must(t, err)
	defer w.Close()
	r, err := w.Open(context.Background(), "a/b/file 5", nil)
	if err == nil {
		_, err = io.ReadAll(r)
	}
	if !errors.Is(err, cold.ErrMissing) {
		t.Errorf("the file: %v", err)
	}
	if _, err := w.List(t.Context(), "a/empty", nil); !errors.Is(err, cold.ErrMissing) {
		t.Errorf("the directory: %v", err)
	}
}
