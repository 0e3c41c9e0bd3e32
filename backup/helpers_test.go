package backup

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

// file is a node of a tree that a test commits and reads back.
type file struct {
	cold.Entry
	data []byte
	kids map[string]*file
	// clean: nothing below changed, the DirID in Entry stands in the base commit.
	clean bool
}

func newDir(mode uint32) *file {
	return &file{Entry: cold.Entry{Kind: cold.KindDir, Mode: mode, UID: 7, GID: 8, Mtime: cold.Time{Sec: 1e9, Nsec: 5}}, kids: map[string]*file{}}
}

// add puts a node at a slash path; directories on the way are made.
func (f *file) add(p string, n *file) *file {
	dir, name := path.Split(p)
	if dir != "" {
		f = f.mkdir(strings.TrimSuffix(dir, "/"))
	}
	n.Name = name
	f.kids[name] = n
	return n
}

func (f *file) mkdir(p string) *file {
	for name := range strings.SplitSeq(p, "/") {
		d := f.kids[name]
		if d == nil {
			d = newDir(0o755)
			d.Name = name
			f.kids[name] = d
		}
		d.clean = false
		f = d
	}
	return f
}

func (f *file) text(p, content string) *file {
	return f.add(p, &file{Entry: cold.Entry{
		Kind: cold.KindFile, Mode: 0o644, UID: 1000, GID: 100, Mtime: cold.Time{Sec: 1700000000, Nsec: 123456789}, Size: int64(len(content)),
	}, data: []byte(content)})
}

func (f *file) symlink(p, target string) *file {
	return f.add(p, &file{Entry: cold.Entry{
		Kind: cold.KindSymlink, Mode: 0o777, Mtime: cold.Time{Sec: -5, Nsec: 1}, Size: int64(len(target)), Target: target,
	}})
}

func (f *file) special(p string, kind cold.Kind, rdev uint64) *file {
	return f.add(p, &file{Entry: cold.Entry{Kind: kind, Mode: 0o600, Mtime: cold.Time{Sec: 3}, Rdev: rdev}})
}

// entries are the nodes of a directory in an order that is not sorted.
func (f *file) entries() []cold.Entry {
	var all []cold.Entry
	for _, k := range f.kids {
		all = append(all, k.Entry)
	}
	return all
}

// flat describes a tree, a line a node, without object ids.
func (f *file) flat(at string) []string {
	e := f.Entry
	e.ID, e.Meta, e.Name = cold.ID{}, cold.ID{}, ""
	if len(e.Xattrs) == 0 {
		e.Xattrs = nil
	}
	lines := []string{fmt.Sprintf("%q %+v %x", at, e, sha256.Sum256(f.data))}
	for name, k := range f.kids {
		lines = append(lines, k.flat(path.Join(at, name))...)
	}
	slices.Sort(lines)
	return lines
}

func compareTrees(t *testing.T, got, want *file) {
	t.Helper()
	g, w := got.flat(""), want.flat("")
	for _, l := range w {
		if !slices.Contains(g, l) {
			t.Errorf("lacks %s", l)
		}
	}
	for _, l := range g {
		if !slices.Contains(w, l) {
			t.Errorf("has   %s", l)
		}
	}
}

func quiet() logrus.FieldLogger {
	l := logrus.New()
	l.SetOutput(io.Discard)
	return l
}

// testVolume is a Cold in a directory of its own.
type testVolume struct {
	*Cold
	t   *testing.T
	dir string
}

func newVolume(t *testing.T, o Options) *testVolume {
	t.Helper()
	return openVolume(t, filepath.Join(t.TempDir(), "cold.git"), o)
}

func openVolume(t *testing.T, dir string, o Options) *testVolume {
	t.Helper()
	if o.Log == nil {
		o.Log = quiet()
	}
	c, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	v := &testVolume{Cold: c, t: t, dir: dir}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return v
}

// put stores a directory whole.
func put(ctx context.Context, tx cold.Tx, f *file, base map[string]cold.DirID, at string, links map[string][]string) error {
	for name, k := range f.kids {
		if k.clean {
			continue
		}
		var err error
		switch k.Kind {
		case cold.KindDir:
			err = put(ctx, tx, k, base, path.Join(at, name), nil)
		case cold.KindFile:
			k.ID, err = tx.PutFile(ctx, content(k.data), cold.Base{ID: k.ID})
		case cold.KindSymlink:
			k.ID, err = tx.PutSymlink(ctx, k.Target, k.ID)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", path.Join(at, name), err)
		}
	}
	var root *cold.Root
	if at == "" {
		root = &cold.Root{Entry: f.Entry, Links: links}
	}
	id, err := tx.PutDir(ctx, base[at], true, root, f.entries(), nil)
	f.ID, f.Meta = id.Tree, id.Meta
	return err
}

// commit stores the tree and makes a commit of it.
func (v *testVolume) commit(f *file, links map[string][]string) cold.ID {
	v.t.Helper()
	ctx := v.t.Context()
	tx, err := v.Begin(ctx)
	if err != nil {
		v.t.Fatal(err)
	}
	defer tx.Abort()
	base := map[string]cold.DirID{}
	if tx.Base() != nil {
		v.dirs(tx.Base(), rootOf(tx.Base()), "", base)
	}
	if err := put(ctx, tx, f, base, "", links); err != nil {
		v.t.Fatal(err)
	}
	id, err := tx.Commit(ctx, cold.CommitOptions{Reason: "test", Files: 1, Root: f.Dir(), When: time.Now()})
	if err != nil {
		v.t.Fatal(err)
	}
	return id
}

// dirs collects the directories of a snapshot by path.
func (v *testVolume) dirs(s cold.Snapshot, dir cold.DirID, at string, into map[string]cold.DirID) {
	v.t.Helper()
	into[at] = dir
	l, err := s.ReadDir(v.t.Context(), dir)
	if err != nil {
		v.t.Fatal(err)
	}
	for _, e := range l.Entries {
		if e.Kind == cold.KindDir {
			v.dirs(s, e.Dir(), path.Join(at, e.Name), into)
		}
	}
}

func (v *testVolume) headSnapshot() cold.Snapshot {
	v.t.Helper()
	s, err := v.Head(v.t.Context())
	if err != nil || s == nil {
		v.t.Fatalf("Head: %v, %v", s, err)
	}
	return s
}

// read reads a snapshot whole, contents included. Problems fail the test.
func (v *testVolume) read(s cold.Snapshot) *file {
	v.t.Helper()
	root := &file{Entry: s.Root()}
	v.readDir(s, root, "", false)
	return root
}

func (v *testVolume) readDir(s cold.Snapshot, f *file, at string, reconciled bool) {
	v.t.Helper()
	l, err := s.ReadDir(v.t.Context(), f.Dir())
	if err != nil {
		v.t.Fatalf("ReadDir %q: %v", at, err)
	}
	for _, p := range l.Problems {
		v.t.Errorf("ReadDir %q: problem: %v", at, p)
	}
	if l.Reconciled && !reconciled {
		v.t.Errorf("ReadDir %q: reconciled", at)
	}
	f.kids = map[string]*file{}
	for i, e := range l.Entries {
		if i > 0 && l.Entries[i-1].Name >= e.Name {
			v.t.Errorf("ReadDir %q: %q is out of order", at, e.Name)
		}
		k := &file{Entry: e}
		f.kids[e.Name] = k
		switch e.Kind {
		case cold.KindDir:
			v.readDir(s, k, path.Join(at, e.Name), reconciled)
		case cold.KindFile:
			k.data = v.content(e.ID, e.Size)
		}
	}
}

func (v *testVolume) content(id cold.ID, size int64) []byte {
	v.t.Helper()
	b, err := v.Open(v.t.Context(), id, size)
	if err != nil {
		v.t.Fatal(err)
	}
	data, err := io.ReadAll(b)
	if err != nil {
		v.t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		v.t.Fatal(err)
	}
	return data
}

// git runs stock git in dir and returns its output without the last newline.
func git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	out, err := gitTry(t, dir, nil, args...)
	if err != nil {
		t.Fatalf("git %q: %v\n%s", args, err, out)
	}
	return strings.TrimSuffix(out, "\n")
}

func gitTry(t *testing.T, dir string, stdin []byte, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", args...)
	cmd.Dir = dir
	cmd.Stdin = bytes.NewReader(stdin)
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir(), "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0",
		"GIT_AUTHOR_NAME=stock", "GIT_AUTHOR_EMAIL=stock@example.com", "GIT_COMMITTER_NAME=stock", "GIT_COMMITTER_EMAIL=stock@example.com",
		"GIT_CONFIG_COUNT=2", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*", "GIT_CONFIG_KEY_1=protocol.file.allow", "GIT_CONFIG_VALUE_1=always")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// checkGit runs git fsck, a clone, and a push to a repository that checks what it receives.
func (v *testVolume) checkGit() {
	v.t.Helper()
	if out := git(v.t, v.dir, "fsck", "--strict", "--no-dangling"); out != "" {
		v.t.Errorf("git fsck: %s", out)
	}
	clone := filepath.Join(v.t.TempDir(), "clone")
	git(v.t, v.dir, "clone", "-q", "--no-hardlinks", "--no-checkout", v.dir, clone)
	strict := filepath.Join(v.t.TempDir(), "strict.git")
	git(v.t, v.dir, "init", "-q", "--bare", strict)
	git(v.t, strict, "config", "receive.fsckObjects", "true")
	git(v.t, clone, "push", "-q", strict, "HEAD:refs/heads/main")
}

func blobID(t *testing.T, data string) cold.ID {
	t.Helper()
	id, err := odb.HashObject(odb.Blob, []byte(data))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func rootOf(s cold.Snapshot) cold.DirID {
	root := s.Root()
	return root.Dir()
}

// explode turns all packs of a repository into loose objects.
func explode(t *testing.T, dir string) {
	t.Helper()
	packs, err := filepath.Glob(filepath.Join(dir, "objects/pack/pack-*.pack"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range packs {
		data, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		for _, old := range []string{p, strings.TrimSuffix(p, ".pack") + ".idx"} {
			if err := os.Remove(old); err != nil {
				t.Fatal(err)
			}
		}
		if out, err := gitTry(t, dir, data, "unpack-objects", "-q"); err != nil {
			t.Fatal(out)
		}
	}
}

func removeLoose(t *testing.T, dir string, id cold.ID) {
	t.Helper()
	s := id.String()
	if err := os.Remove(filepath.Join(dir, "objects", s[:2], s[2:])); err != nil {
		t.Fatal(err)
	}
}

func openVolumeReadOnly(t *testing.T, dir string) *testVolume {
	t.Helper()
	c, err := OpenRepository(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return &testVolume{Cold: c, t: t, dir: dir}
}

// bytesContent is a tiers.Content in memory without holes.
type bytesContent struct{ *bytes.Reader }

func content(data []byte) cold.Content { return bytesContent{bytes.NewReader(data)} }

func (c bytesContent) Data(off int64) (cold.Range, bool, error) {
	return cold.Range{Off: off, End: c.Size()}, off < c.Size(), nil
}

// sized is content that says it has another size.
type sized struct {
	cold.Content
	size int64
}

func (s sized) Size() int64 { return s.size }

// putDirs stores the directories of a tree whose files are stored already.
func putDirs(ctx context.Context, x cold.Tx, f *file, root bool) error {
	for _, k := range f.kids {
		if k.Kind == cold.KindDir {
			if err := putDirs(ctx, x, k, false); err != nil {
				return err
			}
		}
	}
	var r *cold.Root
	if root {
		r = &cold.Root{Entry: f.Entry}
	}
	id, err := x.PutDir(ctx, cold.DirID{}, true, r, f.entries(), nil)
	f.ID, f.Meta = id.Tree, id.Meta
	return err
}
