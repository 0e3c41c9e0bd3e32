//go:build slow

package integration

import (
	"os/exec"
	"testing"
	"time"
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

// onAndOff runs a test with a setting on and with it off, beside each other.
func onAndOff(t *testing.T, name string, limit time.Duration, run func(t *testing.T, setting string)) {
	for _, setting := range []string{"on", "off"} {
		t.Run(name+setting, func(t *testing.T) {
			t.Parallel()
			deadline(t, limit)
			run(t, setting)
		})
	}
}
