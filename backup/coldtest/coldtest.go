// Package coldtest has what the tests of package backup and of the packages beside it share: trees that are committed
// and read back, and stock git. It does not import package backup, so that backup's own tests can use it. Only tests
// import it.
package coldtest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"

	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

// File is a node of a tree that a test commits and reads back.
type File struct {
	cold.Entry
	Data []byte
	Kids map[string]*File
	// clean says that nothing below has changed, so that the DirID in Entry is that of the base commit.
	clean bool
}

func NewDir(mode uint32) *File {
	return &File{Entry: cold.Entry{Kind: cold.KindDir, Mode: mode, UID: 7, GID: 8, Mtime: cold.Time{Sec: 1e9, Nsec: 5}},
		Kids: map[string]*File{}}
}

// Add puts a node at a slash path, and makes the directories above it.
func (f *File) Add(p string, n *File) *File {
	dir, name := path.Split(p)
	if dir != "" {
		f = f.Mkdir(strings.TrimSuffix(dir, "/"))
	}
	n.Name = name
	f.Kids[name] = n
	return n
}

func (f *File) Mkdir(p string) *File {
	for name := range strings.SplitSeq(p, "/") {
		d := f.Kids[name]
		if d == nil {
			d = NewDir(0o755)
			d.Name = name
			f.Kids[name] = d
		}
		d.clean = false
		f = d
	}
	return f
}

func (f *File) Text(p, content string) *File {
	return f.Add(p, &File{Entry: cold.Entry{
		Kind: cold.KindFile, Mode: 0o644, UID: 1000, GID: 100, Mtime: cold.Time{Sec: 1700000000, Nsec: 123456789},
		Size: int64(len(content)),
	}, Data: []byte(content)})
}

func (f *File) Symlink(p, target string) *File {
	return f.Add(p, &File{Entry: cold.Entry{
		Kind: cold.KindSymlink, Mode: 0o777, Mtime: cold.Time{Sec: -5, Nsec: 1}, Size: int64(len(target)),
		Target: target,
	}})
}

// Special adds a FIFO, socket or device.
func (f *File) Special(p string, kind cold.Kind, rdev uint64) *File {
	return f.Add(p, &File{Entry: cold.Entry{Kind: kind, Mode: 0o600, Mtime: cold.Time{Sec: 3}, Rdev: rdev}})
}

// Entries returns the nodes of a directory in an order that is not sorted.
func (f *File) Entries() []cold.Entry {
	var all []cold.Entry
	for _, k := range f.Kids {
		all = append(all, k.Entry)
	}
	return all
}

// Flat describes a tree, one line per node, without object ids.
func (f *File) Flat(at string) []string {
	e := f.Entry
	e.ID, e.Meta, e.Name = cold.ID{}, cold.ID{}, ""
	if len(e.Xattrs) == 0 {
		e.Xattrs = nil
	}
	lines := []string{fmt.Sprintf("%q %+v %x", at, e, sha256.Sum256(f.Data))}
	for name, k := range f.Kids {
		lines = append(lines, k.Flat(path.Join(at, name))...)
	}
	slices.Sort(lines)
	return lines
}

// CompareTrees fails the test for each node in which the trees differ.
func CompareTrees(t *testing.T, got, want *File) {
	t.Helper()
	g, w := got.Flat(""), want.Flat("")
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

// Quiet returns a logger without output.
func Quiet() logrus.FieldLogger {
	l := logrus.New()
	l.SetOutput(io.Discard)
	return l
}

// Put stores a directory whole.
func Put(ctx context.Context, tx cold.Tx, f *File, base map[string]cold.DirID, at string,
	links map[string][]string) error {
	for name, k := range f.Kids {
		if k.clean {
			continue
		}
		var err error
		switch k.Kind {
		case cold.KindDir:
			err = Put(ctx, tx, k, base, path.Join(at, name), nil)
		case cold.KindFile:
			k.ID, err = tx.PutFile(ctx, Content(k.Data), cold.Base{ID: k.ID})
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
	id, err := tx.PutDir(ctx, base[at], true, root, f.Entries(), nil)
	f.ID, f.Meta = id.Tree, id.Meta
	return err
}

// Check ends the test when there is an error. It costs nothing where there is none: benchmarks call it too.
func Check(t testing.TB, err error) {
	if err != nil {
		t.Helper()
		t.Fatal(err)
	}
}

// Equal fails the test unless something is as wanted; what stands before it in the message.
func Equal[V comparable](t testing.TB, got, want V, what string, args ...any) {
	t.Helper()
	if got != want {
		t.Errorf("%s %v, want %v", fmt.Sprintf(what, args...), got, want)
	}
}

// WantErr fails the test unless something failed as wanted; what stands before it in the message.
func WantErr(t testing.TB, err, want error, what string, args ...any) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s = %v, want %v", fmt.Sprintf(what, args...), err, want)
	}
}

// Git runs stock git in dir and returns its output without the last newline.
func Git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	out, err := GitTry(t, dir, nil, args...)
	if err != nil {
		t.Fatalf("git %q: %v\n%s", args, err, out)
	}
	return strings.TrimSuffix(out, "\n")
}

// Fsck fails the test where git fsck says anything; when stands before it in the message.
func Fsck(t *testing.T, dir string, when ...any) {
	t.Helper()
	what := strings.TrimSpace(fmt.Sprint(when...) + " git fsck says")
	Equal(t, Git(t, dir, "fsck", "--strict", "--no-dangling"), "", "%s", what)
}

// GitTry runs stock git in dir and gives what it said.
func GitTry(t *testing.T, dir string, stdin []byte, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", args...)
	cmd.Dir = dir
	cmd.Stdin = bytes.NewReader(stdin)
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir(), "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0",
		"GIT_AUTHOR_NAME=stock", "GIT_AUTHOR_EMAIL=stock@example.com", "GIT_COMMITTER_NAME=stock",
		"GIT_COMMITTER_EMAIL=stock@example.com",
		"GIT_CONFIG_COUNT=2", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*",
		"GIT_CONFIG_KEY_1=protocol.file.allow", "GIT_CONFIG_VALUE_1=always")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// BlobID is the id of a blob with this content.
func BlobID(t *testing.T, data string) cold.ID {
	t.Helper()
	id, err := odb.HashObject(odb.Blob, []byte(data))
	Check(t, err)
	return id
}

// RootOf is the root directory of a snapshot.
func RootOf(s cold.Snapshot) cold.DirID {
	root := s.Root()
	return root.Dir()
}

// Explode turns all packs of a repository into loose objects.
func Explode(t *testing.T, dir string) {
	t.Helper()
	packs, err := filepath.Glob(filepath.Join(dir, "objects/pack/pack-*.pack"))
	Check(t, err)
	for _, p := range packs {
		data, err := os.ReadFile(p)
		Check(t, err)
		for _, old := range []string{p, strings.TrimSuffix(p, ".pack") + ".idx"} {
			Check(t, os.Remove(old))
		}
		if out, err := GitTry(t, dir, data, "unpack-objects", "-q"); err != nil {
			t.Fatal(out)
		}
	}
}

// RemoveLoose removes a loose object from a repository.
func RemoveLoose(t *testing.T, dir string, id cold.ID) {
	t.Helper()
	s := id.String()
	Check(t, os.Remove(filepath.Join(dir, "objects", s[:2], s[2:])))
}

// bytesContent is a cold.Content in memory without holes.
type bytesContent struct{ *bytes.Reader }

// Content is data in memory as a file without holes.
func Content(data []byte) cold.Content { return bytesContent{bytes.NewReader(data)} }

func (c bytesContent) Data(off int64) (cold.Range, bool, error) {
	return cold.Range{Off: off, End: c.Size()}, off < c.Size(), nil
}

// Sized is content that says it has another size.
type Sized struct {
	cold.Content
	Bytes int64
}

// Size is the size that the content claims to have.
func (s Sized) Size() int64 { return s.Bytes }

// PutDirs stores the directories of a tree whose files are stored already.
func PutDirs(ctx context.Context, x cold.Tx, f *File, root bool) error {
	for _, k := range f.Kids {
		if k.Kind == cold.KindDir {
			if err := PutDirs(ctx, x, k, false); err != nil {
				return err
			}
		}
	}
	var r *cold.Root
	if root {
		r = &cold.Root{Entry: f.Entry}
	}
	id, err := x.PutDir(ctx, cold.DirID{}, true, r, f.Entries(), nil)
	f.ID, f.Meta = id.Tree, id.Meta
	return err
}
