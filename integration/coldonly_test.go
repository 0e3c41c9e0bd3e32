//go:build slow

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// The commands that look at a volume beside its daemon, where names and bytes are in cold only.

// warmList is what find says of warm: what looking must leave alone.
func (v *volume) warmList() string {
	v.t.Helper()
	list := strings.Split(must(v.t, filepath.Join(v.state, "warm"), "find", ".", "-printf", "%p %s %b %T@ %C@\n"), "\n")
	slices.Sort(list)
	return strings.Join(list, "\n")
}

// sameWarm requires that f lists nothing, brings nothing to warm and reads nothing from cold by the daemon.
func (v *volume) sameWarm(what string, f func()) {
	v.t.Helper()
	before := v.warmList()
	f()
	equal(v.t, v.warmList(), before, "%s changed warm:", what)
}

// TestDiffColdOnly: with everything odd released, and on the next machine, which has listed nothing, diff finds what
// changed and nothing else, and leaves all where it is.
func TestDiffColdOnly(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"released", "restored"} {
		t.Run(mode, func(t *testing.T) {
			deadline(t, 8*time.Minute)
			repo := newBareRepo(t, "remote.git", user{})
			v := newVolume(t, "one", withSource(repo), onlyByCommand()).mount()
			check(t, os.WriteFile(v.at("first"), []byte("one\ntwo\n"), 0o644))
			v.sync()
			first := revision(t, repo)
			check(t, os.WriteFile(v.at("first"), []byte("one\nTWO\n"), 0o644))
			makeOddTree(t, v.mnt)
			v.sync()
			before := scanTree(t, v.mnt)
			if mode == "released" {
				v.tier()
			} else {
				v.umount()
				v = newVolume(t, "two", withSource(repo), onlyByCommand())
				v.mount()
			}
			v.sameWarm("diff", func() {
				if got := changes(t, "/", v.mnt); len(got) != 0 {
					t.Errorf("of what did not change: %q", got)
				}
				r := v.emberfs("diff", v.mnt, first, "now", "--", "first")
				if r.code != 0 || !strings.Contains(r.stdout, "-two\n+TWO\n") {
					t.Errorf("since the commit before\n%v", r)
				}
				r = v.emberfs("diff", "--stat", v.mnt, first, "now")
				committed := v.emberfs("diff", "--stat", v.mnt, first, "HEAD")
				if r.code != 0 || r.stderr != committed.stderr || r.stdout != committed.stdout {
					t.Errorf("not as between the commits: %v\n%v", r, committed)
				}
			})
			changeOddTree(t, v.mnt)
			after := scanTree(t, v.mnt)
			sameChanges(t, "changed", changes(t, "/", v.mnt), expectedChanges(t, before, after), after)
			v.umount()
			if got := changes(t, "/", v.state); len(got) != 0 {
				t.Errorf("after the commit: %q", got)
			}
			v.mustBeSound(v.state, "--deep")
		})
	}
}

// TestRenamedColdOnly: names of stubs and of unlisted directories that changed are told as what they are, with text of
// cold.
func TestRenamedColdOnly(t *testing.T) {
	deadline(t, 2*time.Minute)
	_, v := lazyPair(t, func(one *volume) {
		check(t, os.MkdirAll(one.at("d/deep/below"), 0o755))
		check(t, os.WriteFile(one.at("d/file"), []byte("some text\n"), 0o644))
		check(t, os.WriteFile(one.at("d/deep/below/other"), []byte("other text\n"), 0o644))
		check(t, os.Link(one.at("d/file"), one.at("d/linked")))
	})
	check(t, os.Rename(v.at("d/deep"), v.at("moved")))
	check(t, os.Chmod(v.at("d/linked"), 0o600))
	v.sameWarm("diff", func() {
		r := v.emberfs("diff", v.mnt)
		for _, want := range []string{"--- a/d/deep/below/other\n+++ /dev/null\n", "-other text\n",
			"--- /dev/null\n+++ b/moved/below/other\n", "+other text\n", "d/file: mode 0644 -> 0600",
			"d/linked: mode 0644 -> 0600"} {
			if !strings.Contains(r.stdout, want) {
				t.Errorf("no %q\n%v", want, r)
			}
		}
		if r.code != 0 || r.stderr != "" || strings.Contains(r.stdout, "hard-linked") {
			t.Errorf("%v", r)
		}
	})
	v.kill()
	if r := v.mustBeSound(v.state, "--deep"); r.AtRisk == nil || r.AtRisk.Files == 0 || r.AtRisk.Bytes != 0 {
		t.Errorf("names and attributes alone are at risk: %+v", r)
	}
	v.mount()
	v.sync()
	v.umount()
}

// TestCheckColdOnlyLife: at every stage of a restore on the next machine, and of files that leave warm, check finds a
// sound volume with nothing at risk, and `emberfs restore` takes everything from its commits.
func TestCheckColdOnlyLife(t *testing.T) {
	t.Parallel()
	deadline(t, 12*time.Minute)
	lookPath(t, "rsync")
	var want map[string]string
	one, v := lazyPair(t, func(one *volume) {
		makeOddTree(t, one.mnt)
		want = scanTree(t, one.mnt)
	})
	stage := func(what, target string) {
		t.Helper()
		for _, args := range [][]string{nil, {"--deep"}} {
			v.sameWarm("check", func() {
				notes := len(v.mustBeSound(target, args...).Findings)
				if r := v.mustBeSound(target, args...); r.AtRisk == nil || r.AtRisk.Files != 0 || target == v.state &&
					notes > 0 {
					t.Errorf("%s, %q: %+v", what, args, r)
				}
			})
		}
	}
	stage("just mounted", v.mnt)
	v.umount()
	stage("nothing is listed", v.state)
	to := filepath.Join(v.dir, "copy")
	v.sameWarm("restore", func() { must(t, "/", env.bin, "restore", "--from", v.state, "--to", to) })
	sameTree(t, scanTree(t, to), want, "restored from a state that has nothing in warm")
	v.mount()
	must(t, v.mnt, "ls", "-l")
	v.umount()
	stage("the root is listed", v.state)
	v.mount()
	must(t, v.mnt, "find", ".", "-ls")
	stage("all is listed", v.mnt)
	v.umount()
	stage("all is listed", v.state)
	v.mount()
	sameTree(t, scanTree(t, v.mnt), want, "read")
	v.umount()
	v.mustBeSound(v.state, "--deep")
	// A machine whose files were all in warm lets them go.
	one.opts = append(one.opts, "tier_interval=none")
	one.mount()
	one.tier()
	one.umount()
	v = one
	stage("released", v.state)
	again := filepath.Join(v.dir, "copy")
	must(t, "/", env.bin, "restore", "--from", v.state, "--to", again)
	sameTree(t, scanTree(t, again), want, "restored from a state of stubs")
}

// TestCheckBesideTiers: while files leave and come back beside programs, check takes nothing for damage and diff
// nothing for a change.
func TestCheckBesideTiers(t *testing.T) {
	deadline(t, 4*time.Minute)
	repo := newBareRepo(t, "remote.git", user{})
	one := newVolume(t, "one", withSource(repo)).mount()
	content := map[string]string{}
	for d := range 20 {
		for name, c := range one.fill(fmt.Sprintf("quiet/d%d", d), 10, 50_000) {
			content[name] = c
		}
	}
	check(t, os.Mkdir(one.at("work"), 0o755))
	one.umount()
	v := newVolume(t, "two", withSource(repo), withOpts("backup_interval=1s", "warm_age=300ms", "tier_interval=100ms",
		"prefetch=on"))
	v.startForeground()
	stop, done := make(chan struct{}), make(chan struct{})
	go func() { // reads until files come back, and makes others come back by opening them for writing
		defer close(done)
		for n := 0; ; n++ {
			for name := range content {
				select {
				case <-stop:
					return
				default:
				}
				if n%2 == 0 {
					_, _ = os.ReadFile(v.at(name))
				} else if f, err := os.OpenFile(v.at(name), os.O_RDWR, 0); err == nil {
					_ = f.Truncate(50_000) // the size that it has
					_ = f.Close()
				}
			}
		}
	}()
	wait := startWriter(t, v, filepath.Join(v.dir, "ops"), 1)
	for n := range 8 {
		args := []string{"check", v.mnt}
		if n%2 == 1 {
			args = append(args, "--deep")
		}
		if r := v.emberfs(args...); r.code != 0 || !strings.HasSuffix(r.stdout, "\nsound\n") {
			t.Errorf("%v", r)
		}
		for p, c := range changes(t, "/", v.mnt, "--", "quiet") {
			if c != "m mtime" { // of the truncate, until it is committed
				t.Errorf("%q is taken for changed: %s", p, c)
			}
		}
	}
	close(stop)
	<-done
	v.kill()
	wait()
	v.mustBeSound(v.state, "--deep")
	v.mount()
	v.holds(content)
	v.umount()
}

// loosen makes every object of cold a file of its own, so that single ones can be taken away.
func (v *volume) loosen() {
	v.t.Helper()
	shell(v.t, v.cold(), `mkdir ../packs; mv objects/pack/pack-*.pack ../packs; rm -f objects/pack/*
		for p in ../packs/*; do git unpack-objects -q <$p; done; rm -r ../packs`)
}

// object is the id that a revision names in cold.
func (v *volume) object(rev string) string {
	v.t.Helper()
	return strings.TrimSpace(must(v.t, "/", "git", "-C", v.cold(), "rev-parse", rev))
}

// lose takes an object out of cold.
func (v *volume) lose(id string) {
	v.t.Helper()
	check(v.t, os.Remove(filepath.Join(v.cold(), "objects", id[:2], id[2:])))
}

// lacks says whether check calls an object at a path damaged and says what to do.
func (r checkReport) lacks(path, object string) bool {
	return slices.ContainsFunc(r.Findings, func(f checkFinding) bool {
		return f.Severity == "damaged" && f.Path == path && f.Object == object && f.Do != ""
	})
}

// TestCheckColdLacks: an object that is gone from cold is damage of the stub, or the unlisted directory, that needs it;
// --repair gets it back from the remote, and then everything is as it was.
func TestCheckColdLacks(t *testing.T) {
	deadline(t, 4*time.Minute)
	var content map[string]string
	_, v := lazyPair(t, func(one *volume) {
		content = one.fill("listed", 3, 50_000)
		for name, c := range one.fill("not/listed", 3, 50_000) {
			content[name] = c
		}
		big := one.fill("big", 1, 20<<20)
		content["big/f0"] = big["big/f0"]
	})
	must(t, v.at("listed"), "ls", "-l")
	must(t, v.at("big"), "ls", "-l")
	v.umount()
	v.loosen()
	v.mustBeSound(v.state)
	lost := map[string]string{"listed/f1": "main:listed/f1", "not/listed": "main:not/listed",
		"not/listed/f2": "main:not/listed/f2"}
	for at, rev := range lost {
		lost[at] = v.object(rev)
	}
	chunk, whole := v.object("main:big/f0/00000001"), v.object("main:big/f0")
	for _, id := range append(slices.Sorted(func(yield func(string) bool) {
		for _, id := range lost {
			if !yield(id) {
				return
			}
		}
	}), chunk) {
		v.lose(id)
	}
	delete(lost, "not/listed/f2") // nobody knows of it while the tree is missing
	lost["big/f0"] = whole
	for _, args := range [][]string{nil, {"--deep"}} {
		r := v.check(v.state, args...)
		for at, id := range lost {
			if !r.lacks(at, id) {
				t.Errorf("%q: nothing of %s, %s: %+v", args, at, id, r.Findings)
			}
		}
	}
	must(t, "/", "cp", "-a", v.state, v.dir+"/damaged")
	if r := v.emberfs("check", "--repair", v.state); r.code != 0 ||
		!strings.Contains(r.stdout, "again from the remote") {
		t.Fatalf("%v", r)
	}
	v.mustBeSound(v.state, "--deep")
	v.mount()
	v.holds(content)
	v.umount()

	// Without the remote nothing is lost further: once somebody puts the objects back, all is there.
	good := v.cold() + ".good"
	check(t, os.Rename(v.cold(), good))
	must(t, "/", "sh", "-euc", `mv "$1" "$1.away"; rm -r "$2"; mv "$3" "$2"`, "sh", v.source, v.state+"/warm",
		v.dir+"/damaged/warm")
	check(t, os.Rename(v.dir+"/damaged/cold.git", v.cold()))
	if r := v.emberfs("check", "--repair", v.state); r.code != 3 {
		t.Fatalf("without the remote\n%v", r)
	}
	must(t, "/", "sh", "-euc", `mv "$1.away" "$1"; cp -an "$2"/objects/. "$3"/objects/`, "sh", v.source, good, v.cold())
	v.mustBeSound(v.state)
	v.mount()
	v.holds(content)
	v.umount()
}

// TestCheckColdLacksOld: an object that only a stub needs, since the tip has its name no more, is looked for too, and
// repaired.
func TestCheckColdLacksOld(t *testing.T) {
	deadline(t, 2*time.Minute)
	one, v := lazyPair(t, func(one *volume) {
		one.fill("d", 3, 50_000)
		one.fill("e/f", 3, 50_000)
	})
	must(t, v.at("d"), "ls", "-l")
	v.umount()
	one.mount()
	check(t, os.RemoveAll(one.at("d")))
	check(t, os.RemoveAll(one.at("e")))
	one.umount()
	shell(t, v.cold(), "git fetch -q "+v.source+" main:main")
	if r := v.mustBeSound(v.state); !r.has("note", "1 commit behind") {
		t.Errorf("%+v", r)
	}
	v.loosen()
	file, tree := v.object("main~1:d/f1"), v.object("main~1:e/f")
	v.lose(file)
	v.lose(tree)
	if r := v.check(v.state); !r.lacks("d/f1", file) || !r.lacks("e/f", tree) {
		t.Errorf("%+v", r.Findings)
	}
	v.must("check", "--repair", v.state)
	v.mustBeSound(v.state, "--deep")
	v.mount()
	v.umount()
}

// TestCheckNoRepository: without cold the bytes of stubs are gone, and nobody is told to go on as if they were not.
func TestCheckNoRepository(t *testing.T) {
	deadline(t, time.Minute)
	v := newVolume(t, "v", onlyByCommand()).mount()
	v.fill("d", 2, 50_000)
	v.release()
	v.umount()
	check(t, os.RemoveAll(v.cold()))
	r := v.check(v.state)
	if !r.has("damaged", "the repository is missing", "the bytes of 2 files") ||
		strings.Contains(r.Findings[0].Do, "commits everything") {
		t.Errorf("%+v", r.Findings)
	}
}

// TestColdFiles: status counts the files of the last commit, whatever of them is listed, released or removed since.
func TestColdFiles(t *testing.T) {
	deadline(t, time.Minute)
	says := func(v *volume, what string, want int64) {
		t.Helper()
		if !waitFor(20*time.Second, func() bool { return v.status().Tiers.Cold.Files == want }) {
			t.Errorf("%s: cold has %d files, want %d", what, v.status().Tiers.Cold.Files, want)
		}
	}
	_, v := lazyPair(t, func(one *volume) {
		says(one, "nothing is committed", 0)
		one.fill("a/b", 10, 100)
		one.fill("c", 5, 100)
		check(t, os.Symlink("x", one.at("link")))
		check(t, os.WriteFile(one.at("big"), make([]byte, 20<<20), 0o644)) // in chunks
		one.sync()
		says(one, "committed", 17)
	})
	says(v, "nothing is listed", 17)
	check(t, os.Remove(v.at("c/f0")))
	says(v, "removed, not committed", 17)
	v.sync()
	says(v, "removed", 16)
	v.umount()
}
