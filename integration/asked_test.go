//go:build slow

package integration

import (
	"os"
	"strings"
	"testing"
	"time"
)

// TestPushedIsAsked: whoever says that the remote has something has asked it in this very moment: sync, umount, fsync:
// remote, and releases from warm. What the remote has lost comes back, or is said.
func TestPushedIsAsked(t *testing.T) {
	for _, c := range []struct {
		what, how string
		comesBack bool
	}{
		{"moved back", `git -C $R update-ref refs/heads/main main~1`, true},
		{"deleted", `git -C $R update-ref -d refs/heads/main`, true},
		{"replaced by an empty one", `mv $R $R.old; git init -q --bare -b main $R`, true},
		{"gone", `mv $R $R.old`, false},
	} {
		t.Run(strings.ReplaceAll(c.what, " ", "_"), func(t *testing.T) {
			t.Parallel()
			deadline(t, time.Minute)
			repo := newBareRepo(t, "remote.git", user{})
			v := newVolume(t, "v", withSource(repo), onlyByCommand()).mount()
			v.rules("- {match: \"*.log\", class: critical, fsync: remote}\n")
			check(t, os.WriteFile(v.at("f"), []byte("one"), 0o644))
			v.sync()
			check(t, os.WriteFile(v.at("f"), []byte("two"), 0o644))
			f, err := os.Create(v.at("x.log"))
			check(t, err)
			defer f.Close()
			v.sync()
			spoil := func() {
				t.Helper()
				shell(t, "/", "R="+repo+"; "+c.how)
			}
			restored := func(what string, err error) {
				t.Helper()
				if (err == nil) != c.comesBack {
					t.Errorf("%s: %v", what, err)
				}
				if !c.comesBack {
					shell(t, "/", "mv "+repo+".old "+repo)
				} else if got := show(t, repo, "main:f"); got != "two" {
					t.Errorf("%s: the remote holds %q", what, got)
				}
			}
			spoil()
			restored("sync", v.emberfs("sync", v.mnt).failure())
			shell(t, "/", "rm -rf "+repo+".old")
			spoil()
			restored("fsync: remote", f.Sync())
			shell(t, "/", "rm -rf "+repo+".old")
			spoil()
			r := v.emberfs("tier", v.mnt)
			if released := strings.Contains(r.stdout, "released 1 file"); released != c.comesBack {
				t.Errorf("tier: %v", r)
			}
			restored("tier", r.failure())
			shell(t, "/", "rm -rf "+repo+".old")
			f.Close()
			spoil()
			restored("umount", v.emberfs("umount", v.mnt).failure())
		})
	}
}

// TestCopiedState: a copy of the state directory that lacks what says which files are in the repository only is
// refused, with the way out, and never taken for files of zeros and empty directories; a whole copy is as good as the
// first.
func TestCopiedState(t *testing.T) {
	t.Parallel()
	deadline(t, 2*time.Minute)
	repo := newBareRepo(t, "remote.git", user{})
	one := newVolume(t, "one", withSource(repo)).mount()
	check(t, os.MkdirAll(one.at("d/e"), 0o755))
	check(t, os.WriteFile(one.at("d/e/f"), []byte("precious"), 0o644))
	check(t, os.WriteFile(one.at("g"), []byte("precious"), 0o644))
	must(t, "/", env.bin, "tier", one.mnt)
	one.umount()
	before := revision(t, repo)
	two := newVolume(t, "two", withSource(repo)) // has unlisted directories
	two.mount()
	two.umount()
	for _, from := range []*volume{one, two} {
		for how, lossy := range map[string]bool{
			"rsync -a $F/ $T/": true, "cp -r $F $T": true,
			"mkdir $T; tar -C $F -cf - --exclude=control.sock . | tar -C $T -xf -": true,
			"cp -a $F $T; rm -rf $T/warm":                                          true,
			"cp -a $F $T; rm -rf $T/warm; cp -a $F.other/warm $T/warm":             true,
			"cp -a $F $T": false, "rsync -aHAX $F/ $T/": false,
		} {
			shell(t, "/", "rm -rf "+from.dir+"/copy "+from.state+".other; F="+from.state+" T="+from.dir+
				"/copy; cp -a $F $F.other; setfattr -n trusted.emberfs.volume -v other $F.other/warm; "+how)
			v := newVolume(t, "copy", withSource(repo), withState(from.dir+"/copy"))
			r := v.tryMount()
			if !lossy {
				if r.code != 0 {
					t.Errorf("%s: %v", how, r)
					continue
				}
				for _, name := range []string{"g", "d/e/f"} {
					wantFile(t, v.at(name), "precious", "%s: %s holds", how, name)
				}
				v.umount()
				continue
			}
			if r.code != 32 || !strings.Contains(r.stderr, "extended attributes") ||
				!strings.Contains(r.stderr, "new state directory") {
				t.Errorf("%s: want exit 32 and the way out\n%v", how, r)
			}
			if r.code == 0 {
				v.umount()
			}
			if r := v.emberfs("check", v.state); r.code == 0 || !strings.Contains(r.stdout, "extended attributes") {
				t.Errorf("%s: check says\n%v", how, r)
			}
			if r := v.emberfs("diff", v.state); r.code == 0 {
				t.Errorf("%s: diff says\n%v", how, r)
			}
		}
	}
	equal(t, revision(t, repo), before, "the remote went from %s to", before)
}
