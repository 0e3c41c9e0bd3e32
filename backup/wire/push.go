package wire

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/sideband"

	"emberfs/tiers"
)

// Push moves the remote's reference from old (zero: it does not exist) to new (zero: delete it), sending the pack that
// writePack writes; for a deletion writePack is not called. It never forces: tiers.ErrDiverged when the reference is
// elsewhere, before or during the push. *tiers.RefusedError when the other side says no: hook, policy, fsck, damaged pack. When
// the answer is lost the reference is read again, and its being new counts as success; so does its being new already.
func (r *Remote) Push(ctx context.Context, refname string, old, new tiers.ID, writePack func(io.Writer) error) error {
	err := r.push(ctx, refname, old, new, writePack)
	var local *localError
	if err != nil && !errors.Is(err, tiers.ErrDiverged) && !errors.As(err, &local) && ctx.Err() == nil {
		err = r.judge(ctx, refname, old, new, err)
	}
	if err != nil {
		return fmt.Errorf("push %s to %s: %w", refname, r.path, ended(ctx, err))
	}
	return nil
}

// localError is writePack's own.
type localError struct{ err error }

func (e *localError) Error() string { return "write pack: " + e.err.Error() }
func (e *localError) Unwrap() error { return e.err }

// judge finds out what a failed push has done.
func (r *Remote) judge(ctx context.Context, refname string, old, new tiers.ID, err error) error {
	refs, rerr := r.Refs(ctx)
	if rerr != nil {
		return errors.Join(err, rerr)
	}
	switch refs[refname] {
	case new:
		return nil
	case old:
		return err
	}
	return fmt.Errorf("%w: %s is at %s, expected %s (%w)", tiers.ErrDiverged, refname, refs[refname], old, err)
}

func (r *Remote) push(ctx context.Context, refname string, old, new tiers.ID, writePack func(io.Writer) error) error {
	p, err := r.start(ctx, receivePack)
	if err != nil {
		return err
	}
	switch at := advertised(p.adv)[refname]; {
	case at == new:
		return p.hangUp()
	case at != old:
		return errors.Join(fmt.Errorf("%w: %s is at %s, expected %s", tiers.ErrDiverged, refname, at, old), p.hangUp())
	}
	for _, c := range []capability.Capability{capability.ReportStatus, capability.Sideband64k} {
		if !p.adv.Capabilities.Supports(c) {
			return p.fail(fmt.Errorf("it does not offer %s", c))
		}
	}
	if new.IsZero() && !p.adv.Capabilities.Supports(capability.DeleteRefs) {
		return p.fail(&tiers.RefusedError{Reason: "it does not let references be deleted"})
	}
	// The answer is read while the pack is sent: the other side may speak at any time and must not block on us.
	answer := make(chan error, 1)
	go func() { answer <- p.readReport() }()
	serr := p.send(refname, old, new, writePack)
	var local *localError
	if errors.As(serr, &local) {
		err := p.fail(serr)
		<-answer
		return err
	}
	rerr := <-answer
	if errors.Is(rerr, errNoReport) && serr != nil {
		rerr = errors.Join(rerr, serr)
	}
	werr := p.wait()
	var refused *tiers.RefusedError
	if errors.As(rerr, &refused) {
		if said := p.said.String(); said != "" {
			refused.Reason += " (" + said + ")"
		}
		return refused
	}
	if rerr != nil {
		return errors.Join(rerr, werr)
	}
	return nil // it has done and reported it; how it ended is no matter
}

// send writes the command and the pack.
func (p *process) send(refname string, old, new tiers.ID, writePack func(io.Writer) error) error {
	req := packp.NewReferenceUpdateRequest()
	for _, c := range []capability.Capability{capability.ReportStatus, capability.Sideband64k} {
		if err := req.Capabilities.Set(c); err != nil {
			return err
		}
	}
	if p.adv.Capabilities.Supports(capability.Agent) {
		if err := req.Capabilities.Set(capability.Agent, agent); err != nil {
			return err
		}
	}
	req.Commands = []*packp.Command{{Name: plumbing.ReferenceName(refname), Old: plumbing.Hash(old), New: plumbing.Hash(new)}}
	w := &pipeWriter{w: p.in}
	bw := bufio.NewWriterSize(w, 256<<10)
	err := req.Encode(bw)
	if err == nil && !new.IsZero() {
		if err = writePack(bw); err != nil && w.err == nil {
			return &localError{err}
		}
	}
	if err == nil {
		err = bw.Flush()
	}
	return errors.Join(err, p.in.Close())
}

// pipeWriter remembers whether it was the other side that failed.
type pipeWriter struct {
	w   io.Writer
	err error
}

func (w *pipeWriter) Write(p []byte) (int, error) {
	n, err := w.w.Write(p)
	if err != nil {
		w.err = err
	}
	return n, err
}

// errNoReport: the other side ended without an answer.
var errNoReport = errors.New("no answer came")

// readReport reads what became of the command. A refusal comes as an unpack status or as the command's.
func (p *process) readReport() error {
	demux := sideband.NewDemuxer(sideband.Sideband64k, p.out)
	demux.Progress = &p.said
	report := packp.NewReportStatus()
	if err := report.Decode(demux); err != nil {
		return fmt.Errorf("%w: %w", errNoReport, err)
	}
	if err := report.Error(); err != nil {
		return &tiers.RefusedError{Reason: err.Error()}
	}
	if len(report.CommandStatuses) == 0 {
		return fmt.Errorf("%w: it does not name the reference", errNoReport)
	}
	return nil
}
