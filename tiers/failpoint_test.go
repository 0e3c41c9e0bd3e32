package tiers

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
)

// TestStepsAreAll holds Steps to the calls in the code.
func TestStepsAreAll(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	below, err := filepath.Glob("restore/*.go")
	if err != nil || len(below) == 0 {
		t.Fatal(below, err)
	}
	files = append(files, below...)
	call := regexp.MustCompile(`\.[sS]tep\("([^"]+)"\)`)
	var found []string
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range call.FindAllSubmatch(text, -1) {
			found = append(found, string(m[1]))
		}
	}
	slices.Sort(found)
	want := slices.Sorted(slices.Values(Steps))
	if !slices.Equal(found, want) {
		t.Errorf("the code has the steps %q, Steps are %q", found, want)
	}
}
