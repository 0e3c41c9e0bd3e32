package wire

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
)

// config is how requests are made. The settings are read at the first use, and once something has failed.
func (d *httpDialer) config(ctx context.Context) (*httpConfig, error) {
	d.conf.Lock()
	defer d.conf.Unlock()
	if d.conf.now != nil && !d.conf.stale {
		return d.conf.now, nil
	}
	s, err := readHTTP(ctx, d.o, d.home)
	if err != nil {
		return nil, err
	}
	if d.conf.now == nil || d.conf.certificates || !d.conf.now.equal(s) {
		c, err := newHTTPConfig(s, originOf(d.home), d.logger())
		if err != nil {
			return nil, err
		}
		if d.conf.now != nil {
			d.conf.now.closeIdle()
		}
		d.conf.now = c
	}
	d.conf.stale, d.conf.certificates = false, false
	return d.conf.now, nil
}

// reread has the settings read before the next request.
func (d *httpDialer) reread(certificates bool) {
	d.conf.Lock()
	defer d.conf.Unlock()
	d.conf.stale = true
	d.conf.certificates = d.conf.certificates || certificates
}

// authorized sends a request to the repository at base, with credentials where there are some for its host, and asks
// for others where the server refuses it with 401. Where the request cannot be built again, the error is
// ErrNewCredentials if there are others.
func (d *httpDialer) authorized(ctx context.Context, base *url.URL, again bool,
	build func() (*http.Request, error)) (*http.Response, error) {
	for refused := 0; ; refused++ {
		conf, err := d.config(ctx)
		if err != nil {
			return nil, err
		}
		req, err := build()
		if err != nil {
			return nil, err
		}
		conf.dress(req)
		sent, err := d.creds.set(req)
		if err != nil {
			return nil, err
		}
		resp, err := conf.client(req.URL).Do(req)
		if err != nil {
			d.reread(true)
			return nil, plainError(err)
		}
		if resp.StatusCode != http.StatusUnauthorized {
			if resp.StatusCode < 300 {
				d.creds.worked(ctx, sent)
			}
			return resp, nil
		}
		challenges := resp.Header.Values("WWW-Authenticate")
		refusal := statusError(resp)
		d.reread(false)
		if refused == maxRefused {
			return nil, refusal
		}
		if err := d.renew(ctx, conf, base, sent, challenges); err != nil {
			return nil, fmt.Errorf("%w (%w)", refusal, err)
		}
		if !again {
			return nil, ErrNewCredentials
		}
	}
}

// renew is credentials.renew, after other headers of the settings were looked for.
func (d *httpDialer) renew(ctx context.Context, was *httpConfig, base *url.URL, sent *login,
	challenges []string) error {
	conf, err := d.config(ctx)
	if err != nil {
		return err
	}
	if originOf(base) == conf.home && !slices.Equal(conf.headers, was.headers) {
		return nil
	}
	return d.creds.renew(ctx, base, sent, challenges)
}
