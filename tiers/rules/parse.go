package rules

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/bmatcuk/doublestar/v4"
	"go.yaml.in/yaml/v3"
)

// Bounds of a list of rules. A text may come from a repository that somebody else made.
const (
	MaxBytes  = 64 << 10
	maxRules  = 256
	maxMatch  = 4096
	maxBraces = 8 // of one pattern: each pair doubles the work
	// leastTime is the shortest delay, interval or age.
	leastTime = 100 * time.Millisecond
)

// Error says what is wrong with a text of rules.
type Error struct {
	Line int // from 1; 0: the text as a whole
	Rule int // from 1; 0: none in particular
	Msg  string
}

func (e *Error) Error() string {
	where := ""
	if e.Line > 0 {
		where = fmt.Sprintf("line %d: ", e.Line)
	}
	if e.Rule > 0 {
		where += fmt.Sprintf("rule %d: ", e.Rule)
	}
	return where + e.Msg
}

// Parse reads a list of rules in YAML. A text without rules gives an empty Set. Errors are *Error.
func Parse(text []byte) (*Set, error) {
	doc, err := parseDocument(text)
	if err != nil {
		return nil, err
	}
	if doc == nil {
		return newSet(nil), nil
	}
	if doc.Kind == yaml.MappingNode {
		if len(doc.Content) != 2 || doc.Content[0].Value != "rules" {
			return nil, &Error{Line: doc.Line, Msg: "want a list of rules, or a mapping with the one key `rules`"}
		}
		doc = doc.Content[1]
	}
	return parseList(doc)
}

// ParseConfig reads the rules in a settings file, its key `rules`. found is false where there is none.
func ParseConfig(text []byte) (s *Set, found bool, err error) {
	doc, err := parseDocument(text)
	if err != nil || doc == nil || doc.Kind != yaml.MappingNode {
		return nil, false, err
	}
	for i := 0; i+1 < len(doc.Content); i += 2 {
		if doc.Content[i].Value == "rules" {
			s, err = parseList(doc.Content[i+1])
			return s, true, err
		}
	}
	return nil, false, nil
}

// parseDocument returns the root node, nil for an empty text.
func parseDocument(text []byte) (*yaml.Node, error) {
	if len(text) > MaxBytes {
		return nil, &Error{Msg: fmt.Sprintf("%d bytes, at most %d are taken", len(text), MaxBytes)}
	}
	if !utf8.Valid(text) {
		return nil, &Error{Msg: "the text is not UTF-8"}
	}
	d := yaml.NewDecoder(bytes.NewReader(text))
	var doc yaml.Node
	if err := d.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, nil
	} else if err != nil {
		return nil, &Error{Msg: "not YAML: " + strings.TrimPrefix(err.Error(), "yaml: ")}
	}
	var more yaml.Node
	if err := d.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, &Error{Msg: "more than one YAML document"}
	}
	if len(doc.Content) != 1 || doc.Content[0].Tag == "!!null" {
		return nil, nil
	}
	return doc.Content[0], nil
}

func parseList(list *yaml.Node) (*Set, error) {
	if list.Tag == "!!null" {
		return newSet(nil), nil
	}
	if list.Kind != yaml.SequenceNode {
		return nil, &Error{Line: list.Line, Msg: "want a list of rules, each with `match` and `class` or `ignore`"}
	}
	if len(list.Content) > maxRules {
		return nil, &Error{Line: list.Line, Msg: fmt.Sprintf("%d rules, at most %d are taken", len(list.Content),
			maxRules)}
	}
	rules := make([]Rule, 0, len(list.Content))
	for i, node := range list.Content {
		r, err := parseRule(node)
		if err != nil {
			err.Rule = i + 1
			if err.Line == 0 {
				err.Line = node.Line
			}
			return nil, err
		}
		rules = append(rules, *r)
	}
	return newSet(rules), nil
}

// keys lists the keys that a rule may have, for error messages.
func keys() string {
	return "match, class, critical_delay, backup_interval, warm_age, fsync, ignore, io"
}

func parseRule(node *yaml.Node) (*Rule, *Error) {
	if node.Kind != yaml.MappingNode {
		return nil, &Error{Msg: "want `match: PATTERN` and `class: critical`, `session` or `memory`, or `ignore: true`"}
	}
	r := &Rule{Line: node.Line}
	seen := map[string]bool{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		if key.Kind != yaml.ScalarNode || value.Kind != yaml.ScalarNode || value.Tag == "!!null" {
			return nil, &Error{Line: key.Line,
				Msg: fmt.Sprintf("%q: want one plain value (no anchors, aliases or lists)", key.Value)}
		}
		if seen[key.Value] {
			return nil, &Error{Line: key.Line, Msg: fmt.Sprintf("%q is given twice", key.Value)}
		}
		seen[key.Value] = true
		if err := r.set(key.Value, value); err != nil {
			return nil, &Error{Line: value.Line, Msg: fmt.Sprintf("%s: %v", key.Value, err)}
		}
	}
	if !seen["match"] {
		return nil, &Error{Msg: "`match` is missing"}
	}
	return r, r.check(seen)
}

func (r *Rule) set(key string, value *yaml.Node) (err error) {
	text := value.Value
	switch key {
	case "match":
		return r.setMatch(text)
	case "class":
		switch text {
		case "session":
			r.Class = Session
		case "critical":
			r.Class = Critical
		case "memory":
			r.Class = Memory
		default:
			return fmt.Errorf("%q is no class: want critical, session or memory", text)
		}
	case "critical_delay":
		r.CriticalDelay, err = duration(text)
	case "backup_interval":
		r.BackupInterval, err = duration(text)
	case "warm_age":
		if strings.EqualFold(text, "none") {
			r.WarmAge = Never
			return nil
		}
		r.WarmAge, err = duration(text)
	case "fsync":
		switch text {
		case "local":
		case "remote":
			r.FsyncRemote = true
		default:
			return fmt.Errorf("%q: want local or remote", text)
		}
	case "ignore":
		if value.Tag != "!!bool" {
			return fmt.Errorf("%q: want true or false", text)
		}
		return value.Decode(&r.Ignore)
	case "io":
		switch text {
		case "tiered":
		case "passthrough":
			r.Passthrough = true
		default:
			return fmt.Errorf("%q: want tiered or passthrough", text)
		}
	default:
		return fmt.Errorf("unknown: a rule has %s", keys())
	}
	return err
}

func duration(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("%q: want a number and a unit, such as 500ms, 30s or 5m", text)
	}
	if d < leastTime {
		return 0, fmt.Errorf("%q: the least is %v", text, leastTime)
	}
	return d, nil
}

// setMatch checks a pattern and takes it apart.
func (r *Rule) setMatch(text string) error {
	p := strings.TrimPrefix(text, "/")
	r.Match = p
	r.pattern = strings.TrimSuffix(p, "/")
	r.below = r.pattern != p
	r.literal = !strings.ContainsAny(r.pattern, `*?[]{}\`)
	switch {
	case len(text) > maxMatch:
		return fmt.Errorf("%d bytes, at most %d are taken", len(text), maxMatch)
	case strings.ContainsRune(text, 0):
		return errors.New("contains NUL")
	case r.pattern == "":
		return errors.New("no pattern; `**` matches everything")
	case strings.Count(r.pattern, "{") > maxBraces:
		return fmt.Errorf("more than %d braces", maxBraces)
	case !doublestar.ValidatePattern(r.pattern):
		return fmt.Errorf("%q is no glob: a bracket, brace or backslash has no end", text)
	}
	for name := range strings.SplitSeq(r.pattern, "/") {
		if name == "" || name == "." || name == ".." {
			return fmt.Errorf("%q: empty, . and .. are no names of a path in the volume", text)
		}
	}
	if r.literal && (r.pattern == ".emberfs" || strings.HasPrefix(r.pattern, ".emberfs/")) {
		return fmt.Errorf("%q: .emberfs is EmberFS' own", text)
	}
	return nil
}

// check returns an error if the rule's keys do not go together; seen has the keys that the rule gives.
func (r *Rule) check(seen map[string]bool) *Error {
	bad := func(format string, args ...any) *Error { return &Error{Msg: fmt.Sprintf(format, args...)} }
	if !seen["class"] && !r.Ignore {
		return bad("`class` or `ignore: true` is missing")
	}
	if r.Ignore {
		for _, k := range []string{"critical_delay", "backup_interval", "warm_age", "fsync"} {
			if seen[k] {
				return bad("`%s` says nothing of files that are ignored: they are never committed and never leave warm",
					k)
			}
		}
		if seen["class"] && r.Class != Session {
			return bad("`ignore` and `class: %v` contradict each other", r.Class)
		}
		return nil
	}
	if r.Passthrough {
		return bad("`io: passthrough` needs `ignore: true`: what the daemon does not see cannot be committed")
	}
	if seen["critical_delay"] && r.Class != Critical {
		return bad("`critical_delay` is for `class: critical`")
	}
	if r.Class != Memory {
		return nil
	}
	if !r.below {
		return bad("a memory rule is about directories: end `match` with a slash")
	}
	for _, k := range []string{"backup_interval", "warm_age", "fsync"} {
		if seen[k] {
			return bad("`%s` says nothing of class memory, which is neither committed nor in warm", k)
		}
	}
	return nil
}
