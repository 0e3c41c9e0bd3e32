package integration

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// env is what all tests share: set once by TestMain before any test runs, read only from then on.
var env struct {
	base   string   // working directory, 0755: other users must be able to pass
	bin    string   // the emberfs binary
	bins   []string // it, and those built with other flags
	self   string   // a copy of this test binary that any user may execute
	module string   // the module's root directory
}

const helperVar = "EMBERFS_TEST_HELPER"

// TestMain serves the helper processes, else builds the binary, runs the tests and fails when they left a mount or a
// daemon.
func TestMain(m *testing.M) {
	if name := os.Getenv(helperVar); name != "" {
		os.Exit(runHelper(name, os.Args[1:]))
	}
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	if err := setUp(); err != nil {
		fmt.Fprintf(os.Stderr, "integration: %v\n", err)
		return 1
	}
	code := m.Run()
	if left := leftovers(); len(left) > 0 {
		fmt.Fprintf(os.Stderr, "integration: left behind:\n\t%s\n", strings.Join(left, "\n\t"))
		code = 1
	}
	if os.Getenv("EMBERFS_KEEP") != "" {
		fmt.Fprintf(os.Stderr, "integration: kept %s\n", env.base)
		return code
	}
	if err := os.RemoveAll(env.base); err != nil {
		fmt.Fprintf(os.Stderr, "integration: %v\n", err)
		return 1
	}
	return code
}

func setUp() error {
	if os.Geteuid() != 0 {
		return errors.New("these tests mount file systems and change users: run them as root")
	}
	var err error
	if env.base, err = os.MkdirTemp("", "emberfs-it-"); err != nil {
		return err
	}
	if err = os.Chmod(env.base, 0o755); err != nil {
		return err
	}
	if env.module, err = filepath.Abs(".."); err != nil {
		return err
	}
	if err = copySelf(); err != nil {
		return err
	}
	return buildBinary()
}

// copySelf puts the test binary where an unprivileged helper can execute it: go test's own directory is closed to
// others.
func copySelf() error {
	me, err := os.Executable()
	if err != nil {
		return err
	}
	env.self = filepath.Join(env.base, "integration.test")
	return copyFile(me, env.self, 0o755)
}

func copyFile(from, to string, mode os.FileMode) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, mode)
}

func buildBinary() error {
	if given := os.Getenv("EMBERFS_BIN"); given != "" {
		abs, err := filepath.Abs(given)
		env.bin, env.bins = abs, []string{abs}
		return err
	}
	env.bin = filepath.Join(env.base, "bin", "emberfs")
	if err := goBuild(env.bin); err != nil {
		return err
	}
	return os.Chmod(filepath.Dir(env.bin), 0o755)
}

// goBuild builds the binary to a path.
func goBuild(to string, flags ...string) error {
	env.bins = append(env.bins, to)
	if raced {
		flags = append(flags, "-race")
	}
	return goBuildPackage(to, "./cmd/emberfs", flags...)
}

// goBuildPackage builds a command of the project to a path, with the developer's own build cache.
func goBuildPackage(to, pkg string, flags ...string) error {
	cmd := exec.Command("go", slices.Concat([]string{"build", "-o", to}, flags, []string{pkg})...)
	cmd.Dir = env.module
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go %s: %w\n%s", strings.Join(cmd.Args[1:], " "), err, out)
	}
	return nil
}

// leftovers lists mounts below the working directory and processes of our binary, after giving dying ones a moment, and
// clears them away so that a failed run does not spoil the next.
func leftovers() []string {
	var left []string
	waitFor(5*time.Second, func() bool { left = findLeftovers(); return len(left) == 0 })
	for _, m := range mountsBelow(env.base) {
		m.clear()
	}
	for _, p := range slices.Concat(ourProcesses(), clientsOf(env.base)) {
		_ = killProcess(p)
	}
	return left
}

func findLeftovers() []string {
	var left []string
	for _, m := range mountsBelow(env.base) {
		left = append(left, "mount "+m.dir+" ("+m.fstype+")")
	}
	for _, p := range ourProcesses() {
		left = append(left, fmt.Sprintf("process %d", p))
	}
	for _, p := range clientsOf(env.base) {
		left = append(left, fmt.Sprintf("ssh %d", p))
	}
	return left
}

// clientsOf lists the processes of ssh, not of its server, that have to do with a directory.
func clientsOf(dir string) (found []int) {
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range lines {
		line, err := os.ReadFile(p)
		if err == nil && bytes.HasPrefix(line, []byte("ssh")) && !bytes.HasPrefix(line, []byte("sshd")) &&
			bytes.Contains(line, []byte(dir+"/")) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(p)))
			found = append(found, pid)
		}
	}
	return found
}
