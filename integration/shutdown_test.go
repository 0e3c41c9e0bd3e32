//go:build slow

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMountDisappears: however a mount is taken away, the backup is finished, and what was written late by those who
// still hold files open is in the next mount.
func TestMountDisappears(t *testing.T) {
	ways := map[string]func(*testing.T, *volume){
		"umount-l":      func(t *testing.T, v *volume) { must(t, "/", "umount", "-l", v.mnt) },
		"fusermount3-z": func(t *testing.T, v *volume) { must(t, "/", "fusermount3", "-u", "-z", v.mnt) },
		"sigterm":       func(t *testing.T, v *volume) { check(t, v.fg.Process.Signal(unix.SIGTERM)) },
		"sigint":        func(t *testing.T, v *volume) { check(t, v.fg.Process.Signal(unix.SIGINT)) },
		"sigterm_twice": func(t *testing.T, v *volume) {
			check(t, v.fg.Process.Signal(unix.SIGTERM))
			_ = v.fg.Process.Signal(unix.SIGTERM)
		},
	}
	for name, take := range ways {
		for _, busy := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/busy=%v", name, busy), func(t *testing.T) { mountDisappears(t, take, busy) })
		}
	}
}

func mountDisappears(t *testing.T, take func(*testing.T, *volume), busy bool) {
	deadline(t, 2*time.Minute)
	repo := newBareRepo(t, "remote.git", user{})
	v := newVolume(t, "v", withSource(repo))
	v.startForeground()
	check(t, os.WriteFile(v.at("early"), []byte("early"), 0o644))
	var f *os.File
	if busy {
		var err error
		f, err = os.Create(v.at("busy"))
		check(t, err)
		defer f.Close()
	}
	take(t, v)
	if !waitFor(30*time.Second, func() bool { return mountAt(v.mnt) == nil }) {
		t.Fatalf("still mounted")
	}
	want := map[string]string{"early": "early"}
	if busy {
		_, err := f.WriteString("late")
		check(t, err)
		check(t, f.Close())
		want["busy"] = "late"
	}
	if code := v.waitForeground(time.Minute); code != 0 {
		t.Errorf("the daemon ended with %d", code)
	}
	for name, content := range want {
		equal(t, show(t, repo, "main:"+name), content, "remote: %s holds", name)
	}
	v.mount()
	for name, content := range want {
		wantFile(t, v.at(name), content, "next mount: %s holds", name)
	}
	if st := v.status(); st.AtRisk.Files != 0 {
		t.Errorf("next mount: %+v at risk", st.AtRisk)
	}
	v.umount()
}

// TestFusermountByPlainUser: the same for a plain user's own `fusermount3 -u`.
func TestFusermountByPlainUser(t *testing.T) {
	deadline(t, time.Minute)
	u := plainUser()
	v := newVolume(t, "v", withUser(u)).mount()
	check(t, asUser(u, func() error { return os.WriteFile(v.at("f"), []byte("x"), 0o644) }))
	command{args: []string{"fusermount3", "-u", v.mnt}, as: u, env: v.userEnv()}.must(t)
	v.waitGone()
	equal(t, show(t, v.cold(), "main:f"), "x", "cold holds")
}

// TestUmountBusy: a busy mount stays usable, and what is written afterwards is in the next backup.
func TestUmountBusy(t *testing.T) {
	deadline(t, time.Minute)
	v := newVolume(t, "v").mount()
	f, err := os.Create(v.at("f"))
	check(t, err)
	defer f.Close()
	r := v.emberfs("umount", v.mnt)
	if r.code != 1 || !strings.Contains(strings.ToLower(r.stderr), "busy") {
		t.Errorf("umount of a busy mount: want exit 1 and a word about it\n%v", r)
	}
	if mountAt(v.mnt) == nil {
		t.Fatalf("a failed umount took the mount away")
	}
	_, err = f.WriteString("after the failed umount")
	check(t, err)
	check(t, f.Close())
	v.umount()
	equal(t, show(t, v.cold(), "main:f"), "after the failed umount", "cold holds")
}

// TestBackupInterval: what changed is committed without anybody asking, and a writer is never in its way.
func TestBackupInterval(t *testing.T) {
	deadline(t, time.Minute)
	v := newVolume(t, "v", withOpts("backup_interval=1s")).mount()
	check(t, os.WriteFile(v.at("f"), []byte("x"), 0o644))
	if !waitFor(20*time.Second, func() bool {
		return command{args: []string{"git", "-C", v.cold(), "cat-file", "-e", "main:f"}}.succeeds()
	}) {
		t.Errorf("no commit within 20 s at backup_interval=1s")
	}
	first := revision(t, v.cold())
	check(t, os.WriteFile(v.at("g"), []byte("y"), 0o644))
	waitFor(20*time.Second, func() bool { return revision(t, v.cold()) != first })
	second := revision(t, v.cold())
	equal(t, strings.TrimSpace(must(t, "/", "git", "-C", v.cold(), "rev-parse", "main^")), first,
		"the second commit %s has the parent", second)
	v.umount()
	log := must(t, "/", "git", "-C", v.cold(), "log", "--format=%B", "main")
	for _, trailer := range []string{"Emberfs-Volume:", "Emberfs-Machine:", "Emberfs-Reason: interval",
		"Emberfs-Files:", "Emberfs-Bytes:"} {
		if !strings.Contains(log, trailer) {
			t.Errorf("commit messages lack %q:\n%s", trailer, log)
		}
	}
	receipts, err := filepath.Glob(filepath.Join(v.state, "receipts", "*.json"))
	if err != nil || len(receipts) == 0 {
		t.Errorf("no receipts: %v", err)
	}
}

// TestOpenFilesAreCommitted: a file that stays open for writing is in each commit as it was at that moment.
func TestOpenFilesAreCommitted(t *testing.T) {
	deadline(t, time.Minute)
	v := newVolume(t, "v").mount()
	f, err := os.Create(v.at("db"))
	check(t, err)
	for i := range 5 {
		content := fmt.Sprintf("state %d", i)
		_, err := f.WriteAt([]byte(content), 0)
		check(t, err)
		v.sync()
		equal(t, show(t, v.cold(), "main:db"), content, "commit %d holds", i)
	}
	m, err := unix.Mmap(int(f.Fd()), 0, 7, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	check(t, err)
	check(t, f.Close())
	copy(m, "mapped!")
	v.sync()
	if got := show(t, v.cold(), "main:db"); got != "mapped!" {
		t.Errorf("a commit holds %q, the mapping says otherwise", got)
	}
	copy(m, "again!!")
	check(t, unix.Munmap(m))
	v.umount()
	equal(t, show(t, v.cold(), "main:db"), "again!!", "the last commit holds")
}
