package main

import (
	"fmt"
	"math"
	"path/filepath"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/sirupsen/logrus"

	"emberfs/backup/wire"
	"emberfs/cmd/emberfs/notice"
	"emberfs/tiers"
)

// kind is the type of a setting's value.
type kind int

const (
	kindString kind = iota
	kindPath        // made absolute by the working directory
	kindSize        // bytes: 100MB, 64MiB
	kindDuration
	kindBool
	kindChoice
	kindSecret // where a secret is; the variable EMBERFS_NAME is the secret itself
	kindKey    // the same, or a path, made absolute
	kindProxy  // URL without a password
	kindNotice // auto, aws, gcp, azure, file:PATH, command:COMMAND, none
	kindTime   // a point in time, as in RFC 3339
	kindBudget // what may be at risk: a time, a size, or both
)

// setting is one row of the table from which flags, -o options, YAML keys and environment variables are all derived.
// Its name is the spelling in -o and YAML. The flag has '-' instead of '_'; the variable is in capitals and begins with
// EMBERFS_.
type setting struct {
	name    string
	kind    kind
	def     string // the default, as a user would write it; "" means unset
	choices []string
	min     int64  // the least allowed value, in bytes (kindSize) or ns (kindDuration)
	none    bool   // "none" and 0 are allowed too, whatever min is; they mean no limit, or never
	help    string // for --help: what it does, in a few words
	manual  string // for emberfs-settings(5): the same in full sentences, and everything else that a user wants to know
	defHelp string // shown instead of def if the default depends on the user
}

// planned returns settings that are designed but not implemented yet. They are refused, because accepting them would
// promise something that does not happen.
func planned() []string {
	return []string{"fsync"}
}

func (s *setting) flag() string { return strings.ReplaceAll(s.name, "_", "-") }
func (s *setting) env() string  { return "EMBERFS_" + strings.ToUpper(s.name) }

// usage returns the flag's help text with its default.
func (s *setting) usage() string {
	def := s.def
	if s.defHelp != "" {
		def = s.defHelp
	}
	text := s.help
	if s.kind == kindChoice {
		text += ": " + strings.Join(s.choices, ", ")
	}
	if def != "" {
		text += " (default " + def + ")"
	}
	return text
}

// typeName returns what --help shows after the flag.
func (s *setting) typeName() string {
	switch s.kind {
	case kindTime:
		return "date"
	case kindPath, kindKey:
		return "path"
	case kindSize:
		return "size"
	case kindDuration:
		return "time"
	case kindBudget:
		return "time,size"
	case kindBool:
		return "bool"
	}
	return "string"
}

// canonical converts a value that a user wrote to its only canonical spelling, or says what is wrong with it. What may
// be a secret by mistake is not repeated.
func (s *setting) canonical(value string) (string, error) {
	switch s.kind {
	case kindSecret, kindKey, kindProxy:
		return s.canonicalRemote(value)
	}
	if strings.ContainsRune(value, 0) {
		return "", fmt.Errorf("bad value %q: contains NUL", value)
	}
	if s.none && strings.EqualFold(value, "none") {
		value = "0"
	}
	switch s.kind {
	case kindPath:
		if value == "" {
			return "", nil
		}
		abs, err := filepath.Abs(value)
		if err != nil {
			return "", fmt.Errorf("bad path %q: %w", value, err)
		}
		return abs, nil
	case kindSize:
		n, err := parseSize(value)
		if err != nil {
			return "", err
		}
		if n < s.min && (n != 0 || !s.none) {
			return "", fmt.Errorf("bad size %q: the least is %s%s", value, humanize.IBytes(uint64(s.min)), s.orNone())
		}
		return fmt.Sprint(n), nil
	case kindBudget:
		b, err := parseBudget(value)
		return b.Time.String() + "," + fmt.Sprint(b.Bytes), err
	case kindDuration:
		d, err := time.ParseDuration(value)
		if err != nil {
			return "", fmt.Errorf("bad time %q: want a number and a unit, such as 30s, 5m or 2h", value)
		}
		if int64(d) < s.min && (d != 0 || !s.none) {
			return "", fmt.Errorf("bad time %q: the least is %s%s", value, time.Duration(s.min), s.orNone())
		}
		return d.String(), nil
	case kindBool:
		switch strings.ToLower(value) {
		case "true", "on", "yes", "1":
			return "true", nil
		case "false", "off", "no", "0":
			return "false", nil
		}
		return "", fmt.Errorf("bad value %q: want on or off", value)
	case kindChoice:
		for _, c := range s.choices {
			if strings.EqualFold(c, value) {
				return c, nil
			}
		}
		return "", fmt.Errorf("bad value %q: want one of %s", value, strings.Join(s.choices, ", "))
	case kindNotice:
		spec, err := notice.Parse(value)
		if err != nil {
			return "", fmt.Errorf("bad value %q: %w", value, err)
		}
		return spec.String(), nil
	case kindTime:
		if value == "" {
			return "", nil
		}
		at, err := time.Parse(time.RFC3339, value)
		if err != nil {
			return "", fmt.Errorf("bad time %q: want a date, such as 2026-11-30T18:00:00Z", value)
		}
		return at.UTC().Format(time.RFC3339), nil
	}
	return value, nil
}

// canonicalRemote is canonical for what leads to a secret.
func (s *setting) canonicalRemote(value string) (string, error) {
	if value == "" {
		return "", nil
	}
	if s.kind == kindProxy {
		return value, wire.CheckProxy(value)
	}
	if s.kind == kindKey && !strings.ContainsAny(value, "\r\n\x00") && // a key itself has lines
		(filepath.IsAbs(value) || !strings.Contains(value, ":")) {
		return filepath.Abs(value)
	}
	r, err := wire.ParseReference(value)
	if err != nil && s.kind == kindKey {
		err = fmt.Errorf("%w, or a path", err)
	}
	return r.String(), err
}

// orNone returns the end of a message about a value that is too small.
func (s *setting) orNone() string {
	if s.none {
		return ", or none"
	}
	return ""
}

// parseSize parses 100MB (decimal), 64MiB (binary) or a number of bytes.
func parseSize(value string) (int64, error) {
	n, err := humanize.ParseBytes(value)
	if err != nil || n > math.MaxInt64 {
		return 0, fmt.Errorf("bad size %q: want a number and a unit, such as 100MB or 64MiB", value)
	}
	return int64(n), nil
}

// The least bounds of a budget: with less than these all the time would go into backups.
const (
	leastBudgetTime  = time.Second
	leastBudgetBytes = 1 << 20
)

// parseBudget parses a time, a size, or both with a comma or plus between them: 60s, 100MB, 60s,100MB. A bound of 0 is
// none, and so is the value none.
func parseBudget(value string) (b tiers.Budget, err error) {
	var times, sizes int
	for part := range strings.FieldsFuncSeq(value, func(r rune) bool { return r == ',' || r == '+' }) {
		if part = strings.TrimSpace(part); strings.EqualFold(part, "none") {
			continue
		}
		if d, err := time.ParseDuration(part); err == nil && part != "0" {
			if b.Time, times = d, times+1; d < leastBudgetTime && d != 0 {
				return tiers.Budget{}, fmt.Errorf("bad time %q: the least is %v, or none", part, leastBudgetTime)
			}
			continue
		}
		n, err := parseSize(part)
		if err != nil {
			return tiers.Budget{}, fmt.Errorf("bad value %q: want a time, a size, or both, such as 60s, 100MB or "+
				"60s,100MB", value)
		}
		if b.Bytes, sizes = n, sizes+1; n < leastBudgetBytes && n != 0 {
			return tiers.Budget{}, fmt.Errorf("bad size %q: the least is %s, or none", part,
				humanize.IBytes(leastBudgetBytes))
		}
	}
	if times > 1 || sizes > 1 {
		return tiers.Budget{}, fmt.Errorf("bad value %q: want one time, one size, or one of each", value)
	}
	return b, nil
}

// budgetOf returns the budget that a canonical value stands for.
func budgetOf(value string) tiers.Budget {
	b, _ := parseBudget(value) // it was checked
	return b
}

// normalKey converts the spellings of one setting (memory-limit, memoryLimit, memory_limit) to its name.
func normalKey(key string) string {
	var b strings.Builder
	for i := 0; i < len(key); i++ {
		c := key[i]
		switch {
		case c == '-':
			b.WriteByte('_')
		case c >= 'A' && c <= 'Z':
			if i > 0 && key[i-1] >= 'a' && key[i-1] <= 'z' {
				b.WriteByte('_')
			}
			b.WriteByte(c + 'a' - 'A')
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// findSetting finds a setting in the table by its name.
func findSetting(name string) (setting, bool) {
	for _, s := range settings() {
		if s.name == name {
			return s, true
		}
	}
	return setting{}, false
}

// unknownSetting says that a name is not in the table, and what may have been meant.
func unknownSetting(key string, others ...string) (why, hint string) {
	name := normalKey(key)
	for _, p := range planned() {
		if p == name {
			return "this version does not have the setting yet", "leave it out"
		}
	}
	candidates := others
	for _, s := range settings() {
		candidates = append(candidates, s.name)
	}
	if near := nearest(name, candidates); near != "" {
		return "unknown option", fmt.Sprintf("did you mean %s?", near)
	}
	return "unknown option", "emberfs mount --help lists the options"
}

// nearest returns the candidate that differs least from name, or "" if none is similar.
func nearest(name string, candidates []string) string {
	best, bestDist := "", 1+len(name)/3
	for _, c := range candidates {
		if d := distance(name, c); d <= bestDist && d < len(c) {
			if d < bestDist || best == "" {
				best, bestDist = c, d
			}
		}
	}
	return best
}

// distance returns the number of single-byte edits between a and b (Levenshtein).
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return math.MaxInt32
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diag := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := diag
			if a[i-1] != b[j-1] {
				cost++
			}
			diag = row[j]
			row[j] = min(cost, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}

// logLevel converts the setting to a logrus level.
func logLevel(name string) logrus.Level {
	level, err := logrus.ParseLevel(name)
	if err != nil {
		return logrus.InfoLevel
	}
	return level
}
