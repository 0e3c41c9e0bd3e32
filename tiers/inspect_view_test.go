package tiers

import (
	"context"
	"fmt"
	"io"
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

// view opens the volume's directory beside it.
func view(t *testing.T, v *Volume) *inspect.View {
	t.Helper()
	w, err := inspect.OpenView(v.cfg.State, v.cold)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	return w
}

// knownAs lists a directory: each name with whether its id is known.
func knownAs(t *testing.T, w *inspect.View, at string) string {
	t.Helper()
	l, err := w.List(context.Background(), at, nil)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range l.Entries {
		out = append(out, fmt.Sprintf("%q %v", e.Name, !e.ID.IsZero()))
	}
	return strings.Join(out, ", ")
}

// TestWarmView: beside a running volume, ids are known of what the last commit has, and of nothing that changed since.
func TestWarmView(t *testing.T) {
	v, repo := newVolume(t)
	if !v.records {
		t.Fatal("no records here: run as root")
	}
	a := mkdir(t, v, v.root, "a")
	b := mkdir(t, v, a, "b")
	mkdir(t, v, v.root, "quiet")
	f := write(t, v, a, "f", "hello")
	write(t, v, b, "g", "g")
	write(t, v, v.root, "odd \n\xe9", "x")
	v.mustSync(t)
	w := view(t, v)
	head, err := repo.Head(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if e, err := w.Root(); err != nil || e.Dir() != (cold.DirID{Tree: head.Root().ID, Meta: head.Root().Meta}) {
		t.Errorf("the root of a clean volume: %+v, %v", e, err)
	}
	if _, err := v.Setattr(context.Background(), f, nil, &SetAttr{Mode: ptrTo(uint32(0o600))}); err != nil {
		t.Fatal(err)
	}
	if got, want := knownAs(t, w, ""), `"a" false, "odd \n\xe9" true, "quiet" true`; got != want {
		t.Errorf("the root: %s, want %s", got, want)
	}
	if got, want := knownAs(t, w, "a"), `"b" true, "f" true`; got != want {
		t.Errorf("after a chmod: %s, want %s", got, want)
	}
	if got := knownAs(t, w, "gone/x"); got != "" {
		t.Errorf("what is not there: %s", got)
	}
	write(t, v, a, "f2", "other")
	if _, err := v.Link(context.Background(), f, v.root, "second"); err != nil {
		t.Fatal(err)
	}
	l, err := w.List(context.Background(), "a", nil)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(l.Entries, func(e cold.Entry) bool { return e.Name == "f" })
	if e := l.Entries[i]; e.Mode != 0o600 || e.Size != 5 || e.Link != fmt.Sprint(cold.InodeGroup, f.ino) {
		t.Errorf("f: %+v", e)
	}
	r, err := w.Open(context.Background(), "a/f2", nil)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(r)
	if err != nil || string(data) != "other" || r.Close() != nil {
		t.Errorf("read %q, %v", data, err)
	}
	for _, p := range []string{"a", "../volume.json", "gone"} {
		if _, err := w.Open(context.Background(), p, nil); err == nil {
			t.Errorf("opened %s", p)
		}
	}
}

// TestWarmViewUntrusted: records are believed as the next start would: after a power cut they are hints.
func TestWarmViewUntrusted(t *testing.T) {
	v, _ := newVolume(t)
	write(t, v, v.root, "f", "hello")
	v.mustSync(t)
	w := view(t, v)
	if got := knownAs(t, w, ""); got != `"f" true` {
		t.Errorf("before: %s", got)
	}
	if err := v.state.Update(func(f *warm.StateFile) { f.Boot = "another boot" }); err != nil {
		t.Fatal(err)
	}
	w = view(t, v)
	if got := knownAs(t, w, ""); got != `"f" false` {
		t.Errorf("after a power cut: %s", got)
	}
	if e, err := w.Root(); err != nil || !e.ID.IsZero() {
		t.Errorf("the root after a power cut: %+v, %v", e, err)
	}
	if w.Surely(cold.Time{Sec: 1}) {
		t.Error("size and mtime count although there are records to do better")
	}
}

// TestWarmViewDeep: paths longer than the kernel takes are no obstacle.
func TestWarmViewDeep(t *testing.T) {
	v, _ := newVolume(t)
	d, at := v.root, ""
	name := strings.Repeat("n", 200)
	for range 30 {
		d = mkdir(t, v, d, name)
		at = filepath.Join(at, name)
	}
	write(t, v, d, "f", "deep")
	w := view(t, v)
	if got := knownAs(t, w, at); got != `"f" false` {
		t.Errorf("got %s", got)
	}
	r, err := w.Open(context.Background(), at+"/f", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestWarmViewOfNothing(t *testing.T) {
	if _, err := inspect.OpenView(t.TempDir(), nil); err == nil ||
		!strings.Contains(err.Error(), "is no volume's state") {
		t.Errorf("an empty directory: %v", err)
	}
	v, _ := newVolume(t)
	if err := os.Symlink("/etc", filepath.Join(v.cfg.State, warm.DirName, "out")); err != nil {
		t.Fatal(err)
	}
	w := view(t, v)
	if _, err := w.Open(context.Background(), "out/passwd", nil); err == nil {
		t.Error("followed a symlink out of the volume")
	}
	if got := knownAs(t, w, "out"); got != "" {
		t.Errorf("listed %s", got)
	}
	_ = unix.Unlink(filepath.Join(v.cfg.State, warm.DirName, "out"))
}

func ptrTo[T any](v T) *T { return &v }
