//go:build failpoints

package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/spf13/cobra"

	"emberfs/backup/odb"
	"emberfs/tiers"
)

// failpoint is for tests of crash safety. EMBERFS_FAILPOINT is "STEP=kill", "STEP=EIO" or "STEP=ENOSPC": at the first
// time that STEP is passed the process is killed, or the step fails with that error; "STEP#3=kill" waits for the third
// time.
var failpoint = func() func(step string) error {
	step, action, ok := strings.Cut(os.Getenv("EMBERFS_FAILPOINT"), "=")
	if !ok {
		return nil
	}
	nth := int64(1)
	if name, n, ok := strings.Cut(step, "#"); ok {
		step = name
		var err error
		if nth, err = strconv.ParseInt(n, 10, 64); err != nil {
			panic(err)
		}
	}
	errno := map[string]syscall.Errno{"EIO": syscall.EIO, "ENOSPC": syscall.ENOSPC}[action]
	if errno == 0 && action != "kill" {
		panic("EMBERFS_FAILPOINT: unknown action " + action)
	}
	var count atomic.Int64
	return func(s string) error {
		if s != step || count.Add(1) != nth {
			return nil
		}
		fmt.Fprintf(os.Stderr, "failpoint %s\n", s)
		if file := os.Getenv("EMBERFS_FAILPOINT_HIT"); file != "" {
			if err := os.WriteFile(file, []byte(s), 0o600); err != nil {
				panic(err)
			}
		}
		if action == "kill" {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // until the signal arrives
		}
		return errno
	}
}()

// testCommands lists the steps.
func testCommands(w world) []*cobra.Command {
	return []*cobra.Command{{
		Use:    "failpoints",
		Hidden: true,
		Run: func(*cobra.Command, []string) {
			for _, s := range append(append([]string{}, tiers.Steps...), odb.Steps...) {
				fmt.Fprintln(w.out, s)
			}
		},
	}}
}
