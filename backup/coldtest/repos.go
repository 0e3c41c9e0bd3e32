package coldtest

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"emberfs/tiers/cold"
)

// Noise is data that does not shrink, the same for the same seed.
func Noise(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, n+8)
	for i := 0; i < n; i += 8 {
		v := r.Uint64()
		for k := range 8 {
			b[i+k] = byte(v >> (8 * k))
		}
	}
	return b[:n]
}

// LiveRefs lists the live branches of a repository, as "EPOCH ID".
func LiveRefs(t *testing.T, dir string) []string {
	t.Helper()
	return strings.Fields(strings.ReplaceAll(Git(t, dir, "for-each-ref", "--format=%(refname:lstrip=-1):%(objectname)",
		"refs/heads/emberfs-live"), "\n", " "))
}

// StockBase is what the edits start from.
func StockBase() *File {
	f := NewDir(0o755)
	a := f.Text("a", "aaa")
	a.Mode, a.UID = 0o6640, 42
	a.Xattrs = []cold.Xattr{{Name: "security.capability", Value: []byte{1}}, {Name: "user.tag", Value: []byte("t")}}
	f.Text("b", "bbb").Mode = 0o604
	f.Text("x", "xxx").Mode = 0o755
	f.Text("d/in", "in").Mode = 0o600
	f.Text("d/sub/deep", "deep").Mode = 0o400
	f.Text("e/f", "f")
	f.Kids["d"].Mode = 0o2770
	f.Mkdir("d/void").Mode = 0o700
	f.Special("d/fifo", cold.KindFIFO, 0)
	f.Special("fifo", cold.KindFIFO, 0).Mode = 0o640
	f.Mkdir("void").Mode = 0o711
	f.Symlink("l", "a")
	f.Text("h1", "hard").Link = "g"
	f.Text("h2", "hard").Link = "g"
	f.Text("d/h3", "hard").Link = "g"
	f.Text(".gitattributes", "* text\n").Mode = 0o600
	return f
}

// NewRemote makes an empty bare repository that checks what it receives.
func NewRemote(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "remote.git")
	Git(t, ".", "init", "-q", "-b", "main", "--bare", dir)
	Git(t, dir, "config", "receive.fsckObjects", "true")
	return dir
}

// WantRemote checks what the remote has: main, and live branches at these commits in any order.
func WantRemote(t *testing.T, what, remote string, main cold.ID, live ...cold.ID) {
	t.Helper()
	Equal(t, Git(t, remote, "rev-parse", "refs/heads/main"), main.String(), "%s: the remote's main is at", what)
	var want, got []string
	for _, id := range live {
		want = append(want, id.String())
	}
	for _, ref := range LiveRefs(t, remote) {
		got = append(got, strings.Split(ref, ":")[1])
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("%s: the remote's live branches are at %q, want %q", what, got, want)
	}
	Git(t, remote, "fsck", "--strict", "--no-dangling")
}

// Overwrite changes bytes of a file, read-only or not. from < 0 counts from the end.
func Overwrite(t *testing.T, path string, from int64, data []byte) {
	t.Helper()
	Check(t, os.Chmod(path, 0o644))
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	Check(t, err)
	st, err := f.Stat()
	if err == nil {
		if from < 0 {
			from += st.Size()
		}
		_, err = f.WriteAt(data, from)
	}
	Check(t, errors.Join(err, f.Close()))
}

// Remove removes a file, which has to be there.
func Remove(t *testing.T, path string) {
	t.Helper()
	Check(t, os.Remove(path))
}

// PutFile makes or replaces a file, and makes the directories above it.
func PutFile(t *testing.T, path, content string) {
	t.Helper()
	Check(t, os.MkdirAll(filepath.Dir(path), 0o755))
	Check(t, os.WriteFile(path, []byte(content), 0o644))
}
