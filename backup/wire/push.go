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

// smallPack is the size in bytes up to which the other side may decide by itself whether to unpack a pack. It is told
// to keep a bigger one as a pack, because deflating its objects anew would take longer than everything else. (Small
// ones should not be kept, because after every 50 packs git gc would repack the whole repository.)
const smallPack = 4 << 20

// Update is one reference that a push moves.
type Update struct {
	Ref string
	Old cold.ID // the expected value; zero: it must not exist
	New cold.ID // the new value; zero: delete it; equal to Old: only check it
}

// ErrNotAtomic says that the remote cannot move several references in one step. They can be pushed one by one.
var ErrNotAtomic = errors.New("the remote does not offer atomic pushes")

// Push moves the remote's references, either all of them or none, and sends the pack that writePack writes; if all
// updates are deletions, writePack is not called. It never forces: if a reference has another value than expected,
// before or during the push, the error is cold.ErrDiverged. If the other side refuses (by a hook, a policy, its fsck,
// or because the pack is damaged) it is *cold.RefusedError. If the answer is lost, Push reads the references again; it
// is a success if all have their new values, as it is if they had them before. If the remote is busy with itself (a git
// gc of its own, another push), Push tries again for up to a second or two, calling writePack anew. ErrNotAtomic is
// only possible for several updates; nothing was changed then.
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

// names returns what errors call the references of a push.
func names(updates []Update) string {
	list := make([]string, len(updates))
	for i, u := range updates {
		list[i] = u.Ref
	}
	return strings.Join(list, ", ")
}

// compare reports whether all references have their new values, and returns the first that has neither the old nor the
// new one.
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

// behind returns a reference that still has its old value, if another one already has its new one; then the push as a
// whole no longer fits.
func behind(updates []Update, refs map[string]cold.ID) *Update {
	for i := range updates {
		if refs[updates[i].Ref] != updates[i].Old {
			return &updates[i]
		}
	}
	return nil
}

// busyError is a refusal for a reason that may soon be over.
type busyError struct{ reason string }

func (e *busyError) Error() string { return "the remote could not take the push: " + e.reason }

// atomicFailure is what git reports for a reference that was not moved only because another one of the same push
// failed.
const atomicFailure = "atomic push failure"

// refusal converts the other side's reason to an error. git has no codes; these are the texts (builtin/receive-pack.c)
// for failures because something else is at work in the repository.
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

// localError is an error of writePack itself.
type localError struct{ err error }

func (e *localError) Error() string { return "write pack: " + e.err.Error() }
func (e *localError) Unwrap() error { return e.err }

// judge finds out what a failed push has changed.
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

// sender is the Writer that writePack gets. It starts the service when the pack is complete or has become bigger than
// smallPack.
type sender struct {
	ctx     context.Context
	r       *Remote
	updates []Update

	head   bytes.Buffer // of the pack, until the service runs
	p      *session
	w      *bufio.Writer
	answer chan error // result of readReport
	err    error      // error of the other side, or errDone; not one of writePack
}

// errDone says that the remote already has what is to be pushed.
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
	_ = s.p.in.Close() // if the other side has closed it, its answer says why
	return s.finish()
}

// sends reports whether a pack is to be sent.
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

// start runs the service, and sends the command and the part of the pack that is there.
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
	// The answer is read while the pack is sent, because the other side may write at any time and must not block on us.
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
	return nil // it has reported success; its exit status does not matter
}

// errNoReport says that the other side ended without an answer.
var errNoReport = errors.New("no answer came")

// readReport reads the result of the command. A refusal comes as the status of unpacking, or as that of a reference.
func (p *session) readReport() error {
	demux := sideband.NewDemuxer(sideband.Sideband64k, p.out)
	demux.Progress = &p.said
	report := packp.NewReportStatus()
	if err := report.Decode(demux); err != nil {
		return fmt.Errorf("%w: %w", errNoReport, err)
	}
	err := report.Error()
	for _, c := range report.CommandStatuses {
		// In an atomic push, the status of the other references only says that one of them failed.
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
