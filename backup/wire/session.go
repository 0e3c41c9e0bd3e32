package wire

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/go-git/go-git/v5/plumbing/format/pktline"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"

	"emberfs/tiers/cold"
)

// session is one conversation with a git service on the other side, whatever lies between. It is for one goroutine, but
// in and out may be used by one each.
type session struct {
	name     string               // of the service
	v2       abilities            // in version 2 of the protocol; nil: it speaks version 0
	recalled bool                 // v2 is what the service said in an earlier session
	adv      *packp.AdvRefs       // in version 0
	heads    map[string]cold.ID   // of upload-pack in version 0, in place of those in adv
	cut      map[cold.ID]struct{} // commits at which the other side's history begins
	in       io.WriteCloser
	out      io.Reader
	pkt      *pktReader // of out
	asked    bool       // in version 2, a request was sent
	said     messages
	watch    *watched // of a session with another host
	end      ending
	tempo    *pace // of what is read now
	trailing tempo // of what comes behind all that is wanted
	ctx      context.Context
	cancel   context.CancelCauseFunc
	stopped  bool
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

// rounds is an ending of sessions in which each request of version 2 is an exchange of its own.
type rounds interface {
	// again readies the session for another request, after the answer to the last one was read.
	again() error
	// send ends a request.
	send() error
}

// dialer connects to the services of one repository.
type dialer interface {
	// dial connects to a service. What it says of its references is left to be read, unless v2 of the session is set.
	dial(ctx context.Context, service string) (*session, error)
}

// forgetful is a dialer that keeps what it learns of the other side's protocol.
type forgetful interface {
	// learned notes what upload-pack said.
	learned(a abilities)
	// relearn has the next session ask for it anew, and reports whether the error of the last one is a reason to.
	relearn(p *session, err error) bool
}

// start connects to a service of the repository, with git settings of ours where it runs here, and reads what it
// advertises.
func (r *Remote) start(ctx context.Context, service string, settings ...string) (*session, error) {
	p, err := r.connect(ctx, service, settings...)
	if err != nil {
		return nil, err
	}
	p.tempo.stop()
	return p, nil
}

// connect is start for what goes on with the list of references: the other side is still held to its tempo.
func (r *Remote) connect(ctx context.Context, service string, settings ...string) (*session, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	tempo := r.tempi().listing.hold(cancel)
	var p *session
	var err error
	if r.net != nil {
		p, err = r.way(service).dial(ctx, service)
	} else {
		p, err = r.run(ctx, service, settings...)
	}
	if err != nil {
		tempo.stop()
		err = ended(ctx, err)
		cancel(nil)
		return nil, err
	}
	p.ctx, p.cancel, p.tempo, p.trailing = ctx, cancel, tempo, r.tempi().trailing
	if r.net != nil {
		p.watch = watch(p, cancel)
		p.in, p.out = p.watch, p.watch
	}
	context.AfterFunc(ctx, func() { _ = p.in.Close() })
	p.pkt = newPktReader(&counted{p.out, ctx, tempo})
	p.out = p.pkt.r
	if p.v2 != nil {
		return p, nil
	}
	if err := p.readAdvertised(); err != nil {
		return nil, p.fail(fmt.Errorf("read references: %w", err))
	}
	if d, ok := p.end.(interface{ decoded() }); ok {
		d.decoded()
		p.pkt.r.Reset(p.pkt.from) // it may remember the end of the references
	}
	if f, ok := r.net.(forgetful); ok && p.v2 != nil {
		f.learned(p.v2)
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

// counted counts what is read for a pace, and reads no more once the session was ended: what still comes could go on
// for ever.
type counted struct {
	io.Reader
	ctx   context.Context
	tempo *pace
}

func (c *counted) Read(b []byte) (int, error) {
	if err := context.Cause(c.ctx); err != nil {
		return 0, err
	}
	n, err := c.Reader.Read(b)
	c.tempo.count(n)
	return n, err
}

// ask sends a request of version 2; its answer is to be read from pkt then, up to most bytes.
func (p *session) ask(req *request, most int64) error {
	r, ok := p.end.(rounds)
	var err error
	if ok && p.asked {
		err = r.again()
	}
	if ok {
		p.pkt.r.Reset(p.pkt.from)
	}
	p.asked, p.pkt.some, p.pkt.left = true, false, most
	if err == nil {
		_, err = p.in.Write(req.Bytes())
	}
	if err == nil && ok {
		err = r.send()
	}
	if err != nil {
		return fmt.Errorf("send request: %w", err)
	}
	return nil
}

// hangUp tells a service that nothing is wanted, and waits for it.
func (p *session) hangUp() error {
	return errors.Join(p.end.bye(p.in), p.wait())
}

// flushBye is the ending.bye of services that read a stream.
func flushBye(in io.Writer) error {
	_, err := in.Write(pktline.FlushPkt)
	return err
}

// maxTrailing is how many bytes may follow what was read of a service, until it ends.
const maxTrailing = 1 << 20

// wait closes the service's input, reads what it still has to say and waits for its end.
func (p *session) wait() error {
	if p.stopped {
		return nil
	}
	var tempo *pace
	if p.name == uploadPack { // receive-pack may have a hook at work
		tempo = p.trailing.hold(p.cancel)
	}
	_ = p.in.Close() // it may have closed it first
	if n, _ := io.CopyN(io.Discard, p.out, maxTrailing); n == maxTrailing {
		tempo.stop()
		return p.fail(fmt.Errorf("%w behind its answer", errFlood))
	}
	p.stopped = true
	err := p.end.wait()
	tempo.stop()
	p.tempo.stop()
	p.cancel(nil)
	if err != nil {
		return p.explain(err)
	}
	return nil
}

// fail kills the service and returns err with what the other side said, or why the session was ended.
func (p *session) fail(err error) error {
	if why := context.Cause(p.ctx); why != nil {
		err = why
	}
	if !p.stopped {
		p.stopped = true
		p.end.kill(p.in)
		p.tempo.stop()
		p.cancel(nil)
	}
	return p.explain(err)
}

// explain adds what the other side said.
func (p *session) explain(err error) error {
	return &saidError{service: p.name, said: p.said.String(), err: err}
}
