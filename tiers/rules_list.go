package tiers

import "emberfs/tiers/rules"

// RulesList lists the rules of a volume.
type RulesList struct {
	From     string      `json:"from"`     // as RulesStatus.From
	Rules    []RuleEntry `json:"rules"`    // those in effect, in their order
	Withheld []RuleEntry `json:"withheld"` // the volume's own that are not in effect (see RulesStatus)
	Error    string      `json:"error"`    // why other rules were refused; "" where none were
}

// RuleEntry is one rule of a RulesList.
type RuleEntry struct {
	Match string `json:"match"`
	Class string `json:"class"` // critical, session, memory, or ignored
	Rule  string `json:"rule"`  // the whole rule, for people
	Line  int    `json:"line"`  // its line in its text, from 1
}

// ListRules lists the rules in effect, where they come from, and those of the volume's own that are not in effect.
func (v *Volume) ListRules() RulesList {
	v.book.mu.Lock()
	set, text, from, withheld := v.Rules(), v.book.text, v.book.from, v.book.withheld
	v.book.mu.Unlock()
	l := ListRules(set, from)
	if withheld > 0 {
		if own, err := rules.Parse(text); err == nil { // it never fails: the text was parsed before
			for _, r := range own.Rules() {
				if r.Ignore || r.Class == rules.Memory {
					l.Withheld = append(l.Withheld, ruleEntry(&r))
				}
			}
		}
	}
	v.points.mu.Lock()
	l.Error = v.points.errors["rules"]
	v.points.mu.Unlock()
	return l
}

// ListRules lists a set of rules without a volume. from is as RulesStatus.From.
func ListRules(set *rules.Set, from string) RulesList {
	l := RulesList{From: from, Rules: []RuleEntry{}, Withheld: []RuleEntry{}}
	for _, r := range set.Rules() {
		l.Rules = append(l.Rules, ruleEntry(&r))
	}
	return l
}

func ruleEntry(r *rules.Rule) RuleEntry {
	return RuleEntry{Match: r.Match, Class: classWord(rules.Decision{Rule: r}), Rule: r.String(), Line: r.Line}
}

// classWord returns the class of a path in a word, or "ignored" for an ignored path, which has none.
func classWord(d rules.Decision) string {
	if d.Ignored() {
		return "ignored"
	}
	return d.Class().String()
}
