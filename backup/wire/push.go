package wire

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/sideband"

	"emberfs/tiers/cold"
)

// smallPack is up to how many bytes a pack is left to the other side's own choice of unpacking it. A bigger one is to
// be kept as a pack: deflating its objects anew takes longer than everything else. (Small ones should not be kept:
// every 50 packs make git gc repack the whole repository.)
const smallPack = 4 << 20

// Update is one reference that a push moves.
type Update struct {
	Ref string
	Old cold.ID // where it is expected; zero: it does not exist
	New cold.ID // zero: delete it; equal to Old: it only has to be there
}

// ErrNotAtomic says that the remote does not move several references in one step: they can be pushed one by one.
var ErrNotAtomic = errors.New("the remote does not offer atomic pushes")

// Push moves the remote's references, all of them or none, sending the pack that writePack writes; where all are
// deletions it is not called. It never forces: cold.ErrDiverged when one of them is elsewhere, before or during the
// push. *cold.RefusedError when the other side says no: hook, policy, fsck, damaged pack. When the answer is lost the
// references are read again, and their being new counts as success; so does their being new already. A remote that is
// busy with itself (a git gc of its own, another push) is asked again, for up to a second or two; writePack is called
// anew. ErrNotAtomic: several updates, and nothing was sent but perhaps a part of the pack.
func (r *Remote) Push(ctx context.Context, updates []Update, writePack func(io.Writer) error) error {
	for pause := 50 * time.Millisecond; ; pause *= 3 {
		err := r.pushOnce(ctx, updates, writePack)
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

// names are what errors call the references of a push.
func names(updates []Update) string {
	list := make([]string, len(updates))
	for i, u := range updates {
		list[i] = u.Ref
	}
	return strings.Join(list, ", ")
}

// compare says whether all references are new, and which of them is neither old nor new.
func compare(updates []Update, refs map[string]cold.ID) (done bool, moved *Update) {
	done = true
	for i := range updates {
		u := &updates[i]
		at := refs[u.Ref]
		done = done && at == u.New
		if at != u.New && at != u.Old && moved == nil {
			moved = u
		}
	}
	return done, moved
}

// behind says whether some reference is new already and some still old: then the expectations do not fit any more.
func behind(updates []Update, refs map[string]cold.ID) *Update {
	for i := range updates {
		if refs[updates[i].Ref] != updates[i].Old {
			return &updates[i]
		}
	}
	return nil
}

// busyError is a refusal that may be over soon.
type busyError struct{ reason string }

func (e *busyError) Error() string { return "the remote could not take the push: " + e.reason }

// atomicFailure is git's word for a reference that could have been moved, but for another one of the same push.
const atomicFailure = "atomic push failure"

// refusal makes an error of what the other side gives as its reason. git names no codes: these are its words
// (builtin/receive-pack.c) for what goes wrong when something else is at work in the repository.
func refusal(reason string) error {
	for _, passing := range []string{"unable to migrate objects", "failed to update ref", "cannot lock ref",
		"unable to create temporary object directory", "atomic transaction failed"} {
		if strings.Contains(reason, passing) {
			return &busyError{reason}
		}
	}
	return &cold.RefusedError{Reason: reason}
}

func (r *Remote) pushOnce(ctx context.Context, updates []Update, writePack func(io.Writer) error) error {
	if err := r.recover(ctx); err != nil {
		return fmt.Errorf("push %s to %s: %w", names(updates), r.path, err)
	}
	s := &sender{ctx: ctx, r: r, updates: updates}
	err := s.push(writePack)
	if s.p != nil && s.p.stopped && s.p.end.orderly() {
		r.done()
	}
	var local *localError
	if err != nil && !errors.Is(err, cold.ErrDiverged) && !errors.Is(err, ErrNotAtomic) && !errors.As(err, &local) &&
		ctx.Err() == nil {
		err = r.judge(ctx, updates, err)
	}
	if err != nil {
		return fmt.Errorf("push %s to %s: %w", names(updates), r.path, ended(ctx, err))
	}
	return nil
}

// localError is writePack's own.
type localError struct{ err error }

func (e *localError) Error() string { return "write pack: " + e.err.Error() }
func (e *localError) Unwrap() error { return e.err }

// judge finds out what a failed push has done.
func (r *Remote) judge(ctx context.Context, updates []Update, err error) error {
	refs, rerr := r.Refs(ctx)
	if rerr != nil {
		return errors.Join(err, rerr)
	}
	done, moved := compare(updates, refs)
	if done {
		return nil
	}
	if moved != nil {
		return fmt.Errorf("%w: %s is at %s, expected %s (%w)", cold.ErrDiverged, moved.Ref, refs[moved.Ref], moved.Old,
			err)
	}
	return err
}

// sender is the Writer that writePack gets. The service starts when the pack has ended or has outgrown smallPack.
type sender struct {
	ctx     context.Context
	r       *Remote
	updates []Update

	head   bytes.Buffer // of the pack, until the service runs
	p      *session
	w      *bufio.Writer
	answer chan error // what readReport says
	err    error      // of the other side, or errDone: not writePack's fault
}

// errDone: the remote has what is to be pushed.
var errDone = errors.New("nothing to push")

func (s *sender) push(writePack func(io.Writer) error) error {
	if s.sends() {
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

// sends says whether there is a pack.
func (s *sender) sends() bool {
	return slices.ContainsFunc(s.updates, func(u Update) bool { return !u.New.IsZero() })
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
	if err := s.r.note(p, s.updates); err != nil {
		return p.fail(err)
	}
	refs := advertised(p.adv)
	if done, _ := compare(s.updates, refs); done {
		return errors.Join(errDone, p.hangUp())
	}
	if u := behind(s.updates, refs); u != nil {
		return errors.Join(fmt.Errorf("%w: %s is at %s, expected %s", cold.ErrDiverged, u.Ref, refs[u.Ref], u.Old),
			p.hangUp())
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
	if len(s.updates) > 1 {
		if !p.adv.Capabilities.Supports(capability.Atomic) {
			return errors.Join(ErrNotAtomic, p.hangUp())
		}
		if err := req.Capabilities.Set(capability.Atomic); err != nil {
			return p.fail(err)
		}
	}
	if slices.ContainsFunc(s.updates, func(u Update) bool {
		return u.New.IsZero()
	}) && !p.adv.Capabilities.Supports(capability.DeleteRefs) {
		return p.fail(&cold.RefusedError{Reason: "it does not let references be deleted"})
	}
	if p.adv.Capabilities.Supports(capability.Agent) {
		if err := req.Capabilities.Set(capability.Agent, agent); err != nil {
			return p.fail(err)
		}
	}
	for _, u := range s.updates {
		req.Commands = append(req.Commands, &packp.Command{Name: plumbing.ReferenceName(u.Ref),
			Old: plumbing.Hash(u.Old), New: plumbing.Hash(u.New)})
	}
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
	var refused *cold.RefusedError
	var busy *busyError
	switch {
	case errors.As(rerr, &refused):
		return &cold.RefusedError{Reason: refused.Reason + said}
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
func (p *session) readReport() error {
	demux := sideband.NewDemuxer(sideband.Sideband64k, p.out)
	demux.Progress = &p.said
	report := packp.NewReportStatus()
	if err := report.Decode(demux); err != nil {
		return fmt.Errorf("%w: %w", errNoReport, err)
	}
	err := report.Error()
	for _, c := range report.CommandStatuses {
		// Of an atomic push the others only say that one of them failed.
		if cerr := c.Error(); cerr != nil && strings.Contains(err.Error(), atomicFailure) {
			err = cerr
		}
	}
	if err != nil {
		return refusal(err.Error())
	}
	if len(report.CommandStatuses) == 0 {
		return fmt.Errorf("%w: it does not name the reference", errNoReport)
	}
	return nil
}
