package wire

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/sideband"

	"emberfs/tiers"
)

// smallPack is up to how many bytes a pack is left to the other side's own choice of unpacking it. A bigger one is to be
// kept as a pack: deflating its objects anew takes longer than everything else. (Small ones should not be kept: every 50
// packs make git gc repack the whole repository.)
const smallPack = 4 << 20

// Push moves the remote's reference from old (zero: it does not exist) to new (zero: delete it), sending the pack that
// writePack writes; for a deletion writePack is not called. It never forces: tiers.ErrDiverged when the reference is
// elsewhere, before or during the push. *tiers.RefusedError when the other side says no: hook, policy, fsck, damaged pack. When
// the answer is lost the reference is read again, and its being new counts as success; so does its being new already. A remote
// that is busy with itself (a git gc of its own, another push) is asked again, for up to a second or two; writePack is called anew.
func (r *Remote) Push(ctx context.Context, refname string, old, new tiers.ID, writePack func(io.Writer) error) error {
	for pause := 50 * time.Millisecond; ; pause *= 3 {
		err := r.pushOnce(ctx, refname, old, new, writePack)
		var busy *busyError
		if !errors.As(err, &busy) || pause > time.Second {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return err
		}
	}
}

// busyError is a refusal that may be over soon.
type busyError struct{ reason string }

func (e *busyError) Error() string { return "the remote could not take the push: " + e.reason }

// refusal makes an error of what the other side gives as its reason. git names no codes: these are its words (builtin/receive-pack.c)
// for what goes wrong when something else is at work in the repository.
func refusal(reason string) error {
	for _, passing := range []string{"unable to migrate objects", "failed to update ref", "cannot lock ref", "unable to create temporary object directory"} {
		if strings.Contains(reason, passing) {
			return &busyError{reason}
		}
	}
	return &tiers.RefusedError{Reason: reason}
}

func (r *Remote) pushOnce(ctx context.Context, refname string, old, new tiers.ID, writePack func(io.Writer) error) error {
	if err := r.recover(ctx); err != nil {
		return fmt.Errorf("push %s to %s: %w", refname, r.path, err)
	}
	s := &sender{ctx: ctx, r: r, refname: refname, old: old, new: new}
	err := s.push(writePack)
	if s.p != nil && !s.p.murdered() {
		r.done()
	}
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

// sender is the Writer that writePack gets. The service starts when the pack has ended or has outgrown smallPack.
type sender struct {
	ctx      context.Context
	r        *Remote
	refname  string
	old, new tiers.ID

	head   bytes.Buffer // of the pack, until the service runs
	p      *process
	w      *bufio.Writer
	answer chan error // what readReport says
	err    error      // of the other side, or errDone: not writePack's fault
}

// errDone: the remote has what is to be pushed.
var errDone = errors.New("nothing to push")

func (s *sender) push(writePack func(io.Writer) error) error {
	if !s.new.IsZero() {
		if err := writePack(s); err != nil && s.err == nil {
			err = &localError{err}
			if s.p == nil {
				return err
			}
			err = s.p.fail(err)
			<-s.answer
			return err
		}
	}
	if s.p == nil && s.err == nil {
		s.err = s.start()
	}
	if errors.Is(s.err, errDone) {
		return nil
	}
	if s.answer == nil {
		return s.err
	}
	if s.err == nil {
		s.err = s.w.Flush()
	}
	_ = s.p.in.Close() // the other side may have closed it first, which its answer explains
	return s.finish()
}

func (s *sender) Write(b []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	if s.p == nil {
		if s.head.Len()+len(b) <= smallPack {
			return s.head.Write(b)
		}
		if s.err = s.start("receive.unpackLimit", "1"); s.err != nil {
			return 0, s.err
		}
	}
	var n int
	n, s.err = s.w.Write(b)
	return n, s.err
}

// start runs the service and sends the command and what there is of the pack.
func (s *sender) start(settings ...string) error {
	p, err := s.r.start(s.ctx, receivePack, settings...)
	if err != nil {
		return err
	}
	s.p = p
	if err := s.r.note(p.cmd.Process.Pid, s.refname); err != nil {
		return p.fail(err)
	}
	switch at := advertised(p.adv)[s.refname]; {
	case at == s.new:
		return errors.Join(errDone, p.hangUp())
	case at != s.old:
		return errors.Join(fmt.Errorf("%w: %s is at %s, expected %s", tiers.ErrDiverged, s.refname, at, s.old), p.hangUp())
	}
	req := packp.NewReferenceUpdateRequest()
	for _, c := range []capability.Capability{capability.ReportStatus, capability.Sideband64k} {
		if !p.adv.Capabilities.Supports(c) {
			return p.fail(fmt.Errorf("it does not offer %s", c))
		}
		if err := req.Capabilities.Set(c); err != nil {
			return p.fail(err)
		}
	}
	if s.new.IsZero() && !p.adv.Capabilities.Supports(capability.DeleteRefs) {
		return p.fail(&tiers.RefusedError{Reason: "it does not let references be deleted"})
	}
	if p.adv.Capabilities.Supports(capability.Agent) {
		if err := req.Capabilities.Set(capability.Agent, agent); err != nil {
			return p.fail(err)
		}
	}
	req.Commands = []*packp.Command{{Name: plumbing.ReferenceName(s.refname), Old: plumbing.Hash(s.old), New: plumbing.Hash(s.new)}}
	// The answer is read while the pack is sent: the other side may speak at any time and must not block on us.
	s.answer = make(chan error, 1)
	go func() { s.answer <- p.readReport() }()
	s.w = bufio.NewWriterSize(p.in, 256<<10)
	if err := req.Encode(s.w); err != nil {
		return err
	}
	_, err = s.head.WriteTo(s.w)
	s.head = bytes.Buffer{}
	return err
}

// finish waits for the answer.
func (s *sender) finish() error {
	rerr := <-s.answer
	if errors.Is(rerr, errNoReport) && s.err != nil {
		rerr = errors.Join(rerr, s.err)
	}
	werr := s.p.wait()
	said := s.p.said.String()
	if said != "" {
		said = " (" + said + ")"
	}
	var refused *tiers.RefusedError
	var busy *busyError
	switch {
	case errors.As(rerr, &refused):
		return &tiers.RefusedError{Reason: refused.Reason + said}
	case errors.As(rerr, &busy):
		return &busyError{busy.reason + said}
	}
	if rerr != nil {
		return errors.Join(rerr, werr)
	}
	return nil // it has done and reported it; how it ended is no matter
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
		return refusal(err.Error())
	}
	if len(report.CommandStatuses) == 0 {
		return fmt.Errorf("%w: it does not name the reference", errNoReport)
	}
	return nil
}
