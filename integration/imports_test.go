package integration

import (
	"encoding/json"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// mayImport is which packages of ours each package may import: tiers/DESIGN.md section 6. Lower ones know nothing of
// higher ones.
var mayImport = map[string]string{
	"tiers/cold":       "",
	"tiers/rules":      "",
	"tiers/subprocess": "",
	"tiers/warm":       "tiers/cold",
	"tiers/heldback":   "tiers/cold tiers/warm",
	"tiers/inspect":    "tiers/cold tiers/warm tiers/heldback tiers/rules",
	"tiers/restore":    "tiers/cold tiers/warm tiers/heldback tiers/subprocess",
	"tiers/tmpfs":      "tiers/cold tiers/warm",
	"tiers":            "tiers/cold tiers/warm tiers/heldback tiers/restore tiers/rules tiers/subprocess tiers/tmpfs",
	"fs":               "tiers tiers/cold tiers/warm tiers/rules tiers/subprocess",

	"backup/odb":      "tiers/cold tiers/warm",
	"backup/wire":     "backup/odb tiers/cold tiers/warm tiers/subprocess",
	"backup/format":   "backup/odb tiers/cold",
	"backup":          "backup/format backup/odb backup/wire tiers/cold tiers/rules",
	"backup/log":      "backup backup/format backup/odb tiers/cold",
	"backup/fsck":     "backup backup/format backup/odb tiers/cold",
	"backup/coldtest": "backup/odb tiers/cold",

	"cmd/emberfs": "fs tiers tiers/cold tiers/warm tiers/inspect tiers/restore tiers/rules tiers/subprocess " +
		"tiers/tmpfs backup backup/format backup/odb backup/fsck backup/log backup/wire cmd/emberfs/notice",
	"cmd/emberfs/notice": "tiers/subprocess",

	"integration": "integration/effort integration/gitserver integration/metaserver integration/powercut " +
		"integration/testprog",
	"integration/bench":      "",
	"integration/blocklog":   "",
	"integration/effort":     "",
	"integration/gitserver":  "integration/testprog",
	"integration/loopback":   "",
	"integration/metaserver": "",
	"integration/powercut":   "integration/effort",
	"integration/soak":       "",
	"integration/testprog":   "",
}

// testsMayImport is what the tests of a package may import beside that, and nothing but tests: what they share, and how
// much they do.
var testsMayImport = map[string]string{
	"tiers":       "tiers/inspect",
	"backup":      "backup/coldtest integration/gitserver",
	"backup/log":  "backup/coldtest",
	"backup/fsck": "backup/coldtest",

	"cmd/emberfs/notice": "integration/metaserver",
}

// TestImportTable holds mayImport, and which folder may import which foreign module.
func TestImportTable(t *testing.T) {
	foreign := map[string]string{ // a module and the only folder that may import it
		"github.com/hanwen/go-fuse":            "fs",
		"github.com/go-git":                    "backup",
		"github.com/git-lfs/go-netrc":          "backup",
		"golang.org/x/net":                     "backup",
		"github.com/aws":                       "cmd",
		"cloud.google.com/go":                  "cmd",
		"github.com/VictoriaMetrics/fastcache": "tiers",
	}
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,TestImports,XTestImports,GoFiles,Dir", "-tags=slow",
		"./...")
	cmd.Dir = env.module
	out, err := cmd.Output()
	check(t, err)
	fastcacheFiles := 0
	seen := map[string]bool{}
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			ImportPath, Dir                             string
			Imports, TestImports, XTestImports, GoFiles []string
		}
		if err := dec.Decode(&p); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		rel := strings.TrimPrefix(p.ImportPath, "emberfs/")
		top, _, _ := strings.Cut(rel, "/")
		allowed, known := mayImport[rel]
		if !known {
			t.Errorf("%s is a new package: mayImport says nothing of it", p.ImportPath)
			continue
		}
		seen[rel] = true
		may := strings.Fields(allowed)
		inTests := append(strings.Fields(testsMayImport[rel]), "integration/effort", "integration/testprog", rel)
		for _, imp := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
			mine, ours := strings.CutPrefix(imp, "emberfs/")
			inTest := !slices.Contains(p.Imports, imp)
			if ours && !slices.Contains(may, mine) && !(inTest && slices.Contains(inTests, mine)) {
				t.Errorf("%s imports %s", p.ImportPath, imp)
			}
			for module, home := range foreign {
				if strings.HasPrefix(imp, module) && top != home &&
					!(top == "integration" && strings.HasSuffix(imp, "/posixtest")) && rel != "integration/loopback" &&
					rel != "integration/blocklog" {
					t.Errorf("%s imports %s, which belongs in %s alone", p.ImportPath, imp, home)
				}
			}
		}
		if slices.Contains(p.Imports, "github.com/VictoriaMetrics/fastcache") {
			fastcacheFiles += countImporters(t, p.Dir, p.GoFiles, "VictoriaMetrics/fastcache")
		}
		if base := rel[strings.LastIndex(rel, "/")+1:]; base == "util" || base == "utils" || base == "common" {
			t.Errorf("%s: a package is named after what it provides", p.ImportPath)
		}
	}
	for rel := range mayImport {
		if !seen[rel] {
			t.Errorf("mayImport knows %s, which is no package", rel)
		}
	}
	if fastcacheFiles > 1 {
		t.Errorf("%d files import fastcache, one may", fastcacheFiles)
	}
}

func countImporters(t *testing.T, dir string, files []string, module string) int {
	t.Helper()
	n := 0
	for _, f := range files {
		if (command{args: []string{"grep", "-q", `"github.com/` + module + `"`, f}, dir: dir}).succeeds() {
			n++
		}
	}
	return n
}

// TestExitOnlyInMain holds the rule that one place ends the process.
func TestExitOnlyInMain(t *testing.T) {
	r := command{args: []string{"grep", "-rnE", `os\.Exit\(|log(rus)?\.Fatal(f|ln)?\(`, "--include=*.go",
		"--exclude=*_test.go", "--exclude-dir=integration", "cmd/emberfs", "fs", "tiers", "backup"},
		dir: env.module}.run(t)
	for _, line := range strings.Split(strings.TrimSpace(r.stdout), "\n") {
		path, _, _ := strings.Cut(line, ":")
		if line != "" && path != "cmd/emberfs/main.go" {
			t.Errorf("ends the process outside of main.go: %s", line)
		}
	}
}

// TestChildrenStartInOnePlace holds the rule of package subprocess: no other place starts a program, but for the one
// that starts the daemon.
func TestChildrenStartInOnePlace(t *testing.T) {
	r := command{args: []string{"grep", "-rnE",
		`exec\.(Command|CommandContext|Cmd\{)|os\.StartProcess|syscall\.(Exec|ForkExec)|unix\.Exec|signal\.Ignore`,
		"--include=*.go", "--exclude=*_test.go", "--exclude-dir=coldtest", "cmd/emberfs", "fs", "tiers", "backup"},
		dir: env.module}.run(t)
	found := 0
	for _, line := range strings.Split(strings.TrimSpace(r.stdout), "\n") {
		path, _, _ := strings.Cut(line, ":")
		switch _, text, _ := strings.Cut(line, ":"); {
		case strings.Contains(text, "\t*exec.Cmd") || strings.Contains(text, "//"):
		case path == "tiers/subprocess/subprocess.go" || path == "cmd/emberfs/daemonize.go":
			found++
		default:
			t.Errorf("starts a program, or has its children ignore a signal: %s", line)
		}
	}
	if found != 2 {
		t.Errorf("%d places are known to start programs, want subprocess.go and daemonize.go:\n%s", found, r.stdout)
	}
}
