package odb

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"
)

// check ends the test when there is an error. It costs nothing where there is none: benchmarks call it too.
func check(t testing.TB, err error) {
	if err != nil {
		t.Helper()
		t.Fatal(err)
	}
}

// git runs stock git in the repository and fails the test when git does.
func git(t testing.TB, dir string, args ...string) string {
	t.Helper()
	out, err := gitErr(dir, nil, args...)
	check(t, err)
	return out
}

// gitErr runs stock git with input and returns its output.
func gitErr(dir string, input []byte, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, "git", args...)
	c.Dir = dir
	c.Stdin = bytes.NewReader(input)
	c.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null", "GIT_AUTHOR_NAME=a",
		"GIT_AUTHOR_EMAIL=a@b",
		"GIT_COMMITTER_NAME=c", "GIT_COMMITTER_EMAIL=c@d", "LC_ALL=C")
	out, err := c.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("git %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

func discardLog() logrus.FieldLogger {
	l, _ := logtest.NewNullLogger()
	return l
}

// newRepo makes a repository and opens it.
func newRepo(t testing.TB, o Options) (string, *DB) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "cold.git")
	check(t, Init(dir, "main"))
	return dir, reopen(t, dir, o)
}

func reopen(t testing.TB, dir string, o Options) *DB {
	t.Helper()
	if o.Log == nil {
		o.Log = discardLog()
	}
	db, err := Open(dir, o)
	check(t, err)
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

// put stores objects in one published and released pack.
func publish(t testing.TB, db *DB, fill func(w *Writer)) *Writer {
	t.Helper()
	w := newWriter(t, db)
	fill(w)
	check(t, w.Publish())
	return w
}

func mustPut(t testing.TB, w *Writer, typ Type, data []byte) ID {
	t.Helper()
	id, err := w.Put(typ, data)
	check(t, err)
	return id
}

// addCommit puts a commit of the given files on the branch and returns it.
func addCommit(db *DB, old ID, n int, files map[string][]byte) (ID, error) {
	w, err := db.NewWriter()
	if err != nil {
		return ID{}, err
	}
	id, err := putCommit(w, old, n, files)
	if err == nil {
		err = w.Publish()
	}
	if err == nil {
		err = db.UpdateRef("refs/heads/main", old, id)
	}
	if err == nil {
		err = w.Release()
	}
	if err != nil && !crashed(err) {
		err = errors.Join(err, w.Abort())
	}
	return id, err
}

func mustAdd(t testing.TB, db *DB, old ID, n int, files map[string][]byte) ID {
	t.Helper()
	id, err := addCommit(db, old, n, files)
	check(t, err)
	return id
}

func newWriter(t testing.TB, db *DB) *Writer {
	t.Helper()
	w, err := db.NewWriter()
	check(t, err)
	return w
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	check(t, err)
	return b
}

func mustPutCommit(t testing.TB, w *Writer, parent ID, n int, files map[string][]byte) ID {
	t.Helper()
	id, err := putCommit(w, parent, n, files)
	check(t, err)
	return id
}

func putCommit(w *Writer, parent ID, n int, files map[string][]byte) (ID, error) {
	var entries []TreeEntry
	for name, data := range files {
		id, err := w.Put(Blob, data)
		if err != nil {
			return ID{}, err
		}
		entries = append(entries, TreeEntry{Mode: ModeFile, Name: name, ID: id})
	}
	data, err := EncodeTree(entries)
	if err != nil {
		return ID{}, err
	}
	tree, err := w.Put(Tree, data)
	if err != nil {
		return ID{}, err
	}
	who := Signature{Name: "emberfs", Email: "emberfs@localhost", When: time.Unix(1_700_000_000+int64(n), 0).UTC()}
	c := CommitData{Tree: tree, Author: who, Committer: who, Message: "commit " + strconv.Itoa(n) + "\n"}
	if !parent.IsZero() {
		c.Parents = []ID{parent}
	}
	if data, err = EncodeCommit(c); err != nil {
		return ID{}, err
	}
	return w.Put(Commit, data)
}

// seeded is a reproducible source of random bytes.
type seeded struct{ *rand.ChaCha8 }

func newSeeded(n byte) seeded { return seeded{rand.NewChaCha8([32]byte{n})} }

// bytes returns n random bytes; text ones shrink when deflated.
func (s seeded) bytes(n int, text bool) []byte {
	b := make([]byte, n)
	_, _ = s.Read(b)
	if text {
		for i := range b {
			b[i] = 'a' + b[i]%8
		}
	}
	return b
}

// checkAll compares every object that git sees with what db reads.
func checkAll(t testing.TB, dir string, db *DB) int {
	t.Helper()
	list := git(t, dir, "cat-file", "--batch-all-objects", "--batch-check")
	n := 0
	for _, line := range strings.Split(strings.TrimSpace(list), "\n") {
		if line == "" {
			continue
		}
		n++
		f := strings.Fields(line)
		id := mustID(t, f[0])
		typ, size, err := db.Stat(id)
		if err != nil || typ.String() != f[1] || strconv.FormatInt(size, 10) != f[2] {
			t.Fatalf("Stat(%s) = %v, %d, %v; git says %s", id, typ, size, err, line)
		}
		if _, err := db.Read(id, typ, size); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

func fsck(t testing.TB, dir string) {
	t.Helper()
	for line := range strings.Lines(git(t, dir, "fsck", "--strict", "--full", "--no-dangling")) {
		if !strings.HasPrefix(line, "notice: ") { // an unborn branch is no fault
			t.Fatalf("git fsck says: %s", line)
		}
	}
	idx := glob(t, filepath.Join(dir, "objects/pack/*.idx"))
	if len(idx) > 0 {
		git(t, dir, append([]string{"verify-pack"}, idx...)...)
	}
}

// harmPack changes the only pack. end is where its entries end.
func harmPack(t *testing.T, dir string, harm func(pack []byte, end int)) {
	t.Helper()
	path := onlyFile(t, filepath.Join(dir, "objects/pack/*.pack"))
	pack := readFile(t, path)
	harm(pack, len(pack)-hashSize)
	check(t, errors.Join(os.Chmod(path, 0o644), os.WriteFile(path, pack, 0o644)))
}
