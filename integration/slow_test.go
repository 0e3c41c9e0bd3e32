//go:build slow

package integration

import (
	"os/exec"
	"testing"
)

// What only the slow tests use.

func withState(dir string) volumeOption { return func(v *volume) { v.state = dir } }

// shell runs a script with sh -eu in dir.
func shell(t testing.TB, dir, script string) string {
	t.Helper()
	return must(t, dir, "sh", "-euc", script)
}

// lookPath fails the test when a program that scripts/test installs is not there.
func lookPath(t testing.TB, names ...string) {
	t.Helper()
	for _, n := range names {
		if _, err := exec.LookPath(n); err != nil {
			t.Fatalf("%s is needed; scripts/test installs it: %v", n, err)
		}
	}
}
