package rules

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func parse(t *testing.T, text string) *Set {
	t.Helper()
	s, err := Parse([]byte(text))
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return s
}

const workspace = `
- match: state/
  class: critical
  critical_delay: 500ms
- match: "**/*.db"
  class: critical
  fsync: remote
- match: build/keep/
  class: critical
- match: build/
  ignore: true
  io: passthrough
- match: "**/{.cache,tmp}/"
  class: memory
- match: "*.log"
  class: session
  warm_age: none
  backup_interval: 1m
`

func TestDecide(t *testing.T) {
	s := parse(t, workspace)
	for _, c := range []struct {
		path  string
		dir   bool
		index int
		at    string
	}{
		{"", true, 0, ""},
		{"state", true, 1, "state"},
		{"state", false, 0, "state"}, // a slash at the end is about directories
		{"state/a/b", false, 1, "state"},
		{"states", true, 0, "states"},
		{"x/state/a", false, 0, "x/state/a"}, // patterns are about the whole path
		{"a.db", false, 2, "a.db"},
		{"x/y/a.db", false, 2, "x/y/a.db"},
		{"x/y/a.db-wal", false, 0, "x/y/a.db-wal"},
		{"build", true, 4, "build"},
		{"build/x.db", false, 4, "build"},       // an ignored directory is so with all below,
		{"build/keep/x", false, 4, "build"},     // whatever else matches there
		{"a/tmp/x.db", false, 5, "a/tmp"},       // and so is a memory one
		{"a/.cache/b/c/d", true, 5, "a/.cache"}, // at any depth
		{"tmp", true, 5, "tmp"},
		{"x.log", false, 6, "x.log"},
		{"a/x.log", false, 0, "a/x.log"}, // * stops at a slash
	} {
		d := s.Decide(c.path, c.dir)
		if d.Index != c.index || d.At != c.at || (d.Rule == nil) != (c.index == 0) {
			t.Errorf("%q (directory %v): rule %d by %q, want %d by %q", c.path, c.dir, d.Index, d.At, c.index, c.at)
		}
		e, steps := s.Explain(c.path, c.dir)
		if e != d {
			t.Errorf("%q: explained as %+v, decided as %+v", c.path, e, d)
		}
		if len(steps) != len(s.Rules()) {
			t.Errorf("%q: %d steps of %d rules", c.path, len(steps), len(s.Rules()))
		}
		for _, step := range steps {
			if step.Decides != (step.Index == c.index) || step.Why == "" {
				t.Errorf("%q: step %+v", c.path, step)
			}
		}
	}
	r := s.Rules()
	if r[0].CriticalDelay != 500*time.Millisecond || !r[1].FsyncRemote || !r[3].Ignore || !r[3].Passthrough ||
		r[5].WarmAge != Never || r[5].BackupInterval != time.Minute {
		t.Errorf("rules: %+v", r)
	}
	if !s.HasMemory() || !s.HasIgnore() || !s.HasCritical() || !s.HasFsyncRemote() || !s.HasIntervals() {
		t.Errorf("what the set has: %+v", s)
	}
	if kept, n := s.WithoutDrops(); n != 2 || kept.HasMemory() || kept.HasIgnore() ||
		kept.Decide("build/keep/x", false).Class() != Critical {
		t.Errorf("without rules that drop: %+v, %d", kept, n)
	}
}

func TestNoRules(t *testing.T) {
	for _, text := range []string{"", "# nothing\n", "rules:\n", "rules: []\n", "[]\n", "---\n"} {
		s := parse(t, text)
		if len(s.Rules()) != 0 || s.Decide("a/b", false).Class() != Session {
			t.Errorf("%q: %+v", text, s)
		}
	}
	var none *Set
	if none.HasMemory() || none.Decide("a", true).Rule != nil || none.Rules() != nil {
		t.Error("a nil set has rules")
	}
	if s := parse(t, "rules:\n  - match: /a/\n    class: memory\n"); s.Decide("a/b", false).Class() != Memory {
		t.Error("the key `rules` and a slash in front are not taken")
	}
}

// TestParseRefuses: what is wrong is said with its line, and nothing of it is taken.
func TestParseRefuses(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"- match: a\n", "line 1: rule 1: `class` or `ignore: true` is missing"},
		{"- class: critical\n", "`match` is missing"},
		{"- match: a\n  class: crytical\n", `line 2: rule 1: class: "crytical" is no class`},
		{"- match: ok\n  class: session\n- match: a\n  clas: critical\n", "line 4: rule 2: clas: unknown"},
		{"- match: a\n  match: b\n", "given twice"},
		{"- match: \"[\"\n  class: session\n", "is no glob"},
		{"- match: \"{a\"\n  class: session\n", "is no glob"},
		{"- match: a/../b\n  class: session\n", ".. are no names"},
		{"- match: a//b\n  class: session\n", "are no names"},
		{"- match: /\n  class: session\n", "no pattern"},
		{"- match: .emberfs/\n  class: memory\n", "EmberFS' own"},
		{"- match: a\n  class: memory\n", "end `match` with a slash"},
		{"- match: a/\n  class: memory\n  warm_age: 5m\n", "warm_age"},
		{"- match: a\n  class: session\n  critical_delay: 1s\n", "for `class: critical`"},
		{"- match: a\n  class: critical\n  critical_delay: 1\n", "want a number and a unit"},
		{"- match: a\n  class: critical\n  critical_delay: -1s\n", "the least is"},
		{"- match: a\n  class: critical\n  fsync: never\n", "want local or remote"},
		{"- match: a\n  class: session\n  io: passthrough\n", "needs `ignore: true`"},
		{"- match: a\n  ignore: true\n  class: critical\n", "contradict"},
		{"- match: a\n  ignore: yes please\n", "want true or false"},
		{"- match: a\n  ignore: true\n  fsync: remote\n", "`fsync`"},
		{"- &x {match: a, class: session}\n- *x\n", "rule 2"},
		{"a: b\n", "want a list of rules"},
		{"rules: 7\n", "want a list of rules"},
		{"- [a]\n", "want `match: PATTERN`"},
		{"- match: [a]\n  class: session\n", "want one plain value"},
		{"- match: a\n  class:\n", "want one plain value"},
		{"{\n", "not YAML"},
		{"--- []\n--- []\n", "more than one"},
		{"\xff\xfe", "UTF-8"},
		{strings.Repeat("# comment\n", 7000), "at most"},
		{strings.Repeat("- {match: a, class: session}\n", 257), "at most 256"},
	} {
		s, err := Parse([]byte(c.text))
		var e *Error
		if !errors.As(err, &e) || s != nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.60q: %v, want %q", c.text, err, c.want)
		}
	}
}

func TestParseConfig(t *testing.T) {
	s, found, err := ParseConfig([]byte("memory_limit: 100MB\nrules:\n  - {match: a/, class: memory}\n"))
	if err != nil || !found || !s.HasMemory() {
		t.Errorf("%+v, %v, %v", s, found, err)
	}
	if _, found, err := ParseConfig([]byte("memory_limit: 100MB\n")); found || err != nil {
		t.Errorf("rules found where there are none: %v", err)
	}
	if _, _, err := ParseConfig([]byte("rules:\n  - {match: a, class: memory}\n")); err == nil ||
		!strings.Contains(err.Error(), "line 2") {
		t.Errorf("a bad rule: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(workspace), "build/keep/x.db")
	f.Add([]byte("- match: \"{a,b,{c,d}}/**/[!x]*\\\\?\"\n  ignore: true\n"), "a/b/c")
	f.Fuzz(func(t *testing.T, text []byte, path string) {
		s, err := Parse(text)
		if err != nil {
			if s != nil {
				t.Error("a set with an error")
			}
			return
		}
		if len(path) > 200 {
			return
		}
		for _, dir := range []bool{false, true} {
			d, steps := s.Explain(path, dir)
			if len(steps) != len(s.Rules()) || d.Index > len(steps) {
				t.Errorf("%+v of %d rules", d, len(steps))
			}
		}
		for i := range s.Rules() {
			_ = s.Rules()[i].String()
		}
	})
}
