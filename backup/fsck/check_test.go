package fsck

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"emberfs/backup"
	"emberfs/backup/coldtest"
	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

// checkedVolume is a volume with two commits, in two packs, and the objects that tests damage.
type checkedVolume struct {
	*testVolume
	first, tip cold.ID
	root       *coldtest.File
}

func newCheckedVolume(t *testing.T) *checkedVolume {
	t.Helper()
	v := &checkedVolume{testVolume: newVolume(t, backup.Options{})}
	v.root = coldtest.NewDir(0o755)
	v.root.Text("a/b/old", strings.Repeat("old content\n", 500))
	v.root.Text("top", "top")
	v.root.Symlink("link", "a/b")
	v.first = v.CommitTree(v.root, nil)
	v.root.Text("a/b/new", strings.Repeat("new content\n", 500))
	v.root.Text("a/\xff odd", "odd name")
	v.tip = v.CommitTree(v.root, nil)
	return v
}

// pack is the pack, without extension, that holds an object.
func (v *checkedVolume) pack(id cold.ID) string {
	v.T.Helper()
	packs, _ := filepath.Glob(filepath.Join(v.Dir, "objects/pack/pack-*.idx"))
	for _, p := range packs {
		if strings.Contains(coldtest.Git(v.T, v.Dir, "verify-pack", "-v", p), id.String()) {
			return strings.TrimSuffix(p, ".idx")
		}
	}
	v.T.Fatalf("no pack holds %s", id)
	return ""
}

func (v *checkedVolume) id(rev string) cold.ID {
	v.T.Helper()
	id, err := cold.ParseID(coldtest.Git(v.T, v.Dir, "rev-parse", rev))
	coldtest.Check(v.T, err)
	return id
}

// flipEntry changes a byte in the middle of an object's entry in its pack.
func (v *checkedVolume) flipEntry(id cold.ID) {
	v.T.Helper()
	pack := v.pack(id)
	for line := range strings.Lines(coldtest.Git(v.T, v.Dir, "verify-pack", "-v", pack+".idx")) {
		var hex, typ string
		var size, packed, off int64
		if n, _ := fmt.Sscan(line, &hex, &typ, &size, &packed, &off); n == 5 && hex == id.String() {
			data, err := os.ReadFile(pack + ".pack")
			coldtest.Check(v.T, err)
			at := off + packed/2
			coldtest.Overwrite(v.T, pack+".pack", at, []byte{data[at] ^ 0x55})
			return
		}
	}
	v.T.Fatalf("%s is not in %s", id, pack)
}

// explodeAll makes every object loose, so that single ones can be taken away.
func (v *checkedVolume) explodeAll() { coldtest.Explode(v.T, v.Dir) }

func (v *checkedVolume) loose(id cold.ID) string {
	s := id.String()
	return filepath.Join(v.Dir, "objects", s[:2], s[2:])
}

// runCheck checks a repository and returns what was found.
func runCheck(t *testing.T, dir string, o Options) []cold.Finding {
	t.Helper()
	var list []cold.Finding
	o.Found = func(f cold.Finding) { list = append(list, f) }
	c, err := Open(dir, o)
	coldtest.Check(t, err)
	coldtest.Check(t, errors.Join(c.Check(t.Context()), c.Close()))
	return list
}

func problemsOf(list []cold.Finding) (n int) {
	for _, f := range list {
		if f.Severity == cold.Damaged {
			n++
		}
	}
	return n
}

func describe(list []cold.Finding) string {
	var b strings.Builder
	for _, f := range list {
		fmt.Fprintf(&b, "\t%+v\n", f)
	}
	return b.String()
}

// hasFinding says whether a finding of the severity has all texts in its parts.
func hasFinding(list []cold.Finding, s cold.Severity, texts ...string) bool {
	for _, f := range list {
		all := strings.Join([]string{f.What, f.Path, f.Where, f.Commit, f.Object}, "\x00")
		ok := f.Severity == s
		for _, text := range texts {
			ok = ok && strings.Contains(all, text)
		}
		if ok {
			return true
		}
	}
	return false
}

// TestCheckSound: a volume after a normal life, a stock client's commit on top, and after git repacked and packed
// references.
func TestCheckSound(t *testing.T) {
	t.Parallel()
	v := newCheckedVolume(t)
	coldtest.Check(t, v.Close())
	volume := Options{Volume: true, Owned: true, Head: v.tip, Deep: true}
	for _, step := range []struct {
		name string
		do   func()
	}{
		{"as it is", func() {}},
		{"repacked", func() { coldtest.Git(t, v.Dir, "repack", "-adq", "--depth=50") }},
		{"packed references", func() { coldtest.Git(t, v.Dir, "pack-refs", "--all") }},
		{"loose objects", v.explodeAll},
	} {
		step.do()
		for _, deep := range []bool{false, true} {
			o := volume
			o.Deep = deep
			if list := runCheck(t, v.Dir, o); len(list) > 0 {
				t.Errorf("%s, deep %v:\n%s", step.name, deep, describe(list))
			}
		}
	}
	clone := filepath.Join(t.TempDir(), "clone")
	coldtest.Git(t, v.Dir, "clone", "-q", v.Dir, clone)
	coldtest.PutFile(t, filepath.Join(clone, "a/b/old"), "changed by a stock client")
	coldtest.Git(t, clone, "commit", "-qam", "stock")
	coldtest.Git(t, clone, "tag", "-a", "-m", "a tag", "v1")
	coldtest.Git(t, clone, "push", "-q", "--tags", "origin", "HEAD:main")
	list := runCheck(t, v.Dir, volume)
	if problemsOf(list) > 0 || !hasFinding(list, cold.Note, "changed by a stock client") ||
		!hasFinding(list, cold.Note, "1 commit behind") {
		t.Errorf("a stock client's commit:\n%s", describe(list))
	}
	if list := runCheck(t, clone+"/.git", Options{Deep: true}); problemsOf(list) > 0 {
		t.Errorf("the clone:\n%s", describe(list))
	}
}

func TestCheckStockRepository(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "r.git")
	coldtest.Git(t, t.TempDir(), "init", "-q", "--bare", "-b", "trunk", dir)
	if list := runCheck(t, dir, Options{}); len(list) != 1 ||
		!hasFinding(list, cold.Note, "no commit yet", "refs/heads/trunk") {
		t.Errorf("empty:\n%s", describe(list))
	}
	work := filepath.Join(t.TempDir(), "w")
	coldtest.Git(t, t.TempDir(), "clone", "-q", dir, work)
	coldtest.PutFile(t, work+"/sub/f", "x")
	coldtest.Git(t, work, "add", ".")
	coldtest.Git(t, work, "commit", "-qm", "one")
	coldtest.Git(t, work, "push", "-q", "origin", "HEAD:trunk")
	if list := runCheck(t, dir, Options{Deep: true}); len(list) != 1 ||
		!hasFinding(list, cold.Note, "not a volume yet") {
		t.Errorf("one commit:\n%s", describe(list))
	}
	coldtest.Git(t, work, "clone", "-q", "--bare", "--depth=1", "file://"+dir, work+".shallow")
	if list := runCheck(t, work+".shallow", Options{Deep: true}); problemsOf(list) > 0 {
		t.Errorf("shallow clone:\n%s", describe(list))
	}
}

func TestCheckNoRepository(t *testing.T) {
	if _, err := Open(t.TempDir(), Options{}); !errors.Is(err, odb.ErrNotRepository) {
		t.Errorf("an empty directory: %v", err)
	}
	v := newCheckedVolume(t)
	coldtest.Git(t, v.Dir, "config", "core.repositoryformatversion", "1")
	coldtest.Git(t, v.Dir, "config", "extensions.objectFormat", "sha256")
	if _, err := Open(v.Dir, Options{}); !errors.Is(err, odb.ErrUnsupported) {
		t.Errorf("sha256: %v", err)
	}
}

// TestCheckFindsRisk: what is no damage yet.
func TestCheckFindsRisk(t *testing.T) {
	v := newCheckedVolume(t)
	coldtest.Git(t, v.Dir, "config", "gc.auto", "100")
	coldtest.Git(t, v.Dir, "symbolic-ref", "HEAD", "refs/heads/elsewhere")
	coldtest.Git(t, v.Dir, "update-ref", "refs/emberfs/remote/main", v.first.String())
	lock := filepath.Join(v.Dir, "refs/heads/main.lock")
	coldtest.PutFile(t, lock, "")
	old := time.Now().Add(-time.Hour)
	coldtest.Check(t, os.Chtimes(lock, old, old))
	stale := "emberfs 11111111-2222-3333-4444-555555555555 77\n"
	coldtest.PutFile(t, v.pack(v.tip)+".keep", stale)
	coldtest.PutFile(t, v.Dir+"/objects/pack/emberfs_tmp_pack_11111111-2222-3333-4444-555555555555_77_abcd",
		"half a pack")
	list := runCheck(t, v.Dir, Options{Volume: true, Owned: true, Branch: "main", Head: v.first,
		Source: "/srv/remote.git"})
	for _, want := range [][]string{
		{"risk", "gc.auto = 0"}, {"risk", "refs/heads/elsewhere", "HEAD"},
		{"risk", "the last 1 commit is not on the remote", "/srv/remote.git"},
		{"risk", "main.lock"}, {"note", "keep file"}, {"note", "temporary file"},
		{"note", "1 commit behind the branch"},
	} {
		if !hasFinding(list, cold.Severity(want[0]), want[1:]...) {
			t.Errorf("not found: %q", want)
		}
	}
	if problemsOf(list) != 0 {
		t.Error("risks and notes are no problems")
	}
	if t.Failed() {
		t.Log(describe(list))
	}
	coldtest.Remove(t, lock)
	coldtest.Git(t, v.Dir, "update-ref", "refs/heads/main", v.first.String())
	list = runCheck(t, v.Dir, Options{Volume: true, Owned: true, Branch: "main", Head: v.tip})
	if !hasFinding(list, cold.Risk, "does not follow the commit that warm is of") {
		t.Errorf("a branch that was moved back:\n%s", describe(list))
	}
}

// TestCheckAnotherCopy: a damaged copy beside a good one is damage, and nothing is lost.
func TestCheckAnotherCopy(t *testing.T) {
	v := newCheckedVolume(t)
	id := v.id("main:a/b/new")
	data, err := v.DB().Read(id, odb.Blob, 1<<20)
	coldtest.Check(t, err)
	v.flipEntry(id)
	// git would find the object in the pack and store nothing.
	other := filepath.Join(t.TempDir(), "other.git")
	coldtest.Git(t, t.TempDir(), "init", "-q", "--bare", other)
	if out, err := coldtest.GitTry(t, other, data, "hash-object", "-w", "--stdin"); err != nil ||
		strings.TrimSpace(out) != id.String() {
		t.Fatal(out, err)
	}
	s := id.String()
	copied, err := os.ReadFile(filepath.Join(other, "objects", s[:2], s[2:]))
	coldtest.Check(t, err)
	coldtest.PutFile(t, v.loose(id), string(copied))
	list := runCheck(t, v.Dir, Options{Deep: true})
	if !hasFinding(list, cold.Damaged, "another copy is good", s) || hasFinding(list, cold.Damaged, "a/b/new") {
		t.Error(describe(list))
	}
}

func TestCheckSame(t *testing.T) {
	t.Parallel()
	v := newCheckedVolume(t)
	data := bytes.Repeat([]byte("x"), 3<<20)
	v.root.Text("big", string(data))
	v.root.Text("empty", "")
	v.tip = v.CommitTree(v.root, nil)
	c, err := Open(v.Dir, Options{})
	coldtest.Check(t, err)
	defer c.Close()
	flipped := bytes.Clone(data)
	flipped[2<<20] ^= 1
	for _, f := range []struct {
		c    cold.Content
		id   cold.ID
		want bool
	}{
		{coldtest.Content(data), coldtest.BlobID(t, string(data)), true},
		{coldtest.Content(data[1:]), coldtest.BlobID(t, string(data)), false},
		{coldtest.Content(nil), coldtest.BlobID(t, ""), true},
		{coldtest.Content([]byte("top")), v.id("main:top"), true},
		{coldtest.Content([]byte("pot")), v.id("main:top"), false},
		{coldtest.Content([]byte("pot")), v.id("main:a"), false},
		{coldtest.Content(flipped), v.id("main:big"), false},
	} {
		if same, err := c.Same(t.Context(), f.id, f.c); same != f.want || err != nil {
			t.Errorf("%s: %v, %v", f.id, same, err)
		}
	}
	if _, err := c.Same(t.Context(), v.id("main:big"), coldtest.Sized{Content: coldtest.Content(data[1:]),
		Bytes: 3 << 20}); !errors.Is(err, cold.ErrSizeChanged) {
		t.Errorf("a file that became shorter: %v", err)
	}
}
