//go:build slow

package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestSourceSpoiled: a SOURCE that git reads as empty, or would wait for, is refused at once with what is wrong, and
// nothing is pushed over it.
func TestSourceSpoiled(t *testing.T) {
	t.Parallel()
	deadline(t, time.Minute)
	for _, c := range []struct{ how, says string }{
		{"echo ref: refs/heads/main >refs/heads/main", "refs/heads/main"},
		{": >refs/heads/main", "refs/heads/main"},
		{"rm refs/heads/main; mkfifo refs/heads/main", "refs/heads/main"},
		{"rm refs/heads/main; mkfifo $R.fifo; ln -s $R.fifo refs/heads/main", "refs/heads/main"},
		{"rm -f packed-refs; mkfifo packed-refs", "packed-refs"},
		{"mkdir -p refs/heads/emberfs-live/main; mkfifo refs/heads/emberfs-live/main/1", "emberfs-live"},
		{"rm HEAD; mkfifo HEAD", "HEAD"},
	} {
		repo := newBareRepo(t, "remote.git", user{})
		v := newVolume(t, "v", withSource(repo)).mount()
		check(t, os.WriteFile(v.at("f"), []byte("x"), 0o644))
		v.umount()
		shell(t, repo, "R="+repo+"; "+c.how)
		fresh := newVolume(t, "fresh", withSource(repo))
		r := fresh.tryMount()
		if r.code != 32 || !strings.Contains(r.stderr, c.says) || r.took > 20*time.Second {
			t.Errorf("%s: want exit 32 soon, and %s named\n%v", c.how, c.says, r)
		}
		if r.code == 0 {
			fresh.umount()
		}
		if c.says == "HEAD" { // then it is no repository at all
			continue
		}
		// The volume that has it all goes on, says that nothing is pushed, and does not hang.
		v.mount()
		check(t, os.WriteFile(v.at("f"), []byte("y"), 0o644))
		if r := v.emberfs("sync", v.mnt); r.code != 3 || !strings.Contains(r.stdout+r.stderr, c.says) {
			t.Errorf("%s: sync: want exit 3, and %s named\n%v", c.how, c.says, r)
		}
		if r := v.emberfs("umount", v.mnt); r.code != 3 {
			t.Errorf("%s: umount: want exit 3\n%v", c.how, r)
		}
		must(t, "/", "rm", "-rf", repo, repo+".fifo", v.dir, fresh.dir)
	}
}

// TestSourceHead: a clone of what was an empty repository checks the volume out, whatever branch its HEAD named; one
// with other branches is left as it is, and the volume that was told to begin there says that it begins empty.
func TestSourceHead(t *testing.T) {
	t.Parallel()
	deadline(t, time.Minute)
	repo := newBareRepo(t, "empty.git", user{})
	must(t, repo, "git", "symbolic-ref", "HEAD", "refs/heads/master")
	v := newVolume(t, "v", withSource(repo)).mount()
	check(t, os.WriteFile(v.at("f"), []byte("x"), 0o644))
	v.umount()
	clone := filepath.Join(testDir(t), "clone")
	must(t, "/", "git", "clone", "-q", repo, clone)
	wantFile(t, clone+"/f", "x", "a clone has")

	other := newBareRepo(t, "other.git", user{})
	must(t, other, "git", "symbolic-ref", "HEAD", "refs/heads/trunk")
	shell(t, clone, "git push -q "+other+" HEAD:refs/heads/trunk")
	w := newVolume(t, "w", withSource(other)).mount("--init")
	if st := w.status(); !strings.Contains(strings.Join(st.Errors, "\n"), "trunk") {
		t.Errorf("status does not name the branch that there is: %q", st.Errors)
	}
	check(t, os.WriteFile(w.at("f"), []byte("y"), 0o644))
	w.sync()
	if st := w.status(); len(st.Errors) != 0 {
		t.Errorf("once it has its branch: %q", st.Errors)
	}
	w.umount()
	if head := must(t, other, "git", "symbolic-ref", "HEAD"); strings.TrimSpace(head) != "refs/heads/trunk" {
		t.Errorf("HEAD of a repository with branches went to %s", head)
	}
}

// TestLookCommitsNothing: a look at a repository that EmberFS never wrote commits and pushes nothing; the first change
// does, with the metadata of everything, and so does what a look that was killed may have left.
func TestLookCommitsNothing(t *testing.T) {
	t.Parallel()
	deadline(t, time.Minute)
	repo := newBareRepo(t, "remote.git", user{})
	clone := filepath.Join(testDir(t), "clone")
	shell(t, "/", "git clone -q "+repo+" "+clone+" 2>/dev/null; cd "+clone+
		"; git checkout -qb main; mkdir -p d/e; echo one >f; echo two >d/e/g; ln -s f l; git add -A; git commit -qm "+
		"stock; git push -q origin main")
	before := revision(t, repo)
	unchanged := func(what string) {
		t.Helper()
		if got := revision(t, repo); got != before {
			t.Errorf("%s made commit %s: %s", what, got, must(t, "/", "git", "-C", repo, "log", "-1", "--format=%B",
				"main"))
		}
	}
	for _, opts := range [][]string{nil, {"tiering=off"}} {
		v := newVolume(t, "v", withSource(repo), withOpts(opts...))
		for range 2 { // the second time with the state of the first
			v.mount()
			must(t, v.mnt, "find", ".", "-type", "f", "-exec", "cat", "{}", "+")
			if r := v.emberfs("sync", v.mnt); r.code != 0 || !strings.Contains(r.stdout, "COMPLETE") {
				t.Errorf("sync: %v", r)
			}
			if st := v.status(); st.AtRisk.Files != 0 || len(st.Errors) != 0 {
				t.Errorf("status: %+v %q", st.AtRisk, st.Errors)
			}
			unchanged("sync after a look")
			v.umount()
			unchanged("umount after a look")
		}
		must(t, "/", "rm", "-rf", v.dir)
	}
	v := newVolume(t, "w", withSource(repo)).mount()
	must(t, v.mnt, "ls", "-lR")
	check(t, os.Chmod(v.at("d/e/g"), 0o600))
	v.umount()
	if got := revision(t, repo); got == before {
		t.Error("the first change is not committed")
	}
	next := newVolume(t, "x", withSource(repo)).mount()
	if st, err := os.Stat(next.at("d/e/g")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the next machine has %v, %v", st, err)
	}
	next.umount()
}

// TestSourceRefusedWithTheWayOut: what kind of repository cannot be a SOURCE is said in our words, with what to do.
func TestSourceRefusedWithTheWayOut(t *testing.T) {
	t.Parallel()
	deadline(t, time.Minute)
	for _, c := range []struct{ how, why, do string }{
		{"git config core.repositoryformatversion 1; git config extensions.refStorage reftable", "reftable",
			"git refs migrate"},
		{"git config core.repositoryformatversion 1; git config extensions.partialClone origin", "partial clone",
			"git clone --bare"},
		{"cd ..; rm -rf $R; git init -q --bare --object-format=sha256 $R", "sha256", "--object-format=sha1"},
		{"chown -R 1000 .", "somebody else", "chown -R"},
	} {
		repo := newBareRepo(t, "remote.git", user{})
		shell(t, repo, "R="+repo+"; "+c.how)
		v := newVolume(t, "v", withSource(repo))
		r := v.tryMount()
		if r.code != 32 || !strings.Contains(r.stderr, c.why) || !strings.Contains(r.stderr, c.do) {
			t.Errorf("%s: want exit 32, %q and %q\n%v", c.how, c.why, c.do, r)
		}
		if r.code == 0 {
			v.umount()
		}
		must(t, "/", "rm", "-rf", repo, v.dir)
	}
}
