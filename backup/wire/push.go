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

// Plan says what to push, once the remote has said where its references are. If it returns no updates, nothing is
// pushed. writePack writes a pack with what the remote lacks; it is not called if all updates are deletions. A Plan is
// asked anew when the push is tried again.
type Plan func(refs map[string]cold.ID) (updates []Update, writePack func(io.Writer) error, err error)

// Just is a Plan for updates that are known beforehand.
func Just(updates []Update, writePack func(io.Writer) error) Plan {
	return func(map[string]cold.ID) ([]Update, func(io.Writer) error, error) { return updates, writePack, nil }
}

// Send asks the remote for its references, and plan for what to do with them, and moves the references, either all of
// them or none, all in one conversation. It never forces: if a reference has another value than expected, before or
// during the push, the error is cold.ErrDiverged. If the other side refuses (by a hook, a policy, its fsck, or because
// the pack is damaged) it is *cold.RefusedError. If the answer is lost, Send reads the references again; it is a
// success if all have their new values, as it is if they had them before. If the remote is busy with itself (a git gc
// of its own, another push), Send tries again for up to a second or two. ErrNotAtomic is only possible for several
// updates; nothing was changed then. Errors of plan are returned as they are.
func (r *Remote) Send(ctx context.Context, plan Plan) error {
	renewed := false
	for pause := 50 * time.Millisecond; ; pause *= 3 {
		err := r.sendOnce(ctx, plan)
		if errors.Is(err, ErrNewCredentials) && !renewed {
			renewed = true
			continue // with those
		}
		var busy *cold.BusyError
		if !errors.As(err, &busy) || !busy.Soon || errors.Is(err, cold.ErrDiverged) || pause > time.Second {
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

// atomicFailure is what git reports for a reference that was not moved only because another one of the same push
// failed.
const atomicFailure = "atomic push failure"

func (r *Remote) sendOnce(ctx context.Context, plan Plan) error {
	if err := r.recover(ctx); err != nil {
		return fmt.Errorf("push to %s: %w", r.path, err)
	}
	s := &sender{ctx: ctx, r: r}
	var err error
	if _, read := r.net.(*gitDialer); read {
		err = s.look(plan)
	} else {
		err = s.run(plan)
	}
	if s.p != nil && s.p.stopped && s.p.end.orderly() {
		r.done()
	}
	if err == nil {
		return nil
	}
	var own *ownError
	if errors.As(err, &own) {
		if len(s.updates) == 0 {
			return own.err
		}
		err = own.err
	} else if s.asked && ctx.Err() == nil {
		err = r.judge(ctx, s.updates, err)
	}
	if err == nil {
		return nil
	}
	if len(s.updates) == 0 {
		return fmt.Errorf("push to %s: %w", r.path, sorted(ended(ctx, err)))
	}
	return fmt.Errorf("push %s to %s: %w", names(s.updates), r.path, sorted(ended(ctx, err)))
}

// ownError is an error of the caller's plan or writePack.
type ownError struct{ err error }

func (e *ownError) Error() string { return e.err.Error() }
func (e *ownError) Unwrap() error { return e.err }

// judge finds out what a failed push has changed.
func (r *Remote) judge(ctx context.Context, updates []Update, err error) error {
	var refs map[string]cold.ID
	var rerr error
	if r.pushes == nil {
		refs, rerr = r.Refs(ctx)
	} else { // fetches go elsewhere
		var p *session
		if p, rerr = r.start(ctx, receivePack); rerr == nil {
			refs, rerr = advertised(p.adv), p.hangUp()
		}
	}
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
	var busy *cold.BusyError
	if there := conflict(updates, refs); there != "" && errors.As(err, &busy) {
		return &cold.RefusedError{Reason: fmt.Sprintf("%s is there, so that %s cannot be (%s)", there, names(updates),
			busy.Reason), Advice: "remove or rename that branch on the remote, or choose another --branch"}
	}
	return err
}

// conflict returns a reference of the remote beside which one of the updates cannot exist, because in a repository
// references are files: there is none below another.
func conflict(updates []Update, refs map[string]cold.ID) string {
	for ref := range refs {
		for _, u := range updates {
			if !u.New.IsZero() && (strings.HasPrefix(ref, u.Ref+"/") || strings.HasPrefix(u.Ref, ref+"/")) {
				return ref
			}
		}
	}
	return ""
}

// sender is the Writer that writePack gets. To a path it keeps the beginning of the pack back, since how big the pack
// is decides how the other side is started; to a host it sends at once.
type sender struct {
	ctx     context.Context
	r       *Remote
	updates []Update

	p      *session
	refs   map[string]cold.ID // that the other side has named
	head   bytes.Buffer       // of the pack, until it is sent
	asked  bool               // the other side was asked to move the references
	w      *bufio.Writer      // once asked
	answer chan error         // result of readReport, once asked
	err    error              // error of the other side, not one of writePack
}

// look is run where the other side takes no pushes: it finds out whether there is anything to push.
func (s *sender) look(plan Plan) error {
	var err error
	if s.refs, err = s.r.Refs(s.ctx); err != nil {
		return err
	}
	updates, _, err := plan(s.refs)
	if err != nil {
		return &ownError{err}
	}
	if s.updates = updates; len(updates) == 0 {
		return nil
	}
	if done, _ := compare(updates, s.refs); !done {
		return ErrReadOnly
	}
	return nil
}

// run is one conversation.
func (s *sender) run(plan Plan) error {
	if err := s.start(); err != nil {
		return err
	}
	updates, writePack, err := plan(s.refs)
	if err != nil {
		return errors.Join(&ownError{err}, s.p.hangUp())
	}
	s.updates = updates
	if done, _ := compare(updates, s.refs); done {
		return s.p.hangUp()
	}
	if slices.ContainsFunc(updates, func(u Update) bool { return !u.New.IsZero() }) {
		if s.r.net != nil {
			s.err = s.ask()
		}
		if s.err == nil {
			err = writePack(s)
		}
		if err != nil && s.err == nil {
			err = &ownError{fmt.Errorf("write pack: %w", err)}
			if !s.asked {
				return errors.Join(err, s.p.hangUp())
			}
			err = s.p.fail(err)
			<-s.answer
			return err
		}
	}
	if !s.asked && s.err == nil {
		s.err = s.ask()
	}
	if !s.asked {
		return s.err
	}
	if s.err == nil {
		s.err = s.w.Flush()
	}
	_ = s.p.in.Close() // if the other side has closed it, its answer says why
	late := time.AfterFunc(reportMost, func() { s.p.cancel(&slowError{in: reportMost, all: true}) })
	defer late.Stop()
	return s.finish()
}

func (s *sender) Write(b []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	if !s.asked {
		if s.head.Len()+len(b) <= smallPack {
			return s.head.Write(b)
		}
		// Only the environment of the program can tell it to keep the pack as it is.
		if s.err = s.p.hangUp(); s.err == nil {
			if s.err = s.start("receive.unpackLimit", "1"); s.err == nil {
				s.err = s.ask()
			}
		}
		if s.err != nil {
			return 0, s.err
		}
	}
	var n int
	n, s.err = s.w.Write(b)
	return n, s.err
}

// start connects, and reads the references.
func (s *sender) start(settings ...string) (err error) {
	if s.p, err = s.r.start(s.ctx, receivePack, settings...); err == nil {
		s.refs = advertised(s.p.adv)
	}
	return err
}

// ask sends the commands, and the part of the pack that is there.
func (s *sender) ask() error {
	p := s.p
	if u := behind(s.updates, s.refs); u != nil {
		return errors.Join(fmt.Errorf("%w: %s is at %s, expected %s", cold.ErrDiverged, u.Ref, s.refs[u.Ref], u.Old),
			p.hangUp())
	}
	req, err := s.request()
	if err != nil {
		return errors.Join(err, p.hangUp())
	}
	if err := s.r.note(p, s.updates); err != nil {
		return p.fail(err)
	}
	s.asked = true
	p.watch.send()
	// The answer is read while the pack is sent, because the other side may write at any time and must not block on us.
	s.answer = make(chan error, 1)
	go func() { s.answer <- p.readReport(s.updates) }()
	s.w = bufio.NewWriterSize(p.in, 256<<10)
	if err := req.Encode(s.w); err != nil {
		return err
	}
	_, err = s.head.WriteTo(s.w)
	s.head = bytes.Buffer{}
	return err
}

// request is the list of commands, with what the other side can do of what they need.
func (s *sender) request() (*packp.ReferenceUpdateRequest, error) {
	can := s.p.adv.Capabilities
	req := packp.NewReferenceUpdateRequest()
	need := []capability.Capability{capability.ReportStatus, capability.Sideband64k}
	if len(s.updates) > 1 {
		if !can.Supports(capability.Atomic) {
			return nil, ErrNotAtomic
		}
		need = append(need, capability.Atomic)
	}
	for _, c := range need {
		if !can.Supports(c) {
			return nil, fmt.Errorf("it does not offer %s", c)
		}
		if err := req.Capabilities.Set(c); err != nil {
			return nil, err
		}
	}
	if slices.ContainsFunc(s.updates, func(u Update) bool {
		return u.New.IsZero()
	}) && !can.Supports(capability.DeleteRefs) {
		return nil, &cold.RefusedError{Reason: "it does not let references be deleted"}
	}
	if can.Supports(capability.Agent) {
		if err := req.Capabilities.Set(capability.Agent, agent); err != nil {
			return nil, err
		}
	}
	for _, u := range s.updates {
		req.Commands = append(req.Commands, &packp.Command{Name: plumbing.ReferenceName(u.Ref),
			Old: plumbing.Hash(u.Old), New: plumbing.Hash(u.New)})
	}
	return req, nil
}
