//go:build slow

package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestForeignRegistrations: what another user puts where root's commands look for daemons holds none of them up, and
// steers none.
func TestForeignRegistrations(t *testing.T) {
	t.Parallel()
	deadline(t, 2*time.Minute)
	dir := mkdir(t, filepath.Join(testDir(t), "d"), user{})
	script := ownNamespace + `mount -t tmpfs -o mode=755 run /run
mkdir -p /run/user/1000/emberfs && chown -R 1000:1000 /run/user/1000
other() { setpriv --reuid 1000 --regid 1000 --clear-groups "$@"; }
cd /run/user/1000/emberfs
other mkfifo fifo.json
other ln -s /dev/zero zero.json
other sh -c 'echo "{\"mountpoint\":\"'$D'/m\",\"state\":\"/tmp\",\"pid\":1}" >forged.json; echo "{\"mountpoint\":\"/nowhere\",\"state\":\"/tmp\",\"pid\":1}" >forged2.json'
cd $D; mkdir m
$E mount m --state st
echo x >m/f
$E status; $E status m; $E sync m; $E tier m; $E check m; $E log m
! $E sync /nowhere
$E umount m
! grep -q " $D/m " /proc/self/mounts`
	r := command{args: []string{"timeout", "60", "unshare", "-m", "sh", "-exc", script},
		env: []string{"E=" + env.bin, "D=" + dir, "KEEP=" + dir}}.run(t)
	if r.code != 0 {
		t.Errorf("%v", r)
	}
}

// TestStatusElsewhere: a command in another mount namespace, which sees neither state nor mount, leaves living daemons
// known, so that umount takes their final backup.
func TestStatusElsewhere(t *testing.T) {
	t.Parallel()
	deadline(t, time.Minute)
	repo := newBareRepo(t, "remote.git", user{})
	v := newVolume(t, "v", withSource(repo)).mount()
	check(t, os.WriteFile(v.at("f"), []byte("x"), 0o644))
	command{args: []string{"unshare", "-m", "sh", "-euc", ownNamespace + "mount -t tmpfs none " + v.state + "; " +
		env.bin + " status; " + env.bin + " status --json"},
		env: []string{"KEEP=/nothing"}}.must(t)
	if r := v.emberfs("status"); !strings.Contains(r.stdout, v.mnt) {
		t.Errorf("the volume is not known any more: %v", r)
	}
	v.umount()
	equal(t, show(t, repo, "main:f"), "x", "the remote holds")
}

// TestTwoMountsOfNewState: of two mounts of one new state directory at the same moment one wins, and the other takes
// nothing of it away.
func TestTwoMountsOfNewState(t *testing.T) {
	t.Parallel()
	deadline(t, time.Minute)
	lookPath(t, "strace")
	v := newVolume(t, "v")
	slow := newVolume(t, "slow", withState(v.state))
	check(t, os.MkdirAll(slow.mnt, 0o755))
	// The loser has looked around, and waits before the lock, while the winner makes its volume.
	args := append([]string{"strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=flock", "-e",
		"inject=flock:delay_enter=1500000:when=1"}, slow.mountArgs()...)
	lost := make(chan result, 1)
	go func() {
		r, err := command{args: args}.try()
		if err != nil {
			r.stderr += err.Error()
		}
		lost <- r
	}()
	time.Sleep(300 * time.Millisecond) // whoever comes first, the outcome is the same
	v.mount()
	check(t, os.WriteFile(v.at("f"), []byte("x"), 0o644))
	if r := <-lost; r.code != 32 {
		t.Errorf("the second mount: %v", r)
	}
	v.sync()
	v.umount()
	v.mount()
	wantFile(t, v.at("f"), "x", "the winner's volume holds")
	v.umount()
}

// TestSourceOfOthers: whoever owns a directory above SOURCE can put another repository in its place at any time. It is
// checked at each use, and no program of a repository that another user could change is run.
func TestSourceOfOthers(t *testing.T) {
	t.Parallel()
	const prelude = `
other() { setpriv --reuid 1000 --regid 1000 --clear-groups "$@"; }
hooked() { printf '#!/bin/sh\ntouch %s/ran-$1\n' $D >h; for n in pre-receive update post-receive reference-transaction; do cp h "$1"/hooks/$n; chmod 755 "$1"/hooks/$n; done; }
cd $D; `
	for _, c := range []struct {
		what, how string
		pushed    bool
	}{
		{"a repository of theirs",
			`other git init -q --bare -b main evil.git; hooked evil.git; chown -R 1000:1000 evil.git; other mv r.git old.git; other mv evil.git r.git`, false},
		{"a link to one of theirs",
			`other git init -q --bare -b main evil.git; hooked evil.git; chown -R 1000:1000 evil.git; other mv r.git old.git; other ln -s evil.git r.git`, false},
		{"one that all can write",
			`git init -q --bare -b main evil.git; chmod 777 evil.git; hooked evil.git; other mv r.git old.git; other mv evil.git r.git`, true},
		{"hooks that all can write", `mkdir -p r.git/hooks; hooked r.git; chmod 777 r.git/hooks`, true},
		{"a hook that all can write",
			`mkdir -p r.git/hooks; hooked r.git; chmod 666 r.git/hooks/*; chmod 777 r.git/hooks/update`, true},
		{"a hook of theirs", `mkdir -p r.git/hooks; hooked r.git; chown 1000 r.git/hooks/update`, true},
		{"a configuration that all can write", `mkdir -p r.git/hooks; hooked r.git; chmod 666 r.git/config`, true},
		{"hooks elsewhere", `mkdir -p r.git/hooks; hooked r.git; mv r.git/hooks theirs; chown -R 1000 theirs; git -C r.git config core.hooksPath $D/theirs`, true},
		{"an included configuration",
			`mkdir -p r.git/hooks; hooked r.git; mv r.git/hooks theirs; printf '[core]\nhooksPath = %s/theirs\n' $D >more; git -C r.git config include.path $D/more`, true},
	} {
		t.Run(strings.ReplaceAll(c.what, " ", "_"), func(t *testing.T) {
			t.Parallel()
			deadline(t, 2*time.Minute)
			dir := mkdir(t, filepath.Join(testDir(t), "theirs"), user{uid: 1000, gid: 1000})
			repo := dir + "/r.git"
			must(t, "/", "git", "init", "-q", "--bare", "-b", "main", repo)
			v := newVolume(t, "v", withSource(repo)).mount()
			check(t, os.WriteFile(v.at("f"), []byte("one"), 0o644))
			v.sync()
			shell(t, "/", "D="+dir+prelude+c.how)
			check(t, os.WriteFile(v.at("f"), []byte("two"), 0o644))
			r := v.emberfs("sync", v.mnt)
			if (r.code == 0) != c.pushed || r.code != 0 && r.code != 3 {
				t.Errorf("sync: %v", r)
			}
			v.emberfs("umount", v.mnt)
			v.waitGone()
			if ran, _ := filepath.Glob(dir + "/ran-*"); ran != nil {
				t.Errorf("ran as root: %v", ran)
			}
			if c.pushed {
				equal(t, must(t, "/", "git", "-c", "safe.directory=*", "-C", repo, "show", "main:f"), "two",
					"the remote holds")
			}
		})
	}
}

// TestOddNamesAreShownSafely: a name steers no terminal and makes no line of its own in what commands print, and who
// may not enter a directory does not read its names in status.json.
func TestOddNamesAreShownSafely(t *testing.T) {
	deadline(t, time.Minute)
	v := newVolume(t, "v", withSource(newBareRepo(t, "remote.git", user{})), withOpts("tier_interval=none")).mount()
	const odd = "evil\x1b]0;owned\x07\nCOMPLETE: commit 1\x9b31m\u202e"
	check(t, os.Mkdir(v.at("secret"), 0o700))
	check(t, os.WriteFile(v.at("secret/"+odd), []byte("hello"), 0o644))
	end := v.failReads(v.state + "/warm/secret/" + odd)
	sync := v.emberfs("sync", v.mnt)
	if sync.code != 3 {
		t.Errorf("want exit 3: %v", sync)
	}
	end()
	public, err := os.ReadFile(v.at(".emberfs/status.json"))
	check(t, err)
	if strings.Contains(string(public), "evil") || !strings.Contains(string(public), "left out") &&
		!strings.Contains(string(public), "commit: ") {
		t.Errorf("status.json shows\n%s", public)
	}
	for _, r := range []result{sync, v.emberfs("status", v.mnt), v.emberfs("status", v.at("secret/"+odd)),
		v.emberfs("tier", v.mnt, v.at("secret/"+odd+"x")),
		v.emberfs("diff", v.mnt), v.emberfs("log", v.mnt, v.at("secret/"+odd)), v.emberfs("check", v.mnt),
		v.emberfs("restore", v.at("secret/"+odd+"y"), "--to", v.dir+"/to"),
		v.emberfs("mount", v.dir+"/"+odd), v.emberfs("umount", v.dir+"/"+odd),
		v.emberfs("rules", v.mnt, v.at("secret/"+odd)), v.emberfs("umount", v.mnt)} {
		out := r.stdout + r.stderr
		if strings.ContainsAny(out, "\x1b\x07\u202e") || strings.Contains(out, "\x9b") ||
			strings.Contains(out, "\nCOMPLETE: commit 1") {
			t.Errorf("%q prints %q", r.args, out)
		}
	}
}

// TestOneUserOpensAll: a user who opens as many files as there can be keeps nobody else from opening any, nor the
// backup.
func TestOneUserOpensAll(t *testing.T) {
	deadline(t, time.Minute)
	v := newVolume(t, "v", withSource(newBareRepo(t, "remote.git", user{})), withOpts("allow_other"))
	check(t, os.MkdirAll(v.mnt, 0o755))
	command{args: append([]string{"sh", "-c", `ulimit -n 512; exec "$@"`, "sh"}, v.mountArgs()...)}.must(t)
	v.mustBeMounted()
	check(t, os.WriteFile(v.at("f"), []byte("x"), 0o644))
	check(t, os.Mkdir(v.at("open"), 0o777))
	check(t, os.Chmod(v.at("open"), 0o777))
	var taken []int
	defer func() {
		for _, fd := range taken {
			unix.Close(fd)
		}
	}()
	greedy := user{uid: 1000, gid: 1000}
	last := error(nil)
	check(t, asUser(greedy, func() error {
		for range 2000 {
			var fd int
			if fd, last = unix.Open(v.at("f"), unix.O_RDONLY|unix.O_CLOEXEC, 0); last != nil {
				return nil
			}
			taken = append(taken, fd)
		}
		return nil
	}))
	if !errors.Is(last, unix.ENFILE) || len(taken) < 100 {
		t.Errorf("after %d files: %v, want ENFILE", len(taken), last)
	}
	check(t, asUser(user{uid: 1001, gid: 1001}, func() error {
		for range 20 {
			fd, err := unix.Open(v.at("f"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			taken = append(taken, fd)
		}
		return nil
	}))
	for i := range 100 {
		check(t, os.MkdirAll(v.at(fmt.Sprintf("d%d/e/f", i)), 0o755))
		check(t, os.WriteFile(v.at(fmt.Sprintf("d%d/e/f/g", i)), []byte("y"), 0o644))
	}
	v.sync()
	if st := v.status(); len(st.Errors) != 0 {
		t.Errorf("status: %q", st.Errors)
	}
	for _, fd := range taken[:50] {
		unix.Close(fd)
	}
	taken = taken[50:]
	if !waitFor(10*time.Second, func() bool { // RELEASE comes after close
		return asUser(greedy, func() error {
			fd, err := unix.Open(v.at("f"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err == nil {
				unix.Close(fd)
			}
			return err
		}) == nil
	}) {
		t.Error("what was closed is not given back")
	}
	for _, fd := range taken {
		unix.Close(fd)
	}
	taken = nil
	v.umount()
}
