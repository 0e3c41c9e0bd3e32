package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"emberfs/tiers/cold"
	"emberfs/tiers/inspect"
)

// noRepository reports that cold is missing, and what that means.
func (c *checkRun) noRepository() error {
	f := cold.Finding{Severity: cold.Damaged, What: "the repository is missing", Where: coldName,
		Do: "the next mount makes a new one and commits everything that warm has"}
	files, dirs, err := inspect.ColdOnly(c.t.state)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if files+dirs > 0 {
		f.What += fmt.Sprintf(", and with it the bytes of %s and the names in %s, which warm has not",
			count(files, "file"), countAs(dirs, "directory", "directories"))
		f.Do = "put it back before the next mount: what was pushed is in the remote and its clones"
	}
	c.found(f)
	return nil
}

// files compares warm with the commit that it belongs to, and reports what is at risk.
func (c *checkRun) files(ctx context.Context) error {
	if c.t.live {
		c.daemon(ctx)
	}
	if c.info.Restoring || c.cold == nil {
		return nil
	}
	shown := newProgress(c.w, "check files", "file")
	defer shown.done()
	const tries = 3 // repeated if a daemon commits meanwhile
	for n := 1; ; n++ {
		commits, head, err := c.commits(ctx)
		if err != nil {
			return err
		}
		if len(commits) == 0 && !c.cold.TipID().IsZero() {
			return nil // it cannot be read, for which there is a finding already; nothing to compare with
		}
		o := inspect.Options{State: c.t.state, Info: c.info, Commits: commits, Live: c.t.live, Lacks: c.cold.Lacks}
		if c.r.deep {
			o.Same = c.cold.Same
			o.Progress = func(files, done, total int64) {
				shown.expect(0, total)
				shown.set(files, done)
			}
		}
		if c.warm, err = inspect.Check(ctx, o); err != nil {
			return err
		}
		if !c.t.live || len(c.warm.Findings) == 0 {
			break
		}
		if now, err := c.cold.Newest(ctx); err == nil && now != nil && now.Info().ID == head {
			break
		}
		if c.warm.Findings = nil; n == tries {
			c.found(cold.Finding{Severity: cold.Note,
				What: "the volume is committed all the time; its files were not compared", Where: "warm",
				Do: "check it when it is unmounted"})
			break
		}
	}
	told := map[[2]string]bool{}
	for _, f := range c.rep.Findings {
		told[[2]string{f.Path + string(f.Path64), f.Object}] = f.Object != ""
	}
	for _, f := range c.warm.Findings {
		if !told[[2]string{f.Path, f.Object}] { // not reported by the check of the repository already
			c.found(f)
		}
	}
	if n := c.warm.Doubtful; n > 0 {
		what := fmt.Sprintf("%s look unchanged by size and time alone", count(n, "file"))
		if c.r.deep {
			what = fmt.Sprintf("%s had no record to believe and were compared", count(n, "file"))
		}
		c.found(cold.Finding{Severity: cold.Note, What: what, Where: "warm"})
	}
	if !c.t.live {
		c.risk(c.warm.AtRisk, "emberfs mount, then sync or umount, commits it")
	}
	return nil
}

func (c *checkRun) risk(r cold.AtRisk, do string) {
	c.rep.AtRisk = &r
	if r.Files > 0 || r.Bytes > 0 {
		c.found(cold.Finding{Severity: cold.Risk, What: "not backed up: " + riskText(r), Where: "warm", Do: do})
	}
}

// commits returns the commits that warm's records may refer to; head is the newest.
func (c *checkRun) commits(ctx context.Context) (list []cold.Snapshot, head cold.ID, err error) {
	if c.t.live { // the daemon may have committed since
		if info, err := inspect.ReadState(c.t.state); err == nil {
			c.info = info
		}
	}
	if !c.info.Head.IsZero() {
		if s, err := c.cold.Snapshot(ctx, c.info.Head); err == nil {
			list = append(list, s)
		}
	}
	tip, err := c.cold.Newest(ctx)
	if err != nil || tip == nil {
		return list, head, ctx.Err() // the damage has been reported
	}
	head = tip.Info().ID
	if len(list) == 0 || head != c.info.Head {
		list = append(list, tip)
	}
	return list, head, nil
}

// daemon adds what the daemon itself reports.
func (c *checkRun) daemon(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	st, err := newClient(c.t.state).status(ctx)
	if err != nil {
		c.found(cold.Finding{Severity: cold.Risk, What: "the process that holds the volume does not answer: " +
			err.Error(), Where: c.t.state,
			Do: fmt.Sprintf("look at process %d", c.t.pid)})
		return
	}
	for _, e := range st.Errors {
		c.found(cold.Finding{Severity: cold.Risk, What: "the daemon says: " + e, Where: c.t.state})
	}
	c.risk(st.AtRisk, "emberfs sync backs it up")
}
