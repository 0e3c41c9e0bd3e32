package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
)

// options are what the command line sets.
type options struct {
	length   time.Duration // 0: one round
	only     []string
	seed     int64
	atOnce   int
	fuzzTime time.Duration
	list     bool
	module   string // the project's directory
	logs     string // where the output of failed jobs stays
}

// errFailed says that jobs failed, or none ran, which the table has told already.
var errFailed = errors.New("failed")

func main() {
	err := run(os.Args[1:], os.Stdout)
	switch {
	case errors.Is(err, pflag.ErrHelp):
	case errors.Is(err, errFailed):
		os.Exit(1)
	case err != nil:
		fmt.Fprintf(os.Stderr, "soak: %v\n", err)
		os.Exit(2)
	}
}

func parse(args []string) (o options, err error) {
	f := pflag.NewFlagSet("soak", pflag.ContinueOnError)
	f.DurationVar(&o.length, "for", 0, "begin jobs for this `time`, such as 2h, round after round; without it there "+
		"is one round")
	f.StringArrayVar(&o.only, "only", nil, "only the job of this `name`, or those below it (powercut for "+
		"powercut/ext4); may be given several times")
	f.Int64Var(&o.seed, "seed", 0, "the `number` that the first round's order and tests begin with; without it a "+
		"random one")
	f.IntVar(&o.atOnce, "jobs", 1, "so many jobs at a time")
	f.DurationVar(&o.fuzzTime, "fuzz-time", 3*time.Minute, "how long each fuzz target runs")
	f.BoolVar(&o.list, "list", false, "list the jobs and end")
	f.StringVar(&o.module, "module", ".", "the project's `directory`")
	f.StringVar(&o.logs, "logs", filepath.Join(os.TempDir(), "emberfs-soak"),
		"the `directory` in which the output of failed jobs stays")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("unknown argument %q", f.Arg(0))
	}
	if o.length < 0 || o.atOnce < 1 || o.fuzzTime <= 0 {
		return o, errors.New("--for, --jobs and --fuzz-time want something above 0")
	}
	if o.seed == 0 {
		o.seed = time.Now().UnixNano() % 1e9
	}
	o.module, err = filepath.Abs(o.module)
	return o, err
}

func run(args []string, out io.Writer) (err error) {
	o, err := parse(args)
	if err != nil {
		return err
	}
	fuzz, err := fuzzJobs(o.module, o.fuzzTime)
	if err != nil {
		return err
	}
	jobs, err := choose(slices.Concat(testJobs(), fuzz), o.only)
	if err != nil {
		return err
	}
	if o.list {
		for _, j := range jobs {
			fmt.Fprintf(out, "%-28s %s\n", j.name, j.command())
		}
		return nil
	}
	if os.Geteuid() != 0 {
		return errors.New("the tests mount file systems and change users: run it as root")
	}
	// The first signal lets what runs come to its end, the second ends it.
	stop, release := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer release()
	hard, cancel := context.WithCancel(context.Background())
	defer cancel()
	context.AfterFunc(stop, func() {
		release()
		again, release := signal.NotifyContext(hard, unix.SIGINT, unix.SIGTERM)
		context.AfterFunc(again, func() { release(); cancel() })
	})
	s, err := prepare(hard, o, jobs, out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.cleanUp()) }()
	s.rounds(stop, hard)
	s.report()
	if s.failed() || len(s.results) == 0 {
		return errFailed
	}
	return nil
}

// choose are the jobs that have one of the names or lie below it; all without names.
func choose(all []job, only []string) ([]job, error) {
	if len(only) == 0 {
		return all, nil
	}
	var some []job
	for _, name := range only {
		known := false
		for _, j := range all {
			if j.name != name && !strings.HasPrefix(j.name, strings.TrimSuffix(name, "/")+"/") {
				continue
			}
			known = true
			if !slices.ContainsFunc(some, func(k job) bool { return k.name == j.name }) {
				some = append(some, j)
			}
		}
		if !known {
			return nil, fmt.Errorf("--only %s: there is no such job (--list shows all)", name)
		}
	}
	return some, nil
}

// order is the order of the jobs in the round that has this seed, and the seed of the next round.
func order(jobs []job, seed int64) (shuffled []job, next int64) {
	rnd := rand.New(rand.NewSource(seed))
	shuffled = slices.Clone(jobs)
	rnd.Shuffle(len(shuffled), func(i, k int) { shuffled[i], shuffled[k] = shuffled[k], shuffled[i] })
	return shuffled, rnd.Int63n(1e9) + 1
}
