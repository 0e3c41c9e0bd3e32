//go:build slow

package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// checkReport is what `emberfs check --json` prints.
type checkReport struct {
	State, Repository, Volume, Branch, Commit, Pushed string
	PID, Problems                                     int
	Deep, Sound                                       bool
	AtRisk                                            *struct {
		Files, Bytes int64
		Seconds      float64
	} `json:"at_risk"`
	Findings []checkFinding
}

type checkFinding struct{ Severity, What, Path, Where, Commit, Object, Do string }

// check runs `emberfs check` for people and as JSON, and requires that both say the same and exit so. Beside a daemon a
// commit between the two may add a finding or end one: then both are run again.
func (v *volume) check(target string, args ...string) checkReport {
	v.t.Helper()
	for try := 1; ; try++ {
		r, same := v.checkOnce(try == 5, target, args...)
		if same {
			return r
		}
	}
}

// checkOnce says whether both have as many findings; where they have not it fails, if that is final or nobody is at
// work there.
func (v *volume) checkOnce(final bool, target string, args ...string) (_ checkReport, same bool) {
	v.t.Helper()
	text := v.emberfs(append([]string{"check", target}, args...)...)
	j := v.emberfs(append([]string{"check", "--json", target}, args...)...)
	var r checkReport
	if err := json.Unmarshal([]byte(j.stdout), &r); err != nil {
		v.t.Fatalf("%v\n%v", err, j)
	}
	lines := strings.Split(strings.TrimSpace(text.stdout), "\n")
	last, code := "sound", 0
	if !r.Sound {
		last, code = fmt.Sprintf("%d problems", r.Problems), 3
		if r.Problems == 1 {
			last = "1 problem"
		}
	}
	if got := lines[len(lines)-1]; got != last || text.code != code || j.code != code || r.Sound != (r.Problems == 0) {
		v.t.Fatalf("want %q and exit %d\n%v\n%v", last, code, text, j)
	}
	same = len(lines)-1 == len(r.Findings)
	if !same && (final || !strings.Contains(text.stdout, "checked beside its daemon")) {
		v.t.Fatalf("%d lines of findings, %d in JSON\n%v\n%v", len(lines)-1, len(r.Findings), text, j)
	}
	return r, same
}

// has says whether a finding of the severity has all texts.
func (r checkReport) has(severity string, texts ...string) bool {
	for _, f := range r.Findings {
		ok := f.Severity == severity
		for _, text := range texts {
			ok = ok && strings.Contains(strings.Join([]string{f.What, f.Path, f.Where, f.Commit}, "\x00"), text)
		}
		if ok {
			return true
		}
	}
	return false
}

func (v *volume) mustBeSound(target string, args ...string) checkReport {
	v.t.Helper()
	r := v.check(target, args...)
	if !r.Sound {
		v.t.Fatalf("check %s %q: %+v", target, args, r.Findings)
	}
	return r
}

// work makes a tree with everything odd and some bulk.
func (v *volume) work(seed int64) {
	v.t.Helper()
	rnd := rand.New(rand.NewSource(seed))
	for d := range 5 {
		dir := v.at(fmt.Sprintf("work%d/dir%d", seed, d))
		check(v.t, os.MkdirAll(dir, 0o755))
		for f := range 20 {
			data := make([]byte, rnd.Intn(20_000))
			_, _ = rnd.Read(data)
			check(v.t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("file%d", f)), data, 0o644))
		}
	}
}

// TestCheckSoundLife: at every stage of a volume's life check finds it sound, mounted or not, quick or deep, and says
// what is at risk; a killed daemon leaves nothing damaged.
func TestCheckSoundLife(t *testing.T) {
	t.Parallel()
	deadline(t, 10*time.Minute)
	repo := newBareRepo(t, "remote.git", user{})
	v := newVolume(t, "v", withSource(repo)).mount()
	if r := v.mustBeSound(v.mnt); r.PID != v.daemon() || r.State != v.state || !r.has("note", "no commit yet") {
		t.Errorf("new: %+v", r)
	}
	makeOddTree(t, v.mnt)
	v.work(1)
	if r := v.mustBeSound(v.mnt, "--deep"); r.AtRisk == nil || r.AtRisk.Files == 0 || !r.has("risk", "not backed up") {
		t.Errorf("before the first sync: %+v", r)
	}
	v.sync()
	for _, args := range [][]string{nil, {"--deep"}} {
		r := v.mustBeSound(v.mnt, args...)
		if r.AtRisk == nil || r.AtRisk.Files != 0 || r.Commit != revision(t, repo) || r.Pushed != r.Commit ||
			len(r.Findings) != 1 {
			t.Errorf("after a sync: %+v", r)
		}
		if r := v.mustBeSound(repo, args...); len(r.Findings) != 0 || r.State != "" || r.Commit != revision(t, repo) {
			t.Errorf("the remote: %+v", r)
		}
	}
	v.umount()
	for _, target := range []string{v.state, v.cold()} {
		if r := v.mustBeSound(target, "--deep"); r.PID != 0 || len(r.Findings) != 0 || r.State != v.state {
			t.Errorf("unmounted: %+v", r)
		}
	}
	for round := range 5 {
		v.startForeground()
		v.work(int64(2 + round))
		if round%2 == 1 {
			v.killDuring("sync", time.Duration(rand.Int63n(int64(40*time.Millisecond))))
		} else {
			v.kill()
		}
		r := v.mustBeSound(v.state, "--deep")
		if round == 0 && (r.AtRisk == nil || r.AtRisk.Files < 100) {
			// In later rounds the daemon commits at its start what the last one left, and perhaps some of the new with
			// it.
			t.Errorf("killed: 105 new files and directories, at risk are %+v", r.AtRisk)
		}
	}
	v.mount()
	v.sync()
	v.umount()
	if r := v.mustBeSound(v.state, "--deep"); len(r.Findings) != 0 {
		t.Errorf("at the end: %+v", r)
	}
	two := newVolume(t, "two", withSource(repo)).mount()
	two.umount()
	if r := two.mustBeSound(two.state, "--deep"); len(r.Findings) != 0 {
		t.Errorf("restored on the next machine: %+v", r)
	}
}

// TestCheckBesideWriters: while programs write and the daemon commits, nothing is taken for damage.
func TestCheckBesideWriters(t *testing.T) {
	deadline(t, 3*time.Minute)
	v := newVolume(t, "v", withOpts("backup_interval=1s"))
	v.startForeground()
	check(t, os.Mkdir(v.at("work"), 0o755))
	wait := startWriter(t, v, filepath.Join(v.dir, "ops"), 1)
	for n := range 10 {
		args := []string{}
		if n%2 == 1 {
			args = append(args, "--deep")
		}
		v.mustBeSound(v.mnt, args...)
	}
	v.kill()
	wait()
	v.mustBeSound(v.state, "--deep")
}

// TestCheckFindsDamage damages a state directory by hand, through nothing but its files.
func TestCheckFindsDamage(t *testing.T) {
	deadline(t, 3*time.Minute)
	v := newVolume(t, "v").mount()
	v.work(1)
	v.umount()
	good := v.dir + "/good"
	must(t, "/", "cp", "-a", v.state, good)
	file := filepath.Join(v.state, "warm/work1/dir0/file0")
	for _, c := range []struct {
		name   string
		damage func()
		args   []string
		want   []string
	}{
		{"volume.json garbage", func() {
			check(t, os.WriteFile(v.state+"/volume.json", []byte("{"), 0o600))
		}, nil, []string{"volume.json"}},
		{"volume.json gone", func() {
			check(t, os.Remove(v.state+"/volume.json"))
		}, nil, []string{"volume.json", "missing"}},
		{"warm changed under the daemon", func() {
			check(t, os.WriteFile(file, []byte("x"), 0o644))
		}, nil, []string{"work1/dir0/file0", "clean mark"}},
		{"a bit of warm", func() {
			st, err := os.Stat(file)
			check(t, err)
			b, err := os.ReadFile(file)
			check(t, err)
			b[0] ^= 1
			check(t, os.WriteFile(file, b, 0o644))
			check(t, os.Chtimes(file, st.ModTime(), st.ModTime()))
		}, []string{"--deep"}, []string{"work1/dir0/file0", "its bytes are not"}},
		{"no packs", func() {
			must(t, "/", "rm", "-rf", v.cold()+"/objects/pack")
		}, nil, []string{"a commit is missing"}},
		{"no repository", func() { must(t, "/", "rm", "-rf", v.cold()) }, nil, []string{"the repository is missing"}},
		{"no warm", func() {
			must(t, "/", "rm", "-rf", v.state+"/warm")
		}, nil, []string{"the warm directory is missing"}},
	} {
		c.damage()
		r := v.check(v.state, c.args...)
		if r.Sound || !r.has("damaged", c.want...) {
			t.Errorf("%s: %+v", c.name, r.Findings)
		}
		must(t, "/", "rm", "-rf", v.state)
		must(t, "/", "cp", "-a", good, v.state)
	}
	v.mustBeSound(v.state, "--deep")

	b, err := os.ReadFile(v.state + "/volume.json")
	check(t, err)
	check(t, os.WriteFile(v.state+"/volume.json", bytes.Replace(b, []byte(`"format": 1`), []byte(`"format": 99`), 1),
		0o600))
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{v.state}, 1, "newer emberfs"},
		{[]string{v.dir + "/none"}, 1, "no such file"},
		{[]string{v.dir}, 1, "not a bare git repository"},
		{nil, 2, "usage"},
		{[]string{v.state, v.state}, 2, "usage"},
		{[]string{v.state, "--deeper"}, 2, "deeper"},
	} {
		r := v.emberfs(append([]string{"check"}, c.args...)...)
		if r.code != c.code || !strings.Contains(r.stderr, c.says) {
			t.Errorf("want exit %d and %q\n%v", c.code, c.says, r)
		}
	}
}

// TestLockOutlivesGarbage: the daemon holds the lock of its state directory for as long as it lives. It was lost once
// at the first garbage collection, and a second daemon was let in.
func TestLockOutlivesGarbage(t *testing.T) {
	deadline(t, time.Minute)
	v := newVolume(t, "v").mount()
	for n := range int64(4) {
		v.work(n)
		v.sync()
	}
	other := mkdir(t, v.dir+"/other", user{})
	r := command{args: []string{env.bin, "mount", other, "--state", v.state}, limit: time.Minute}.run(t)
	if r.code != 32 || !strings.Contains(r.stderr, fmt.Sprintf("in use by the emberfs with pid %d", v.daemon())) {
		t.Errorf("a second mount\n%v", r)
	}
	v.umount()
}

// TestCheckPlainUser: without records warm is compared by sizes and times.
func TestCheckPlainUser(t *testing.T) {
	deadline(t, time.Minute)
	v := newVolume(t, "v", withUser(plainUser())).mount()
	must := func(script string) {
		t.Helper()
		command{args: []string{"sh", "-ec", script}, dir: v.mnt, as: v.as}.must(t)
	}
	must("mkdir -p a/b; echo one >a/b/one; echo two >a/two; ln -s b a/link; sleep 1.1")
	v.sync()
	if r := v.mustBeSound(v.mnt, "--deep"); r.AtRisk == nil || r.AtRisk.Files != 0 {
		t.Errorf("synced: %+v", r)
	}
	must("echo longer >a/two; rm a/b/one")
	v.kill()
	if r := v.mustBeSound(v.state, "--deep"); r.AtRisk == nil || r.AtRisk.Files < 2 || r.AtRisk.Bytes != 7 {
		t.Errorf("killed: %+v", r)
	}
	v.mount()
	v.umount()
	if r := v.mustBeSound(v.state, "--deep"); r.AtRisk.Files != 0 {
		t.Errorf("at the end: %+v", r)
	}
}
