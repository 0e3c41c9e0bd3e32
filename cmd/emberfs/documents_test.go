package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestManPage compares emberfs(8) with the commands and exit codes that exist; manual_test.go makes the pages of the
// commands.
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

// TestReadme checks the README's length, and that the commands, files and pages that it names exist.
func TestReadme(t *testing.T) {
	const root = "../.."
	page := document(t, filepath.Join(root, "README.md"))
	lines := strings.Split(strings.TrimSuffix(page, "\n"), "\n")
	if len(lines) > 150 {
		t.Errorf("%d lines, at most 150 are wanted: settings, rules and details are for the manual", len(lines))
	}
	for i, line := range lines {
		if len([]rune(line)) > 120 {
			t.Errorf("line %d has more than 120 columns", i+1)
		}
	}
	listed := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `emberfs ([a-z]+(?: [a-z]+)?)").FindAllStringSubmatch(page, -1) {
		listed["emberfs "+m[1]] = true
	}
	for _, cmd := range documented(rootCommand(world{}))[1:] {
		if !listed[cmd.CommandPath()] {
			t.Errorf("command %s is missing", cmd.CommandPath())
		}
		delete(listed, cmd.CommandPath())
	}
	for name := range listed {
		t.Errorf("%q is no command", name)
	}
	for _, m := range regexp.MustCompile(`\]\(([^)#:]+)\)`).FindAllStringSubmatch(page, -1) {
		if _, err := os.Stat(filepath.Join(root, m[1])); err != nil {
			t.Error(err)
		}
	}
	for _, m := range regexp.MustCompile(`(emberfs[a-z-]*)\(([58])\)`).FindAllStringSubmatch(page, -1) {
		if _, err := os.Stat(filepath.Join(manDir, m[1]+"."+m[2])); err != nil {
			t.Error(err)
		}
	}
}

func document(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	noError(t, err)
	return string(data)
}
