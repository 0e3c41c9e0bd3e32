//go:build slow

package integration

import (
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"emberfs/integration/effort"
	"emberfs/integration/gitserver"
)

// netTree fills a directory with many files, a big one, odd names, links, modes and times.
func netTree(t testing.TB, dir string) {
	t.Helper()
	at := func(name string) string { return dir + "/" + name }
	check(t, os.Mkdir(at("names"), 0o755))
	for _, n := range oddNames() {
		check(t, os.WriteFile(at("names/"+n), []byte("file "+n), 0o644))
	}
	for i := range 400 {
		check(t, os.MkdirAll(at(fmt.Sprintf("many/d%d", i%10)), 0o750))
		check(t, os.WriteFile(at(fmt.Sprintf("many/d%d/f%d", i%10, i)), fmt.Appendf(nil, "content %d", i), 0o640))
	}
	check(t, os.WriteFile(at("big"), noise(20<<20, "big"), 0o600))
	check(t, os.WriteFile(at("middle"), noise(5<<20, "middle"), 0o644))
	check(t, os.WriteFile(at("script"), []byte("#!/bin/sh\n"), 0o644))
	check(t, os.Chmod(at("script"), 0o755))
	check(t, os.Symlink("many/d1/f1", at("link")))
	check(t, os.Symlink("nowhere\xff", at("dangling")))
	check(t, os.Link(at("many/d1/f1"), at("second name")))
	check(t, os.Chown(at("many/d2/f2"), 12, 13))
	for i, n := range []string{"script", "many/d3", "many/d3/f3"} {
		when := []unix.Timespec{ts(1e9, 0), ts(int64(1_000_000_000+i), 123456789)}
		check(t, unix.UtimesNanoAt(unix.AT_FDCWD, at(n), when, unix.AT_SYMLINK_NOFOLLOW))
	}
}

// TestNetRoundTrip: what one machine writes another one has to the byte, over each transport, and each follows what the
// other changed; a stock clone has it too.
func TestNetRoundTrip(t *testing.T) {
	eachTransport(t, 3*time.Minute, transports(), roundTrip)
}

func roundTrip(t *testing.T, s *gitserver.Server) {
	one := remoteVolume(t, "one", s, 0).mount()
	netTree(t, one.mnt)
	one.sync()
	want := scanTree(t, one.mnt)
	one.umount()
	fsck(t, s.Repo)
	clone := filepath.Join(testDir(t), "clone")
	command{args: []string{"git", "clone", "-q", "-b", "main", s.Source(), clone}, env: s.Env}.must(t)
	wantFile(t, clone+"/middle", string(noise(5<<20, "middle")), "a clone has")
	wantFile(t, clone+"/many/d7/f17", "content 17", "a clone has")
	if to, err := os.Readlink(clone + "/dangling"); err != nil || to != "nowhere\xff" {
		t.Errorf("a clone's link leads to %q, %v", to, err)
	}
	if st, err := os.Stat(clone + "/script"); err != nil || st.Mode()&0o100 == 0 {
		t.Errorf("a clone's script: %v, %v", st, err)
	}

	two := remoteVolume(t, "two", s, 0).mount()
	sameTree(t, scanTree(t, two.mnt), want, "the next machine")
	two.write("many/d1/f1", "changed by two")
	check(t, os.Rename(two.at("many/d4"), two.at("moved")))
	check(t, os.Remove(two.at("middle")))
	f, err := os.OpenFile(two.at("big"), os.O_WRONLY, 0)
	check(t, err)
	_, err = f.WriteAt([]byte("changed"), 10<<20)
	check(t, err)
	check(t, f.Close())
	want = scanTree(t, two.mnt)
	two.umount()

	one.mount()
	sameTree(t, scanTree(t, one.mnt), want, "the first machine again")
	one.umount()
	fsck(t, s.Repo)
}

// TestNetKilled: the daemon is killed in the middle of a sync; the next start pushes, without being asked, and nothing
// that was written is lost.
func TestNetKilled(t *testing.T) {
	eachTransport(t, 3*time.Minute, transports(), func(t *testing.T, s *gitserver.Server) {
		rnd := rand.New(rand.NewSource(effort.Seed(t)))
		v := remoteVolume(t, "v", s, 0)
		files := map[string]string{}
		for round := range effort.Count(t, 4, 40) {
			v.startForeground()
			for name, content := range files {
				wantFile(t, v.at(name), content, "%s", name)
			}
			name, content := fmt.Sprint("f", round), string(noise(100_000, fmt.Sprint(round)))
			v.write(name, content)
			files[name] = content
			v.killDuring("sync", time.Duration(rnd.Int63n(int64(300*time.Millisecond))))
		}
		v.mount()
		if !waitFor(convergesIn, func() bool {
			time.Sleep(50 * time.Millisecond)
			return v.status().AtRisk.Files == 0
		}) {
			t.Errorf("a minute after the start of a killed daemon's volume: %v", v.emberfs("status", v.mnt))
		}
		v.remoteSound(s, files)
		v.umount()
	})
}
