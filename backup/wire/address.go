package wire

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"unicode"
)

// address is what a source means: a path, or a repository of another host.
type address struct {
	scheme string // "file", "ssh", "http", "https", "git"
	user   string
	host   string // in brackets where it is an IPv6 address of a URL
	port   int    // 0: the scheme's
	path   string // absolute of a file; as the other side is asked for it of ssh
	url    *url.URL

	password string // that git's configuration has put into the URL; see parseTrusted
}

// ErrPassword says that a source has a password in it, where process lists and logs would show it.
var ErrPassword = errors.New("it has a password in it, which process lists and logs would show")

// errControl: git daemon would take what is behind it for something else.
var errControl = errors.New("it has a control character in it")

// errBadHost: ssh would take the host for an option.
var errBadHost = errors.New("its host begins with a dash")

// parse reads a source as git does (git-fetch(1), GIT URLS): a colon before the first slash means host:path. Errors
// never repeat a password.
func parse(source string) (*address, error) {
	a, err := parseTrusted(source)
	if err == nil && a.password != "" {
		return nil, ErrPassword
	}
	return a, err
}

// parseTrusted is parse for what is in no process list: a URL may have a password.
func parseTrusted(source string) (*address, error) {
	if source == "" {
		return nil, fs.ErrNotExist
	}
	if !strings.Contains(source, "://") {
		i := strings.IndexAny(source, ":/")
		if i <= 0 || source[i] != ':' {
			path, err := filepath.Abs(source)
			return &address{scheme: "file", path: path}, err
		}
		a := &address{scheme: "ssh", host: source[:i], path: source[i+1:]}
		if u, rest, ok := strings.Cut(source, "@["); ok && !strings.ContainsAny(u, ":/[") { // user@[::1]:path
			source = "[" + u + "@" + rest
		}
		if strings.HasPrefix(source, "[") { // [host]:path, [host:port]:path
			inside, rest, ok := strings.Cut(source[1:], "]:")
			if !ok {
				return nil, errors.New("a host in brackets needs its closing bracket and a colon behind it")
			}
			a.host, a.path = inside, rest
			if h, p, ok := strings.Cut(inside, ":"); ok && !strings.Contains(p, ":") {
				n, err := strconv.ParseUint(p, 10, 16)
				if err != nil {
					return nil, fmt.Errorf("bad port %q", p)
				}
				a.host, a.port = h, int(n)
			}
		}
		if u, h, ok := strings.Cut(a.host, "@"); ok {
			a.user, a.host = u, h
		}
		return a, a.check()
	}
	u, err := url.Parse(source)
	if err != nil {
		return nil, errors.New("it is not a valid URL")
	}
	password, has := u.User.Password()
	if has && (password == "" || u.Scheme != "http" && u.Scheme != "https") {
		return nil, ErrPassword
	}
	a := &address{scheme: u.Scheme, user: u.User.Username(), password: password, host: u.Hostname(), path: u.Path,
		url: u}
	if p := u.Port(); p != "" {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil {
			return nil, fmt.Errorf("bad port %q", p)
		}
		a.port = int(n)
	}
	if u.RawQuery != "" || u.ForceQuery || strings.Contains(source, "#") {
		return nil, errors.New("a URL with ? or # must have it escaped as %3F or %23")
	}
	switch u.Scheme {
	case "file":
		if u.Host != "" && u.Host != "localhost" {
			return nil, fmt.Errorf("file URL with the host %s: %w", u.Host, ErrNotSupported)
		}
		a.path = filepath.Clean(u.Path)
		return a, nil
	case "ssh", "git+ssh", "ssh+git":
		a.scheme = "ssh"
		if rest, ok := strings.CutPrefix(a.path, "/~"); ok { // of a user's home directory
			a.path = "~" + rest
		}
	case "git":
		if rest, ok := strings.CutPrefix(a.path, "/~"); ok {
			a.path = "~" + rest
		}
	case "http", "https":
	default:
		return nil, fmt.Errorf("scheme %s: %w", u.Scheme, ErrNotSupported)
	}
	return a, a.check()
}

// check refuses what a program could take for an option, and what names nothing.
func (a *address) check() error {
	switch {
	case a.host == "":
		return errors.New("it names no host")
	case strings.HasPrefix(a.host, "-") || strings.HasPrefix(a.user, "-"):
		return errBadHost
	case a.path == "" || a.path == "/":
		return errors.New("it names no repository on the host")
	case a.scheme == "ssh" && strings.HasPrefix(a.path, "-"):
		return errors.New("its path begins with a dash")
	case strings.ContainsFunc(a.host+a.user+a.path, unicode.IsControl):
		return errControl
	}
	return nil
}
