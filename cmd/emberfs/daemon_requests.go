package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"sync/atomic"

	"emberfs/tiers"
	"emberfs/tiers/cold"
)

func (d *daemon) who() daemonReply {
	d.mu.Lock()
	defer d.mu.Unlock()
	return daemonReply{PID: os.Getpid(), Mountpoint: d.config.Mountpoint, Phase: d.mu.phase, Version: versionString()}
}

func (d *daemon) settings() *config { return d.config }

func (d *daemon) status() statusReply {
	out := statusReply{daemonReply: d.who()}
	d.last.RLock()
	defer d.last.RUnlock()
	if d.last.status != nil {
		out.Status = *d.last.status
	} else {
		out.Status = d.vol.Status()
	}
	out.Notice = d.noticed.board.Current()
	out.Errors = slices.Concat(out.Errors, d.noticed.board.Problems())
	return out
}

// statusReport produces .emberfs/status.json, even before there is a daemon to ask. It is safe for concurrent use.
type statusReport struct {
	config *config
	vol    volume
	daemon atomic.Pointer[daemon]
}

// text returns what `emberfs status --json` prints for this mount, but without the file names in errors: everybody with
// access to the mount can read it, including users to whom the directories with these files are closed.
func (s *statusReport) text() []byte {
	var st statusReply
	if d := s.daemon.Load(); d != nil {
		st = d.status()
	} else {
		st.daemonReply = daemonReply{PID: os.Getpid(), Mountpoint: s.config.Mountpoint, Phase: phaseMounted,
			Version: versionString()}
		st.Status = s.vol.Status()
	}
	st.Errors = slices.Clone(st.Errors)
	for i, e := range st.Errors {
		st.Errors[i] = errorKind(e) + ": emberfs status says more"
	}
	if p := st.Previous; p != nil && len(p.Missing) > 0 {
		hidden := *p
		hidden.Missing = []string{count(int64(len(p.Missing)), "line") + ": emberfs status says more"}
		st.Previous = &hidden
	}
	var out bytes.Buffer
	if err := printJSON(&out, st); err != nil {
		return nil
	}
	return out.Bytes()
}

// notice returns the content of .emberfs/notice.json, or nil where there is no notice.
func (s *statusReport) notice() []byte {
	d := s.daemon.Load()
	if d == nil {
		return nil
	}
	n := d.noticed.board.Current()
	if n == nil {
		return nil
	}
	var out bytes.Buffer
	if err := printJSON(&out, n); err != nil {
		return nil
	}
	return out.Bytes()
}

// errorKind returns the word with which an error in status begins: commit, push, tier.
func errorKind(e string) string {
	kind, _, ok := strings.Cut(e, ": ")
	if !ok || len(kind) > 20 || strings.ContainsFunc(kind, func(r rune) bool {
		return (r < 'a' || r > 'z') && r != ' '
	}) {
		return "error"
	}
	return kind
}

// atime implements controlled; it is called after a remount.
func (d *daemon) atime(words []string) { d.vol.SetAtime(tiers.AtimeOf(words)) }

// rules returns the rules in effect and what they say about paths.
func (d *daemon) rules(paths []rulesPath) (rulesReply, error) {
	if err := d.serving(); err != nil {
		return rulesReply{}, err
	}
	out := rulesReply{List: d.vol.ListRules(), Reports: []tiers.RulesReport{}}
	for _, p := range paths {
		out.Reports = append(out.Reports, d.vol.ExplainRules(string(p.Path), p.Dir))
	}
	return out, nil
}

func (d *daemon) sync(ctx context.Context, reason string) (*tiers.Receipt, error) {
	d.mu.Lock()
	finishing := d.mu.phase == phaseFinishing
	d.mu.Unlock()
	if finishing { // the final backup is running and covers everything
		return d.wait(ctx)
	}
	return d.vol.Sync(ctx, reason)
}

func (d *daemon) gc(ctx context.Context, in gcRequest) (cold.GCReport, error) {
	return d.vol.GC(ctx, cold.GCOptions{Grace: in.Grace, DryRun: in.DryRun})
}

// tier ages files now. The paths are relative to the root; none, or the root itself, means everything.
func (d *daemon) tier(ctx context.Context, paths []string) (tiers.TierReport, error) {
	if err := d.serving(); err != nil {
		return tiers.TierReport{}, err
	}
	if slices.Contains(paths, ".") {
		paths = nil
	}
	return d.vol.Tier(ctx, paths)
}

func (d *daemon) file(ctx context.Context, path string) (tiers.FileStatus, error) {
	if err := d.serving(); err != nil {
		return tiers.FileStatus{}, err
	}
	return d.vol.FileStatus(ctx, path)
}

// serving returns an error once the mount is gone and the final backup runs.
func (d *daemon) serving() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mu.phase != phaseMounted {
		return errors.New("the mount is gone and its last backup runs")
	}
	return nil
}

func (d *daemon) wait(ctx context.Context) (*tiers.Receipt, error) {
	select {
	case <-d.done:
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.mu.final, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
