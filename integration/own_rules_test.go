package integration

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

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
