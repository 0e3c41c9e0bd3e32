//go:build slow

package integration

import (
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"emberfs/integration/effort"
)

// TestGitBesideCommits runs git's own housekeeping and readers in cold.git, over and over, while the daemon makes
// hundreds of commits there and reads old ones: no command fails, no commit fails, nothing is lost.
func TestGitBesideCommits(t *testing.T) {
	deadline(t, 14*time.Minute)
	commits := effort.Count(t, 300, 1000)
	v := newVolume(t, "v").mount()
	check(t, os.MkdirAll(v.at("d"), 0o755))
	for i := range 50 {
		check(t, os.WriteFile(v.at(fmt.Sprintf("d/%d", i)), fmt.Appendf(nil, "file %d\n", i), 0o644))
	}
	v.sync()
	first := revision(t, v.cold())
	must(t, "/", "git", "-C", v.cold(), "tag", "first") // git bundle refuses a branch that moves meanwhile

	var stop atomic.Bool
	var wg sync.WaitGroup
	var rounds [2]atomic.Int64
	// Where git does not find an object, it looks for new packs once, and gives up if those went away as well before it
	// opened them. On a machine under load two repacks come between. What is lost, it does not find the second time
	// either, and fsck below sees it.
	var missed atomic.Int64
	loop := func(n int, lines ...string) {
		wg.Go(func() {
			for !stop.Load() && !t.Failed() {
				for _, line := range lines {
					c := command{args: []string{"sh", "-ec", line}, dir: v.cold(), limit: 2 * time.Minute}
					r, err := c.try()
					if err == nil && r.code != 0 && strings.Contains(r.stderr, "unable to read") && missed.Add(1) <= 3 {
						t.Logf("again: %v", r)
						r, err = c.try()
					}
					if err != nil || r.code != 0 {
						t.Errorf("%v: %v", err, r)
						return
					}
				}
				rounds[n].Add(1)
			}
		})
	}
	// --no-local: a clone by hard links is a copy of files, which git itself says to be no good beside changes.
	scratch := filepath.Join(testDir(t), "scratch")
	loop(0, "git gc -q --prune=now", "git repack -adq", "git prune --expire=now", "git repack -q",
		"git pack-refs --all", "sleep 0.1")
	loop(1, "git log --stat -20 -- d/7 >/dev/null", "git log --oneline | wc -l >/dev/null", "git diff "+first+
		" main --stat >/dev/null",
		"git show main:d/7 >/dev/null", "git blame main -- d/7 >/dev/null", "rm -rf "+scratch+
			"; git clone -q --no-local . "+scratch+"; git -C "+scratch+" fsck --strict",
		"git bundle create -q "+scratch+".bundle first; rm -f "+scratch+".bundle")

	rnd := rand.New(rand.NewSource(effort.Seed(t)))
	at := map[string]string{} // commit -> what d/7 held
	text := "file 7\n"
	for i := range commits {
		text = fmt.Sprintf("%scommit %d\n", text[max(0, len(text)-2000):], i)
		check(t, os.WriteFile(v.at("d/7"), []byte(text), 0o644))
		check(t, os.WriteFile(v.at(fmt.Sprintf("d/%d", rnd.Intn(200))), fmt.Appendf(nil, "%d %d", i, rnd.Int63()),
			0o644))
		if b, err := os.ReadFile(v.at("d/7")); err != nil || string(b) != text {
			text = string(b) // the random file may have been this one
		}
		v.sync()
		if i%25 == 0 {
			at[revision(t, v.cold())] = text
		}
		if t.Failed() {
			break
		}
	}
	stop.Store(true)
	wg.Wait()
	t.Logf("%d rounds of housekeeping, %d of readers", rounds[0].Load(), rounds[1].Load())
	if rounds[0].Load() < 3 || rounds[1].Load() < 1 {
		t.Errorf("the commits ended before git had done anything beside them")
	}
	v.umount()
	fsck(t, v.cold())
	if got := strings.TrimSpace(must(t, "/", "git", "-C", v.cold(), "rev-list", "--count", "main")); got != fmt.Sprint(
		commits+1) {
		t.Errorf("%s commits, want %d", got, commits+1)
	}
	for id, want := range at {
		if got := show(t, v.cold(), id+":d/7"); got != want {
			t.Errorf("commit %s has another d/7", id)
		}
	}
	v.mount()
	if b, err := os.ReadFile(v.at("d/7")); err != nil || string(b) != text {
		t.Errorf("d/7 after a new mount: %v", err)
	}
	v.umount()
}

// TestStockClientEdits: what a user does in a clone and pushes is the next state of the volume: on a new machine, on
// the one that made the commit before, and on one that comes after the first of them has committed it anew.
func TestStockClientEdits(t *testing.T) {
	big := make([]byte, 9<<20) // 144 chunks of 64 KiB
	rand.New(rand.NewSource(4)).Read(big)
	cases := []struct {
		name string
		git  string // in the clone
		// look inspects the mount by a shell script that fails where something is wrong.
		look string
	}{
		{"edits a file", `echo edited >d/a`, `[ "$(cat d/a)" = edited ]; [ "$(stat -c %a:%u:%g d/a)" = 640:12:13 ]`},
		{"edits a file with attributes", `echo edited >d/attr`,
			`[ "$(getfattr --only-values -n user.note d/attr)" = kept ]`},
		{"edits a suid file", `echo edited >suid`, `[ "$(stat -c %a suid)" = 755 ]`},
		{"adds a file", `echo new >d/new`, `[ "$(cat d/new)" = new ]; [ "$(stat -c %a:%u d/new)" = 644:0 ]`},
		{"adds a directory", `mkdir -p x/y; echo new >x/y/z`,
			`[ "$(cat x/y/z)" = new ]; [ "$(stat -c %a x/y)" = 755 ]`},
		{"renames a file", `git mv d/a d/moved`, `[ "$(cat d/moved)" = a ]; [ ! -e d/a ]`},
		{"renames a directory", `git mv d e`,
			`[ "$(cat e/a)" = a ]; [ "$(stat -c %a:%u:%g e/a)" = 640:12:13 ]; [ ! -e d ]; [ "$(stat -c %a e)" = 750 ]`},
		{"deletes a file", `git rm -q d/a`, `[ ! -e d/a ]; [ "$(cat d/b)" = b ]`},
		{"drops a directory", `git rm -qr d`, `[ ! -e d/a ]; [ "$(cat script)" = script ]`},
		{"sets an executable bit", `chmod +x script`, `[ "$(stat -c %a script)" = 750 ]`},
		{"clears an executable bit", `chmod -x tool`, `[ "$(stat -c %a tool)" = 644 ]`},
		{"edits a symlink", `ln -sfn nowhere link`, `[ "$(readlink link)" = nowhere ]`},
		{"makes a file a symlink", `rm d/a; ln -s b d/a`, `[ "$(readlink d/a)" = b ]`},
		{"makes a file a directory", `rm d/a; mkdir d/a; echo in >d/a/in`, `[ "$(cat d/a/in)" = in ]`},
		{"makes a directory a file", `git rm -qr d; echo flat >d`, `[ "$(cat d)" = flat ]`},
		{"edits one name of a hard-linked file", `echo apart >d/linked`,
			`[ "$(cat d/linked)" = apart ]; [ "$(cat links)" = links ]; [ "$(stat -c %h links)" = 1 ]`},
		{"edits a chunk", `printf XXXX | dd of=big/00000007 conv=notrunc status=none`,
			`[ "$(stat -c %s big)" = 9437184 ]; [ "$(dd if=big bs=65536 skip=7 count=1 status=none | head -c 4)" = XXXX ]`},
		{"cuts the last chunk", `truncate -s 100 big/00000143`, `[ "$(stat -c %s big)" = $((143 * 65536 + 100)) ]`},
		{"drops a big file", `git rm -qr big`, `[ ! -e big ]`},
		{"adds names that emberfs escapes", `mkdir sub; printf '* text\n' >sub/.gitattributes; echo i >sub/.gitignore`,
			`[ "$(cat sub/.gitattributes)" = '* text' ]; [ "$(cat sub/.gitignore)" = i ]`},
		{"merges", `git checkout -qb side HEAD; echo side >side; git add -A; git commit -qm side; git checkout -q main; echo main2 >main2; git add -A; git commit -qm main2; git merge -q -m merged side`,
			`[ "$(cat side main2)" = "side
main2" ]`},
		{"reverts", `echo twice >d/a; git commit -qam twice; git revert --no-edit HEAD >/dev/null`,
			`[ "$(cat d/a)" = a ]`},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			deadline(t, 3*time.Minute)
			repo := newBareRepo(t, "remote.git", user{})
			one := newVolume(t, "one", withSource(repo)).mount()
			shell(t, one.mnt, `mkdir d; echo a >d/a; echo b >d/b; chmod 750 d; chmod 640 d/a; chown 12:13 d/a; echo script >script; chmod 640 script; echo tool >tool; chmod 755 tool
				echo attr >d/attr; setfattr -n user.note -v kept d/attr; echo suid >suid; chmod 4755 suid; ln -s d/a link; echo links >links; ln links d/linked; mkfifo fifo; mkdir empty`)
			check(t, os.WriteFile(one.at("big"), big, 0o644))
			one.umount()
			clone := filepath.Join(testDir(t), "clone")
			shell(t, "/", "git clone -q "+repo+" "+clone+"; cd "+clone+"\n"+c.git+
				"\ngit add -A; git diff --cached --quiet || git commit -qm 'by hand'; git push -q")
			var want map[string]string
			for _, v := range []*volume{newVolume(t, "two", withSource(repo)), one,
				newVolume(t, "three", withSource(repo))} {
				v.mount()
				for _, name := range []string{"fifo", "empty"} {
					if _, err := os.Lstat(v.at(name)); err != nil {
						t.Errorf("what git cannot hold is gone: %v", err)
					}
				}
				shell(t, v.mnt, "set -x\n"+c.look)
				if want == nil {
					want = scanTree(t, v.mnt)
				}
				sameTree(t, scanTree(t, v.mnt), want, "on "+v.dir)
				v.umount()
			}
			fsck(t, repo)
		})
	}
}
