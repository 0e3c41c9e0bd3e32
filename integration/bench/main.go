package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// options are what the command line sets.
type options struct {
	quick  bool
	rounds int
	module string // the project's directory
	dir    string // where images, binaries and mounts go
	limit  time.Duration
	only   string
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

func run() (err error) {
	var o options
	flag.BoolVar(&o.quick, "quick", false, "one small round: seconds in place of minutes, figures for orientation only")
	flag.IntVar(&o.rounds, "rounds", 5, "interleaved rounds; the median counts")
	flag.StringVar(&o.module, "module", ".", "the project's directory")
	flag.DurationVar(&o.limit, "limit", 30*time.Minute, "give up after this long")
	flag.StringVar(&o.only, "only", "", "only these parts, of: "+
		"ops,passthrough,work,commit,cold,tier,latency,critical,push,life (comma separated)")
	flag.Parse()
	if os.Geteuid() != 0 {
		return errors.New("needs root for mounts and images")
	}
	if o.quick {
		o.rounds = 1
	}
	if o.module, err = filepath.Abs(o.module); err != nil {
		return err
	}
	if o.dir, err = os.MkdirTemp("", "emberfs-bench-"); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, o.limit)
	defer cancel()
	b := &bench{options: o, ctx: ctx, results: newResults()}
	defer func() { err = errors.Join(err, b.cleanUp()) }()
	if err := b.build(); err != nil {
		return err
	}
	for _, part := range []struct {
		name string
		run  func() error
	}{{"ops", b.operations}, {"passthrough", b.passthrough}, {"work", b.realWork}, {"commit", b.commits},
		{"cold", b.cold}, {"tier", b.tiering}, {"latency", b.latencies}, {"critical", b.critical},
		{"push", b.pushes}, {"life", b.life}} {
		if !o.wants(part.name) {
			continue
		}
		fmt.Fprintf(os.Stderr, "bench: %s\n", part.name)
		if err := part.run(); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	b.results.print(os.Stdout)
	return nil
}

func (o options) wants(part string) bool {
	if o.only == "" {
		return true
	}
	for _, p := range strings.Split(o.only, ",") {
		if p == part {
			return true
		}
	}
	return false
}

// size picks between the figure of a full and of a quick run.
func (o options) size(full, quick int) int {
	if o.quick {
		return quick
	}
	return full
}
