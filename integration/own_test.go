package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
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

func (v *volume) rulesFile() string { return v.at(".emberfs/rules.yaml") }

// hasRules requires that the mount's rules.yaml reads as want; "": that there is none, or an empty one.
func (v *volume) hasRules(want string) {
	v.t.Helper()
	b, err := os.ReadFile(v.rulesFile())
	if errors.Is(err, fs.ErrNotExist) && want == "" {
		return
	}
	if err != nil || string(b) != want {
		v.t.Errorf("rules.yaml reads %q, %v; want %q", b, err, want)
	}
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

// TestOwnRulesTravel: rules survive a killed daemon from the close that accepted them on, are in the commit, on the
// next machine, and follow what a stock client commits.
func TestOwnRulesTravel(t *testing.T) {
	t.Parallel()
	deadline(t, 2*time.Minute)
	repo := newBareRepo(t, "remote.git", user{})
	one := newVolume(t, "one", withSource(repo)).mount()
	const drops = "- match: out/\n  ignore: true\n"
	check(t, os.WriteFile(one.rulesFile(), []byte(rulesOne+drops), 0o644))
	one.kill()
	one.mount()
	one.hasRules(rulesOne + drops)
	if st := one.status(); len(st.Rules) != 2 {
		t.Errorf("after a kill the rules are %q", st.Rules)
	}
	one.umount()
	equal(t, show(t, repo, "main:.emberfs/rules.yaml"), rulesOne+drops, "the commit has")

	two := newVolume(t, "two", withSource(repo)).mount()
	two.hasRules(rulesOne + drops)
	if st := two.status(); len(st.Rules) != 1 || len(st.Notes) == 0 ||
		!strings.Contains(strings.Join(st.Notes, "\n"), "accept_rules") {
		t.Errorf("without consent the rules are %q, notes %q", st.Rules, st.Notes)
	}
	if r := two.emberfs("rules", two.mnt); r.code != 0 || !strings.Contains(r.stdout, "withheld") ||
		!strings.Contains(r.stdout, "commit ") {
		t.Errorf("%v", r)
	}
	two.umount()
	two.mount("--accept-rules")
	if st := two.status(); len(st.Rules) != 2 {
		t.Errorf("with consent the rules are %q", st.Rules)
	}
	two.umount()

	clone := filepath.Join(testDir(t), "clone")
	stock := func(change string) {
		t.Helper()
		r := script(t, testDir(t), "rm -rf "+clone+"; git clone -q "+repo+" "+clone+"; cd "+clone+"; "+change+
			"; git add -A; git commit -qm 'by hand'; git push -q")
		if r.code != 0 {
			t.Fatal(r)
		}
	}
	stock(`printf -- '- match: two/\n  class: critical\n' > .emberfs/rules.yaml; echo new > f`)
	two.mount()
	two.hasRules(rulesTwo)
	two.umount()
	for i, c := range []struct{ change, says string }{
		{`printf -- '- match: one/\n  class: crytical\n' > .emberfs/rules.yaml`, "line 2"},
		{`head -c 100000 /dev/zero > .emberfs/rules.yaml`, "65536"},
		{`rm .emberfs/rules.yaml; ln -s /etc/passwd .emberfs/rules.yaml`, "120000"},
		{`rm .emberfs/rules.yaml; mkdir .emberfs/rules.yaml; echo x > .emberfs/rules.yaml/x`, "40000"},
	} {
		stock(c.change)
		fresh := newVolume(t, fmt.Sprintf("fresh%d", i), withSource(repo))
		for _, v := range []*volume{two, fresh} {
			v.mount()
			if st := v.status(); !strings.Contains(strings.Join(st.Errors, "\n"), "rules: ") ||
				!strings.Contains(strings.Join(st.Errors, "\n"), c.says) {
				t.Errorf("%s: status says %q", c.change, st.Errors)
			}
			wantFile(t, v.at("f"), "new\n", "%s: f holds", c.change)
			if v == two {
				v.kill() // without a commit
			}
		}
		check(t, os.WriteFile(fresh.rulesFile(), []byte(rulesOne), 0o644)) // mends it
		if st := fresh.status(); strings.Contains(strings.Join(st.Errors, "\n"), "rules: ") || len(st.Rules) != 1 {
			t.Errorf("%s: mended, status says %q, rules %q", c.change, st.Errors, st.Rules)
		}
		fresh.umount()
		equal(t, show(t, repo, "main:.emberfs/rules.yaml"), rulesOne, "%s: the commit has", c.change)
	}
	// What was written here and is in no commit yet is not lost to somebody else's commit.
	two.mount()
	check(t, os.WriteFile(two.rulesFile(), []byte(rulesTwo), 0o644))
	two.kill()
	stock(`printf -- '- match: three/\n  class: critical\n' > .emberfs/rules.yaml`)
	two.mount()
	two.hasRules(rulesTwo)
	two.umount()
	equal(t, show(t, repo, "main:.emberfs/rules.yaml"), rulesTwo, "the commit has")
	fsck(t, repo)
}

// TestRulesFromSettings: rules of the settings file stand instead of the volume's own, which can be written all the
// same.
func TestRulesFromSettings(t *testing.T) {
	deadline(t, time.Minute)
	v := newVolume(t, "v")
	file := filepath.Join(v.dir, "settings.yaml")
	check(t, os.WriteFile(file, []byte("flush_interval: 1m\nrules:\n"+rulesTwo), 0o644))
	v.mount("--config", file)
	check(t, os.MkdirAll(v.at("two/deep"), 0o755))
	check(t, os.WriteFile(v.rulesFile(), []byte(rulesOne), 0o644))
	if r := v.emberfs("rules", v.mnt); r.code != 0 || !strings.Contains(r.stdout, "settings file") ||
		!strings.Contains(r.stdout, "two/: critical") {
		t.Errorf("%v", r)
	}
	r := command{args: []string{env.bin, "rules", "test", "two/deep", "two/none/yet", "one/x", "two", "new/"},
		dir: v.mnt}.run(t)
	for _, line := range []string{"two/deep: critical", "two/none/yet: critical", "one/x: session", "two: critical",
		"new: session"} {
		if !strings.Contains("\n"+r.stdout, "\n"+line+": ") {
			t.Errorf("%q is missing\n%v", line, r)
		}
	}
	if r := v.emberfs("status", v.at("two/deep")); r.code != 0 || !strings.Contains(r.stdout, "class critical") {
		t.Errorf("%v", r)
	}
	v.umount()
	v.mount()
	if st := v.status(); len(st.Rules) != 1 || !strings.Contains(st.Rules[0], "one/") {
		t.Errorf("without the file the rules are %q", st.Rules)
	}
	v.umount()
	check(t, os.WriteFile(file, []byte("rules:\n"+rulesBad), 0o644))
	if r := v.tryMount("--config", file); r.code != 2 || !strings.Contains(r.stderr, "line 3: rule 1") ||
		!strings.Contains(r.stderr, file) {
		t.Errorf("%v", r)
	}
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
