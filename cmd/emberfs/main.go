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

// world is what a command sees of its process, so that tests can hand it another one.
type world struct {
	out, err io.Writer
	environ  []string
	quiet    *bool         // --quiet; nil where there is no such flag
	caught   *atomic.Int32 // the signal that ended the command; nil: nobody asks
}

// silent says that progress is not to be shown.
func (w world) silent() bool { return w.quiet != nil && *w.quiet }

// run is the whole program but for the exit.
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
