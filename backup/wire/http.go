package wire

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
)

const (
	// postBuffer is up to how many bytes a request is sent with its length; a longer one goes in chunks as it is made.
	postBuffer = 1 << 20
	// httpIdle is how long a server may say nothing before it has to begin an answer; it may think longer about a pack.
	httpIdle = 30 * time.Second
	// maxRefusal bounds in bytes what is read of a refusal.
	maxRefusal = 4 << 10
	userAgent  = "git/2.39 (" + agent + ")" // some servers look for the word git
)

// StatusError is an answer of an HTTP server that is no success.
type StatusError struct {
	Code       int
	Words      string        // of the server, cleaned
	RetryAfter time.Duration // 0: it named none
}

func (e *StatusError) Error() string {
	text := fmt.Sprintf("the server answers %d %s", e.Code, http.StatusText(e.Code))
	if e.Words != "" {
		text += ": " + e.Words
	}
	return text
}

// httpDialer reaches a repository over git's smart HTTP protocol (gitprotocol-http(5)). Connections are kept. Safe for
// concurrent use.
type httpDialer struct {
	o      *Options
	home   *url.URL // of the source, without a user
	creds  *credentials
	logger func() logrus.FieldLogger

	mu    sync.Mutex
	base  *url.URL  // where a redirect led to, once that was a repository; until it fails
	v2    abilities // of upload-pack, as it said them last; nil: it was not asked, or speaks version 0
	plain bool      // it is not asked for version 2

	conf struct {
		sync.Mutex // while it is read
		now        *httpConfig
		// Something failed that other settings may cure, or other files of certificates.
		stale, certificates bool
	}
}

func newHTTP(a *address, o *Options, token Reference, logger func() logrus.FieldLogger) *httpDialer {
	at := *a.url
	at.User, at.RawQuery, at.Fragment = nil, "", ""
	at.Path, at.RawPath = strings.TrimSuffix(at.Path, "/"), strings.TrimSuffix(at.RawPath, "/")
	return &httpDialer{o: o, home: &at, base: &at, logger: logger,
		creds: &credentials{token: token, user: a.user, password: a.password, home: originOf(&at)}}
}

func (d *httpDialer) close() error {
	d.conf.Lock()
	defer d.conf.Unlock()
	if d.conf.now != nil {
		d.conf.now.closeIdle()
	}
	return nil
}

func (d *httpDialer) where() *url.URL {
	d.mu.Lock()
	defer d.mu.Unlock()
	u := *d.base
	return &u
}

// move takes another place for the repository's.
func (d *httpDialer) move(to *url.URL) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.base = to
}

// below is a URL with more behind its path, which may have escaped slashes in it.
func below(u *url.URL, more string) *url.URL {
	next := *u
	next.Path += more
	if next.RawPath != "" {
		next.RawPath += more
	}
	return &next
}

// maxRedirects is how often discover follows.
const maxRedirects = 5

// dial asks for the references, unless it is known already that the service speaks version 2, which does not begin with
// them. What follows is sent by the first write to the session.
func (d *httpDialer) dial(ctx context.Context, service string) (*session, error) {
	ctx, cancel := context.WithCancel(ctx)
	if v2 := d.known(service); v2 != nil {
		c := &exchange{d: d, ctx: ctx, cancel: cancel, service: service, answered: make(chan struct{})}
		return &session{name: service, in: c, out: c, end: c, v2: v2, recalled: true}, nil
	}
	answer, err := d.discover(ctx, service)
	if err != nil {
		cancel()
		return nil, err
	}
	c := &exchange{d: d, ctx: ctx, cancel: cancel, service: service, adv: answer.Body, answered: make(chan struct{})}
	return &session{name: service, in: c, out: c, end: c}, nil
}

// discover is the GET of info/refs, with what the server wants to know of us.
func (d *httpDialer) discover(ctx context.Context, service string) (resp *http.Response, err error) {
	base := d.where()
	defer func() {
		if err != nil {
			base = d.home // where a redirect led to may be no longer right
		}
		d.move(base)
	}()
	query := "service=git-" + service
	for range maxRedirects {
		at := below(base, "/info/refs")
		at.RawQuery = query
		resp, err := d.authorized(ctx, base, true, func() (*http.Request, error) {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
			if err == nil && d.asksVersion2(service) {
				req.Header.Set(protocolHeader, "version=2")
			}
			return req, err
		})
		if err != nil {
			return nil, err
		}
		switch resp.StatusCode {
		case http.StatusOK:
			kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
			if kind != "application/x-git-"+service+"-advertisement" && resp.ContentLength != 0 {
				_ = resp.Body.Close()
				return nil, fmt.Errorf("%s: %w (it sends %q)", base.Redacted(), errNotSmart, kind)
			}
			return resp, nil
		case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect,
			http.StatusPermanentRedirect:
			_ = resp.Body.Close()
			to, err := resp.Location()
			if err != nil {
				return nil, err
			}
			if base, err = redirected(at, to); err != nil {
				return nil, err
			}
		default:
			return nil, statusError(resp)
		}
	}
	return nil, fmt.Errorf("%s: more than %d redirects", d.home.Redacted(), maxRedirects)
}

// redirected is the repository that a redirect of at leads to. It may not lead from https to http.
func redirected(at, to *url.URL) (*url.URL, error) {
	base := *to
	base.User, base.RawQuery, base.Fragment = nil, "", ""
	var ok bool
	base.Path, ok = strings.CutSuffix(to.Path, "/info/refs")
	base.RawPath = strings.TrimSuffix(to.RawPath, "/info/refs")
	switch {
	case to.Scheme != "https" && to.Scheme != at.Scheme:
		return nil, fmt.Errorf("%s redirects to %s, which is not encrypted", at.Redacted(), to.Scheme)
	case to.Host == "" || !ok || to.RawQuery != at.RawQuery:
		return nil, fmt.Errorf("%s redirects to %s, which is no repository", at.Redacted(), base.Redacted())
	}
	return &base, nil
}

// plainError takes the URL out of net/http's errors, which may have a user in it.
func plainError(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// statusError reads a refusal.
func statusError(resp *http.Response) error {
	defer resp.Body.Close()
	e := &StatusError{Code: resp.StatusCode}
	if kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); kind == "text/plain" {
		var words messages
		_, _ = io.Copy(&words, io.LimitReader(resp.Body, maxRefusal))
		e.Words = words.String()
	}
	if after := resp.Header.Get("Retry-After"); after != "" {
		if n, err := time.ParseDuration(after + "s"); err == nil {
			e.RetryAfter = n
		} else if t, err := http.ParseTime(after); err == nil {
			e.RetryAfter = max(time.Until(t), 0)
		}
	}
	return e
}

// exchange is the one request and answer that follow the references: what is written is the request, which ends with
// Close; what is read are the references first, then the answer.
type exchange struct {
	d       *httpDialer
	ctx     context.Context
	cancel  context.CancelFunc
	service string
	adv     io.ReadCloser

	head     bytes.Buffer   // of the request, until it is sent
	body     *io.PipeWriter // once it is sent in chunks
	closed   bool
	sent     bool
	begun    bool          // something of the answer was read
	version2 bool          // of the protocol
	answered chan struct{} // closed when answer or err is set
	answer   *http.Response
	err      error

	mu sync.Mutex // head, body, closed, sent
}

func (c *exchange) Write(p []byte) (int, error) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return 0, io.ErrClosedPipe
	}
	if c.body == nil {
		if c.head.Len()+len(p) <= postBuffer {
			defer c.mu.Unlock()
			return c.head.Write(p)
		}
		var rest *io.PipeReader
		rest, c.body = io.Pipe()
		c.post(rest)
	}
	w := c.body
	c.mu.Unlock()
	return w.Write(p)
}

// Close ends the request.
func (c *exchange) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	switch {
	case c.body != nil && c.ctx.Err() != nil:
		return c.body.CloseWithError(context.Cause(c.ctx))
	case c.body != nil:
		return c.body.Close()
	case c.head.Len() > 0 && c.ctx.Err() == nil:
		c.post(nil)
	default:
		c.err = io.EOF
		close(c.answered)
	}
	return nil
}

// post sends the request, in the background: the head, and the rest where it is sent in chunks. mu is held.
func (c *exchange) post(rest *io.PipeReader) {
	c.sent = true
	base, head := c.d.where(), c.head.Bytes()
	build := func() (*http.Request, error) {
		var body io.Reader = bytes.NewReader(head)
		if rest != nil {
			body = &streamed{io.MultiReader(body, rest), rest}
		}
		req, err := http.NewRequestWithContext(c.ctx, http.MethodPost, below(base, "/git-"+c.service).String(), body)
		if err == nil {
			req.Header.Set("Content-Type", "application/x-git-"+c.service+"-request")
			req.Header.Set("Accept", "application/x-git-"+c.service+"-result")
			if c.version2 {
				req.Header.Set(protocolHeader, "version=2")
			}
		}
		return req, err
	}
	go func() {
		defer close(c.answered)
		c.answer, c.err = c.d.authorized(c.ctx, base, rest == nil, build)
		if c.err == nil {
			kind, _, _ := mime.ParseMediaType(c.answer.Header.Get("Content-Type"))
			switch {
			case c.answer.StatusCode != http.StatusOK:
				c.err = statusError(c.answer)
			case kind != "application/x-git-"+c.service+"-result" && c.answer.ContentLength != 0:
				c.err = errors.Join(fmt.Errorf("the server's answer is no git's (it sends %q)", kind),
					c.answer.Body.Close())
			}
		}
		if c.err != nil && rest != nil {
			_ = rest.CloseWithError(c.err) // whoever still writes need not wait
		}
	}()
}

// errUnread says that a server answered before it had read all.
var errUnread = errors.New("the server does not read the request any more")

// streamed is the body of a request that is made while it is sent.
type streamed struct {
	io.Reader
	rest *io.PipeReader
}

// Close is called when the transport has no more use for the body.
func (s *streamed) Close() error { return s.rest.CloseWithError(errUnread) }

func (c *exchange) Read(p []byte) (int, error) {
	if c.adv != nil {
		return c.adv.Read(p)
	}
	select {
	case <-c.answered:
	case <-c.ctx.Done():
		return 0, context.Cause(c.ctx)
	}
	if c.err != nil {
		return 0, c.err
	}
	n, err := c.answer.Body.Read(p)
	if n > 0 {
		c.mu.Lock()
		c.begun = true
		c.mu.Unlock()
	}
	return n, err
}

// thinking reports whether the request was sent and its answer, or more of it, may take its time: nginx passes on no
// part of an answer that does not fill a buffer, so what a hook says comes in lumps.
func (c *exchange) thinking() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sent && c.closed && (!c.begun || c.service == receivePack)
}

// decoded is called once the references were read: what is read from then on is the answer, also before there is one.
func (c *exchange) decoded() {
	// Only a connection whose answer was read to its end can be used again.
	_, _ = io.CopyN(io.Discard, c.adv, maxRefusal)
	_ = c.adv.Close()
	c.adv = nil
}

func (c *exchange) bye(io.Writer) error { return nil }

func (c *exchange) wait() error {
	defer c.cancel()
	if c.adv != nil {
		_ = c.adv.Close()
	}
	<-c.answered
	if c.answer != nil {
		_ = c.answer.Body.Close()
	}
	if c.err != nil && !errors.Is(c.err, io.EOF) {
		return c.err
	}
	return nil
}

func (c *exchange) kill(io.Closer) {
	c.cancel() // first: what was sent must not look whole
	_ = c.Close()
	_ = c.wait()
}

func (c *exchange) orderly() bool { return true }
