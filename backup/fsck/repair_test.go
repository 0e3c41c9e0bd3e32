package fsck

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"emberfs/backup"
	"emberfs/backup/coldtest"
	"emberfs/tiers/cold"
)

// repairRun checks a volume, repairs it and checks it again.
type repairRun struct {
	before, after []cold.Finding
	steps         []string // "where: what", with ": failed" where it did
	out           Repaired
}

func runRepair(t *testing.T, dir string, o Options, warm map[string]string) repairRun {
	t.Helper()
	var r repairRun
	o.Found = func(f cold.Finding) { r.before = append(r.before, f) }
	c, err := Open(dir, o)
	coldtest.Check(t, err)
	coldtest.Check(t, errors.Join(c.Check(t.Context()), c.Close()))
	ro := RepairOptions{Step: func(what, where string) func(string, error) {
		return func(_ string, err error) {
			s := where + ": " + what
			if err != nil {
				s += ": failed: " + err.Error()
			}
			r.steps = append(r.steps, s)
		}
	}}
	if warm != nil {
		ro.WarmFiles = func(_ context.Context, pick func(string, cold.ID) bool,
			f func(string, cold.Content) error) error {
			for p, data := range warm {
				if pick(p, cold.ID{}) {
					if err := f(p, coldtest.Content([]byte(data))); err != nil {
						return err
					}
				}
			}
			return nil
		}
	}
	r.out, err = c.Repair(t.Context(), ro)
	coldtest.Check(t, err)
	if !r.out.Head.IsZero() {
		o.Head = r.out.Head
	}
	r.after = runCheck(t, dir, o)
	return r
}

func (r repairRun) did(texts ...string) bool {
	return slices.ContainsFunc(r.steps, func(s string) bool {
		return !slices.ContainsFunc(texts, func(x string) bool { return !strings.Contains(s, x) })
	})
}

// TestRepairBackward: where the last commit is gone for good the branch goes back to the newest one that is whole, and
// what it said is kept.
func TestRepairBackward(t *testing.T) {
	v := newCheckedVolume(t)
	coldtest.Git(t, v.Dir, "update-ref", "refs/emberfs/remote/main", v.first.String())
	v.explodeAll()
	coldtest.Remove(t, v.loose(v.tip))
	coldtest.Check(t, v.Close())
	r := runRepair(t, v.Dir, Options{Volume: true, Owned: true, Branch: "main", Head: v.tip}, nil)
	if !r.did("set the branch to "+v.first.String(), "which the remote has") || r.out.Head != v.first ||
		problemsOf(r.after) > 0 {
		t.Fatalf("%q, head %s\n%s", r.steps, r.out.Head, describe(r.after))
	}
	kept, err := filepath.Glob(v.Dir + "/emberfs_broken/*refs-heads-main")
	if err != nil || len(kept) != 1 {
		t.Fatalf("%q, %v", kept, err)
	}
	if data, err := os.ReadFile(kept[0]); err != nil || string(data) != v.tip.String()+"\n" {
		t.Errorf("the old value: %q, %v", data, err)
	}
}

// TestRepairNeedsHelp: what nobody has stays damaged, and is said; two commits that do not follow each other are
// nobody's choice.
func TestRepairNeedsHelp(t *testing.T) {
	v := newCheckedVolume(t)
	coldtest.Git(t, v.Dir, "update-ref", "refs/emberfs/remote/main",
		coldtest.Git(t, v.Dir, "commit-tree", "-m", "another", v.tip.String()+"^{tree}"))
	coldtest.PutFile(t, v.Dir+"/refs/heads/main", "")
	o := Options{Volume: true, Owned: true, Branch: "main", Head: v.tip}
	if r := runRepair(t, v.Dir, o, nil); !r.did("failed", "do not follow each other") || problemsOf(r.after) != 1 {
		t.Errorf("two commits: %q\n%s", r.steps, describe(r.after))
	}
	coldtest.PutFile(t, v.Dir+"/refs/heads/main", v.tip.String()+"\n")
	v.explodeAll()
	coldtest.Remove(t, v.loose(v.id("main:a/b/old")))
	coldtest.Remove(t, v.loose(v.id("main:.emberfs/meta/a/.emberfs%entries")))
	r := runRepair(t, v.Dir, o, map[string]string{"a/b/old": "changed since"})
	if problemsOf(r.after) == 0 || !slices.Equal(r.out.Lost, []string{"a", "a/b/old"}) {
		t.Errorf("lost: %q\n%s", r.out.Lost, describe(r.after))
	}
}

// TestRepairChunks: a piece of a big file comes back from the file in warm.
func TestRepairChunks(t *testing.T) {
	v := &checkedVolume{testVolume: newVolume(t, backup.Options{ChunkThreshold: 128 << 10}),
		root: coldtest.NewDir(0o755)}
	data := bytes.Repeat([]byte("0123456789abcdef"), 16<<10) // 256 KiB in chunks of 64
	for i := range 4 {
		data[i*64<<10] = byte(i)
	}
	v.root.Text("dir/big", string(data))
	v.tip = v.CommitTree(v.root, nil)
	v.explodeAll()
	coldtest.Remove(t, v.loose(v.id("main:dir/big/00000002")))
	coldtest.Check(t, v.Close())
	o := Options{Volume: true, Owned: true, Branch: "main", Head: v.tip}
	r := runRepair(t, v.Dir, o, map[string]string{"dir/big": string(data)})
	if problemsOf(r.before) == 0 || len(r.after) > 0 {
		t.Errorf("%q\n%s", r.steps, describe(r.after))
	}
	again := openVolume(t, v.Dir, backup.Options{})
	if got := again.ReadTree(again.HeadSnapshot()).Kids["dir"].Kids["big"]; got == nil || !bytes.Equal(got.Data, data) {
		t.Error("the file is not what it was")
	}
}

// TestMend: a commit that would only repeat the last one stores again what that one lacks, and otherwise writes
// nothing.
func TestMend(t *testing.T) {
	v := newCheckedVolume(t)
	mend := func() {
		t.Helper()
		tx := v.MustBegin()
		defer tx.Abort()
		base := map[string]cold.DirID{"": coldtest.RootOf(tx.Base())}
		coldtest.Check(t, coldtest.Put(t.Context(), tx, v.root, base, "", nil))
		if m, ok := tx.(interface{ Mend(cold.DirID) error }); !ok || m.Mend(v.root.Dir()) != nil {
			t.Fatal("cannot mend")
		}
	}
	count := func() int {
		t.Helper()
		packs, err := filepath.Glob(v.Dir + "/objects/pack/pack-*")
		coldtest.Check(t, err)
		return len(packs)
	}
	before := count()
	if mend(); count() != before {
		t.Errorf("%d files of packs, before %d, though nothing was missing", count(), before)
	}
	v.explodeAll()
	for _, p := range []string{"main:.emberfs/meta/a/b/.emberfs%entries", "main:a/b/new", "main:a/b"} {
		coldtest.Remove(t, v.loose(v.id(p)))
	}
	coldtest.Check(t, v.DB().Refresh())
	mend()
	if list := runCheck(t, v.Dir, Options{Volume: true, Branch: "main", Head: v.tip, Deep: true}); problemsOf(
		list) > 0 {
		t.Error(describe(list))
	}
}
