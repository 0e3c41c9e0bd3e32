package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/v2"

	"emberfs/tiers/rules"
)

// config is what one mount needs to know, fully resolved. The launcher hands it to the daemon as JSON.
type config struct {
	Mountpoint string // absolute, without symlinks
	Source     string // absolute path of a bare repository; "" without one
	Branch     string
	State      string // absolute; "" until stateFor chose one

	MemoryLimit    int64 // bytes
	ChunkThreshold int64 // bytes
	FlushInterval  time.Duration
	BackupInterval time.Duration
	CriticalDelay  time.Duration
	Deadline       time.Duration // 0: not given
	HotAge         time.Duration
	WarmAge        time.Duration // 0: never by age
	TierInterval   time.Duration // 0: never
	WarmLimit      int64         // bytes; 0: none
	WarmReserve    int64         // bytes; 0: none
	Prefetch       bool
	Tiering        bool
	KernelCache    bool
	AllowOther     bool
	Nonempty       bool
	Untrusted      bool
	AcceptRules    bool
	UserName       string
	UserEmail      string

	MemoryClassLimit int64 // bytes

	LogLevel   string
	LogFormat  string
	LogFile    string
	Foreground bool
	Quiet      bool // no progress on stderr

	Rules []byte // the settings file, where it has rules; they stand instead of the volume's own

	Flags    []string // mount(2) flags by name
	Warnings []string // for the person at the terminal and the log
}

// layer is one place that settings come from.
type layer map[string]given

// resolve merges the places a setting may come from: flag before -o before environment before YAML before default. Every value
// is checked where it stands, also one that another place overrides: a mistake is worth knowing about.
func resolve(op string, flags, options layer, environ []string) (*config, error) {
	fromEnv, warnings := environmentLayer(environ)
	fromFile := layer{}
	var rulesText []byte
	for _, l := range []layer{flags, options, fromEnv} {
		if g, ok := l["config"]; ok && g.value != "" {
			var err error
			if fromFile, rulesText, err = fileLayer(op, g.value); err != nil {
				return nil, err
			}
			break
		}
	}

	k := koanf.New("\x00") // no setting's name is nested
	defaults := layer{}
	for _, s := range settings() {
		if s.def != "" {
			defaults[s.name] = given{value: s.def, where: "default of " + s.name}
		}
	}
	for _, l := range []layer{defaults, fromFile, fromEnv, options, flags} {
		values, err := l.checked(op)
		if err != nil {
			return nil, err
		}
		if err := k.Load(confmap.Provider(values, ""), nil); err != nil {
			return nil, withCode(exitFailed, op, "settings", err)
		}
	}
	c := &config{
		Source: k.String("source"), Branch: k.String("branch"), State: k.String("state"),
		MemoryLimit: k.Int64("memory_limit"), ChunkThreshold: k.Int64("chunk_threshold"),
		FlushInterval: k.Duration("flush_interval"), BackupInterval: k.Duration("backup_interval"),
		CriticalDelay: k.Duration("critical_delay"),
		HotAge:        k.Duration("hot_age"), WarmAge: k.Duration("warm_age"), TierInterval: k.Duration("tier_interval"),
		WarmLimit: k.Int64("warm_limit"), WarmReserve: k.Int64("warm_reserve"), Prefetch: k.Bool("prefetch"),
		Deadline: k.Duration("deadline"), Tiering: k.Bool("tiering"), KernelCache: k.Bool("kernel_cache"),
		AllowOther: k.Bool("allow_other"), Nonempty: k.Bool("nonempty"), Untrusted: k.Bool("untrusted"), AcceptRules: k.Bool("accept_rules"),
		UserName: k.String("user_name"), UserEmail: k.String("user_email"),
		LogLevel: k.String("log_level"), LogFormat: k.String("log_format"), LogFile: k.String("log_file"),
		Foreground: k.Bool("foreground"), Warnings: warnings, Rules: rulesText,
		MemoryClassLimit: k.Int64("memory_class_limit"),
	}
	if !k.Exists("allow_other") {
		c.AllowOther = os.Geteuid() == 0
	}
	if !c.Tiering && c.WarmLimit > 0 {
		c.Warnings = append(c.Warnings, "warm_limit has no effect: tiering is off, so that all files stay in warm")
	}
	if err := checkBranch(c.Branch); err != nil {
		return nil, usageError(op, "branch "+c.Branch, err.Error(), "name it as git names branches, such as main or ci/job-7")
	}
	for _, s := range []string{c.UserName, c.UserEmail} {
		if strings.ContainsAny(s, "<>\n\x00") {
			return nil, usageError(op, fmt.Sprintf("user_name or user_email %q", s), "git allows no <, > or newline here", "leave them out")
		}
	}
	return c, nil
}

// checked returns the layer's values in canonical spelling.
func (l layer) checked(op string) (map[string]any, error) {
	out := make(map[string]any, len(l))
	for _, name := range sortedKeys(l) {
		g := l[name]
		s, ok := findSetting(name)
		if !ok {
			why, hint := unknownSetting(name)
			return nil, usageError(op, g.where, why, hint)
		}
		v, err := s.canonical(g.value)
		if err != nil {
			return nil, usageError(op, g.where, err.Error(), "")
		}
		out[name] = v
	}
	return out, nil
}

// environmentLayer reads EMBERFS_*. An empty variable counts as unset. Unknown ones may belong to somebody else: only a near
// miss is worth a warning.
func environmentLayer(environ []string) (layer, []string) {
	out := layer{}
	var warnings []string
	names := make([]string, 0, len(settings()))
	for _, s := range settings() {
		names = append(names, s.name)
	}
	_, _ = env.Provider("\x00", env.Opt{
		Prefix:      "EMBERFS_",
		EnvironFunc: func() []string { return environ },
		TransformFunc: func(k, v string) (string, any) {
			name := strings.ToLower(strings.TrimPrefix(k, "EMBERFS_"))
			if _, ok := findSetting(name); ok {
				if v != "" {
					out[name] = given{value: v, where: k}
				}
			} else if near := nearest(name, names); near != "" {
				s, _ := findSetting(near)
				warnings = append(warnings, fmt.Sprintf("%s in the environment is no setting; did you mean %s?", k, s.env()))
			}
			return "", nil
		},
	}).Read()
	return out, warnings
}

// fileLayer reads a YAML file of settings, one level deep. text is the file where it has the key `rules` besides, nil elsewhere.
func fileLayer(op, path string) (_ layer, text []byte, err error) {
	k := koanf.New("\x00")
	if err := k.Load(file.Provider(path), yaml.Parser()); err != nil {
		if os.IsNotExist(err) || os.IsPermission(err) {
			return nil, nil, usageError(op, "config "+path, plain(err), "name a readable YAML file")
		}
		return nil, nil, usageError(op, "config "+path, err.Error(), "it must be YAML: one `name: value` a line")
	}
	out := layer{}
	raw := k.Raw()
	for _, key := range sortedKeys(raw) {
		if key == rulesKey {
			if text, err = readRules(op, path); err != nil {
				return nil, nil, err
			}
			continue
		}
		where := fmt.Sprintf("config %s: %s", path, key)
		name := normalKey(key)
		if _, ok := findSetting(name); !ok {
			why, hint := unknownSetting(key)
			return nil, nil, usageError(op, where, why, hint)
		}
		if name == "config" {
			return nil, nil, usageError(op, where, "a settings file cannot name another", "leave it out")
		}
		if _, twice := out[name]; twice {
			return nil, nil, usageError(op, where, "given twice in different spellings", "keep one")
		}
		switch v := raw[key].(type) {
		case string, bool, int, int64, uint64, float64:
			out[name] = given{value: fmt.Sprint(v), where: where}
		case nil:
		default:
			return nil, nil, usageError(op, where, "want one plain value", "write `"+name+": "+"value`")
		}
	}
	return out, text, nil
}

// rulesKey is the one key of a settings file that is no setting.
const rulesKey = "rules"

// readRules returns the text of a settings file whose rules are good.
func readRules(op, path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if err == nil {
		_, _, err = rules.ParseConfig(text)
	}
	if err != nil {
		return nil, usageError(op, fmt.Sprintf("config %s: %s", path, rulesKey), plain(err), "emberfs rules check "+shellQuote(path)+" checks it again")
	}
	return text, nil
}

// checkBranch applies git check-ref-format's rules to the name of a branch.
func checkBranch(name string) error {
	bad := func(what string) error { return fmt.Errorf("bad branch name: %s", what) }
	switch {
	case name == "" || name == "@":
		return bad("empty")
	case strings.HasPrefix(name, "-"):
		return bad("starts with -")
	case strings.HasPrefix(name, "emberfs-live/") || strings.HasPrefix(name, "emberfs-side/"):
		return bad("reserved for EmberFS itself")
	case strings.Contains(name, "..") || strings.Contains(name, "@{"):
		return bad("contains .. or @{")
	case strings.ContainsAny(name, " ~^:?*[\\\x7f"):
		return bad("contains one of: space ~ ^ : ? * [ \\")
	case strings.HasSuffix(name, "."):
		return bad("ends with a dot")
	}
	for _, c := range []byte(name) {
		if c < 0x20 {
			return bad("contains a control character")
		}
	}
	for _, part := range strings.Split(name, "/") {
		if part == "" || strings.HasPrefix(part, ".") || strings.HasSuffix(part, ".lock") {
			return bad("a part of it is empty, starts with a dot or ends with .lock")
		}
	}
	return nil
}
