package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/go-git/go-git/v5/plumbing/format/pktline"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
)

// session is one conversation with a git service on the other side, whatever lies between. It is for one goroutine, but
// in and out may be used by one each.
type session struct {
	name    string // of the service
	adv     *packp.AdvRefs
	in      io.WriteCloser
	out     io.Reader
	said    messages
	end     ending
	release func() // of its context
	stopped bool
}

// ending is how a session ends.
type ending interface {
	// bye tells a service that has advertised its references that nothing is wanted.
	bye(in io.Writer) error
	// wait waits for the end of the service, after its input was closed and its output was read.
	wait() error
	// kill ends the service at once, with all that it has started here, and closes its input.
	kill(in io.Closer)
	// orderly says that the service ended by itself, so that it has left no lock behind.
	orderly() bool
}

// dialer connects to the services of one repository.
type dialer interface {
	// dial connects to a service. What it says of its references is left to be read.
	dial(ctx context.Context, service string) (*session, error)
}

// start connects to a service of the repository, with git settings of ours where it runs here, and reads what it
// advertises.
func (r *Remote) start(ctx context.Context, service string, settings ...string) (*session, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	silent := time.AfterFunc(patience, func() { cancel(errSilent) })
	var p *session
	var err error
	if r.net != nil {
		p, err = r.way(service).dial(ctx, service)
	} else {
		p, err = r.run(ctx, service, settings...)
	}
	if err != nil {
		silent.Stop()
		err = ended(ctx, err)
		cancel(nil)
		return nil, err
	}
	p.release = func() { cancel(nil) }
	context.AfterFunc(ctx, func() { _ = p.in.Close() })
	if r.net != nil {
		w := &watched{ctx: ctx, cancel: cancel, in: p.in, out: p.out}
		p.in, p.out = w, w
	}
	p.adv = packp.NewAdvRefs()
	err = p.adv.Decode(io.LimitReader(p.out, maxAdvertised))
	if !silent.Stop() && err != nil {
		err = errSilent
	}
	if err != nil && !errors.Is(err, packp.ErrEmptyAdvRefs) {
		return nil, p.fail(fmt.Errorf("read references: %w", err))
	}
	if d, ok := p.end.(interface{ decoded() }); ok {
		d.decoded()
	}
	for _, f := range p.adv.Capabilities.Get("object-format") {
		if err := checkFormat(f); err != nil {
			return nil, p.fail(err)
		}
	}
	return p, nil
}

// way is the dialer for a service.
func (r *Remote) way(service string) dialer {
	if service == receivePack && r.pushes != nil {
		return r.pushes
	}
	return r.net
}

// idleMost is how long another host may take for anything: git's services say every few seconds that they are still at
// work (git-config(1), uploadpack.keepAlive and receive.keepAlive).
const idleMost = 30 * time.Second

// errIdle says that a host that was reached has stopped answering.
var errIdle = fmt.Errorf("nothing came or went for %v", idleMost)

// watched ends a session with another host in which a read or a write gets nowhere for idleMost.
type watched struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	in     io.WriteCloser
	out    io.Reader
}

func (w *watched) during(work func() (int, error)) (int, error) {
	t := time.AfterFunc(idleMost, func() { w.cancel(errIdle) })
	n, err := work()
	t.Stop()
	if err != nil && w.ctx.Err() != nil {
		err = context.Cause(w.ctx)
	}
	return n, err
}

func (w *watched) Read(p []byte) (int, error) {
	return w.during(func() (int, error) { return w.out.Read(p) })
}
func (w *watched) Write(p []byte) (int, error) {
	return w.during(func() (int, error) { return w.in.Write(p) })
}
func (w *watched) Close() error { return w.in.Close() }

// hangUp tells a service that nothing is wanted, and waits for it.
func (p *session) hangUp() error {
	return errors.Join(p.end.bye(p.in), p.wait())
}

// flushBye is the ending.bye of services that read a stream.
func flushBye(in io.Writer) error {
	_, err := in.Write(pktline.FlushPkt)
	return err
}

// wait closes the service's input, reads what it still has to say and waits for its end.
func (p *session) wait() error {
	if p.stopped {
		return nil
	}
	p.stopped = true
	_ = p.in.Close() // it may have closed it first
	_, _ = io.Copy(io.Discard, p.out)
	err := p.end.wait()
	p.release()
	if err != nil {
		return p.explain(err)
	}
	return nil
}

// fail kills the service and returns err with what the other side said.
func (p *session) fail(err error) error {
	if !p.stopped {
		p.stopped = true
		p.end.kill(p.in)
		p.release()
	}
	return p.explain(err)
}

// explain adds what the other side said.
func (p *session) explain(err error) error {
	return &saidError{service: p.name, said: p.said.String(), err: err}
}
