package main

import (
	"fmt"
	"text/tabwriter"
	"time"
)

// report prints what ran, how often and for how long, and for each failure the command that repeats it.
func (s *soak) report() {
	s.mu.Lock()
	defer s.mu.Unlock()
	type row struct {
		runs, failed   int
		total, longest time.Duration
	}
	rows := map[string]*row{}
	all := &row{}
	for _, r := range s.results {
		if rows[r.job.name] == nil {
			rows[r.job.name] = &row{}
		}
		for _, w := range []*row{rows[r.job.name], all} {
			w.runs++
			w.total += r.took
			w.longest = max(w.longest, r.took)
			if r.why != "" {
				w.failed++
			}
		}
	}
	fmt.Fprintln(s.out)
	w := tabwriter.NewWriter(s.out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "JOB\tRUNS\tFAILED\tTIME\tLONGEST")
	line := func(name string, r *row) {
		fmt.Fprintf(w, "%s\t%d\t%d\t%v\t%v\n", name, r.runs, r.failed, r.total.Round(time.Second),
			r.longest.Round(time.Second))
	}
	for _, j := range s.jobs {
		if r := rows[j.name]; r != nil {
			line(j.name, r)
		} else {
			fmt.Fprintf(w, "%s\t0\t\t\tdid not run\n", j.name)
		}
	}
	line(fmt.Sprintf("all in %v", time.Since(s.started).Round(time.Second)), all)
	_ = w.Flush()
	for _, r := range s.results {
		if r.why != "" {
			fmt.Fprintf(s.out, "\nFAIL  %s, seed %d: %s\n      %s\n      again: %s\n", r.job.name, r.seed, r.why, r.log,
				r.again())
		}
	}
	fmt.Fprintf(s.out, "\n%d passed, %d failed\n", all.runs-all.failed, all.failed)
}

// again is the command that repeats a run. What a fuzz target found lies among its seeds, so any run of the tests
// repeats it.
func (r result) again() string {
	if r.job.fuzz != "" {
		return fmt.Sprintf("go test -run '^%s$' ./%s", r.job.fuzz, r.job.pkg)
	}
	return fmt.Sprintf("scripts/soak --only %s --seed %d", r.job.name, r.seed)
}
