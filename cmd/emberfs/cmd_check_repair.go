package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"emberfs/backup/fsck"
	"emberfs/tiers/cold"
	"emberfs/tiers/inspect"
	"emberfs/tiers/subprocess"
)

// repair repairs what the check found, and checks again.
func (c *checkRun) repair(ctx context.Context) (*checkReport, error) {
	first, warm := c.rep, c.warm
	subprocess.ClearUmask()
	if c.t.state != "" {
		if err := c.repairTemps(); err != nil {
			return nil, err
		}
	}
	drop := []string{}
	if warm != nil {
		drop = append(drop, warm.Untrue...)
	}
	if c.cold != nil {
		o := fsck.RepairOptions{Step: c.step}
		if warm != nil {
			o.Needs = warm.Lost
		}
		if c.t.state != "" {
			o.WarmFiles = func(ctx context.Context, pick func(string, cold.ID) bool,
				f func(string, cold.Content) error) error {
				err := inspect.WarmFiles(ctx, c.t.state, pick, f)
				if errors.Is(err, fs.ErrNotExist) {
					err = nil // there is no warm directory to take anything from
				}
				return err
			}
		}
		done, err := c.cold.Repair(ctx, o)
		if err != nil {
			return nil, c.partly(err)
		}
		drop = append(drop, done.Lost...)
		if !done.Head.IsZero() {
			c.doStep(fmt.Sprintf("let warm count as being of %s instead of %s, which is gone", done.Head, c.info.Head),
				volumeName,
				func() error { return inspect.SetHead(c.t.state, done.Head) })
		}
	}
	if c.t.state != "" {
		if err := c.repairMarks(ctx, drop); err != nil {
			return nil, c.partly(err)
		}
	}
	return c.again(ctx, first)
}

// partly returns the error of a repair that ended early.
func (c *checkRun) partly(err error) error {
	if err == nil || len(c.rep.Repairs) == 0 {
		return err
	}
	return &failure{code: exitPart, op: "check --repair", path: c.r.target, err: err, hint: "check it again"}
}

// repairMarks removes the records that are wrong. It compares warm anew, because a commit that was recovered shows more
// of them.
func (c *checkRun) repairMarks(ctx context.Context, drop []string) error {
	quiet := checkRun{r: checkRequest{target: c.r.target, asJSON: true},
		w: world{out: c.w.out, err: c.w.err, environ: c.w.environ, quiet: c.w.quiet}, t: c.t}
	if _, err := quiet.once(ctx); err != nil {
		return err
	}
	if quiet.warm != nil {
		drop = append(drop, quiet.warm.Untrue...)
	}
	slices.Sort(drop)
	drop = slices.Compact(drop)
	if len(drop) > 0 {
		what := "let what differs count as changed: the next commit takes it as it is here"
		c.doStep(what, "warm: "+listed(drop), func() error { return inspect.DropRecords(c.t.state, drop) })
	}
	return nil
}

// listed names the first few of many paths.
func listed(paths []string) string {
	const most = 5
	var out []string
	for _, p := range paths[:min(len(paths), most)] {
		if p == "" {
			p = "."
		}
		out = append(out, quotePath(p))
	}
	if n := len(paths) - most; n > 0 {
		out = append(out, fmt.Sprintf("and %d more", n))
	}
	return strings.Join(out, ", ")
}

// repairTemps removes the temporary files beside volume.json.
func (c *checkRun) repairTemps() error {
	temps, err := inspect.StaleTemps(c.t.state)
	if err != nil {
		return err
	}
	for _, p := range temps {
		rel, err := filepath.Rel(c.t.state, p)
		if err != nil {
			return err
		}
		c.doStep("remove a stale temporary file", rel, func() error { return os.Remove(p) })
	}
	return nil
}

// again checks everything once more, and combines both results.
func (c *checkRun) again(ctx context.Context, first *checkReport) (*checkReport, error) {
	if len(first.Repairs) == 0 {
		return first, nil // there was nothing to do
	}
	if !c.r.asJSON {
		fmt.Fprintln(c.w.out, "checking again:")
	}
	rep, err := c.once(ctx)
	if err != nil {
		return nil, c.partly(err)
	}
	rep.Before, rep.Repairs = first.Findings, first.Repairs
	return rep, nil
}

// step prints and records one step of the repair before it is taken; the returned function does the same with its
// outcome.
func (c *checkRun) step(what, where string) func(result string, err error) {
	if !c.r.asJSON {
		fmt.Fprintf(c.w.out, "%-8s%s: %s\n", "repair", oneLine(where), oneLine(what))
	}
	at := len(c.rep.Repairs)
	c.rep.Repairs = append(c.rep.Repairs, repairStep{What: what, Where: where})
	return func(result string, err error) {
		s := &c.rep.Repairs[at]
		s.Result = result
		if err != nil {
			s.Error = redact(err.Error())
			result = "failed: " + s.Error
		}
		if !c.r.asJSON && result != "" {
			fmt.Fprintf(c.w.out, "%-8s%s\n", "", oneLine(strings.ReplaceAll(result, "\n", "; ")))
		}
	}
}

func (c *checkRun) doStep(what, where string, do func() error) {
	ended := c.step(what, where)
	ended("", do())
}
