//go:build slow

package odb

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"emberfs/integration/testprog"
	"emberfs/tiers/cold"
)

func TestReadWhatGitWrites(t *testing.T) {
	t.Parallel()
	work := t.TempDir()
	git(t, work, "init", "-q", "-b", "main")
	rnd := newSeeded(2)
	doc := rnd.bytes(40_000, true)
	for i := range 60 {
		copy(doc[i*500:], fmt.Sprintf("version %d", i))
		check(t, os.WriteFile(filepath.Join(work, "doc"), doc, 0o644))
		check(t, testprog.Write(filepath.Join(work, fmt.Sprintf("f%d", i)), []byte{byte(i)}))
		git(t, work, "add", ".")
		git(t, work, "commit", "-q", "-m", fmt.Sprint(i))
	}
	git(t, work, "tag", "-a", "-m", "a tag", "v1")
	bare := filepath.Join(work, ".git")
	git(t, bare, "config", "core.bare", "true")
	compare := func(what string) {
		t.Helper()
		for _, mem := range []int64{0, 1000} { // the second run spills delta bases to files
			db, err := OpenReadOnly(bare, Options{DeltaMemory: mem, DeltaCache: mem})
			check(t, err)
			if n := checkAll(t, bare, db); n < 180 {
				t.Fatalf("%s: %d objects", what, n)
			}
			refs, err := db.Refs("")
			if err != nil || len(refs) != 2 {
				t.Fatalf("%s: refs %v, %v", what, refs, err)
			}
			for name, id := range refs {
				if want := mustID(t, git(t, bare, "rev-parse", name)); id != want {
					t.Fatalf("%s: %s is %s, git says %s", what, name, id, want)
				}
			}
			head, err := db.Ref("HEAD")
			if err != nil || head != refs["refs/heads/main"] {
				t.Fatalf("%s: HEAD %s, %v", what, head, err)
			}
			walkTrees(t, db, head)
			check(t, db.Close())
		}
	}
	compare("loose")
	git(t, bare, "repack", "-adfq", "--depth=50", "--window=50")
	git(t, bare, "pack-refs", "--all")
	compare("packed with OFS_DELTA")
	git(t, bare, "config", "repack.useDeltaBaseOffset", "false")
	git(t, bare, "repack", "-adfq", "--depth=50", "--window=50")
	compare("packed with REF_DELTA")
	git(t, bare, "config", "pack.packSizeLimit", "1m")
	git(t, bare, "repack", "-adfq", "--write-midx")
	compare("with a multi-pack-index")
}

// walkTrees decodes every commit and tree of the first-parent history.
func walkTrees(t *testing.T, db *DB, id ID) {
	t.Helper()
	for !id.IsZero() {
		data, err := db.Read(id, Commit, 1<<20)
		check(t, err)
		c, err := DecodeCommit(data)
		check(t, err)
		data, err = db.Read(c.Tree, Tree, 1<<20)
		check(t, err)
		entries, err := DecodeTree(data)
		check(t, err)
		if again, err := EncodeTree(entries); err != nil || !bytes.Equal(again, data) {
			t.Fatalf("tree %s does not encode to itself: %v", c.Tree, err)
		}
		id = ID{}
		if len(c.Parents) > 0 {
			id = c.Parents[0]
		}
	}
}

func TestIndexPackFromGit(t *testing.T) {
	t.Parallel()
	src := t.TempDir()
	git(t, src, "init", "-q", "-b", "main")
	doc := newSeeded(40).bytes(60_000, true)
	for i := range 30 {
		copy(doc[i*900:], fmt.Sprintf("version %d", i))
		for name, data := range map[string][]byte{"doc": doc, fmt.Sprint("f", i): fmt.Appendf(nil, "%d", i),
			"empty": nil} {
			check(t, os.WriteFile(filepath.Join(src, name), data, 0o644))
		}
		git(t, src, "add", ".")
		git(t, src, "commit", "-q", "-m", fmt.Sprint(i))
	}
	git(t, src, "tag", "-a", "-m", "tag", "v1")
	head := mustID(t, git(t, src, "rev-parse", "HEAD"))
	for _, o := range []Options{{}, {DeltaMemory: 1000, DeltaCache: 1000}} {
		for _, args := range [][]string{{"--delta-base-offset"}, {}, {"--window=0"}} {
			pack, err := gitErr(src, nil, append([]string{"pack-objects", "--all", "--stdout", "-q"}, args...)...)
			check(t, err)
			dir, db := newRepo(t, o)
			rest := "what follows"
			n, keep, err := db.IndexPack(io.MultiReader(strings.NewReader(pack), strings.NewReader(rest)),
				int64(len(pack))+100)
			if err != nil || n != 30*4+2 {
				t.Fatalf("%v: %d objects, %v", args, n, err)
			}
			check(t, db.UpdateRef("refs/heads/main", ID{}, head))
			if m, _ := filepath.Glob(filepath.Join(dir, "objects/pack/*.keep")); len(m) != 1 {
				t.Fatal(m)
			}
			for range 2 {
				check(t, keep())
			}
			if m, _ := filepath.Glob(filepath.Join(dir, "objects/pack/*")); len(m) != 2 {
				t.Fatal(m)
			}
			fsck(t, dir)
			if n := checkAll(t, dir, db); n != 30*4+2 {
				t.Fatal(n)
			}
		}
	}
	// Thin: what came later, as deltas against what is there.
	dir, db := newRepo(t, Options{})
	old := strings.TrimSpace(git(t, src, "rev-parse", "HEAD~10"))
	first, err := gitErr(src, []byte(old+"\n"), "pack-objects", "--revs", "--stdout", "-q")
	check(t, err)
	thin, err := gitErr(src, []byte(head.String()+"\n^"+old+"\n"), "pack-objects", "--revs", "--thin", "--stdout", "-q")
	check(t, err)
	if _, _, err := db.IndexPack(strings.NewReader(thin), 0); !errors.Is(err, cold.ErrMissing) {
		t.Fatalf("thin pack without its bases: %v", err)
	}
	for _, p := range []string{first, thin} {
		if _, _, err := db.IndexPack(strings.NewReader(p), 0); err != nil {
			t.Fatal(err)
		}
	}
	check(t, db.UpdateRef("refs/heads/main", ID{}, head))
	fsck(t, dir)
	checkAll(t, dir, db)
}
