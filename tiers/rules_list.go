package tiers

import "emberfs/tiers/rules"

// RulesList tells the rules of a volume.
type RulesList struct {
	From     string      `json:"from"`     // as RulesStatus.From
	Rules    []RuleEntry `json:"rules"`    // in effect, in their order
	Withheld []RuleEntry `json:"withheld"` // of the volume's own, but not in effect (see RulesStatus)
	Error    string      `json:"error"`    // why other rules were refused; "" where none were
}

// RuleEntry is one rule of a RulesList.
type RuleEntry struct {
	Match string `json:"match"`
	Class string `json:"class"` // critical, session, memory, or ignored
	Rule  string `json:"rule"`  // all of it, for people
	Line  int    `json:"line"`  // of the text that it stands in, from 1
}

// ListRules tells the rules in effect, where they come from, and which are not in effect.
func (v *Volume) ListRules() RulesList {
	v.book.mu.Lock()
	set, text, from, withheld := v.Rules(), v.book.text, v.book.from, v.book.withheld
	v.book.mu.Unlock()
	l := ListRules(set, from)
	if withheld > 0 {
		if own, err := rules.Parse(text); err == nil { // it was parsed before
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

// ListRules tells a set that is of no volume.
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

// classWord is the class of a path in a word: ignored paths are of none.
func classWord(d rules.Decision) string {
	if d.Ignored() {
		return "ignored"
	}
	return d.Class().String()
}
