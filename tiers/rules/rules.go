package rules

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/bmatcuk/doublestar/v4"
)

// Class says how well the contents of a path are to be kept.
type Class uint8

const (
	Session  Class = iota // committed with the next backup
	Critical              // committed soon after close and fsync
	Memory                // in memory only: directories
)

// String is the word that rules use.
func (c Class) String() string {
	switch c {
	case Session:
		return "session"
	case Critical:
		return "critical"
	case Memory:
		return "memory"
	}
	return fmt.Sprintf("class %d", uint8(c))
}

// Never is the WarmAge of files that do not leave warm by age.
const Never = time.Duration(-1)

// Rule is one entry of the list. A duration of 0 says that the rule gives none, and the volume's own setting holds.
type Rule struct {
	Match          string // as written, without a leading slash
	Class          Class
	CriticalDelay  time.Duration // critical: from close or fsync to the commit
	BackupInterval time.Duration // from the first change to the backup that takes it
	WarmAge        time.Duration // unused for so long, a file leaves warm; Never: not by age
	FsyncRemote    bool          // fsync returns when the remote has the commit
	Ignore         bool          // stays in warm: never committed, never released
	Passthrough    bool          // ignored files: the kernel reads and writes warm itself
	Line           int           // of the text that it stands in, from 1

	below   bool   // Match ended with a slash
	pattern string // Match without that slash
	literal bool   // no character of pattern is special
}

// matches says whether the rule is about the path itself.
func (r *Rule) matches(path string, dir bool) bool {
	if r.below && !dir {
		return false
	}
	if r.literal {
		return r.pattern == path
	}
	return doublestar.MatchUnvalidated(r.pattern, path)
}

// Set is a list of rules. The zero Set and a nil one have none: everything is of class session.
type Set struct {
	rules     []Rule
	encloses  bool // there are ignore or memory rules, which hold for all below a directory
	memory    bool
	ignore    bool
	direct    bool // some ignored files are read and written by the kernel itself
	critical  bool
	remote    bool
	intervals bool
	ages      bool
	anchored  bool // what is ignored depends on more than names
}

// Rules returns the rules in their order. The caller must not change them.
func (s *Set) Rules() []Rule {
	if s == nil {
		return nil
	}
	return s.rules
}

// HasMemory says whether a rule makes paths of class memory. If none does, callers need not look paths up.
func (s *Set) HasMemory() bool { return s != nil && s.memory }

// HasIgnore says whether a rule ignores paths.
func (s *Set) HasIgnore() bool { return s != nil && s.ignore }

// HasCritical says whether a rule makes paths critical.
func (s *Set) HasCritical() bool { return s != nil && s.critical }

// CriticalPlaces returns the paths that rules of class critical name without wildcards.
func (s *Set) CriticalPlaces() []string {
	var out []string
	for i := range s.Rules() {
		if r := &s.rules[i]; r.Class == Critical && r.literal {
			out = append(out, r.pattern)
		}
	}
	return out
}

// HasPassthrough says whether there is a rule with `io: passthrough`.
func (s *Set) HasPassthrough() bool { return s != nil && s.direct }

// HasAges says whether a rule has a warm_age of its own.
func (s *Set) HasAges() bool { return s != nil && s.ages }

// Anchored says whether a path's ancestors have a say in whether it is ignored, so that renaming one of them can change
// that: false where all ignore rules are of the form **/name or **/name/.
func (s *Set) Anchored() bool { return s != nil && s.anchored }

// HasIntervals says whether a rule has a backup_interval of its own.
func (s *Set) HasIntervals() bool { return s != nil && s.intervals }

// HasFsyncRemote says whether some fsync waits for the remote.
func (s *Set) HasFsyncRemote() bool { return s != nil && s.remote }

// Decision is what the rules say of a path.
type Decision struct {
	Rule  *Rule  // nil: none matches, class session
	Index int    // of the rule, from 1; 0: none
	At    string // the path, or the directory above it, that the rule is about
}

// Class is the path's class: the rule's, or session.
func (d Decision) Class() Class {
	if d.Rule == nil {
		return Session
	}
	return d.Rule.Class
}

// Ignored says that the path is never committed.
func (d Decision) Ignored() bool { return d.Rule != nil && d.Rule.Ignore }

// Passthrough says that the kernel may read and write the file in warm itself.
func (d Decision) Passthrough() bool { return d.Rule != nil && d.Rule.Passthrough }

// Decide says what the rules say of a slash path without a slash at either end; dir says whether it is a directory. The
// root, "", is of class session.
func (s *Set) Decide(path string, dir bool) Decision {
	if s == nil || len(s.rules) == 0 || path == "" {
		return Decision{At: path}
	}
	if s.encloses {
		for i := 0; i < len(path); i++ {
			if path[i] != '/' {
				continue
			}
			if d := s.first(path[:i], true); d.Rule != nil && (d.Rule.Ignore || d.Rule.Class == Memory) {
				return d
			}
		}
	}
	return s.first(path, dir)
}

// first decides by the first rule about the path itself or, if the rule ends with a slash, about a directory above it.
func (s *Set) first(path string, dir bool) Decision {
	for i := range s.rules {
		r := &s.rules[i]
		if at, ok := r.about(path, dir); ok {
			return Decision{Rule: r, Index: i + 1, At: at}
		}
	}
	return Decision{At: path}
}

// about says whether r is about a path. at is what r matches: the path, or a directory above it.
func (r *Rule) about(path string, dir bool) (at string, ok bool) {
	if r.matches(path, dir) {
		return path, true
	}
	if !r.below {
		return "", false
	}
	if r.literal {
		if strings.HasPrefix(path, r.pattern) && len(path) > len(r.pattern) && path[len(r.pattern)] == '/' {
			return r.pattern, true
		}
		return "", false
	}
	for i := 0; i < len(path); i++ {
		if path[i] == '/' && r.matches(path[:i], true) {
			return path[:i], true
		}
	}
	return "", false
}

// Step is what one rule says of a path, for people.
type Step struct {
	Index   int
	Rule    *Rule
	Decides bool
	Why     string
}

// Explain tells rule by rule why Decide says what it says of a path.
func (s *Set) Explain(path string, dir bool) (Decision, []Step) {
	d := s.Decide(path, dir)
	var steps []Step
	for i := range s.Rules() {
		r := &s.rules[i]
		step := Step{Index: i + 1, Rule: r}
		at, about := r.about(path, dir)
		switch {
		case d.Index == i+1:
			step.Decides = true
			step.Why = "matches the path"
			if d.At != path {
				step.Why = fmt.Sprintf("matches the directory %s above it", d.At)
				if r.Ignore || r.Class == Memory {
					step.Why += ", which is " + r.what() + " with everything below"
				}
			}
		case !about && r.below && !dir && r.matches(path, true):
			step.Why = "is about a directory, the path is none"
		case !about:
			step.Why = "does not match"
		case at != path:
			step.Why = fmt.Sprintf("matches the directory %s above it, but rule %d decides", at, d.Index)
		default:
			step.Why = fmt.Sprintf("matches, but rule %d decides", d.Index)
		}
		steps = append(steps, step)
	}
	return d, steps
}

func (r *Rule) what() string {
	if r.Ignore {
		return "ignored"
	}
	return r.Class.String()
}

// String returns the rule in one line.
func (r *Rule) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: ", r.Match)
	if r.Ignore {
		b.WriteString("ignore")
	} else {
		b.WriteString(r.Class.String())
	}
	for _, o := range []struct {
		name  string
		value time.Duration
	}{{"critical_delay", r.CriticalDelay}, {"backup_interval", r.BackupInterval}, {"warm_age", r.WarmAge}} {
		if o.value == Never {
			fmt.Fprintf(&b, ", %s none", o.name)
		} else if o.value != 0 {
			fmt.Fprintf(&b, ", %s %v", o.name, o.value)
		}
	}
	if r.FsyncRemote {
		b.WriteString(", fsync remote")
	}
	if r.Passthrough {
		b.WriteString(", io passthrough")
	}
	return b.String()
}

// Text returns, in YAML, a list of rules that gives each path the same class and ignores the same paths, without the
// other keys.
func (s *Set) Text() []byte {
	var b []byte
	for _, r := range s.Rules() {
		b = fmt.Appendf(b, "- match: %s\n", quote(r.Match))
		if r.Ignore {
			b = append(b, "  ignore: true\n"...)
		} else {
			b = fmt.Appendf(b, "  class: %v\n", r.Class)
		}
	}
	return b
}

// quote writes a string as JSON does, which YAML reads.
func quote(text string) []byte {
	b, err := json.Marshal(text)
	if err != nil { // never: it is valid UTF-8
		return []byte(`""`)
	}
	return b
}

// WithoutDrops returns the set without the rules that keep data out of commits, and the number of those rules.
func (s *Set) WithoutDrops() (*Set, int) {
	var kept []Rule
	for _, r := range s.Rules() {
		if !r.Ignore && r.Class != Memory {
			kept = append(kept, r)
		}
	}
	dropped := len(s.Rules()) - len(kept)
	if dropped == 0 {
		return s, 0
	}
	return newSet(kept), dropped
}

func newSet(list []Rule) *Set {
	s := &Set{rules: list}
	for i := range list {
		r := &list[i]
		s.memory = s.memory || r.Class == Memory
		s.ignore = s.ignore || r.Ignore
		s.direct = s.direct || r.Passthrough
		s.critical = s.critical || r.Class == Critical
		s.remote = s.remote || r.FsyncRemote
		s.intervals = s.intervals || r.BackupInterval > 0
		s.ages = s.ages || r.WarmAge != 0
		if name, anywhere := strings.CutPrefix(r.pattern, "**/"); !anywhere || strings.ContainsAny(name, "/{[\\") {
			s.anchored = true
		}
	}
	s.anchored = s.anchored && s.ignore
	s.encloses = s.memory || s.ignore
	return s
}
