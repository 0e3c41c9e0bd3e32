package wire

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"emberfs/tiers/subprocess"
)

// credentials are a user and a password, or token, for one host, from git's helpers (gitcredentials(7)). They are
// never written anywhere, and never sent to another host. Safe for concurrent use.
type credentials struct {
	user string // that the source names

	mu       sync.Mutex
	origin   string // scheme://host:port that they are for; "": there are none
	name     string
	secret   string
	approved bool
}

// errNoCredentials: nobody knows a password.
var errNoCredentials = errors.New("no credential helper of git's knows a password for it")

func originOf(u *url.URL) string { return u.Scheme + "://" + u.Host }

// set puts what is known into a request, and says whether there was something.
func (c *credentials) set(req *http.Request) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.origin == "" || c.origin != originOf(req.URL) {
		return false
	}
	req.SetBasicAuth(c.name, c.secret)
	return true
}

// fill asks git's helpers. It never prompts.
func (c *credentials) fill(ctx context.Context, u *url.URL) error {
	out, err := c.helper(ctx, "fill", "url="+originOf(u)+u.Path+"\nusername="+c.user+"\n\n")
	if err != nil {
		return fmt.Errorf("%w: %w", errNoCredentials, err)
	}
	var name, secret string
	for line := range strings.Lines(out) {
		k, v, _ := strings.Cut(strings.TrimRight(line, "\n"), "=")
		switch k {
		case "username":
			name = v
		case "password":
			secret = v
		}
	}
	if secret == "" {
		return errNoCredentials
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.origin, c.name, c.secret, c.approved = originOf(u), name, secret, false
	return nil
}

// approve has the helpers keep what worked.
func (c *credentials) approve(ctx context.Context) {
	c.mu.Lock()
	text, done := c.text(), c.approved
	c.approved = true
	c.mu.Unlock()
	if !done {
		_, _ = c.helper(ctx, "approve", text) // one that keeps nothing is asked again
	}
}

// reject forgets what was refused, and has the helpers forget it.
func (c *credentials) reject(ctx context.Context) {
	c.mu.Lock()
	text := c.text()
	c.origin, c.name, c.secret = "", "", ""
	c.mu.Unlock()
	_, _ = c.helper(ctx, "reject", text)
}

// text is what helpers are told; mu is held.
func (c *credentials) text() string {
	return fmt.Sprintf("url=%s\nusername=%s\npassword=%s\n\n", c.origin, c.name, c.secret)
}

// helper runs git credential.
func (c *credentials) helper(ctx context.Context, what, text string) (string, error) {
	git, err := subprocess.Find("git")
	if err != nil {
		return "", err
	}
	cmd := subprocess.Command(ctx, git, "-c", "core.askPass=", "credential", what)
	cmd.Env = append(environment(), "GIT_ASKPASS=", "SSH_ASKPASS=")
	cmd.Dir = "/"
	cmd.Stdin = strings.NewReader(text)
	out, err := cmd.Output()
	return string(out), err
}
