//go:build slow

package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestCheckRepair damages a volume's state directory in one way at a time. check --repair makes it sound, says what it
// did, and the next mount has every file as it was.
func TestCheckRepair(t *testing.T) {
	t.Parallel()
	deadline(t, 12*time.Minute)
	repo := newBareRepo(t, "remote.git", user{})
	v := newVolume(t, "v", withSource(repo)).mount()
	v.work(1)
	check(t, os.Link(v.at("work1/dir0/file0"), v.at("work1/dir1/linked")))
	check(t, os.Symlink("work1", v.at("symlink")))
	v.sync()
	older := revision(t, repo)
	v.work(2)
	v.umount()
	want := v.warmTree()
	tip := revision(t, repo)
	save := func(from, to string) { must(t, "/", "cp", "-a", from, to) }
	save(v.state, v.dir+"/good")
	save(repo, v.dir+"/remote")
	git := func(args ...string) string {
		return strings.TrimSpace(must(t, "/", append([]string{"git", "-C", v.cold()}, args...)...))
	}
	loosen := func() { // every object loose, so that single ones can be taken away
		must(t, "/", "sh", "-c",
			`cd "$1" && mkdir -p /tmp/x.$$ && mv objects/pack/pack-*.pack /tmp/x.$$/ && rm -f objects/pack/* && for p in /tmp/x.$$/*; do git unpack-objects -q <$p; done; rm -r /tmp/x.$$`, "sh", v.cold())
	}
	lose := func(rev string) {
		id := git("rev-parse", rev)
		check(t, os.Remove(filepath.Join(v.cold(), "objects", id[:2], id[2:])))
	}
	packs := func(ext string) []string {
		list, err := filepath.Glob(v.cold() + "/objects/pack/pack-*" + ext)
		check(t, err)
		return list
	}
	noRemote := func() {
		must(t, "/", "rm", "-rf", repo)
		must(t, "/", "git", "init", "-q", "--bare", "-b", "main", repo)
	}
	for _, c := range []struct {
		name   string
		damage func()
		args   []string
		did    string
		later  bool // what is missing is stored again by the next commit
	}{
		{"indexes gone", func() {
			for _, p := range packs(".idx") {
				check(t, os.Remove(p))
			}
		}, nil, "make a new index", false},
		{"packs truncated", func() {
			for _, p := range packs(".pack") {
				check(t, os.Truncate(p, 3000))
			}
		}, nil, "save what can be read", false},
		{"all objects gone", func() {
			must(t, "/", "rm", "-rf", v.cold()+"/objects/pack")
		}, nil, "again from the remote", false},
		{"a bit in each pack", func() {
			for _, p := range packs(".pack") {
				b, err := os.ReadFile(p)
				check(t, err)
				b[len(b)/2] ^= 4
				check(t, os.Chmod(p, 0o644))
				check(t, os.WriteFile(p, b, 0o444))
			}
		}, []string{"--deep"}, "write a damaged pack anew", false},
		{"files from warm alone", func() {
			noRemote()
			loosen()
			lose("main:work1/dir0/file0")
			lose("main:work2/dir3/file7")
			lose("main:symlink")
		}, nil, "get 3 missing or damaged objects again", false},
		{"a tree that nobody has", func() {
			noRemote()
			loosen()
			lose("main:work1/dir2")
			lose("main:.emberfs/meta/work2/dir1/.emberfs%entries")
		}, nil, "let what differs count as changed", true},
		{"branch torn", func() {
			check(t, os.WriteFile(v.cold()+"/refs/heads/main", []byte(tip[:11]), 0o644))
		}, nil, "set the branch to " + tip, false},
		{"branch empty, HEAD and config garbage", func() {
			for _, name := range []string{"refs/heads/main", "HEAD", "config"} {
				check(t, os.WriteFile(filepath.Join(v.cold(), name), nil, 0o644))
			}
			check(t, os.WriteFile(v.cold()+"/config", []byte("[["), 0o644))
		}, nil, "set the branch to " + tip, false},
		{"the last commit gone for good", func() {
			must(t, "/", "git", "-C", repo, "update-ref", "refs/heads/main", older)
			git("update-ref", "refs/emberfs/remote/main", older)
			must(t, "/", "git", "-C", repo, "gc", "-q", "--prune=now")
			loosen()
			lose(tip)
		}, nil, "set the branch to " + older, false},
		{"a clean mark that lies", func() {
			file := filepath.Join(v.state, "warm/work1/dir4/file1")
			st, err := os.Stat(file)
			check(t, err)
			b, err := os.ReadFile(file)
			check(t, err)
			f, err := os.OpenFile(file, os.O_WRONLY, 0)
			check(t, err)
			_, err = f.WriteAt([]byte{b[0] ^ 1}, 0)
			check(t, err)
			check(t, f.Close())
			check(t, os.Chtimes(file, st.ModTime(), st.ModTime()))
		}, []string{"--deep"}, "let what differs count as changed", false},
		{"leftovers", func() {
			check(t, os.WriteFile(v.state+"/.emberfs-tmp-1", nil, 0o600))
			check(t, os.WriteFile(v.cold()+"/refs/heads/main.lock",
				[]byte("emberfs 11111111-2222-3333-4444-555555555555 7\n"), 0o644))
		}, nil, "remove a stale lock file", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			v.t = t
			c.damage()
			want := want
			if strings.HasPrefix(c.name, "a clean mark") { // what is in warm counts
				want = v.warmTree()
			}
			before := v.check(v.state, c.args...)
			if before.Sound && c.name != "leftovers" {
				t.Errorf("nothing found: %+v", before)
			}
			r := v.emberfs(append([]string{"check", "--repair", v.state}, c.args...)...)
			if !strings.Contains(r.stdout, "\nchecking again:\n") || !strings.Contains(r.stdout, c.did) ||
				strings.Contains(r.stdout, "failed") || r.code != map[bool]int{true: 3}[c.later] {
				t.Fatalf("want %q\n%v", c.did, r)
			}
			v.mount()
			sameTree(t, scanTree(t, v.mnt), want, "mounted after the repair")
			v.umount()
			v.mustBeSound(v.state)
			v.mustBeSound(v.state, "--deep")
			fsck(t, v.cold())
			fsck(t, repo)
			two := newVolume(t, "two", withSource(repo)).mount()
			sameTree(t, scanTree(t, two.mnt), want, "on the next machine")
			two.umount()
			must(t, "/", "rm", "-rf", v.state, repo)
			save(v.dir+"/good", v.state)
			save(v.dir+"/remote", repo)
		})
		v.t = t
		if t.Failed() {
			return
		}
	}
}

// warmTree is the tree in warm as a mount would show it.
func (v *volume) warmTree() map[string]string {
	v.t.Helper()
	tree := scanTree(v.t, filepath.Join(v.state, "warm"))
	const one = `"trusted\.emberfs(\.volume)?"="(\\.|[^"\\])*"`
	record := regexp.MustCompile(one + "(," + one + ")?")
	for name, line := range tree {
		tree[name] = record.ReplaceAllString(line, "")
	}
	return tree
}

// TestCheckRepairRefused: a mounted volume is not repaired, and nothing is to be done for a sound one.
func TestCheckRepairRefused(t *testing.T) {
	deadline(t, time.Minute)
	v := newVolume(t, "v").mount()
	v.work(1)
	pid := v.daemon()
	for _, target := range []string{v.mnt, v.state, v.cold()} {
		r := v.emberfs("check", "--repair", target)
		if r.code != 1 || !strings.Contains(r.stderr, fmt.Sprintf("in use by the emberfs with pid %d", pid)) ||
			r.stdout != "" {
			t.Errorf("mounted\n%v", r)
		}
	}
	v.umount()
	if r := v.emberfs("check", "--repair", v.state); r.code != 0 || r.stdout != "sound\n" {
		t.Errorf("sound\n%v", r)
	}
	packs, err := filepath.Glob(v.cold() + "/objects/pack/pack-*.idx")
	check(t, err)
	for _, p := range packs {
		check(t, os.Remove(p))
	}
	r := v.emberfs("check", "--repair", "--json", v.state)
	var rep struct {
		Sound            bool
		Findings, Before []checkFinding
		Repairs          []struct{ What, Where, Result, Error string }
	}
	if err := json.Unmarshal([]byte(r.stdout), &rep); err != nil || r.code != 0 || !rep.Sound || len(rep.Before) == 0 ||
		len(rep.Repairs) == 0 ||
		!strings.Contains(rep.Repairs[0].Where, ".idx") || rep.Repairs[0].Error != "" {
		t.Errorf("JSON: %v, %+v\n%v", err, rep, r)
	}
}
