//go:build slow

package integration

import (
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestFlagsNextMachine: the flags of chattr(1) are there after a kill and on the next machine, are obeyed there, and a
// copy has them.
func TestFlagsNextMachine(t *testing.T) {
	t.Parallel()
	lookPath(t, "lsattr", "chattr")
	onAndOff(t, "tiering_", 2*time.Minute, func(t *testing.T, tiering string) {
		repo := newBareRepo(t, "remote.git", user{})
		one := newVolume(t, "one", withSource(repo)).mount()
		check(t, os.MkdirAll(one.at("d/sub"), 0o755))
		for _, name := range []string{"f", "d/log", "d/sub/dump"} {
			check(t, os.WriteFile(one.at(name), []byte(name), 0o644))
		}
		must(t, one.mnt, "sh", "-ec", "chattr +i f; chattr +a d/log; chattr +dA d/sub/dump; chattr +a d; chattr "+
			"+d .")
		list := func(v *volume) string {
			return strings.ReplaceAll(must(t, v.mnt, "lsattr", "-d", ".", "f", "d", "d/log", "d/sub", "d/sub/dump"),
				"-", "")
		}
		want := list(one)
		if want != "d .\ni f\na d\na d/log\n d/sub\ndA d/sub/dump\n" {
			t.Fatalf("lsattr: %q", want)
		}
		one.sync()
		one.kill()
		one.mount()
		equal(t, list(one), want, "after a kill")
		one.umount()

		two := newVolume(t, "two", withSource(repo), withOpts("tiering="+tiering)).mount()
		equal(t, list(two), want, "the next machine has")
		if err := os.Remove(two.at("f")); err != unix.EPERM && !os.IsPermission(err) {
			t.Errorf("an immutable file is removed: %v", err)
		}
		must(t, two.mnt, "sh", "-ec", "echo more >>d/log; cat f d/log d/sub/dump >/dev/null; echo new >d/new")
		if st := two.status(); len(st.LeftOut)+len(st.Errors) > 0 {
			t.Errorf("status lists %q, %q", st.LeftOut, st.Errors)
		}
		two.mustBeSound(two.mnt)
		two.sync()
		if r := two.emberfs("diff", repo, "main~1", "main"); strings.Contains(r.stdout, "flags") {
			t.Errorf("no flag was changed: %v", r)
		}
		must(t, two.mnt, "sh", "-ec", "chattr -i f; chattr -R -a d; rm f")
		two.sync()
		if r := two.emberfs("diff", repo, "main~1", "main"); !strings.Contains(r.stdout,
			"flags of chattr 0x20 -> 0x0") {
			t.Errorf("diff does not tell of flags: %v", r)
		}
		last := revision(t, repo)
		two.umount() // which makes a commit more, that the session ended
		fsck(t, repo)

		to := two.dir + "/copy"
		r := two.emberfs("restore", "--from", repo, "--commit", last+"~1", "--to", to)
		got, err := os.ReadFile(to + "/d/log")
		if r.code != 0 || err != nil || string(got) != "d/logmore\n" {
			t.Errorf("restore: %q, %v\n%v", got, err, r)
		}
		shown := must(t, to, "lsattr", "-d", "f", "d/log")
		must(t, to, "chattr", "-R", "-i", "-a", ".")
		if !strings.Contains(strings.Fields(shown)[0], "i") || !strings.Contains(strings.Fields(shown)[2], "a") {
			t.Errorf("the copy has %q", shown)
		}
	})
}
