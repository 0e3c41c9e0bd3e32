package backup

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"emberfs/tiers"
)

// repairRun checks a volume, repairs it and checks it again.
type repairRun struct {
	before, after []tiers.Finding
	steps         []string // "where: what", with ": failed" where it did
	out           Repaired
}

func runRepair(t *testing.T, dir string, o CheckOptions, warm map[string]string) repairRun {
	t.Helper()
	var r repairRun
	o.Found = func(f tiers.Finding) { r.before = append(r.before, f) }
	c, err := NewChecker(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(c.Check(t.Context()), c.Close()); err != nil {
		t.Fatal(err)
	}
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
		ro.WarmFiles = func(_ context.Context, pick func(string, tiers.ID) bool, f func(string, tiers.Content) error) error {
			for p, data := range warm {
				if pick(p, tiers.ID{}) {
					if err := f(p, content([]byte(data))); err != nil {
						return err
					}
				}
			}
			return nil
		}
	}
	if r.out, err = c.Repair(t.Context(), ro); err != nil {
		t.Fatal(err)
	}
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

// withRemote makes a bare clone that has everything, and notes in the volume that it has.
func (v *checkedVolume) withRemote() string {
	v.t.Helper()
	to := filepath.Join(v.t.TempDir(), "remote.git")
	git(v.t, v.dir, "clone", "-q", "--bare", "--no-hardlinks", v.dir, to)
	git(v.t, v.dir, "update-ref", "refs/emberfs/remote/main", v.tip.String())
	return to
}

func (v *checkedVolume) truncatePack(id tiers.ID) {
	v.t.Helper()
	p := v.pack(id) + ".pack"
	st, err := os.Stat(p)
	if err == nil {
		err = os.Truncate(p, st.Size()*2/3)
	}
	if err != nil {
		v.t.Fatal(err)
	}
}

// TestRepair damages a volume in one way at a time; afterwards everything is sound, and what the last commit held is there.
func TestRepair(t *testing.T) {
	const hex0 = "1111111111111111111111111111111111111111"
	warm := map[string]string{
		"a/b/old": strings.Repeat("old content\n", 500), "a/b/new": strings.Repeat("new content\n", 500), "a/\xff odd": "odd name", "top": "top",
		"link": "a/b", "unrelated": "something else",
	}
	for _, c := range []struct {
		name   string
		damage func(v *checkedVolume)
		remote bool
		warm   map[string]string
		deep   bool
		did    []string
	}{
		{"index gone", func(v *checkedVolume) { remove(v.t, v.pack(v.tip)+".idx") }, false, nil, false, []string{".idx: make a new index"}},
		{"index zeroed", func(v *checkedVolume) { overwrite(v.t, v.pack(v.tip)+".idx", 0, make([]byte, 1000)) }, false, nil, false, []string{".idx: make a new index"}},
		{"index bit", func(v *checkedVolume) { overwrite(v.t, v.pack(v.tip)+".idx", -60, []byte{0xAA, 0x55, 0xAA}) }, false, nil, false, []string{"make a new index"}},
		{"trailer", func(v *checkedVolume) { overwrite(v.t, v.pack(v.tip)+".pack", -8, []byte("damaged!")) }, false, nil, false, []string{".pack: save what can be read"}},
		{"pack truncated, remote", func(v *checkedVolume) { v.truncatePack(v.tip) }, true, nil, false, []string{"again from the remote"}},
		{"pack gone, remote", func(v *checkedVolume) { remove(v.t, v.pack(v.tip)+".pack") }, true, nil, true, []string{"again from the remote"}},
		{"all packs gone, remote", func(v *checkedVolume) {
			if err := os.RemoveAll(v.dir + "/objects/pack"); err != nil {
				v.t.Fatal(err)
			}
		}, true, nil, true, []string{"again from the remote"}},
		{"bit flip in a tree, remote", func(v *checkedVolume) { v.flipEntry(v.id("main:a")) }, true, nil, true, []string{"write a damaged pack anew"}},
		{"bit flip in history, remote", func(v *checkedVolume) { v.flipEntry(v.first) }, true, nil, true, []string{"write a damaged pack anew"}},
		{"bit flip in a file, warm", func(v *checkedVolume) { v.flipEntry(v.id("main:a/b/new")) }, false, warm, true, []string{"write a damaged pack anew"}},
		{"missing files, warm", func(v *checkedVolume) {
			v.explodeAll()
			remove(v.t, v.loose(v.id("main:a/b/old")))
			remove(v.t, v.loose(v.id("main:a/\xff odd")))
			remove(v.t, v.loose(v.id("main:link")))
			remove(v.t, v.loose(v.id("main:.emberfs/.gitattributes")))
			remove(v.t, v.loose(v.id("main:.emberfs/volume.json")))
		}, true, warm, false, []string{"get 5 missing or damaged objects again"}},
		{"missing tree with all below, remote", func(v *checkedVolume) {
			v.explodeAll()
			var gone []tiers.ID
			for _, p := range []string{"main:a", "main:a/b", "main:a/b/old", "main^{tree}", "main:.emberfs/meta/a"} {
				gone = append(gone, v.id(p))
			}
			for _, id := range gone {
				remove(v.t, v.loose(id))
			}
		}, true, nil, false, []string{"again from the remote"}},
		{"loose garbage, warm", func(v *checkedVolume) {
			v.explodeAll()
			id := v.id("main:top")
			_ = os.Chmod(v.loose(id), 0o644)
			putFile(v.t, v.loose(id), "garbage")
		}, false, warm, true, []string{"put a damaged loose object aside"}},
		{"loose empty, warm", func(v *checkedVolume) {
			v.explodeAll()
			id := v.id("main:top")
			_ = os.Chmod(v.loose(id), 0o644)
			putFile(v.t, v.loose(id), "")
		}, false, warm, false, []string{"put a damaged loose object aside"}},
		{"ref torn", func(v *checkedVolume) { putFile(v.t, v.dir+"/refs/heads/main", v.tip.String()[:20]) }, false, nil, false, []string{"refs/heads/main: set the branch to", "warm was last in step with"}},
		{"ref empty", func(v *checkedVolume) { putFile(v.t, v.dir+"/refs/heads/main", "") }, false, nil, false, []string{"refs/heads/main: set the branch to"}},
		{"ref to nothing", func(v *checkedVolume) { putFile(v.t, v.dir+"/refs/heads/main", hex0+"\n") }, false, nil, false, []string{"refs/heads/main: set the branch to"}},
		{"ref gone", func(v *checkedVolume) { remove(v.t, v.dir+"/refs/heads/main") }, false, nil, false, []string{"refs/heads/main: set the branch to"}},
		{"tracking ref torn", func(v *checkedVolume) { putFile(v.t, v.dir+"/refs/emberfs/remote/main", "x") }, false, nil, false, []string{"refs/emberfs/remote/main: forget"}},
		{"tracking ref to nothing", func(v *checkedVolume) { putFile(v.t, v.dir+"/refs/emberfs/remote/main", hex0+"\n") }, false, nil, false, []string{"refs/emberfs/remote/main: forget"}},
		{"packed-refs garbage", func(v *checkedVolume) {
			git(v.t, v.dir, "pack-refs", "--all")
			data, err := os.ReadFile(v.dir + "/packed-refs")
			if err != nil {
				v.t.Fatal(err)
			}
			putFile(v.t, v.dir+"/packed-refs", string(data)+"nonsense\n"+hex0+" refs/../x\n")
		}, false, nil, false, []string{"packed-refs: take out"}},
		{"HEAD, config and directories", func(v *checkedVolume) {
			putFile(v.t, v.dir+"/HEAD", "")
			putFile(v.t, v.dir+"/config", "[core\nx=\x01")
			if err := os.RemoveAll(v.dir + "/refs/tags"); err != nil {
				v.t.Fatal(err)
			}
		}, false, nil, false, []string{"HEAD and configuration"}},
		{"stale files", func(v *checkedVolume) {
			const dead = "11111111-2222-3333-4444-555555555555"
			putFile(v.t, v.pack(v.tip)+".keep", "emberfs "+dead+" 77\n")
			putFile(v.t, v.dir+"/refs/heads/main.lock", "emberfs "+dead+" 77\n")
			putFile(v.t, v.dir+"/objects/pack/emberfs_tmp_pack_"+dead+"_77_abcd", "half a pack")
		}, false, nil, false, []string{"main.lock: remove a stale lock file"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			v := newCheckedVolume(t)
			o := CheckOptions{Volume: true, Owned: true, Branch: "main", Head: v.tip, Deep: c.deep}
			if c.remote {
				o.Source = v.withRemote()
			}
			want := v.read(v.headSnapshot())
			c.damage(v)
			if err := v.Close(); err != nil {
				t.Fatal(err)
			}
			r := runRepair(t, v.dir, o, c.warm)
			if len(r.before) == 0 {
				t.Error("nothing was found")
			}
			if !r.did(c.did...) || r.did("failed") {
				t.Errorf("steps: %q, want %q", r.steps, c.did)
			}
			if problemsOf(r.after) > 0 || len(r.out.Lost) > 0 {
				t.Fatalf("not sound:\n%slost %q, steps %q", describe(r.after), r.out.Lost, r.steps)
			}
			o.Deep = true
			if list := runCheck(t, v.dir, o); problemsOf(list) > 0 {
				t.Errorf("not sound all the way:\n%s", describe(list))
			}
			if out := git(t, v.dir, "fsck", "--strict", "--no-dangling"); out != "" {
				t.Errorf("git fsck: %s", out)
			}
			again := openVolume(t, v.dir, Options{})
			if id := again.headSnapshot().Info().ID; id != v.tip {
				t.Errorf("the branch is at %s, was at %s", id, v.tip)
			}
			compareTrees(t, again.read(again.headSnapshot()), want)
		})
	}
}

// TestRepairBackward: where the last commit is gone for good the branch goes back to the newest one that is whole, and what it
// said is kept.
func TestRepairBackward(t *testing.T) {
	v := newCheckedVolume(t)
	git(t, v.dir, "update-ref", "refs/emberfs/remote/main", v.first.String())
	v.explodeAll()
	remove(t, v.loose(v.tip))
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	r := runRepair(t, v.dir, CheckOptions{Volume: true, Owned: true, Branch: "main", Head: v.tip}, nil)
	if !r.did("set the branch to "+v.first.String(), "which the remote has") || r.out.Head != v.first || problemsOf(r.after) > 0 {
		t.Fatalf("%q, head %s\n%s", r.steps, r.out.Head, describe(r.after))
	}
	kept, err := filepath.Glob(v.dir + "/emberfs_broken/*refs-heads-main")
	if err != nil || len(kept) != 1 {
		t.Fatalf("%q, %v", kept, err)
	}
	if data, err := os.ReadFile(kept[0]); err != nil || string(data) != v.tip.String()+"\n" {
		t.Errorf("the old value: %q, %v", data, err)
	}
}

// TestRepairNeedsHelp: what nobody has stays damaged, and is said; two commits that do not follow each other are nobody's choice.
func TestRepairNeedsHelp(t *testing.T) {
	v := newCheckedVolume(t)
	git(t, v.dir, "update-ref", "refs/emberfs/remote/main", git(t, v.dir, "commit-tree", "-m", "another", v.tip.String()+"^{tree}"))
	putFile(t, v.dir+"/refs/heads/main", "")
	o := CheckOptions{Volume: true, Owned: true, Branch: "main", Head: v.tip}
	if r := runRepair(t, v.dir, o, nil); !r.did("failed", "do not follow each other") || problemsOf(r.after) != 1 {
		t.Errorf("two commits: %q\n%s", r.steps, describe(r.after))
	}
	putFile(t, v.dir+"/refs/heads/main", v.tip.String()+"\n")
	v.explodeAll()
	remove(t, v.loose(v.id("main:a/b/old")))
	remove(t, v.loose(v.id("main:.emberfs/meta/a/.emberfs%entries")))
	r := runRepair(t, v.dir, o, map[string]string{"a/b/old": "changed since"})
	if problemsOf(r.after) == 0 || !slices.Equal(r.out.Lost, []string{"a", "a/b/old"}) {
		t.Errorf("lost: %q\n%s", r.out.Lost, describe(r.after))
	}
}

// TestRepairChunks: a piece of a big file comes back from the file in warm.
func TestRepairChunks(t *testing.T) {
	v := &checkedVolume{testVolume: newVolume(t, Options{ChunkThreshold: 128 << 10}), root: newDir(0o755)}
	data := bytes.Repeat([]byte("0123456789abcdef"), 16<<10) // 256 KiB in chunks of 64
	for i := range 4 {
		data[i*64<<10] = byte(i)
	}
	v.root.text("dir/big", string(data))
	v.tip = v.commit(v.root, nil)
	v.explodeAll()
	remove(t, v.loose(v.id("main:dir/big/00000002")))
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	o := CheckOptions{Volume: true, Owned: true, Branch: "main", Head: v.tip}
	r := runRepair(t, v.dir, o, map[string]string{"dir/big": string(data)})
	if problemsOf(r.before) == 0 || len(r.after) > 0 {
		t.Errorf("%q\n%s", r.steps, describe(r.after))
	}
	again := openVolume(t, v.dir, Options{})
	if got := again.read(again.headSnapshot()).kids["dir"].kids["big"]; got == nil || !bytes.Equal(got.data, data) {
		t.Error("the file is not what it was")
	}
}

// TestMend: a commit that would only repeat the last one stores again what that one lacks, and otherwise writes nothing.
func TestMend(t *testing.T) {
	v := newCheckedVolume(t)
	mend := func() {
		t.Helper()
		tx, err := v.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Abort()
		base := map[string]tiers.DirID{"": rootOf(tx.Base())}
		if err := put(t.Context(), tx, v.root, base, "", nil); err != nil {
			t.Fatal(err)
		}
		if m, ok := tx.(interface{ Mend(tiers.DirID) error }); !ok || m.Mend(v.root.Dir()) != nil {
			t.Fatal("cannot mend")
		}
	}
	count := func() int {
		t.Helper()
		packs, err := filepath.Glob(v.dir + "/objects/pack/pack-*")
		if err != nil {
			t.Fatal(err)
		}
		return len(packs)
	}
	before := count()
	if mend(); count() != before {
		t.Errorf("%d files of packs, before %d, though nothing was missing", count(), before)
	}
	v.explodeAll()
	for _, p := range []string{"main:.emberfs/meta/a/b/.emberfs%entries", "main:a/b/new", "main:a/b"} {
		remove(t, v.loose(v.id(p)))
	}
	if err := v.db.Refresh(); err != nil {
		t.Fatal(err)
	}
	mend()
	if list := runCheck(t, v.dir, CheckOptions{Volume: true, Branch: "main", Head: v.tip, Deep: true}); problemsOf(list) > 0 {
		t.Error(describe(list))
	}
}
