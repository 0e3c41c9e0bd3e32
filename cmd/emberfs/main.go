package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
)

func main() {
	os.Exit(run(os.Args, world{out: os.Stdout, err: os.Stderr, environ: os.Environ(), caught: newCaught()}))
}

// world is what a command knows of its process. Tests pass other ones.
type world struct {
	out, err io.Writer
	environ  []string
	quiet    *bool         // the flag --quiet; nil if there is none
	caught   *atomic.Int32 // the signal that ended the command; nil: not recorded
}

// silent reports whether progress is not to be shown.
func (w world) silent() bool { return w.quiet != nil && *w.quiet }

// run is the whole program, except for the exit. It returns the exit code.
func run(args []string, w world) int {
	name := "emberfs"
	if len(args) > 0 {
		name = filepath.Base(args[0])
	} else {
		args = []string{name}
	}
	var err error
	switch helperFor(name) {
	case helperMount:
		err = runMountHelper(args[1:], w)
	case helperUmount:
		err = runUmountHelper(args[1:], w)
	default:
		err = runCLI(args[1:], w)
	}
	if err != nil && !said(err) {
		fmt.Fprintln(w.err, "emberfs: "+oneLine(strings.ReplaceAll(redact(err.Error()), "\n", "; ")))
	}
	if code := w.interrupted(); err != nil && code != 0 {
		return code
	}
	return exitCode(err)
}
