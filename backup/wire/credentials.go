package wire

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
)

const (
	// anyUser goes with a token for which nobody named a user. GitHub documents this name; GitLab, Gitea and Azure look
	// at the token alone.
	anyUser = "x-access-token"
	// maxRefused is how often one request may be answered with 401 and sent again: without a password, with one that a
	// helper kept too long, with the one that it has now.
	maxRefused = 2
)

var (
	// ErrNewCredentials says that the server refused the credentials in the middle of a request that cannot be sent
	// again, and that there are new ones now: the push or fetch as a whole should be tried again at once.
	ErrNewCredentials = errors.New("the server refused the credentials in the middle of a request; there are new " +
		"ones, so it is worth trying again")
	// errNoCredentials: nobody knows a password.
	errNoCredentials = errors.New("no password or token is known for it; name a token by the setting token or in " +
		"EMBERFS_TOKEN, or have git's credential helper or ~/.netrc know one")
	// errElsewhere: a token is known, but a redirect led away from where it belongs.
	errElsewhere = errors.New("the token is not sent there, because the source names another host or port")
	// errRefused: what is known was refused.
	errRefused = errors.New("the server refused what was read from")
)

// credentials are what proves to a server who we are: a token or password from a reference, from git's configuration,
// from git's helpers (gitcredentials(7)) or from ~/.netrc. They are never written anywhere, and never sent to another
// host than the one that they are for. Safe for concurrent use.
type credentials struct {
	token    Reference // that the settings name; zero: the usual places are looked at
	user     string    // that the source or the settings name
	password string    // that git's configuration put into the source's URL
	home     string    // the origin of the source: token and password are for it alone

	mu       sync.Mutex
	asked    bool   // home wants credentials; before that none go over a connection that is not encrypted
	bearer   bool   // home takes no Basic
	held     *login // of a helper or of ~/.netrc; nil: none
	approved bool   // the helpers know that held works
}

// login is one way to prove who we are to one origin. It does not change once it is made.
type login struct {
	from    string // where it comes from, for messages
	origin  string
	header  string     // the value of Authorization
	lines   helperText // that a helper gave, for approve and reject; nil: it is of no helper
	expired func() bool
}

// same says that a server that has refused the one refuses the other.
func (l *login) same(other *login) bool { return other != nil && l.header == other.header }

// originOf is what credentials are for: scheme, host and port.
func originOf(u *url.URL) string {
	port := u.Port()
	switch {
	case port == "" && u.Scheme == "https":
		port = "443"
	case port == "" && u.Scheme == "http":
		port = "80"
	}
	return u.Scheme + "://" + strings.ToLower(u.Hostname()) + ":" + port
}

// usualPlaces are where a token is looked for when nothing names a place.
func usualPlaces() []Reference {
	return []Reference{{"env", "EMBERFS_TOKEN"}, {"credential", "emberfs-token"}}
}

// fixed is what is known for the source's origin without asking anybody; nil: nothing is. Secrets are read anew.
func (c *credentials) fixed() (*login, error) {
	c.mu.Lock()
	bearer := c.bearer
	c.mu.Unlock()
	secret, user, from := c.password, c.user, "git's configuration (url.*.insteadOf)"
	if secret == "" || !c.token.IsZero() {
		places := usualPlaces()
		if !c.token.IsZero() {
			places = []Reference{c.token}
		}
		place, text, err := firstSecret(places...)
		switch {
		case err != nil:
			return nil, fmt.Errorf("read the token: %w", err)
		case text == "" && !c.token.IsZero():
			_, err := c.token.line() // nothing is there
			return nil, fmt.Errorf("read the token: %w", err)
		case text == "":
			return nil, nil
		}
		secret, from = text, place.String()
	}
	l := &login{from: from, origin: c.home}
	switch {
	case bearer:
		l.header = "Bearer " + secret
	case user == "":
		l.header = basic(anyUser, secret)
	default:
		l.header = basic(user, secret)
	}
	return l, nil
}

func basic(user, secret string) string {
	req := http.Request{Header: http.Header{}}
	req.SetBasicAuth(user, secret)
	return req.Header.Get("Authorization")
}

// set puts what is known into a request, and returns it; nil: nothing was.
func (c *credentials) set(req *http.Request) (*login, error) {
	origin := originOf(req.URL)
	c.mu.Lock()
	asked, held := c.asked, c.held
	c.mu.Unlock()
	var l *login
	if origin == c.home && (asked || req.URL.Scheme == "https") {
		var err error
		if l, err = c.fixed(); err != nil {
			return nil, err
		}
	}
	if l == nil && held != nil && held.origin == origin && !held.expired() {
		l = held
	}
	if l != nil {
		req.Header.Set("Authorization", l.header)
	}
	return l, nil
}

// renew looks for other credentials than those that were sent (nil: none), which the server at u has refused. at is the
// repository for helpers. Without an error there are some.
func (c *credentials) renew(ctx context.Context, at *url.URL, sent *login, challenges []string) error {
	origin := originOf(at)
	there := error(errNoCredentials)
	if origin == c.home {
		c.mu.Lock()
		c.asked = true
		c.bearer = c.bearer || bearerAlone(challenges)
		c.mu.Unlock()
		switch l, err := c.fixed(); {
		case err != nil:
			return err
		case l != nil && l.same(sent):
			return fmt.Errorf("%w %s", errRefused, l.from)
		case l != nil:
			return nil
		}
	} else if l, err := c.fixed(); err == nil && l != nil {
		there = errElsewhere
	}
	c.forget(ctx, sent)
	l, err := c.ask(ctx, at, challenges)
	switch {
	case err != nil:
		return err
	case l == nil:
		return there
	case l.same(sent):
		return fmt.Errorf("%w %s", errRefused, l.from)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held, c.approved = l, false
	return nil
}

// bearerAlone says that a server takes tokens as Bearer and not as the password of Basic.
func bearerAlone(challenges []string) bool {
	has := func(scheme string) bool {
		return slices.ContainsFunc(challenges, func(v string) bool {
			first, _, _ := strings.Cut(v, " ")
			return strings.EqualFold(first, scheme)
		})
	}
	return has("bearer") && !has("basic")
}

// forget drops what was refused, and has the helpers drop it.
func (c *credentials) forget(ctx context.Context, sent *login) {
	if sent == nil {
		return
	}
	c.mu.Lock()
	if c.held != nil && c.held.same(sent) {
		c.held = nil
	}
	c.mu.Unlock()
	if sent.lines != nil {
		_, _ = sent.lines.call(ctx, "reject") // one that keeps it gives it again, which is noticed
	}
}

// worked has the helpers keep what they gave, once.
func (c *credentials) worked(ctx context.Context, sent *login) {
	if sent == nil || sent.lines == nil {
		return
	}
	c.mu.Lock()
	first := c.held == sent && !c.approved
	c.approved = c.approved || first
	c.mu.Unlock()
	if first {
		_, _ = sent.lines.call(ctx, "approve") // one that keeps nothing is asked again
	}
}

// ask has git's helpers, and then ~/.netrc, say who we are; nil: they do not know.
func (c *credentials) ask(ctx context.Context, at *url.URL, challenges []string) (*login, error) {
	l, err := askHelpers(ctx, at, c.user, challenges)
	if l == nil && err == nil {
		l, err = askNetrc(at, c.user, originOf(at) == c.home)
	}
	return l, err
}
