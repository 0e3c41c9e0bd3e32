package wire

import (
	"errors"
	"io"
	"net/http"
)

// protocolHeader asks a server for a version of the protocol, and tells it which one a request is of.
const protocolHeader = "Git-Protocol"

// known returns what upload-pack said last, in version 2.
func (d *httpDialer) known(service string) abilities {
	d.mu.Lock()
	defer d.mu.Unlock()
	if service != uploadPack {
		return nil
	}
	return d.v2
}

// asksVersion2 reports whether a service is asked for version 2. receive-pack has none.
func (d *httpDialer) asksVersion2(service string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return service == uploadPack && !d.plain
}

func (d *httpDialer) learned(a abilities) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.v2 = a
}

// relearn implements forgetful. What an earlier session learned may not be true any more: another server may be there,
// or want other credentials, which only the GET asks for. And there are servers that answer all of version 2 with
// nothing.
func (d *httpDialer) relearn(p *session, err error) bool {
	var status *StatusError
	var refused *ServerError
	nothing := errors.Is(err, errEmpty)
	changed := nothing || errors.Is(err, errProtocol) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.As(err, &refused) || errors.As(err, &status) && status.Code < http.StatusInternalServerError &&
		status.Code != http.StatusTooManyRequests
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case p != nil && p.recalled:
		d.v2, d.base = nil, d.home // where a redirect led to may be no longer right
		return changed
	case nothing && !d.plain:
		d.v2, d.plain = nil, true
		return true
	}
	return false
}

// again implements rounds.
func (c *exchange) again() error {
	<-c.answered
	if c.answer != nil {
		// Only a connection whose answer was read to its end can be used again.
		_, _ = io.CopyN(io.Discard, c.answer.Body, maxRefusal)
		_ = c.answer.Body.Close()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.head.Reset()
	c.body, c.closed, c.sent, c.begun, c.answer, c.err = nil, false, false, false, nil, nil
	c.answered = make(chan struct{})
	return c.ctx.Err()
}

// send implements rounds.
func (c *exchange) send() error {
	c.mu.Lock()
	c.version2 = true
	c.mu.Unlock()
	return c.Close()
}
