package tiers

import (
	"strings"
	"testing"

	"emberfs/tiers/cold"
)

// someoneElses makes a commit on top of the last one that changes nothing but the rules.
func (c *memCold) someoneElses(rules string) cold.ID {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := *c.commits[c.head]
	s.info.Parent, s.info.Machine, s.rules = c.head, "other", []byte(rules)
	s.info.ID[0] ^= 0xff
	c.commits[s.info.ID], c.head = &s, s.info.ID
	return s.info.ID
}

// TestRulesFollow: a commit that changes only the rules is followed, but not over rules that were written here and are
// in no commit.
func TestRulesFollow(t *testing.T) {
	const here, there, drops = "- {match: a/, class: critical}\n", "- {match: b/, class: critical}\n",
		"- {match: c/, ignore: true}\n"
	v, cold := newVolume(t)
	state := v.cfg.State
	reopen := func() {
		t.Helper()
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
		v = openTest(t, state, cold)
	}
	want := func(text string, list RulesList) {
		t.Helper()
		got := v.ListRules()
		if string(v.RulesText()) != text || got.From != list.From || len(got.Rules) != len(list.Rules) ||
			len(got.Withheld) != len(list.Withheld) || (got.Error == "") != (list.Error == "") {
			t.Errorf("%q, %+v; want %q, %+v", v.RulesText(), got, text, list)
		}
	}
	one := make([]RuleEntry, 1)
	dir := mkdir(t, v, v.root, "a")
	write(t, v, dir, "f", "x")
	if err := v.SetRulesText([]byte(here)); err != nil {
		t.Fatal(err)
	}
	want(here, RulesList{From: rulesHere, Rules: one})
	for path, class := range map[string]string{"a": "critical", "a/f": "critical", "": "session"} {
		if st, err := v.FileStatus(t.Context(), path); err != nil || st.Class != class {
			t.Errorf("%q is %q, %v; want %q", path, st.Class, err, class)
		}
	}
	v.mustSync(t)
	id := cold.someoneElses(there + drops)
	reopen()
	want(there+drops, RulesList{From: "commit " + id.String(), Rules: one, Withheld: one})
	if e := v.ListRules().Withheld[0]; e.Match != "c/" || e.Class != "ignored" || e.Line != 2 {
		t.Errorf("withheld: %+v", e)
	}
	if v.state.Head != id.String() {
		t.Errorf("in step with %s, want %s", v.state.Head, id)
	}
	if rc := v.mustSync(t); rc.New {
		t.Errorf("a commit of nothing: %+v", rc)
	}

	if err := v.SetRulesText([]byte(here)); err != nil {
		t.Fatal(err)
	}
	if err := v.SetRulesText([]byte("- match: a\n")); err == nil || !strings.Contains(v.ListRules().Error, "line 1") {
		t.Errorf("a bad list: %v, %q", err, v.ListRules().Error)
	}
	cold.someoneElses(there)
	reopen()
	want(here, RulesList{From: rulesHere, Rules: one})
	v.mustSync(t)
	if s, err := cold.Head(t.Context()); err != nil || string(s.(*memSnapshot).rules) != here {
		t.Errorf("the commit has not the rules that were written here: %v", err)
	}
}
