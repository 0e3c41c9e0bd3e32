package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"emberfs/tiers"
	"emberfs/tiers/rules"
)

const sampleRules = "- match: state/\n  class: critical\n- match: \"**/tmp/\"\n  class: memory\n"

func TestRulesInSettings(t *testing.T) {
	dir := t.TempDir()
	file := write(t, dir, "c.yaml", "memory_limit: 200MB\nrules:\n"+sampleRules+"acceptRules: on\n")
	c, err := resolve("mount", nil, nil, []string{"EMBERFS_CONFIG=" + file})
	if err != nil || c.MemoryLimit != 200e6 || !c.AcceptRules {
		t.Fatalf("%+v, %v", c, err)
	}
	data := must(json.Marshal(c))(t) // as the launcher hands it over
	var there config
	noError(t, json.Unmarshal(data, &there))
	if set, found, err := rules.ParseConfig(there.Rules); err != nil || !found || len(set.Rules()) != 2 ||
		set.Rules()[0].Line != 3 {
		t.Errorf("%+v, %v, %v", set, found, err)
	}
	if c, err := resolve("mount", nil, nil, []string{
		"EMBERFS_CONFIG=" + write(t, dir, "d.yaml", "memory_limit: 200MB\n")}); err != nil || c.Rules != nil ||
		c.AcceptRules {
		t.Errorf("without rules: %+v, %v", c, err)
	}
	if c, err := resolve("mount", nil, nil,
		[]string{"EMBERFS_CONFIG=" + write(t, dir, "e.yaml", "rules: []\n")}); err != nil || c.Rules == nil {
		t.Errorf("an empty list stands instead of the volume's own: %+v, %v", c, err)
	}
	for text, want := range map[string][]string{
		"branch: x\nrules:\n- match: a\n  class: memory\n": {"line 3", "rule 1", "slash"},
		"rules: 7\n":  {"list of rules"},
		"Rules: []\n": {"unknown option"},
	} {
		bad := write(t, dir, "bad.yaml", text)
		_, err := resolve("mount", nil, nil, []string{"EMBERFS_CONFIG=" + bad})
		if codeOf(err) != exitUsage || !strings.Contains(err.Error(), bad) {
			t.Errorf("%q: %v", text, err)
			continue
		}
		for _, s := range want {
			if !strings.Contains(err.Error(), s) {
				t.Errorf("%q: %q does not say %q", text, err, s)
			}
		}
	}
}

func TestRulesList(t *testing.T) {
	x := servedVolume(t)
	x.vol.rules = must(rules.Parse([]byte(sampleRules)))(t)
	x.vol.withheld = []tiers.RuleEntry{{Match: "b/", Class: "ignored", Rule: "b/: ignore", Line: 1}}
	code, out, errs := emberfs(t, "rules", x.config.State)
	want := "mountpoint  " + x.config.Mountpoint + `
rules       2 rules, written here
1           state/: critical
2           **/tmp/: memory
withheld    b/: ignore
note        withheld rules came with the repository: mount with accept_rules, or write them to .emberfs/rules.yaml here
`
	if code != 0 || out != want || errs != "" {
		t.Errorf("exit %d, %q, %q", code, out, errs)
	}
	code, out, _ = emberfs(t, "rules", "--json", x.config.State)
	var r rulesResult
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != 0 || r.Mountpoint != x.config.Mountpoint ||
		r.From != "written here" || len(r.Rules) != 2 ||
		r.Rules[1] != (tiers.RuleEntry{Match: "**/tmp/", Class: "memory", Rule: "**/tmp/: memory", Line: 3}) ||
		len(r.Withheld) != 1 {
		t.Errorf("exit %d, %v, %s", code, err, out)
	}
	x.vol.rules, x.vol.withheld = nil, nil
	if _, out, _ = emberfs(t, "rules", "--json", x.config.State); !strings.Contains(out, `"rules": []`) ||
		!strings.Contains(out, `"withheld": []`) {
		t.Errorf("no lists: %s", out)
	}
	if code, _, errs := emberfs(t, "rules", t.TempDir()); code != 1 || errs == "" {
		t.Errorf("what is no mount: exit %d, %q", code, errs)
	}
	t.Chdir(t.TempDir())
	if code, _, errs := emberfs(t, "rules"); code != 1 || !strings.Contains(errs, "working directory") {
		t.Errorf("outside of all mounts: exit %d, %q", code, errs)
	}
}

func TestRulesOfDaemon(t *testing.T) {
	x := servedVolume(t)
	x.vol.rules = must(rules.Parse([]byte(sampleRules)))(t)
	odd := "a\xff/tmp"
	r, err := newClient(x.config.State).rules(t.Context(),
		[]rulesPath{{Path: []byte("state"), Dir: true}, {Path: []byte("state")}, {Path: []byte(odd), Dir: true},
			{Dir: true}})
	if err != nil || len(r.Reports) != 4 {
		t.Fatalf("%+v, %v", r, err)
	}
	for i, class := range []string{"critical", "session", "memory", "session"} {
		if r.Reports[i].Class != class || r.Reports[i].From != "written here" || len(r.Reports[i].Rules) != 2 {
			t.Errorf("%+v, want %s", r.Reports[i], class)
		}
	}
	code, out, errs := emberfs(t, "rules", "test", t.TempDir())
	if code != exitUsage || out != "" || !strings.Contains(errs, "no mounted volume") {
		t.Errorf("outside of all mounts: exit %d, %q, %q", code, out, errs)
	}
}

func TestRulesTestFile(t *testing.T) {
	dir := t.TempDir()
	list := write(t, dir, "rules.yaml", sampleRules)
	settings := write(t, dir, "settings.yaml", "memory_limit: 100MB\nrules:\n"+sampleRules)
	for _, file := range []string{list, settings} {
		code, out, errs := emberfs(t, "rules", "test", "--rules", file, "state/a", "/state", "x/tmp/", "/")
		want := `state/a: critical: matches the directory state above it
* 1  state/: critical  matches the directory state above it
  2  **/tmp/: memory   does not match
state: session: no rule matches: the default class is session
  1  state/: critical  is about a directory, the path is none
  2  **/tmp/: memory   does not match
x/tmp: memory: matches the path
  1  state/: critical  does not match
* 2  **/tmp/: memory   matches the path
the root: session: no rule matches: the default class is session
  1  state/: critical  does not match
  2  **/tmp/: memory   does not match
`
		if code != 0 || out != want || errs != "" {
			t.Errorf("exit %d, %s, %q", code, out, errs)
		}
		if code, out, _ := emberfs(t, "rules", "check", file); code != 0 || out != file+": 2 rules\n" {
			t.Errorf("check: exit %d, %q", code, out)
		}
	}
	odd := "a\xff"
	code, out, errs := emberfs(t, "rules", "test", "--json", "--rules", list, odd)
	var r []reportResult
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != 0 || len(r) != 1 || string(r[0].Path64) != odd ||
		r[0].Class != "session" || r[0].From != list {
		t.Errorf("exit %d, %v, %s, %q", code, err, out, errs)
	}
	bad := write(t, dir, "bad.yaml", "- match: a\n  class: session\n- clas: memory\n")
	long := write(t, dir, "long.yaml", strings.Repeat("# long\n", 20000))
	none := write(t, dir, "none.yaml", "memory_limit: 100MB\n")
	for file, want := range map[string]string{bad: "line 3: rule 2: clas", long: "at most",
		none: "want a list of rules", filepath.Join(dir, "missing"): "no such file", dir: "directory"} {
		for _, args := range [][]string{{"rules", "check", file}, {"rules", "test", "--rules", file, "x"}} {
			if code, out, errs := emberfs(t, args...); code != 1 || out != "" || !strings.Contains(errs, file) ||
				!strings.Contains(errs, want) {
				t.Errorf("%q: exit %d, %q, %q", args, code, out, errs)
			}
		}
	}
	for _, args := range [][]string{{"rules", "check"}, {"rules", "test"}, {"rules", "a", "b"},
		{"rules", "check", "--nonsense", list}} {
		if code, _, errs := emberfs(t, args...); code != exitUsage || errs == "" {
			t.Errorf("%q: exit %d, %q", args, code, errs)
		}
	}
	in, err := os.Open(list)
	noError(t, err)
	defer in.Close()
	if set, err := rulesOfFile("-", in); err != nil || len(set.Rules()) != 2 {
		t.Errorf("standard input: %+v, %v", set, err)
	}
}

func TestStatusReport(t *testing.T) {
	x := servedVolume(t)
	report := &statusReport{config: x.config, vol: x.vol}
	for range 2 { // before there is a daemon, and with it
		var st statusReply
		if err := json.Unmarshal(report.text(), &st); err != nil || st.PID != os.Getpid() ||
			st.Mountpoint != x.config.Mountpoint || st.Phase != phaseMounted || st.Volume != "fake" {
			t.Errorf("%v, %s", err, report.text())
		}
		report.daemon.Store(x.daemon)
	}
	_, out, _ := emberfs(t, "status", "--json", x.config.State)
	if out != string(report.text()) {
		t.Errorf("status --json prints\n%s, status.json is\n%s", out, report.text())
	}
}

// TestSampleRules checks that the samples are valid, that emberfs-rules(5) contains the first one, and that they decide
// as their comments say.
func TestSampleRules(t *testing.T) {
	const dir = "../../scripts/rules"
	files := must(os.ReadDir(dir))(t)
	var names []string
	for _, f := range files {
		names = append(names, f.Name())
	}
	if !slices.Equal(names, []string{"agent.yaml", "ci.yaml", "database.yaml"}) {
		t.Fatalf("samples: %q", names)
	}
	page := document(t, filepath.Join(manDir, "emberfs-rules.5"))
	if text := document(t, filepath.Join(dir, "agent.yaml")); !strings.Contains(page, ".Bd -literal\n"+text+".Ed\n") {
		t.Error("emberfs-rules(5) has another sample for an agent's workspace")
	}
	for _, c := range []struct {
		file, path string
		dir        bool
		class      string
	}{
		{"agent.yaml", "state/notes.md", false, "critical"},
		{"agent.yaml", "app/data.db", false, "critical"},
		{"agent.yaml", "app/data.db-wal", false, "critical"},
		{"agent.yaml", "app/main.go", false, "session"},
		{"agent.yaml", "app/node_modules", true, "ignored"},
		{"agent.yaml", "node_modules/x/cache.db", false, "ignored"},
		{"agent.yaml", ".cache/pip/x", false, "memory"},
		{"agent.yaml", "app/tmp", false, "session"},
		{"ci.yaml", "artifacts/a.tar", false, "critical"},
		{"ci.yaml", "src/build/a.o", false, "ignored"},
		{"ci.yaml", "src/a.log", false, "session"},
		{"ci.yaml", "tmp/a.log", false, "memory"},
		{"ci.yaml", "src/tmp/a", false, "session"},
		{"database.yaml", "pgdata/base/1/2", false, "critical"},
		{"database.yaml", "pgdata/pg_wal/000000010000000000000001", false, "critical"},
		{"database.yaml", "pgdata/base/pgsql_tmp/x", false, "ignored"},
		{"database.yaml", "pgdata/postmaster.pid", false, "ignored"},
		{"database.yaml", "pgdata/log/x.log", false, "session"},
		{"database.yaml", "app/x.sqlite-journal", false, "critical"},
	} {
		set, err := rulesOfFile(filepath.Join(dir, c.file), nil)
		if err != nil {
			t.Errorf("%s: %v", c.file, err)
			continue
		}
		if got := tiers.ExplainRules(set, "", c.path, c.dir); got.Class != c.class {
			t.Errorf("%s: %s is %s by rule %d (%s), want %s", c.file, c.path, got.Class, got.Rule, got.Why, c.class)
		}
	}
}
