package wire

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
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
	client *http.Client
	creds  *credentials

	mu    sync.Mutex
	base  *url.URL  // without a user; what the first redirect of a GET led to counts from then on
	v2    abilities // of upload-pack, as it said them last; nil: it was not asked, or speaks version 0
	plain bool      // it is not asked for version 2
}

func newHTTP(a *address) *httpDialer {
	base := *a.url
	base.User, base.RawQuery, base.Fragment = nil, "", ""
	base.Path = strings.TrimSuffix(base.Path, "/")
	dial := &net.Dialer{Timeout: httpIdle, KeepAlive: aliveEvery * time.Second}
	return &httpDialer{
		base: &base, creds: &credentials{user: a.user},
		client: &http.Client{
			Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, DialContext: dial.DialContext,
				TLSHandshakeTimeout: httpIdle, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 2,
				IdleConnTimeout: 90 * time.Second},
			// Redirects are followed by discover alone.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

func (d *httpDialer) close() error {
	d.client.CloseIdleConnections()
	return nil
}

func (d *httpDialer) where() *url.URL {
	d.mu.Lock()
	defer d.mu.Unlock()
	u := *d.base
	return &u
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
func (d *httpDialer) discover(ctx context.Context, service string) (*http.Response, error) {
	at := d.where()
	at.Path += "/info/refs"
	at.RawQuery = "service=git-" + service
	for range maxRedirects {
		resp, err := d.authorized(ctx, func() (*http.Request, error) {
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
				return nil, fmt.Errorf("%s is no git repository that speaks the smart protocol (it sends %q)",
					d.where().Redacted(), kind)
			}
			return resp, nil
		case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect,
			http.StatusPermanentRedirect:
			_ = resp.Body.Close()
			to, err := resp.Location()
			if err != nil {
				return nil, err
			}
			if at, err = d.follow(at, to); err != nil {
				return nil, err
			}
		default:
			return nil, statusError(resp)
		}
	}
	return nil, fmt.Errorf("%s: more than %d redirects", d.where().Redacted(), maxRedirects)
}

// follow takes the place that a redirect names for the repository's. A redirect may not lead from https to http.
func (d *httpDialer) follow(at, to *url.URL) (*url.URL, error) {
	base, ok := strings.CutSuffix(to.Path, "/info/refs")
	switch {
	case to.Scheme != "https" && to.Scheme != at.Scheme:
		return nil, fmt.Errorf("%s redirects to %s, which is not encrypted", at.Redacted(), to.Scheme)
	case !ok || to.RawQuery != at.RawQuery:
		return nil, fmt.Errorf("%s redirects to %s, which is no repository", at.Redacted(), to.Redacted())
	}
	next := *to
	next.User, next.RawQuery, next.Path = nil, "", base
	d.mu.Lock()
	defer d.mu.Unlock()
	d.base = &next
	return to, nil
}

// authorized sends a request with credentials where there are some for its host, and asks for others where the server
// refuses it without.
func (d *httpDialer) authorized(ctx context.Context, build func() (*http.Request, error)) (*http.Response, error) {
	for first := true; ; first = false {
		req, err := build()
		if err != nil {
			return nil, err
		}
		req.Header.Set("User-Agent", userAgent)
		sent := d.creds.set(req)
		resp, err := d.client.Do(req)
		if err != nil {
			return nil, plainError(err)
		}
		if resp.StatusCode != http.StatusUnauthorized {
			if resp.StatusCode < 300 && sent {
				d.creds.approve(ctx)
			}
			return resp, nil
		}
		refused := statusError(resp)
		if sent {
			d.creds.reject(ctx)
		}
		if !first {
			return nil, refused
		}
		if err := d.creds.fill(ctx, req.URL); err != nil {
			return nil, fmt.Errorf("%w (%w)", refused, err)
		}
	}
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
		var body *io.PipeReader
		body, c.body = io.Pipe()
		c.post(io.MultiReader(bytes.NewReader(c.head.Bytes()), body), -1)
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
		c.post(bytes.NewReader(c.head.Bytes()), int64(c.head.Len()))
	default:
		c.err = io.EOF
		close(c.answered)
	}
	return nil
}

// post sends the request, in the background. mu is held.
func (c *exchange) post(body io.Reader, length int64) {
	c.sent = true
	at := c.d.where()
	at.Path += "/git-" + c.service
	go func() {
		defer close(c.answered)
		req, err := http.NewRequestWithContext(c.ctx, http.MethodPost, at.String(), body)
		if err == nil {
			req.ContentLength = length
			req.Header.Set("User-Agent", userAgent)
			req.Header.Set("Content-Type", "application/x-git-"+c.service+"-request")
			req.Header.Set("Accept", "application/x-git-"+c.service+"-result")
			if c.version2 {
				req.Header.Set(protocolHeader, "version=2")
			}
			c.d.creds.set(req)
			c.answer, err = c.d.client.Do(req)
		}
		if err != nil {
			c.err = plainError(err)
			return
		}
		kind, _, _ := mime.ParseMediaType(c.answer.Header.Get("Content-Type"))
		switch {
		case c.answer.StatusCode != http.StatusOK:
			c.err = statusError(c.answer)
		case kind != "application/x-git-"+c.service+"-result" && c.answer.ContentLength != 0:
			c.err = errors.Join(fmt.Errorf("the server's answer is no git's (it sends %q)", kind),
				c.answer.Body.Close())
		}
	}()
}

func (c *exchange) Read(p []byte) (int, error) {
	c.mu.Lock()
	begun := c.sent || c.closed
	c.mu.Unlock()
	if !begun && c.adv != nil {
		n, err := c.adv.Read(p)
		if err == nil || n > 0 {
			return n, nil
		}
		_ = c.adv.Close()
		c.adv = nil
		if !errors.Is(err, io.EOF) {
			return 0, err
		}
		return 0, io.EOF // there is no more before a request is made
	}
	select {
	case <-c.answered:
	case <-c.ctx.Done():
		return 0, context.Cause(c.ctx)
	}
	if c.err != nil {
		return 0, c.err
	}
	return c.answer.Body.Read(p)
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
