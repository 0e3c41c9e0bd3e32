//go:build slow

package fsck

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"emberfs/backup"
	"emberfs/backup/coldtest"
	"emberfs/tiers/cold"
)

// TestRepair damages a volume in one way at a time; afterwards everything is sound, and what the last commit held is
// there.
func TestRepair(t *testing.T) {
	const hex0 = "1111111111111111111111111111111111111111"
	warm := map[string]string{
		"a/b/old": strings.Repeat("old content\n", 500), "a/b/new": strings.Repeat("new content\n", 500),
		"a/\xff odd": "odd name", "top": "top",
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
		{"index gone", func(v *checkedVolume) {
			coldtest.Remove(v.T, v.pack(v.tip)+".idx")
		}, false, nil, false, []string{".idx: make a new index"}},
		{"index zeroed", func(v *checkedVolume) {
			coldtest.Overwrite(v.T, v.pack(v.tip)+".idx", 0, make([]byte, 1000))
		}, false, nil, false, []string{".idx: make a new index"}},
		{"index bit", func(v *checkedVolume) {
			coldtest.Overwrite(v.T, v.pack(v.tip)+".idx", -60, []byte{0xAA, 0x55, 0xAA})
		}, false, nil, false, []string{"make a new index"}},
		{"trailer", func(v *checkedVolume) {
			coldtest.Overwrite(v.T, v.pack(v.tip)+".pack", -8, []byte("damaged!"))
		}, false, nil, false, []string{".pack: save what can be read"}},
		{"pack truncated, remote", func(v *checkedVolume) {
			v.truncatePack(v.tip)
		}, true, nil, false, []string{"again from the remote"}},
		{"pack gone, remote", func(v *checkedVolume) {
			coldtest.Remove(v.T, v.pack(v.tip)+".pack")
		}, true, nil, true, []string{"again from the remote"}},
		{"all packs gone, remote", func(v *checkedVolume) {
			coldtest.Check(v.T, os.RemoveAll(v.Dir+"/objects/pack"))
		}, true, nil, true, []string{"again from the remote"}},
		{"bit flip in a tree, remote", func(v *checkedVolume) {
			v.flipEntry(v.id("main:a"))
		}, true, nil, true, []string{"write a damaged pack anew"}},
		{"bit flip in history, remote", func(v *checkedVolume) {
			v.flipEntry(v.first)
		}, true, nil, true, []string{"write a damaged pack anew"}},
		{"bit flip in a file, warm", func(v *checkedVolume) {
			v.flipEntry(v.id("main:a/b/new"))
		}, false, warm, true, []string{"write a damaged pack anew"}},
		{"missing files, warm", func(v *checkedVolume) {
			v.explodeAll()
			coldtest.Remove(v.T, v.loose(v.id("main:a/b/old")))
			coldtest.Remove(v.T, v.loose(v.id("main:a/\xff odd")))
			coldtest.Remove(v.T, v.loose(v.id("main:link")))
			coldtest.Remove(v.T, v.loose(v.id("main:.emberfs/.gitattributes")))
			coldtest.Remove(v.T, v.loose(v.id("main:.emberfs/volume.json")))
		}, true, warm, false, []string{"get 5 missing or damaged objects again"}},
		{"missing tree with all below, remote", func(v *checkedVolume) {
			v.explodeAll()
			var gone []cold.ID
			for _, p := range []string{"main:a", "main:a/b", "main:a/b/old", "main^{tree}", "main:.emberfs/meta/a"} {
				gone = append(gone, v.id(p))
			}
			for _, id := range gone {
				coldtest.Remove(v.T, v.loose(id))
			}
		}, true, nil, false, []string{"again from the remote"}},
		{"loose garbage, warm", func(v *checkedVolume) {
			v.explodeAll()
			id := v.id("main:top")
			_ = os.Chmod(v.loose(id), 0o644)
			coldtest.PutFile(v.T, v.loose(id), "garbage")
		}, false, warm, true, []string{"put a damaged loose object aside"}},
		{"loose empty, warm", func(v *checkedVolume) {
			v.explodeAll()
			id := v.id("main:top")
			_ = os.Chmod(v.loose(id), 0o644)
			coldtest.PutFile(v.T, v.loose(id), "")
		}, false, warm, false, []string{"put a damaged loose object aside"}},
		{"ref torn", func(v *checkedVolume) {
			coldtest.PutFile(v.T, v.Dir+"/refs/heads/main", v.tip.String()[:20])
		}, false, nil, false, []string{"refs/heads/main: set the branch to", "warm was last in step with"}},
		{"ref empty", func(v *checkedVolume) {
			coldtest.PutFile(v.T, v.Dir+"/refs/heads/main", "")
		}, false, nil, false, []string{"refs/heads/main: set the branch to"}},
		{"ref to nothing", func(v *checkedVolume) {
			coldtest.PutFile(v.T, v.Dir+"/refs/heads/main", hex0+"\n")
		}, false, nil, false, []string{"refs/heads/main: set the branch to"}},
		{"ref gone", func(v *checkedVolume) {
			coldtest.Remove(v.T, v.Dir+"/refs/heads/main")
		}, false, nil, false, []string{"refs/heads/main: set the branch to"}},
		{"tracking ref torn", func(v *checkedVolume) {
			coldtest.PutFile(v.T, v.Dir+"/refs/emberfs/remote/main", "x")
		}, false, nil, false, []string{"refs/emberfs/remote/main: forget"}},
		{"tracking ref to nothing", func(v *checkedVolume) {
			coldtest.PutFile(v.T, v.Dir+"/refs/emberfs/remote/main", hex0+"\n")
		}, false, nil, false, []string{"refs/emberfs/remote/main: forget"}},
		{"packed-refs garbage", func(v *checkedVolume) {
			coldtest.Git(v.T, v.Dir, "pack-refs", "--all")
			data, err := os.ReadFile(v.Dir + "/packed-refs")
			coldtest.Check(v.T, err)
			coldtest.PutFile(v.T, v.Dir+"/packed-refs", string(data)+"nonsense\n"+hex0+" refs/../x\n")
		}, false, nil, false, []string{"packed-refs: take out"}},
		{"HEAD, config and directories", func(v *checkedVolume) {
			coldtest.PutFile(v.T, v.Dir+"/HEAD", "")
			coldtest.PutFile(v.T, v.Dir+"/config", "[core\nx=\x01")
			coldtest.Check(v.T, os.RemoveAll(v.Dir+"/refs/tags"))
		}, false, nil, false, []string{"HEAD and configuration"}},
		{"stale files", func(v *checkedVolume) {
			const dead = "11111111-2222-3333-4444-555555555555"
			coldtest.PutFile(v.T, v.pack(v.tip)+".keep", "emberfs "+dead+" 77\n")
			coldtest.PutFile(v.T, v.Dir+"/refs/heads/main.lock", "emberfs "+dead+" 77\n")
			coldtest.PutFile(v.T, v.Dir+"/objects/pack/emberfs_tmp_pack_"+dead+"_77_abcd", "half a pack")
		}, false, nil, false, []string{"main.lock: remove a stale lock file"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			v := newCheckedVolume(t)
			o := Options{Volume: true, Owned: true, Branch: "main", Head: v.tip, Deep: c.deep}
			if c.remote {
				o.Source = v.withRemote()
			}
			want := v.ReadTree(v.HeadSnapshot())
			c.damage(v)
			coldtest.Check(t, v.Close())
			r := runRepair(t, v.Dir, o, c.warm)
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
			if list := runCheck(t, v.Dir, o); problemsOf(list) > 0 {
				t.Errorf("not sound all the way:\n%s", describe(list))
			}
			coldtest.Fsck(t, v.Dir)
			again := openVolume(t, v.Dir, backup.Options{})
			if id := again.HeadSnapshot().Info().ID; id != v.tip {
				t.Errorf("the branch is at %s, was at %s", id, v.tip)
			}
			coldtest.CompareTrees(t, again.ReadTree(again.HeadSnapshot()), want)
		})
	}
}

func (v *checkedVolume) truncatePack(id cold.ID) {
	v.T.Helper()
	p := v.pack(id) + ".pack"
	st, err := os.Stat(p)
	if err == nil {
		err = os.Truncate(p, st.Size()*2/3)
	}
	coldtest.Check(v.T, err)
}

// withRemote makes a bare clone that has everything, and notes in the volume that it has.
func (v *checkedVolume) withRemote() string {
	v.T.Helper()
	to := filepath.Join(v.T.TempDir(), "remote.git")
	coldtest.Git(v.T, v.Dir, "clone", "-q", "--bare", "--no-hardlinks", v.Dir, to)
	coldtest.Git(v.T, v.Dir, "update-ref", "refs/emberfs/remote/main", v.tip.String())
	return to
}
