package main

import (
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// TestManPage holds emberfs(8) to the commands, flags, settings and exit codes that there are.
func TestManPage(t *testing.T) {
	page := document(t, "emberfs.8")
	commands := page[strings.Index(page, ".Sh COMMANDS"):strings.Index(page, ".Sh SETTINGS")]
	list := page[strings.Index(page, ".Sh SETTINGS"):strings.Index(page, ".Sh MOUNT HELPERS")]
	listed := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^\.It Cm (\S+)$`).FindAllStringSubmatch(commands+list, -1) {
		listed[m[1]] = true
	}
	for _, s := range settings() {
		if !listed[s.name] {
			t.Errorf("setting %s is missing", s.name)
		}
		entry := list[strings.Index(list, ".It Cm "+s.name):]
		if i := strings.Index(entry[1:], "\n.It "); i > 0 {
			entry = entry[:i+1]
		}
		if s.def != "" && !strings.Contains(entry, "Default "+s.def) {
			t.Errorf("setting %s: the page has not its default %q", s.name, s.def)
		}
		for _, c := range s.choices {
			if !strings.Contains(entry, c) {
				t.Errorf("setting %s: the page has not its value %q", s.name, c)
			}
		}
		delete(listed, s.name)
	}
	for _, cmd := range rootCommand(world{}).Commands() {
		if cmd.Hidden || cmd.Name() == "help" {
			continue
		}
		if !listed[cmd.Name()] {
			t.Errorf("command %s is missing", cmd.Name())
		}
		delete(listed, cmd.Name())
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if _, ok := findSetting(normalKey(f.Name)); !ok && f.Name != "options" && !strings.Contains(page, "Fl -"+f.Name) {
				t.Errorf("%s --%s is missing", cmd.Name(), f.Name)
			}
		})
	}
	for name := range listed {
		t.Errorf("the page has %s, which is no command and no setting", name)
	}
	for _, code := range []int{exitOK, exitFailed, exitUsage, exitPart, exitMount} {
		if !strings.Contains(page, "\n.It "+strconv.Itoa(code)+"\n") {
			t.Errorf("exit code %d is missing", code)
		}
	}
	if groff, err := exec.LookPath("groff"); err == nil {
		out, err := exec.Command(groff, "-mdoc", "-ww", "-Tutf8", "emberfs.8").CombinedOutput()
		if err != nil || strings.Contains(string(out), "warning:") {
			t.Errorf("groff: %v\n%s", err, out)
		}
	}
}

// TestReadme holds the README's table of settings and exit codes to the program.
func TestReadme(t *testing.T) {
	page := document(t, "../../README.md")
	for _, s := range settings() {
		row := regexp.MustCompile("(?m)^\\| `" + s.name + "` \\|.*$").FindString(page)
		if row == "" {
			t.Errorf("setting %s is missing", s.name)
		} else if !strings.Contains(row, s.def) {
			t.Errorf("setting %s: default %q is missing", s.name, s.def)
		}
	}
	for _, code := range []int{exitOK, exitFailed, exitUsage, exitPart, exitMount} {
		if !strings.Contains(page, "\n| "+strconv.Itoa(code)+" |") {
			t.Errorf("exit code %d is missing", code)
		}
	}
}

func document(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
