package odb

import (
	"regexp"
	"slices"
	"testing"
)

// TestSteps holds the list of steps to the code, both ways.
func TestSteps(t *testing.T) {
	files := glob(t, "*.go")
	called := map[string]bool{}
	for _, f := range files {
		data := readFile(t, f)
		for _, m := range regexp.MustCompile(`\.step\(([^)]*)\)`).FindAllSubmatch(data, -1) {
			name := regexp.MustCompile(`^"([a-z.-]+)"$`).FindSubmatch(m[1])
			if name == nil {
				if f != "steps_test.go" {
					t.Errorf("%s: step(%s): want a literal name", f, m[1])
				}
				continue
			}
			called[string(name[1])] = true
		}
	}
	for name := range called {
		if !slices.Contains(Steps, name) {
			t.Errorf("%s is missing in Steps", name)
		}
	}
	for i, name := range Steps {
		if !called[name] || slices.Contains(Steps[:i], name) {
			t.Errorf("%s: no such step, or listed twice", name)
		}
	}
}
