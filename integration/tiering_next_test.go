//go:build slow

package integration

import (
	"bufio"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"emberfs/integration/effort"
)

// lazyPair is a repository that a first machine pushed to, and a second machine that has mounted it and looked at
// nothing yet.
func lazyPair(t *testing.T, create func(one *volume), options ...volumeOption) (one, two *volume) {
	t.Helper()
	repo := newBareRepo(t, "remote.git", user{})
	one = newVolume(t, "one", withSource(repo))
	one.mount()
	create(one)
	one.umount()
	two = newVolume(t, "two", append(options, withSource(repo), onlyByCommand())...)
	two.mount()
	return one, two
}

// TestLazyRestoreIsExact: rsync finds no difference between a native copy and what the next machine has.
func TestLazyRestoreIsExact(t *testing.T) {
	t.Parallel()
	deadline(t, 10*time.Minute)
	lookPath(t, "rsync", "git")
	native := mkdir(t, filepath.Join(testDir(t), "native"), user{})
	var want map[string]string
	one, two := lazyPair(t, func(one *volume) {
		makeOddTree(t, one.mnt)
		rsync(t, one.mnt, native)
		want = scanTree(t, one.mnt)
	})
	rsyncClean(t, native, two.mnt)
	sameTree(t, scanTree(t, two.mnt), want, "the next machine")
	rsyncClean(t, two.mnt, native)
	two.sync()
	if got, before := revision(t, two.source), revision(t, one.cold()); got != before {
		t.Errorf("a restore without changes made a commit: %s, before %s", got, before)
	}
	two.umount()
	two.mount()
	sameTree(t, scanTree(t, two.mnt), want, "the same machine again")
	two.umount()
}

// TestMountBeforeContent: the mount is there before names and bytes are; listing brings names alone.
func TestMountBeforeContent(t *testing.T) {
	deadline(t, 2*time.Minute)
	content := map[string]string{}
	const dirs, files, size = 20, 10, 256 << 10
	_, two := lazyPair(t, func(one *volume) {
		for d := range dirs {
			for name, c := range one.fill(fmt.Sprintf("d%d/sub", d), files, size) {
				content[name] = c
			}
		}
	})
	const all = dirs * files * size
	if n := two.warmUse(); n*100 > all {
		t.Errorf("warm uses %d bytes right after the mount", n)
	}
	if st := two.status(); st.Tiers.Warm.Unlisted == 0 {
		t.Errorf("nothing is unlisted: %+v", st.Tiers.Warm)
	}
	two.fetchesNothing("find", func() { must(t, two.mnt, "find", ".", "-ls") })
	if st := two.status(); st.Tiers.Warm.Unlisted != 0 || st.Tiers.Warm.Stubs != dirs*files {
		t.Errorf("after a find: %+v", st.Tiers.Warm)
	}
	if n := two.warmUse(); n*50 > all {
		t.Errorf("warm uses %d bytes after a find", n)
	}
	two.holds(content)
	two.umount()
}

// TestTieringOffBringsEverything: with tiering=false all bytes are in warm when the mount returns.
func TestTieringOffBringsEverything(t *testing.T) {
	t.Parallel()
	deadline(t, 8*time.Minute)
	var want map[string]string
	_, two := lazyPair(t, func(one *volume) {
		makeOddTree(t, one.mnt)
		want = scanTree(t, one.mnt)
	}, withOpts("tiering=false"))
	for _, name := range two.stubs() {
		if !strings.HasPrefix(name, "sparse-empty") {
			t.Errorf("%s is not in warm", name)
		}
	}
	two.fetchesNothing("reading everything", func() { sameTree(t, scanTree(t, two.mnt), want, "all in warm") })
	if st := two.status().Tiers.Warm; st.Stubs != 0 || st.Unlisted != 0 {
		t.Errorf("%+v", st)
	}
	two.umount()
}

// TestPrefetch: what the last session opened first is brought without being asked for.
func TestPrefetch(t *testing.T) {
	deadline(t, 2*time.Minute)
	repo := newBareRepo(t, "remote.git", user{})
	one := newVolume(t, "one", withSource(repo)).mount()
	content := one.fill("d", 20, 100_000)
	one.umount()
	one.mount()
	used := map[string]string{"d/f3": content["d/f3"], "d/f11": content["d/f11"]}
	one.holds(used)
	check(t, os.WriteFile(one.at("new"), []byte("so that there is a commit"), 0o644))
	one.umount()
	two := newVolume(t, "two", withSource(repo), withOpts("prefetch=on")).mount()
	for name := range used {
		if !waitFor(20*time.Second, func() bool {
			where := strings.Join(two.file(name).Tiers, " ")
			return strings.Contains(where, "hot") || strings.Contains(where, "warm")
		}) {
			t.Errorf("%s, which the last session read, is still in cold only", name)
		}
	}
	two.holds(content)
	two.umount()
}

// TestKilledWhileListing: the daemon is killed in the middle of a find, again and again; each mount goes on, and in the
// end all is exact.
func TestKilledWhileListing(t *testing.T) {
	t.Parallel()
	deadline(t, 10*time.Minute)
	var want map[string]string
	_, two := lazyPair(t, func(one *volume) {
		for d := range 300 {
			for name := range one.fill(fmt.Sprintf("a%d/b%d/c", d%10, d), 4, 5000) {
				check(t, os.Chtimes(one.at(name), time.Unix(1e9, 0), time.Unix(1e9, int64(d))))
			}
			check(t, os.Symlink("c/f1", one.at(fmt.Sprintf("a%d/b%d/link", d%10, d))))
			check(t, os.Link(one.at(fmt.Sprintf("a%d/b%d/c/f0", d%10, d)), one.at(fmt.Sprintf("a%d/hard%d", d%10, d))))
			check(t, unix.Mkfifo(one.at(fmt.Sprintf("a%d/b%d/fifo", d%10, d)), 0o600))
		}
		want = scanTree(t, one.mnt)
	})
	two.umount()
	const lines = 2400 // about what find prints
	rnd := rand.New(rand.NewSource(effort.Seed(t)))
	rounds := effort.Count(t, 6, 48)
	for round := range rounds {
		two.startForeground()
		killInFind(t, two, 1+lines*round/rounds+rnd.Intn(lines/rounds))
	}
	two.mount()
	sameTree(t, scanTree(t, two.mnt), want, "after kills in the middle of listings")
	two.umount()
	fsck(t, two.cold())
	three := newVolume(t, "three", withSource(two.source)).mount()
	sameTree(t, scanTree(t, three.mnt), want, "the machine after that")
	three.umount()
}

// killInFind kills the daemon when find has printed so many lines.
func killInFind(t *testing.T, v *volume, lines int) {
	t.Helper()
	find := command{args: []string{"find", v.mnt, "-ls"}}.prepare(t.Context())
	out, err := find.StdoutPipe()
	check(t, err)
	check(t, find.Start())
	for in := bufio.NewScanner(out); in.Scan(); {
		if lines--; lines == 0 {
			check(t, v.fg.Process.Kill())
		}
	}
	_ = find.Wait() // its files went away under it
	v.kill()
}

// TestKilledWhileReleasing: killed in the middle of `emberfs tier`, no byte is lost and no file is half there.
func TestKilledWhileReleasing(t *testing.T) {
	deadline(t, 15*time.Minute)
	v := newVolume(t, "v", onlyByCommand()).mount()
	content := map[string]string{}
	v.umount()
	rnd := rand.New(rand.NewSource(effort.Seed(t)))
	for round := range effort.Count(t, 6, 100) {
		v.startForeground()
		v.holds(content)
		for name := range v.fill(fmt.Sprintf("d%d", round%3), 100, 50_000+round) { // over files of an earlier round
			content[name] = string(opBytes(name, 50_000+round))
		}
		v.sync()
		v.killDuring("tier", time.Duration(rnd.Int63n(int64(40*time.Millisecond))))
	}
	v.mount()
	v.holds(content)
	v.release()
	v.remount()
	v.holds(content)
	v.umount()
	fsck(t, v.cold())
}
