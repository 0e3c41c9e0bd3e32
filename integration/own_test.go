package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The directory .emberfs at the root of a mount, as programs see it.

const (
	rulesOne = "- match: one/\n  class: critical\n"
	rulesTwo = "- match: two/\n  class: critical\n"
	rulesBad = "- match: one/\n  class: crytical\n"
)

// script runs a shell script, which fails at its first error, in dir.
func script(t testing.TB, dir, text string) result {
	t.Helper()
	return command{args: []string{"bash", "-eu", "-o", "pipefail", "-c", text}, dir: dir}.run(t)
}

// TestOwnDirectory: what programs do with .emberfs and its files, and that those that copy a mount do not meet it.
func TestOwnDirectory(t *testing.T) {
	deadline(t, 2*time.Minute)
	v := newVolume(t, "v").mount()
	good, bad := filepath.Join(v.dir, "good"), filepath.Join(v.dir, "bad")
	check(t, os.WriteFile(good, []byte(rulesTwo), 0o644))
	check(t, os.WriteFile(bad, []byte(rulesBad), 0o644))
	for _, c := range []struct {
		name   string
		script string // in .emberfs, where rules.yaml has rulesOne
		fails  bool
		want   string // of rules.yaml
	}{
		{"cat", `cat rules.yaml >/dev/null`, false, rulesOne},
		{"printf", `printf -- '- match: two/\n  class: critical\n' > rules.yaml`, false, rulesTwo},
		{"printf in pieces", `{ printf -- '- match: two/\n'; printf '  class: critical\n'; } > rules.yaml`, false,
			rulesTwo},
		{"a program's output", `cat ../../good > rules.yaml`, false, rulesTwo},
		{"append", `printf -- '- match: two/\n  class: critical\n' >> rules.yaml`, false, rulesOne + rulesTwo},
		{"tee", `cat ../../good | tee rules.yaml >/dev/null`, false, rulesTwo},
		{"cp", `cp ../../good rules.yaml`, false, rulesTwo},
		{"cp -a", `cp -a ../../good rules.yaml`, false, rulesTwo},
		{"cp --remove-destination", `cp --remove-destination ../../good rules.yaml`, false, rulesTwo},
		{"mv from outside", `cp ../../good /tmp/$$.rules; mv /tmp/$$.rules rules.yaml; [ ! -e /tmp/$$.rules ]`, false,
			rulesTwo},
		{"mv from inside", `cp ../../good ../f; mv ../f rules.yaml; [ ! -e ../f ]`, false, rulesTwo},
		{"mv out", `mv rules.yaml ../f; grep -q one ../f; rm ../f`, false, ""},
		{"rm", `rm rules.yaml; [ ! -e rules.yaml ]`, false, ""},
		{"rm, then anew", `rm rules.yaml; cp ../../good rules.yaml`, false, rulesTwo},
		{"dd in the middle", `printf two | dd of=rules.yaml bs=1 seek=9 conv=notrunc status=none`, false, rulesTwo},
		{"truncate", `truncate -s 13 rules.yaml 2>/dev/null`, true, rulesOne},
		{"ex", `ex -s -c '%s/one/two/' -c 'wq' rules.yaml </dev/null`, false, rulesTwo},
		{"cp of a bad file", `cp ../../bad rules.yaml`, true, rulesOne},
		{"cat of a bad file", `cat ../../bad > rules.yaml`, true, rulesOne},
		{"mv of a bad file", `cp ../../bad ../f; if mv ../f rules.yaml; then exit 0; fi; grep -q crytical ../f; rm ../f; exit 1`, true, rulesOne},
		{"dd with fsync of a bad file", `dd if=../../bad of=rules.yaml conv=fsync status=none`, true, rulesOne},
		{"too much", `head -c 100000 /dev/zero > rules.yaml`, true, rulesOne},
		{"sed -i", `sed -i s/one/two/ rules.yaml`, true, rulesOne},
		{"a file", `touch x`, true, rulesOne},
		{"a directory", `mkdir x`, true, rulesOne},
		{"a link", `ln ../f2 x`, true, rulesOne},
		{"a symlink", `ln -s x x`, true, rulesOne},
		{"a fifo", `mkfifo x`, true, rulesOne},
		{"a rename inside", `mv rules.yaml x`, true, rulesOne},
		{"a rename into", `touch ../g; if mv ../g x; then exit 0; fi; rm ../g; exit 1`, true, rulesOne},
		{"a link out of it", `ln rules.yaml ../x`, true, rulesOne},
		{"rmdir", `rmdir ../.emberfs`, true, rulesOne},
		{"mkdir of it", `mkdir ../.emberfs`, true, rulesOne},
		{"a rename of it", `mv ../.emberfs ../x`, true, rulesOne},
		{"a rename over it", `mkdir ../d; if mv -T ../d ../.emberfs; then exit 0; fi; rmdir ../d; exit 1`, true,
			rulesOne},
		{"chmod", `chmod 600 rules.yaml`, true, rulesOne},
		{"chown", `chown 1:1 rules.yaml`, true, rulesOne},
		{"touch -d", `touch -d 2001-01-01 rules.yaml; [ $(stat -c %Y rules.yaml) -gt 1500000000 ]`, false, rulesOne},
		{"an attribute", `setfattr -n user.x -v y rules.yaml`, true, rulesOne},
		{"no attributes", `[ -z "$(getfattr -d -m - rules.yaml)" ]`, false, rulesOne},
		{"status.json is not written",
			`(exec 3>status.json) || (exec 3>>status.json) || rm -f status.json || truncate -s 0 status.json`, true,
			rulesOne},
		{"status.json", `grep -q at_risk status.json; head -c 20 status.json | grep -q {; wc -c <status.json | grep -qv '^0$'`, false, rulesOne},
		{"attributes", `[ "$(stat -c %a:%u:%F . rules.yaml status.json | tr '\n' ,)" = 755:0:directory,644:0:'regular file',444:0:'regular file', ]; stat -f . >/dev/null; [ -w rules.yaml ]; [ -r . ]`, false, rulesOne},
		{"listing", `[ "$(ls -a | tr '\n' ,)" = .,..,rules.yaml,status.json, ]; [ "$(find . | wc -l)" = 3 ]`, false,
			rulesOne},
		{"flock", `exec 3<rules.yaml; flock -n 3; flock -n rules.yaml true`, true, rulesOne},
	} {
		check(t, os.WriteFile(v.rulesFile(), []byte(rulesOne), 0o644))
		if r := script(t, v.at(".emberfs"), c.script); (r.code != 0) != c.fails {
			t.Errorf("%s: %v", c.name, r)
		}
		v.hasRules(c.want)
	}
	v.atLast("")(script(t, v.at(".emberfs"), `: > rules.yaml`))
	for _, cmd := range []string{`ls -A`, `find . -mindepth 1`, `tar cf - . | tar tf - | grep -v '^./$' || true`,
		`cp -a . ../copy; find ../copy -mindepth 1`} {
		if r := script(t, v.mnt, cmd); r.code != 0 || r.stdout != "" {
			t.Errorf("a mount without files shows some\n%v", r)
		}
	}
	must(t, v.dir, "diff", "-r", "mnt", "copy")
	v.umount()
}

// atLast waits for what the kernel tells the daemon of after close(2) has returned.
func (v *volume) atLast(want string) func(result) {
	return func(r result) {
		v.t.Helper()
		if r.code != 0 || !waitFor(10*time.Second, func() bool {
			b, err := os.ReadFile(v.rulesFile())
			return err == nil && string(b) == want
		}) {
			v.t.Errorf("rules.yaml does not become %q\n%v", want, r)
		}
	}
}

// TestOwnHides: an entry of that name that is in warm from a time before is hidden, kept, and in the way of nobody; a
// read-only mount and one without the kernel's caches have the directory too.
func TestOwnHides(t *testing.T) {
	deadline(t, time.Minute)
	v := newVolume(t, "v").mount()
	check(t, os.WriteFile(v.at("f"), []byte("x"), 0o644))
	v.umount()
	old := filepath.Join(v.state, "warm/.emberfs")
	check(t, os.Mkdir(old, 0o755))
	check(t, os.WriteFile(filepath.Join(old, "mine"), []byte("mine"), 0o644))
	for _, opts := range []string{"", "kernel_cache=off", "ro"} {
		v.opts = nil
		if opts != "" {
			v.opts = []string{opts}
		}
		v.mount()
		r := script(t, v.mnt, `ls -A; [ ! -e .emberfs/mine ]; ls .emberfs; cat .emberfs/status.json >/dev/null`)
		if r.code != 0 || !strings.HasPrefix(r.stdout, "f\n") || !strings.Contains(r.stdout, "status.json") {
			t.Errorf("%s: %v", opts, r)
		}
		if err := os.WriteFile(v.rulesFile(), []byte(rulesOne+"# "+opts+"\n"), 0o644); opts == "ro" &&
			!errors.Is(err, unix.EROFS) || opts != "ro" && err != nil {
			t.Errorf("%s: %v", opts, err)
		} else if err == nil {
			v.hasRules(rulesOne + "# " + opts + "\n")
		}
		v.umount()
	}
	wantFile(t, filepath.Join(old, "mine"), "mine", "what was hidden holds")
	fsck(t, v.cold())
}

// TestOwnHandles: what system calls on open files say.
func TestOwnHandles(t *testing.T) {
	deadline(t, time.Minute)
	v := newVolume(t, "v").mount()
	open := func(name string, flags int) *os.File {
		t.Helper()
		f, err := os.OpenFile(v.at(".emberfs/"+name), flags, 0o600)
		check(t, err)
		return f
	}
	size := func(f *os.File) int64 {
		t.Helper()
		fi, err := f.Stat()
		check(t, err)
		return fi.Size()
	}
	one := open("rules.yaml", os.O_CREATE|os.O_EXCL|os.O_RDWR)
	_, err := one.WriteString(rulesOne)
	check(t, err)
	if n := size(one); n != int64(len(rulesOne)) {
		t.Errorf("fstat says %d", n)
	}
	check(t, one.Sync())
	v.hasRules(rulesOne)
	two := open("rules.yaml", os.O_WRONLY|os.O_APPEND)
	_, err = two.WriteString(rulesTwo)
	check(t, err)
	_, err = one.WriteAt([]byte("x"), 9)
	check(t, err)
	check(t, one.Close())
	v.hasRules(strings.Replace(rulesOne, "one", "xne", 1))
	check(t, two.Close()) // the last one counts
	v.hasRules(rulesOne + rulesTwo)

	old := open("rules.yaml", os.O_RDONLY)
	bad := open("rules.yaml", os.O_WRONLY|os.O_TRUNC)
	_, err = bad.WriteString(rulesBad)
	check(t, err)
	if err := bad.Sync(); !errors.Is(err, unix.EINVAL) {
		t.Errorf("fsync of bad rules: %v", err)
	}
	if err := bad.Close(); !errors.Is(err, unix.EINVAL) {
		t.Errorf("close of bad rules: %v", err)
	}
	v.hasRules(rulesOne + rulesTwo)
	if st := v.status(); len(st.Errors) != 1 || !strings.Contains(st.Errors[0], "line 2: rule 1") {
		t.Errorf("status says %q", st.Errors)
	}
	if r := script(t, v.dir, `grep -q "line 2: rule 1" daemon.log`); r.code != 0 {
		t.Errorf("the log: %v", r)
	}
	check(t, os.WriteFile(v.rulesFile(), []byte(rulesOne), 0))
	if st := v.status(); len(st.Errors) != 0 || len(st.Rules) != 1 {
		t.Errorf("status says %q, rules %q", st.Errors, st.Rules)
	}
	b := make([]byte, 200)
	if n, _ := old.ReadAt(b, 0); string(b[:n]) != rulesOne+rulesTwo {
		t.Errorf("an older handle reads %q", b[:n])
	}
	check(t, old.Close())
	if _, err := os.OpenFile(v.at(".emberfs"), unix.O_TMPFILE|os.O_RDWR, 0o600); err == nil {
		t.Error("a file without a name is made")
	}
	if err := unix.Rename(v.rulesFile(), v.at("x")); !errors.Is(err, unix.EXDEV) {
		t.Errorf("rename out of it: %v", err)
	}

	st := open("status.json", os.O_RDONLY)
	m, err := unix.Mmap(int(st.Fd()), 0, int(size(st)), unix.PROT_READ, unix.MAP_SHARED)
	check(t, err)
	var s status
	if err := json.Unmarshal(m, &s); err != nil || s.PID != v.daemon() || s.Mountpoint != v.mnt || len(s.Rules) != 1 {
		t.Errorf("status.json, mapped: %v %+v", err, s)
	}
	check(t, unix.Munmap(m))
	check(t, st.Close())
	v.umount()
}

// TestOwnWriters: of many writers at once one wins whole, whatever readers and removers do, and no reader sees half a
// text.
func TestOwnWriters(t *testing.T) {
	deadline(t, 2*time.Minute)
	v := newVolume(t, "v").mount()
	texts := map[string]bool{"": true}
	var wg sync.WaitGroup
	for i := range 6 {
		text := strings.Repeat(fmt.Sprintf("- match: writer%d/\n  class: critical\n", i), 20+10*i)
		texts[text] = true
		from := filepath.Join(v.dir, fmt.Sprint(i))
		check(t, os.WriteFile(from, []byte(text), 0o644))
	}
	for i := range 6 {
		wg.Go(func() {
			for range 10 {
				check := fmt.Sprintf("cat %d > mnt/.emberfs/rules.yaml && cp %d mnt/.emberfs/rules.yaml", i, i)
				if out, err := exec.Command("sh", "-c", "cd "+v.dir+" && "+check).CombinedOutput(); err != nil &&
					i != 0 && !strings.Contains(string(out), "File exists") {
					t.Errorf("%s: %v %s", check, err, out)
				}
				if i == 0 {
					_ = os.Remove(v.rulesFile())
				}
				if b, err := os.ReadFile(v.rulesFile()); err == nil && !texts[string(b)] {
					t.Errorf("rules.yaml reads %q", b)
				}
			}
		})
	}
	wg.Wait()
	check(t, os.WriteFile(v.rulesFile(), []byte(rulesOne), 0o644))
	v.umount()
	equal(t, show(t, v.cold(), "main:.emberfs/rules.yaml"), rulesOne, "the commit has")
	fsck(t, v.cold())
}

// TestOwnForPlainUser: a private mount of a plain user has it too.
func TestOwnForPlainUser(t *testing.T) {
	deadline(t, time.Minute)
	u := plainUser()
	v := newVolume(t, "v", withUser(u)).mount()
	r := command{args: []string{"sh", "-ec", `printf -- '- match: one/\n  class: critical\n' > .emberfs/rules.yaml; [ -w .emberfs/rules.yaml ]; [ ! -w .emberfs/status.json ]
		[ ! -x .emberfs/rules.yaml ]; stat -c %u:%g .emberfs/rules.yaml; grep -q one/ .emberfs/status.json`},
		dir: v.mnt, as: u}.run(t)
	if want := fmt.Sprintf("%d:%d\n", u.uid, u.gid); r.code != 0 || r.stdout != want {
		t.Errorf("want %q\n%v", want, r)
	}
	v.umount()
}
