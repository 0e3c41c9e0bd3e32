package main

import (
	"bytes"
	"context"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestChoose(t *testing.T) {
	all := testJobs()
	names := func(only ...string) string {
		list, err := choose(all, only)
		if err != nil {
			return err.Error()
		}
		var s []string
		for _, j := range list {
			s = append(s, j.name)
		}
		return strings.Join(s, " ")
	}
	for _, c := range []struct{ want, got string }{
		{"churn/alone", names("churn/alone")},
		{"churn/alone churn/source churn/raced", names("churn")},
		{"churn/alone churn/source churn/raced", names("churn/", "churn/raced")},
		{"--only chur: there is no such job (--list shows all)", names("churn", "chur")},
	} {
		if c.got != c.want {
			t.Errorf("%q, want %q", c.got, c.want)
		}
	}
	if list, err := choose(all, nil); err != nil || len(list) != len(all) {
		t.Errorf("%d of %d jobs, %v", len(list), len(all), err)
	}
	seen := map[string]bool{}
	for _, j := range all {
		if seen[j.name] {
			t.Errorf("two jobs are called %s", j.name)
		}
		seen[j.name] = true
	}
}

// TestOrder: a seed gives a round again, and another one another.
func TestOrder(t *testing.T) {
	names := func(seed int64) (s []string, next int64) {
		list, next := order(testJobs(), seed)
		for _, j := range list {
			s = append(s, j.name)
		}
		return s, next
	}
	one, next := names(7)
	again, same := names(7)
	other, _ := names(next)
	if !slices.Equal(one, again) || next != same || next < 1 {
		t.Errorf("seed 7 gives %v and %d, then %v and %d", one, next, again, same)
	}
	if slices.Equal(one, other) {
		t.Error("the next round has the same order")
	}
}

func TestArguments(t *testing.T) {
	for _, args := range [][]string{{"--for", "-1h"}, {"--jobs", "0"}, {"--fuzz-time", "0s"}, {"more"}, {"--only"}} {
		if _, err := parse(args); err == nil {
			t.Errorf("%q is taken", args)
		}
	}
	if o, err := parse([]string{"--for", "2h", "--only", "a", "--only", "b", "--seed", "5"}); err != nil ||
		o.length != 2*time.Hour || len(o.only) != 2 || o.seed != 5 || o.atOnce != 1 {
		t.Errorf("%+v, %v", o, err)
	}
}

var asks = regexp.MustCompile(`effort\.(Count|Time|Seeds|Soaking)\(|commitTime\(`)

// TestJobsMeetTests: each job's pattern matches a test of its package, and each test that has a long form is one of a
// job's of its own.
func TestJobsMeetTests(t *testing.T) {
	tests := map[string]map[string]string{} // package -> test -> body
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(file, "_test.go") {
			return err
		}
		found, err := functions(file, "Test")
		pkg, _ := filepath.Rel(root, filepath.Dir(file))
		if tests[pkg] == nil {
			tests[pkg] = map[string]string{}
		}
		maps.Copy(tests[pkg], found)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	covered := map[string]bool{}
	for _, j := range testJobs() {
		top, _, _ := strings.Cut(j.tests, "/")
		pattern, n := regexp.MustCompile(top), 0
		for name := range tests[j.pkg] {
			if pattern.MatchString(name) {
				n++
				if j.name != "suite" {
					covered[j.pkg+" "+name] = true
				}
			}
		}
		if n == 0 {
			t.Errorf("%s: no test of %s matches %s", j.name, j.pkg, j.tests)
		}
	}
	long := 0
	for _, pkg := range []string{"integration", "integration/powercut", "tiers", "backup", "backup/odb"} {
		for name, body := range tests[pkg] {
			if asks.MatchString(body) {
				long++
				if !covered[pkg+" "+name] {
					t.Errorf("%s of %s has a long form that no job runs", name, pkg)
				}
			}
		}
	}
	if long < 10 {
		t.Errorf("only %d tests ask integration/effort: this test finds them no more", long)
	}
}

// TestOutcomes runs jobs that end in every way there is.
func TestOutcomes(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("a job has mounts of its own, for which it needs root")
	}
	module := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(module, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, pkg := range []string{"p", "q"} {
		if err := os.Mkdir(filepath.Join(module, pkg), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// The only one without a fuzz target.
	write("q/q_test.go", "package q\n\nimport \"testing\"\n\nfunc TestNothing(t *testing.T) {}\n")
	write("go.mod", "module m\n\ngo 1.26\n")
	write("p/p_test.go", `package p

import (
	"os"
	"os/exec"
	"testing"
	"time"
)

func TestPasses(t *testing.T)  { _ = os.Getenv("EMBERFS_SEED") == "9" && os.Getenv("EMBERFS_SOAK") == "1" || fail(t) }
func TestFails(t *testing.T)   { fail(t) }
func TestSkips(t *testing.T)   { t.Skip("nothing") }
func TestHangs(t *testing.T)   { time.Sleep(time.Minute) }
func TestRunIsOurs(t *testing.T) {
	if err := os.WriteFile("/run/soak-test", nil, 0o644); err != nil {
		t.Fatal(err)
	}
}
func TestLeaves(t *testing.T) {
	c := exec.Command("sleep", "60")
	c.Dir = t.TempDir()
	c.Dir = os.Getenv("TMPDIR") + "/left"
	if err := os.Mkdir(c.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
}
func fail(t *testing.T) bool { t.Error("as it should"); return true }

func FuzzPasses(f *testing.F) { f.Fuzz(func(t *testing.T, b []byte) {}) }
func FuzzFails(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 0 {
			t.Error("as it should")
		}
	})
}
`)
	test := func(name string, limit time.Duration) job {
		return job{name: "p/" + name, pkg: "p", tests: "^Test" + name + "$", limit: limit}
	}
	fuzz := func(name string) job {
		return job{name: "p/fuzz" + name, pkg: "p", fuzz: "Fuzz" + name, fuzzTime: time.Second, limit: time.Minute}
	}
	var out bytes.Buffer
	jobs := []job{test("Passes", time.Minute), test("Fails", time.Minute), test("Skips", time.Minute),
		test("IsNot", time.Minute), test("Hangs", 2*time.Second),
		test("RunIsOurs", time.Minute), test("Leaves", time.Minute), fuzz("Passes"), fuzz("Fails"), fuzz("IsNot"),
		{name: "q/fuzz", pkg: "q", fuzz: "FuzzPasses", fuzzTime: time.Second, limit: time.Minute}}
	o := options{seed: 9, atOnce: 2, module: module, logs: filepath.Join(module, "logs")}
	s, err := prepare(t.Context(), o, jobs, &out)
	if err != nil {
		t.Fatal(err)
	}
	s.rounds(t.Context(), t.Context())
	s.report()
	if err := s.cleanUp(); err != nil {
		t.Error(err)
	}
	want := map[string]string{
		"p/Passes": "", "p/Fails": "exit status 1", "p/Skips": "a test was skipped",
		"p/IsNot": "the pattern matches no test", "p/Hangs": "not finished after 2s", "p/RunIsOurs": "",
		"p/Leaves": "left 1 processes running", "p/fuzzPasses": "", "p/fuzzFails": "exit status 1",
		"p/fuzzIsNot": "the pattern matches no test", "q/fuzz": "the pattern matches no test",
	}
	if len(s.results) != len(want) || !s.failed() {
		t.Errorf("%d results, want %d; failed %v", len(s.results), len(want), s.failed())
	}
	for _, r := range s.results {
		if r.why != want[r.job.name] {
			t.Errorf("%s: %q, want %q", r.job.name, r.why, want[r.job.name])
		}
		if r.why == "" {
			continue
		}
		if text, err := os.ReadFile(r.log); err != nil || r.job.name == "p/Fails" &&
			!bytes.Contains(text, []byte("as it should")) {
			t.Errorf("%s: the log has %q, %v", r.job.name, text, err)
		}
		if again := r.again(); !strings.Contains(out.String(), again) || r.job.fuzz == "" &&
			again != "scripts/soak --only "+r.job.name+" --seed 9" {
			t.Errorf("%s is repeated by %q\n%s", r.job.name, again, out.String())
		}
	}
	if _, err := os.Stat("/run/soak-test"); err == nil {
		t.Error("a job has written to this system's /run")
	}
	if !strings.HasSuffix(out.String(), "\n3 passed, 8 failed\n") {
		t.Errorf("the report ends otherwise:\n%s", out.String())
	}
}

// TestRoundsEnd: no job begins when the time is over or a signal has come, and what did not run is said.
func TestRoundsEnd(t *testing.T) {
	var out bytes.Buffer
	stopped, cancel := context.WithCancel(t.Context())
	cancel()
	s := &soak{options: options{seed: 1, atOnce: 1, length: time.Hour}, jobs: testJobs(), out: &out}
	s.rounds(stopped, t.Context())
	s.report()
	if len(s.results) != 0 || !strings.Contains(out.String(), "did not run") ||
		!strings.HasSuffix(out.String(), "\n0 passed, 0 failed\n") {
		t.Errorf("%d results\n%s", len(s.results), out.String())
	}
}
