package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestManPage holds emberfs(8) to the commands and exit codes that there are; manual_test.go makes the pages of
// the commands.
func TestManPage(t *testing.T) {
	page := document(t, filepath.Join(manDir, "emberfs.8"))
	_, list, _ := strings.Cut(page, ".Sh COMMANDS\n")
	list, _, _ = strings.Cut(list, "\n.Sh ")
	listed := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^\.It Xr (\S+) 8$`).FindAllStringSubmatch(list, -1) {
		listed[m[1]] = true
	}
	for _, cmd := range documented(rootCommand(world{}))[1:] {
		if !listed[manualPage(cmd)] {
			t.Errorf("command %s is missing", cmd.CommandPath())
		}
		delete(listed, manualPage(cmd))
	}
	for name := range listed {
		t.Errorf("the page has %s, which is no command", name)
	}
	for _, code := range []int{exitOK, exitFailed, exitUsage, exitPart, exitMount} {
		if !strings.Contains(page, "\n.It "+strconv.Itoa(code)+"\n") {
			t.Errorf("exit code %d is missing", code)
		}
		if !strings.Contains(rootCommand(world{}).Long, strconv.Itoa(code)) {
			t.Errorf("--help has not exit code %d", code)
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
