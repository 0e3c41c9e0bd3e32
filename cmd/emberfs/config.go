package main

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"emberfs/backup"
	"emberfs/backup/odb"
	"emberfs/tiers/rules"
)

// config is everything that one mount needs to know, with all settings resolved. The launcher passes it to the daemon
// as JSON.
type config struct {
	Mountpoint string // absolute, without symlinks
	Source     string // absolute path of a bare repository, or a URL; "" without one
	Branch     string
	State      string // absolute; "" until stateFor chose one

	Init    bool   // begin a volume where SOURCE has no such branch, or does not exist
	Offline string // what a mount does without the remote: offlineAllow or offlineRefuse

	RequireComplete bool          // do not mount where the session before this one was incomplete
	AnnounceDelay   time.Duration // 0: never

	MemoryLimit    int64 // bytes
	ChunkThreshold int64 // bytes
	FlushInterval  time.Duration
	BackupInterval time.Duration
	MaxAtRisk      string // canonical; see budgetOf
	RiskWarn       string // the same
	CriticalDelay  time.Duration
	// PushMinInterval is pushIntervalUnset until the source is known; see setPushInterval.
	PushMinInterval time.Duration
	PushMax         int64 // bytes
	FsyncTimeout    time.Duration
	Deadline        time.Duration // 0: not set
	HotAge          time.Duration
	WarmAge         time.Duration // 0: files never leave warm because of their age
	TierInterval    time.Duration // 0: never
	WarmLimit       int64         // bytes; 0: none
	WarmReserve     int64         // bytes; 0: none
	Prefetch        bool
	Tiering         bool
	KernelCache     bool
	AllowOther      bool
	Nonempty        bool
	Untrusted       bool
	AcceptRules     bool
	UserName        string
	UserEmail       string

	MemoryClassLimit int64 // bytes

	Notice        string        // as notice.Parse reads it
	NoticeCommand string        // "" for none
	ExpiresIn     time.Duration // from the mount on; 0: not set
	ExpiresAt     string        // as in RFC 3339; "" if not set

	RemoteUser   string
	Token        string // where it is, never the token
	TLSCA        string
	TLSCert      string
	TLSKey       string
	Proxy        string // without a password
	SSHKey       string // where it is
	KnownHosts   string
	HostKeyCheck string

	LogLevel   string
	LogFormat  string
	LogFile    string
	Foreground bool
	Quiet      bool // no progress on stderr

	Rules []byte // the settings file if it has rules, which then replace the volume's own

	Flags    []string // mount(2) flags by name
	Warnings []string // for the person at the terminal and the log
}

const (
	offlineAllow  = "allow"
	offlineRefuse = "refuse"
)

// pushIntervalUnset says that nobody gave a push_min_interval.
const pushIntervalUnset = -1

// networkPushInterval is the default of push_min_interval where the source is on the network.
const networkPushInterval = 10 * time.Second

// setPushInterval gives push_min_interval its default, which depends on the source.
func (c *config) setPushInterval() {
	if c.PushMinInterval != pushIntervalUnset {
		return
	}
	if c.PushMinInterval = 0; isRemoteURL(c.Source) {
		c.PushMinInterval = networkPushInterval
	}
}

// layer is the settings from one place, by name.
type layer map[string]given

// resolve merges settings from all places: flags override -o, -o the environment, the environment YAML, and YAML the
// defaults. Every value is checked, even one that is overridden: the user should learn of a mistake.
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

	c := &config{AllowOther: os.Geteuid() == 0, Warnings: warnings, Rules: rulesText,
		PushMinInterval: pushIntervalUnset}
	defaults := layer{}
	for _, s := range settings() {
		if s.def != "" {
			defaults[s.name] = given{value: s.def, where: "default of " + s.name}
		}
	}
	for _, l := range []layer{defaults, fromFile, fromEnv, options, flags} {
		if err := l.mergeInto(c, op); err != nil {
			return nil, err
		}
	}
	if !c.Tiering && c.WarmLimit > 0 {
		c.Warnings = append(c.Warnings, "warm_limit has no effect: tiering is off, so that all files stay in warm")
	}
	if err := checkBranch(c.Branch); err != nil {
		return nil, usageError(op, "branch "+c.Branch, err.Error(),
			"name it as git names branches, such as main or ci/job-7")
	}
	for _, s := range []string{c.UserName, c.UserEmail} {
		if strings.ContainsAny(s, "<>\n\x00") {
			return nil, usageError(op, fmt.Sprintf("user_name or user_email %q", s),
				"git allows no <, > or newline here", "leave them out")
		}
	}
	return c, nil
}

// mergeInto checks the layer's values, and lets them override those in c.
func (l layer) mergeInto(c *config, op string) error {
	for _, name := range sortedKeys(l) {
		g := l[name]
		s, ok := findSetting(name)
		if !ok {
			why, hint := unknownSetting(name)
			return usageError(op, g.where, why, hint)
		}
		v, err := s.canonical(g.value)
		if err != nil {
			return usageError(op, g.where, err.Error(), "")
		}
		c.set(s, v)
	}
	return nil
}

// set stores a value that canonical returned, which is why parsing it cannot fail.
func (c *config) set(s setting, value string) {
	if s.name == "config" {
		return // It is read before everything else, and the daemon does not need it.
	}
	switch f := c.field(s.name); s.kind {
	case kindSize:
		n, _ := strconv.ParseInt(value, 10, 64)
		f.SetInt(n)
	case kindDuration:
		d, _ := time.ParseDuration(value)
		f.SetInt(int64(d))
	case kindBool:
		f.SetBool(value == "true")
	default:
		f.SetString(value)
	}
}

// field returns the field that stores a setting: memory_limit is in MemoryLimit, and tls_ca in TLSCA.
func (c *config) field(name string) reflect.Value {
	name = strings.ReplaceAll(name, "_", "")
	return reflect.ValueOf(c).Elem().FieldByNameFunc(func(f string) bool { return strings.EqualFold(f, name) })
}

// environmentLayer reads the variables EMBERFS_*. An empty variable counts as unset. An unknown one may belong to
// another program, so it is only worth a warning if it resembles a setting. That of a kindSecret is the secret itself,
// and for package wire alone.
func environmentLayer(environ []string) (layer, []string) {
	out := layer{}
	var warnings []string
	names := make([]string, 0, len(settings()))
	for _, s := range settings() {
		names = append(names, s.name)
	}
	for _, variable := range environ {
		k, v, ok := strings.Cut(variable, "=")
		name, ours := strings.CutPrefix(k, "EMBERFS_")
		if !ok || !ours {
			continue
		}
		name = strings.ToLower(name)
		if s, ok := findSetting(name); ok {
			if v != "" && s.kind != kindSecret {
				out[name] = given{value: v, where: k}
			}
		} else if near := nearest(name, names); near != "" {
			s, _ := findSetting(near)
			why := fmt.Sprintf("%s in the environment is no setting; did you mean %s?", k, s.env())
			warnings = append(warnings, why)
		}
	}
	return out, warnings
}

// fileLayer reads a YAML file of settings, one level deep. text is the content of the file if it also has the key
// `rules`, and nil otherwise.
func fileLayer(op, path string) (_ layer, text []byte, err error) {
	text, err = os.ReadFile(filepath.Clean(path))
	if os.IsNotExist(err) || os.IsPermission(err) {
		return nil, nil, usageError(op, "config "+path, plain(err), "name a readable YAML file")
	}
	var raw map[string]any
	if err == nil {
		err = yaml.Unmarshal(text, &raw)
	}
	if err != nil {
		return nil, nil, usageError(op, "config "+path, err.Error(), "it must be YAML: one `name: value` a line")
	}
	out := layer{}
	for _, key := range sortedKeys(raw) {
		if key == rulesKey {
			if _, _, err := rules.ParseConfig(text); err != nil {
				why, hint := plain(err), "emberfs rules check "+shellQuote(path)+" checks it again"
				return nil, nil, usageError(op, fmt.Sprintf("config %s: %s", path, rulesKey), why, hint)
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
	if _, has := raw[rulesKey]; !has {
		text = nil
	}
	return out, text, nil
}

// rulesKey is the only key of a settings file that is not a setting.
const rulesKey = "rules"

// checkBranch refuses names of branches that git or EmberFS does not take.
func checkBranch(name string) error {
	why := odb.RefNameFault(name)
	switch {
	case name == "" || name == "@":
		why = "empty"
	case strings.HasPrefix(name, "-"):
		why = "starts with -"
	case backup.ReservedBranch(name):
		why = "reserved for EmberFS itself"
	}
	if why != "" {
		return fmt.Errorf("bad branch name: %s", why)
	}
	return nil
}
