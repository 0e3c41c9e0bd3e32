//go:build slow

package fsck

import (
	"os"
	"strings"
	"testing"

	"emberfs/backup/coldtest"
	"emberfs/tiers/cold"
)

// TestCheckFindsDamage damages a volume by hand in one way at a time.
func TestCheckFindsDamage(t *testing.T) {
	const hex0 = "1111111111111111111111111111111111111111"
	for _, c := range []struct {
		name   string
		damage func(v *checkedVolume)
		quick  bool // seen without --deep
		want   []string
	}{
		{"bit flip in a pack", func(v *checkedVolume) {
			v.flipEntry(v.id("main:a/b/new"))
		}, false, []string{"a/b/new", "a blob is damaged"}},
		{"bit flip in history", func(v *checkedVolume) {
			v.flipEntry(v.id(v.first.String() + "^{tree}"))
		}, false, []string{"a tree is damaged"}},
		{"damaged trailer", func(v *checkedVolume) {
			coldtest.Overwrite(v.T, v.pack(v.tip)+".pack", -1, []byte{1, 2, 3}[:1])
		}, true, []string{".pack", "checksum does not match"}},
		{"truncated pack", func(v *checkedVolume) {
			p := v.pack(v.tip) + ".pack"
			st, err := os.Stat(p)
			if err == nil {
				err = os.Truncate(p, st.Size()*2/3)
			}
			coldtest.Check(v.T, err)
		}, true, []string{".pack", "cut off"}},
		{"pack gone", func(v *checkedVolume) {
			coldtest.Remove(v.T, v.pack(v.tip)+".pack")
		}, true, []string{"the pack is gone", "nowhere else"}},
		{"index gone", func(v *checkedVolume) {
			coldtest.Remove(v.T, v.pack(v.tip)+".idx")
		}, true, []string{".idx", "the pack is whole"}},
		{"index zeroed", func(v *checkedVolume) {
			coldtest.Overwrite(v.T, v.pack(v.tip)+".idx", 0, make([]byte, 1000))
		}, true, []string{".idx", "the pack is whole"}},
		{"index bit", func(v *checkedVolume) {
			coldtest.Overwrite(v.T, v.pack(v.tip)+".idx", -60, []byte{0xAA, 0x55, 0xAA})
		}, true, []string{".idx", "checksum"}},
		{"ref torn", func(v *checkedVolume) {
			coldtest.PutFile(v.T, v.Dir+"/refs/heads/main", v.tip.String()[:20])
		}, true, []string{"refs/heads/main", "content"}},
		{"ref empty", func(v *checkedVolume) {
			coldtest.PutFile(v.T, v.Dir+"/refs/heads/main", "")
		}, true, []string{"refs/heads/main", "content"}},
		{"ref to nothing", func(v *checkedVolume) {
			coldtest.PutFile(v.T, v.Dir+"/refs/heads/main", hex0+"\n")
		}, true, []string{"refs/heads/main", "missing"}},
		{"ref to a blob", func(v *checkedVolume) {
			coldtest.PutFile(v.T, v.Dir+"/refs/heads/main", v.id("main:top").String()+"\n")
		}, true, []string{"refs/heads/main", "not a commit"}},
		{"ref gone", func(v *checkedVolume) {
			coldtest.Remove(v.T, v.Dir+"/refs/heads/main")
		}, true, []string{"refs/heads/main", "no reference"}},
		{"another ref torn", func(v *checkedVolume) {
			coldtest.PutFile(v.T, v.Dir+"/refs/heads/other", "x")
		}, true, []string{"refs/heads/other"}},
		{"packed-refs garbage", func(v *checkedVolume) {
			coldtest.PutFile(v.T, v.Dir+"/packed-refs", "nonsense\n")
		}, true, []string{"packed-refs"}},
		{"HEAD garbage", func(v *checkedVolume) {
			coldtest.PutFile(v.T, v.Dir+"/HEAD", "nonsense\n")
		}, true, []string{"HEAD"}},
		{"HEAD gone", func(v *checkedVolume) { coldtest.Remove(v.T, v.Dir+"/HEAD") }, true, []string{"HEAD"}},
		{"config garbage", func(v *checkedVolume) {
			coldtest.PutFile(v.T, v.Dir+"/config", "[core\nx=\x01")
		}, true, []string{"config"}},
		{"loose garbage", func(v *checkedVolume) {
			v.explodeAll()
			id := v.id("main:top")
			_ = os.Chmod(v.loose(id), 0o644)
			coldtest.PutFile(v.T, v.loose(id), "garbage")
		}, false, []string{"top", "a blob is damaged"}},
		{"loose empty", func(v *checkedVolume) {
			v.explodeAll()
			id := v.id("main:top")
			_ = os.Chmod(v.loose(id), 0o644)
			coldtest.PutFile(v.T, v.loose(id), "")
		}, true, []string{"the file is empty"}},
		{"missing blob", func(v *checkedVolume) {
			v.explodeAll()
			coldtest.Remove(v.T, v.loose(v.id("main:a/\xff odd")))
		}, true, []string{"a/\xff odd", "a blob is missing"}},
		{"missing tree", func(v *checkedVolume) {
			v.explodeAll()
			coldtest.Remove(v.T, v.loose(v.id("main:a/b")))
		}, true, []string{"a/b", "a tree is missing"}},
		{"missing root", func(v *checkedVolume) {
			v.explodeAll()
			coldtest.Remove(v.T, v.loose(v.id("main^{tree}")))
		}, true, []string{"a tree is missing"}},
		{"missing metadata", func(v *checkedVolume) {
			v.explodeAll()
			coldtest.Remove(v.T, v.loose(v.id("main:.emberfs/meta/a/b/.emberfs%entries")))
		}, true, []string{".emberfs/meta/a/b", "a blob is missing"}},
		{"missing commit in history", func(v *checkedVolume) {
			v.explodeAll()
			coldtest.Remove(v.T, v.loose(v.first))
		}, false, []string{"a commit is missing"}},
		{"missing blob in history", func(v *checkedVolume) {
			gone := v.id("main:a/b/old")
			v.root.Text("a/b/old", "another")
			v.tip = v.CommitTree(v.root, nil)
			v.explodeAll()
			coldtest.Remove(v.T, v.loose(gone))
		}, false, []string{"a/b/old", "a blob is missing"}},
		{"metadata lies about a size", func(v *checkedVolume) {
			v.rewriteMeta(`"size":6000`, `"size":6001`)
		}, true, []string{"a/b", "size 6001"}},
		{"metadata lies about a type", func(v *checkedVolume) {
			v.rewriteMeta(`"type":"file"`, `"type":"fifo"`)
		}, true, []string{"a/b", "metadata"}},
		{"metadata has an unknown key", func(v *checkedVolume) {
			v.rewriteMeta(`"uid":1000`, `"uid":1000,"key":1`)
		}, true, []string{"a/b", "metadata"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			v := newCheckedVolume(t)
			c.damage(v)
			o := Options{Volume: true, Owned: true, Branch: "main", Head: v.tip}
			quick := runCheck(t, v.Dir, o)
			if got := hasFinding(quick, cold.Damaged, c.want...); got != c.quick {
				t.Errorf("quick: found %v, want %v\n%s", got, c.quick, describe(quick))
			}
			o.Deep = true
			if deep := runCheck(t, v.Dir, o); c.name == "loose empty" &&
				!hasFinding(deep, cold.Damaged, "a blob is damaged", "top") ||
				c.name != "loose empty" && !hasFinding(deep, cold.Damaged, c.want...) {
				t.Errorf("deep: not found\n%s", describe(deep))
			}
		})
	}
}

// rewriteMeta makes a commit, by stock git, whose metadata of a/b says something else of every entry.
func (v *checkedVolume) rewriteMeta(from, to string) {
	v.T.Helper()
	dir := ".emberfs/meta/a/b"
	data := coldtest.Git(v.T, v.Dir, "show", "main:"+dir+"/.emberfs%entries") + "\n"
	if !strings.Contains(data, from) {
		v.T.Fatalf("no %s in %s", from, data)
	}
	run := func(stdin string, args ...string) string {
		v.T.Helper()
		out, err := coldtest.GitTry(v.T, v.Dir, []byte(stdin), args...)
		if err != nil {
			v.T.Fatalf("git %q: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(out)
	}
	blob := run(strings.ReplaceAll(data, from, to), "hash-object", "-w", "--stdin")
	run("", "read-tree", "main")
	run("", "update-index", "--cacheinfo", "100644,"+blob+","+dir+"/.emberfs%entries")
	commit := run("", "commit-tree", run("", "write-tree"), "-p", "main", "-m", "lie")
	run("", "update-ref", "refs/heads/main", commit)
	v.tip = v.id("main")
}
