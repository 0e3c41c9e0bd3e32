package wire

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

const mainRef = "refs/heads/main"

// git runs stock git in dir.
func git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, "git", args...)
	c.Dir = dir
	c.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null")
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("git %v: %v: %s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// volume is our side.
type volume struct {
	t   *testing.T
	dir string
	db  *odb.DB
	tip cold.ID
	ids []cold.ID // objects of the last commit
	n   int
}

func newVolume(t *testing.T) *volume {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "cold.git")
	if err := odb.Init(dir, "main"); err != nil {
		t.Fatal(err)
	}
	db, err := odb.Open(dir, odb.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return &volume{t: t, dir: dir, db: db}
}

// commit puts a commit with one file on the branch.
func (v *volume) commit(content string) cold.ID {
	v.t.Helper()
	w, err := v.db.NewWriter()
	check(v.t, err)
	blob, err := w.Put(odb.Blob, []byte(content))
	check(v.t, err)
	data, err := odb.EncodeTree([]odb.TreeEntry{{Mode: odb.ModeFile, Name: "file", ID: blob}})
	check(v.t, err)
	tree, err := w.Put(odb.Tree, data)
	check(v.t, err)
	v.n++
	who := odb.Signature{Name: "emberfs", Email: "e@f", When: time.Unix(int64(1_700_000_000+v.n), 0)}
	c := odb.CommitData{Tree: tree, Author: who, Committer: who, Message: "commit\n"}
	if !v.tip.IsZero() {
		c.Parents = []cold.ID{v.tip}
	}
	data, err = odb.EncodeCommit(c)
	check(v.t, err)
	id, err := w.Put(odb.Commit, data)
	check(v.t, err)
	check(v.t, w.Publish())
	check(v.t, v.db.UpdateRef(mainRef, v.tip, id))
	check(v.t, w.Release())
	v.tip, v.ids = id, []cold.ID{id, tree, blob}
	return id
}

// pack writes the last commit's objects.
func (v *volume) pack(w io.Writer) error {
	s, err := odb.NewPackStream(w, len(v.ids))
	if err != nil {
		return err
	}
	for _, id := range v.ids {
		if err := v.db.CopyTo(s, id); err != nil {
			return err
		}
	}
	return s.Close()
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// one is an update of the branch.
func one(old, fresh cold.ID) []Update { return []Update{{mainRef, old, fresh}} }

func newRemote(t *testing.T) (string, *Remote) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "remote repo.git")
	check(t, os.Mkdir(dir, 0o755))
	git(t, dir, "init", "-q", "--bare", "-b", "main")
	r, err := Open(dir, Options{})
	check(t, err)
	return dir, r
}

// push is Send for updates that are known beforehand.
func (r *Remote) push(ctx context.Context, updates []Update, writePack func(io.Writer) error) error {
	return r.Send(ctx, Just(updates, writePack))
}
