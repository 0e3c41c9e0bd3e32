package tiers

import (
	"context"
	"emberfs/tiers/cold"
	"emberfs/tiers/rules"
	"emberfs/tiers/warm"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// SetRulesText replaces the volume's own rules, durably, and puts them in effect at once unless the settings file has
// some. A text that is no list of rules is refused with EINVAL and changes nothing; status says why until a good one
// comes.
func (v *Volume) SetRulesText(text []byte) error {
	set, err := rules.Parse(text)
	if err != nil {
		err = fmt.Errorf("%s: %w; the rules before it stay", rulesName, err)
		v.points.setError("rules", err)
		v.log.WithError(err).Warn("new rules are refused")
		return fmt.Errorf("%w: %w", unix.EINVAL, err)
	}
	b := &v.book
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := v.storeRules(text, sumOf(text)); err != nil {
		return err
	}
	v.points.setError("rules", nil)
	b.text, b.pending = text, true
	if v.cfg.Rules == nil {
		v.applyRules(set, rulesHere, 0)
	}
	v.risk.lanes[laneMain].touched()
	return nil
}

// applyRules puts set in effect, and notes where it is from and how many of its rules were withheld. book.mu is held,
// or the volume is not open yet.
func (v *Volume) applyRules(set *rules.Set, from string, withheld int) {
	v.book.from, v.book.withheld = from, withheld
	v.putRules(set)
	v.log.WithField("rules", len(set.Rules())).WithField("from", from).Info("rules are in effect")
}

// putRules makes set the rules in effect. It also writes them into the state directory, for the commands that look at a
// volume without its daemon.
func (v *Volume) putRules(set *rules.Set) {
	v.barrier.Lock() // no change is under way, so all that changed under the old rules is marked
	before := v.book.set.Swap(set)
	v.book.changes.Add(1)
	v.barrier.Unlock()
	if v.memory.seq.Load() > 0 { // openMemory has run
		v.memoryRulesChanged()
	}
	if v.started.Load() && set.HasCritical() && (before.HasIgnore() || !v.rootClean()) {
		v.critical.needWhole(v.leastCriticalDelay(set)) // anything may have become critical
	}
	v.shareWarm()
	path := filepath.Join(v.cfg.State, rules.EffectiveFile)
	old, err := os.ReadFile(path)
	if text := set.Text(); err != nil && len(text) > 0 || err == nil && string(old) != string(text) {
		if err := warm.WriteFileDurable(path, text, 0o600); err != nil {
			v.log.WithError(err).Warn("emberfs diff and check will not know the rules in effect")
		}
	}
}

// loadRules puts the rules in effect that a start finds: those of the settings file, else the volume's own.
func (v *Volume) loadRules() error {
	text, err := os.ReadFile(filepath.Join(v.cfg.State, rulesName))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("read the rules: %w", err)
	}
	b := &v.book
	b.mu.Lock()
	defer b.mu.Unlock()
	b.text, b.pending, b.from = text, true, rulesNone
	if v.cfg.Rules != nil {
		v.applyRules(v.cfg.Rules, rulesConfig, 0)
		return nil
	}
	v.ownRules("the volume")
	return nil
}

// ownRules puts the volume's own text in effect, as far as this machine agrees. book.mu is held.
func (v *Volume) ownRules(from string) {
	b := &v.book
	set, err := rules.Parse(b.text)
	if err != nil { // they are from a repository: SetRulesText refuses such a text
		err = fmt.Errorf(".emberfs/%s of %s: %w; there are no rules until it is mended", rulesName, from, err)
		v.points.setError("rules", err)
		v.log.WithError(err).Warn("the volume's rules are refused")
		v.book.from, v.book.withheld = rulesNone, 0
		v.putRules(nil)
		return
	}
	v.points.setError("rules", nil)
	withheld := 0
	switch {
	case v.agreed(sumOf(b.text)):
		from = rulesHere
	case !v.cfg.AcceptRules:
		if set, withheld = set.WithoutDrops(); withheld > 0 {
			v.log.WithField("rules", withheld).WithField("from", from).
				Warn("rules that keep data out of commits came with the repository and are not in effect: mount with " +
					"accept_rules, or write them to .emberfs/rules.yaml here")
		}
	}
	if len(b.text) > 0 {
		v.applyRules(set, from, withheld)
		return
	}
	v.book.from, v.book.withheld = rulesNone, 0
	v.putRules(nil)
}

// ExplainRules says which of the rules in effect decides about a slash path from the root.
func (v *Volume) ExplainRules(path string, dir bool) RulesReport {
	v.book.mu.Lock()
	from := v.book.from
	v.book.mu.Unlock()
	return ExplainRules(v.Rules(), from, path, dir)
}

// ExplainRules says which rule decides about a slash path from the root, and why; dir says whether it is a directory.
func ExplainRules(set *rules.Set, from, path string, dir bool) RulesReport {
	d, steps := set.Explain(path, dir)
	r := RulesReport{Path: path, Class: classWord(d), Rule: d.Index, From: from,
		Why: "no rule matches: the default class is session", Rules: []RuleShown{}}
	for _, s := range steps {
		r.Rules = append(r.Rules, RuleShown{Rule: s.Rule.String(), Line: s.Rule.Line, Decides: s.Decides, Why: s.Why})
		if s.Decides {
			r.Why = s.Why
		}
	}
	return r
}

// RulesReport explains what the rules say of one path.
type RulesReport struct {
	Path  string      `json:"path"`
	Class string      `json:"class"` // critical, session, memory, or ignored
	Rule  int         `json:"rule"`  // the one that decides, from 1; 0: none, the default
	Why   string      `json:"why"`
	From  string      `json:"from"` // as RulesStatus.From
	Rules []RuleShown `json:"rules"`
}

// RuleShown is one rule in a RulesReport.
type RuleShown struct {
	Rule    string `json:"rule"`
	Line    int    `json:"line"`
	Decides bool   `json:"decides"`
	Why     string `json:"why"`
}

// followRules takes over the rules of the commit that warm was brought to, unless there are rules that were written
// here and are in no commit yet.
func (v *Volume) followRules(ctx context.Context, s cold.Snapshot) error {
	text, err := s.Rules(ctx)
	if err != nil {
		v.points.setError("rules", err)
		v.log.WithError(err).Warn("the volume's rules cannot be read: those here stay")
		return nil
	}
	b := &v.book
	b.mu.Lock()
	defer b.mu.Unlock()
	if string(b.text) == string(text) {
		b.pending = false
		return nil
	}
	if v.rulesWritten(ctx) {
		v.log.WithField("commit", s.Info().ID.String()).Warn(
			"the commit has other rules: those that were written here and are in no commit yet stay")
		return nil
	}
	b.pending = false
	if err := v.storeRules(text, ""); err != nil {
		return fmt.Errorf("store the volume's rules: %w", err)
	}
	b.text = text
	if v.cfg.Rules == nil {
		v.ownRules("commit " + s.Info().ID.String())
	}
	return nil
}
