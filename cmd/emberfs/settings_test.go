package main

import (
	"errors"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"emberfs/tiers"
)

// codeOf returns the exit code that an error carries, or 0 if it is not a failure.
func codeOf(err error) int {
	var f *failure
	if errors.As(err, &f) {
		return f.code
	}
	return 0
}

func TestTableOfSettings(t *testing.T) {
	seen := map[string]bool{}
	name := regexp.MustCompile(`^[a-z]+(_[a-z]+)*$`)
	for _, s := range settings() {
		if seen[s.name] || !name.MatchString(s.name) {
			t.Errorf("%q: given twice, or not lower case with underscores", s.name)
		}
		seen[s.name] = true
		if s.def != "" {
			if _, err := s.canonical(s.def); err != nil {
				t.Errorf("%s: the default is refused: %v", s.name, err)
			}
		}
		if s.name != "config" && !new(config).field(s.name).IsValid() {
			t.Errorf("%s: config has no field for it", s.name)
		}
		if s.help == "" {
			t.Errorf("%s: no help", s.name)
		}
		if s.manual == "" || !strings.HasSuffix(s.manual, ".") {
			t.Errorf("%s: %q are no sentences for the manual", s.name, s.manual)
		}
	}
	for _, p := range planned() {
		if seen[p] {
			t.Errorf("%s is planned and there", p)
		}
	}
}

func TestBudgets(t *testing.T) {
	s, _ := findSetting("max_at_risk")
	for in, want := range map[string]tiers.Budget{
		"60s": {Time: time.Minute}, "100MB": {Bytes: 100e6}, "60s,100MB": {Time: time.Minute, Bytes: 100e6},
		"100MB+1m": {Time: time.Minute, Bytes: 100e6}, "none": {}, "0": {}, "": {},
		"2MiB, 1h": {Time: time.Hour, Bytes: 2 << 20},
	} {
		value, err := s.canonical(in)
		if err != nil || budgetOf(value) != want {
			t.Errorf("%q: %+v, %v, want %+v", in, budgetOf(value), err, want)
		}
		if again, err := s.canonical(value); err != nil || again != value {
			t.Errorf("%q is written %q, and that is %q, %v", in, value, again, err)
		}
	}
	for _, in := range []string{"60", "500ms", "-5s", "100kB", "1s,2s", "2MB,3MB", "60s,100MB,1s", "soon", "1s;2MB"} {
		if value, err := s.canonical(in); err == nil {
			t.Errorf("%q is taken, as %q", in, value)
		}
	}
	o, err := parseOptions("mount", []string{`max_at_risk="5s,10MB",risk_warn=5s+20MB`}, false)
	if err != nil || o.values["max_at_risk"].value != "5s,10MB" || o.values["risk_warn"].value != "5s+20MB" {
		t.Errorf("%+v, %v", o.values, err)
	}
}

func TestSpellings(t *testing.T) {
	for in, want := range map[string]string{
		"memoryLimit": "memory_limit", "memory-limit": "memory_limit", "memory_limit": "memory_limit",
		"MemoryLimit":   "memory_limit",
		"flushInterval": "flush_interval", "hotAge": "hot_age", "warmAge": "warm_age", "tierInterval": "tier_interval",
		"warmLimit": "warm_limit", "warm-reserve": "warm_reserve", "userEmail": "user_email", "state": "state",
	} {
		if got := normalKey(in); got != want {
			t.Errorf("normalKey(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestCanonicalValues(t *testing.T) {
	for _, c := range []struct{ name, value, want string }{
		{"memory_limit", "100MB", "100000000"}, {"memory_limit", "64MiB", "67108864"},
		{"memory_limit", "64 MiB", "67108864"},
		{"memory_limit", "1.5GB", "1500000000"}, {"flush_interval", "90s", "1m30s"}, {"kernel_cache", "off", "false"},
		{"kernel_cache", "TRUE", "true"}, {"tiering", "0", "false"}, {"log_format", "JSON", "json"},
		{"warm_age", "none", "0s"}, {"warm_age", "0", "0s"}, {"warm_age", "100ms", "100ms"},
		{"tier_interval", "None", "0s"}, {"hot_age", "1m", "1m0s"},
		{"warm_limit", "none", "0"}, {"warm_limit", "0", "0"}, {"warm_limit", "2GB", "2000000000"},
		{"warm_reserve", "64MiB", "67108864"},
		{"warm_reserve", "0B", "0"}, {"prefetch", "no", "false"}, {"state", "/a/../b", "/b"},
	} {
		s, _ := findSetting(c.name)
		if got, err := s.canonical(c.value); err != nil || got != c.want {
			t.Errorf("%s=%s: %q, %v; want %q", c.name, c.value, got, err, c.want)
		}
	}
	for _, c := range []struct{ name, value string }{
		{"memory_limit", ""}, {"memory_limit", "lots"}, {"memory_limit", "-1"}, {"memory_limit", "1MB"},
		{"memory_limit", "99999999999GB"},
		{"flush_interval", "5"}, {"flush_interval", "0s"}, {"flush_interval", "-5m"}, {"kernel_cache", "maybe"},
		{"log_level", "loud"},
		{"branch", "a\x00b"},
		{"hot_age", "0"}, {"hot_age", "none"}, {"hot_age", "99ms"}, {"warm_age", "-1s"}, {"warm_age", "30"},
		{"warm_age", "1ms"}, {"tier_interval", "never"},
		{"warm_limit", "-1"}, {"warm_limit", "100"}, {"warm_limit", "no"}, {"warm_reserve", "64"},
		{"warm_reserve", "10%"}, {"prefetch", "none"},
		{"memory_limit", "none"}, {"flush_interval", "none"},
	} {
		s, _ := findSetting(c.name)
		if got, err := s.canonical(c.value); err == nil {
			t.Errorf("%s=%q is taken as %q", c.name, c.value, got)
		} else if !strings.Contains(err.Error(), strings.ReplaceAll(c.value, "\x00", `\x00`)) {
			t.Errorf("%s=%q: the message does not name the value: %v", c.name, c.value, err)
		}
	}
}

func TestSuggestions(t *testing.T) {
	for in, want := range map[string]string{
		"memoryLimt": "did you mean memory_limit?", "kernelcache": "did you mean kernel_cache?",
		"nosiud": "did you mean nosuid?",
		"fsync":  "leave it out", "warmAeg": "did you mean warm_age?",
		"zzzzzz": "emberfs mount --help lists the options",
	} {
		if _, hint := unknownSetting(in, "nosuid"); hint != want {
			t.Errorf("%s: %q, want %q", in, hint, want)
		}
	}
}

func TestResolvePrecedence(t *testing.T) {
	at := func(v string) layer { return layer{"backup_interval": {value: v, where: "test"}} }
	file := write(t, t.TempDir(), "c.yaml", "backup_interval: 2m\nmemoryLimit: 200MB\nkernel_cache: off\n")
	env := []string{"EMBERFS_CONFIG=" + file, "EMBERFS_BACKUP_INTERVAL=3m", "PATH=/bin"}
	for _, c := range []struct {
		name         string
		flag, option layer
		environ      []string
		want         string
	}{
		{"default", nil, nil, nil, "30m0s"},
		{"YAML over default", nil, nil, env[:1], "2m0s"},
		{"environment over YAML", nil, nil, env, "3m0s"},
		{"-o over environment", nil, at("4m"), env, "4m0s"},
		{"flag over -o", at("5m"), at("4m"), env, "5m0s"},
		{"an empty variable is unset", nil, nil, []string{"EMBERFS_BACKUP_INTERVAL="}, "30m0s"},
	} {
		got, err := resolve("mount", c.flag, c.option, c.environ)
		if err != nil || got.BackupInterval.String() != c.want {
			t.Errorf("%s: %v, %v; want %s", c.name, got, err, c.want)
		}
	}
	c, err := resolve("mount", nil, nil, env)
	if err != nil || c.MemoryLimit != 200e6 || c.ChunkThreshold != 8<<20 || c.KernelCache || c.Branch != "main" ||
		c.Deadline != 0 {
		t.Errorf("the rest of the file: %+v, %v", c, err)
	}
}

func TestResolveMistakes(t *testing.T) {
	dir := t.TempDir()
	for name, c := range map[string]struct {
		file    string
		environ []string
		option  layer
		say     []string
	}{
		"unknown key":   {file: "memory_limti: 1GB\n", say: []string{"memory_limti", "memory_limit"}},
		"bad size":      {file: "memory_limit: lots\n", say: []string{"memory_limit", `"lots"`}},
		"small chunks":  {file: "chunk_threshold: 100KiB\n", say: []string{"chunk_threshold", "128"}},
		"nested":        {file: "hot:\n  age: 5m\n", say: []string{"hot"}},
		"nested known":  {file: "state:\n  dir: /x\n", say: []string{"state", "plain value"}},
		"two spellings": {file: "memory_limit: 100MB\nmemoryLimit: 200MB\n", say: []string{"twice"}},
		"not YAML":      {file: "a: [", say: []string{"YAML"}},
		"planned":       {file: "fsync: on\n", say: []string{"fsync", "not have"}},
		"tiny limit":    {file: "warmLimit: 100\n", say: []string{"warmLimit", `"100"`, "1.0 MiB, or none"}},
		"file in file":  {file: "config: /etc/x\n", say: []string{"config"}},
		"environment": {environ: []string{"EMBERFS_FLUSH_INTERVAL=soon"},
			say: []string{"EMBERFS_FLUSH_INTERVAL", `"soon"`}},
		"missing file": {environ: []string{"EMBERFS_CONFIG=" + dir + "/none"}, say: []string{"none", "no such file"}},
		"bad branch":   {option: layer{"branch": {"a..b", "-o branch"}}, say: []string{"a..b"}},
		"bad name":     {option: layer{"user_name": {"a<b", "-o user_name"}}, say: []string{"a<b"}},
		"overridden too": {environ: []string{"EMBERFS_TIERING=perhaps"}, option: layer{"tiering": {"on", "-o tiering"}},
			say: []string{"perhaps"}},
	} {
		if c.file != "" {
			c.environ = append(c.environ, "EMBERFS_CONFIG="+write(t, dir, strings.ReplaceAll(name, " ", "-")+".yaml",
				c.file))
		}
		_, err := resolve("mount", nil, c.option, c.environ)
		if codeOf(err) != exitUsage {
			t.Errorf("%s: want a usage error, got %v", name, err)
			continue
		}
		for _, s := range c.say {
			if !strings.Contains(err.Error(), s) {
				t.Errorf("%s: %q does not say %q", name, err, s)
			}
		}
	}
	c, err := resolve("mount", nil, nil, []string{"EMBERFS_WARM_LIMIT=1GB", "EMBERFS_TIERING=off"})
	if err != nil || len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0], "warm_limit") {
		t.Errorf("a limit without tiering: %v, %v", c, err)
	}
	c, err = resolve("mount", nil, nil, []string{"EMBERFS_MEMORY_LIMT=1GB", "EMBERFS_BIN=/x"})
	if err != nil || len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0], "EMBERFS_MEMORY_LIMIT") {
		t.Errorf("a near miss in the environment: %v, %v", c, err)
	}
}

func TestTieringSettings(t *testing.T) {
	c, err := resolve("mount", nil, nil, nil)
	if err != nil || !c.Tiering || !c.Prefetch || c.HotAge != 5*time.Minute || c.TierInterval != 5*time.Minute ||
		c.WarmAge != 30*time.Minute ||
		c.WarmLimit != 0 || c.WarmReserve != 64<<20 {
		t.Errorf("defaults: %+v, %v", c, err)
	}
	file := write(t, t.TempDir(), "c.yaml", "warmAge: none\nwarm_limit: 10GB\nprefetch: false\nhot_age: 1m\n")
	o, err := parseOptions("mount", []string{"tierInterval=1m,warmAge=1h"}, false)
	noError(t, err)
	flag := layer{"warm_reserve": {value: "none", where: "--warm-reserve"}}
	c, err = resolve("mount", flag, o.values, []string{"EMBERFS_CONFIG=" + file, "EMBERFS_HOT_AGE=2m"})
	if err != nil || c.Prefetch || c.HotAge != 2*time.Minute || c.TierInterval != time.Minute ||
		c.WarmAge != time.Hour ||
		c.WarmLimit != 10e9 || c.WarmReserve != 0 {
		t.Errorf("from all places: %+v, %v", c, err)
	}
}

func TestBranchNames(t *testing.T) {
	for _, ok := range []string{"main", "ci/job-7", "a.b", "ü"} {
		if err := checkBranch(ok); err != nil {
			t.Errorf("%q: %v", ok, err)
		}
	}
	for _, bad := range []string{"", "@", "-x", "a..b", "a b", "a~1", "a^", "a:b", "x.lock", "x.lock/y", ".a", "a/.b",
		"a//b", "/a", "a/", "a.", "a@{b", "a\x01", "emberfs-live/x"} {
		if checkBranch(bad) == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestFlagsComeFromTheTable(t *testing.T) {
	cmd := mountCommand(world{})
	for _, s := range settings() {
		f := cmd.Flags().Lookup(s.flag())
		if f == nil || !strings.Contains(f.Usage, s.help) {
			t.Errorf("--%s: %v", s.flag(), f)
		}
	}
	values := settingFlags(cmd.InheritedFlags())
	fs := cmd.InheritedFlags()
	noError(t, fs.Parse([]string{"a", "--allow-other", "b", "--memory-limit=1GB", "--tiering=off"}))
	l := values.given(fs)
	if l["allow_other"].value != "true" || l["memory_limit"].value != "1GB" || l["tiering"].value != "off" ||
		len(l) != 3 {
		t.Errorf("flags: %v", l)
	}
	if !slices.Equal(fs.Args(), []string{"a", "b"}) {
		t.Errorf("arguments between flags: %q", fs.Args())
	}
}
