package wire

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"emberfs/tiers/subprocess"
)

// helperText is what git credential reads and writes (git-credential(1), INPUT/OUTPUT FORMAT).
type helperText []entry

// errUnsafe says that a value would be read as several by a helper.
var errUnsafe = errors.New("a host, path or user with a line break in it is not given to credential helpers")

// add appends a value, unless it is empty.
func (t *helperText) add(key, value string) {
	if value != "" {
		*t = append(*t, entry{key, value})
	}
}

// encode refuses what a helper could misread: gitcredentials is where CVE-2020-5260 and CVE-2024-52006 were.
func (t helperText) encode() (string, error) {
	var b strings.Builder
	for _, e := range t {
		if strings.ContainsAny(e.value, "\n\r\x00") || strings.ContainsAny(e.key, "\n\r\x00=") {
			return "", errUnsafe
		}
		b.WriteString(e.key + "=" + e.value + "\n")
	}
	return b.String() + "\n", nil
}

// value is the last of a key.
func (t helperText) value(key string) string {
	for _, e := range slices.Backward(t) {
		if e.key == key {
			return e.value
		}
	}
	return ""
}

// call runs git credential. It never prompts.
func (t helperText) call(ctx context.Context, what string) (helperText, error) {
	text, err := t.encode()
	if err != nil {
		return nil, err
	}
	git, err := subprocess.Find("git")
	if err != nil {
		return nil, err
	}
	cmd := subprocess.Command(ctx, git, "-c", "core.askPass=", "credential", what)
	cmd.Env = append(asUser(helperEnvironment()), "GIT_ASKPASS=", "SSH_ASKPASS=")
	cmd.Dir = "/"
	cmd.Stdin = strings.NewReader(text)
	var said messages
	out, err := capture(cmd, &said)
	if err != nil {
		if ctx.Err() == nil && strings.Contains(said.String(), "told us to quit") {
			return nil, errQuit
		}
		return nil, err // what it said may have a secret in it
	}
	var answer helperText
	for line := range strings.Lines(out) {
		if k, v, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "="); ok {
			answer = append(answer, entry{k, v})
		}
	}
	return answer, nil
}

// errQuit: a helper knows that nobody else should be asked.
var errQuit = errors.New("a credential helper of git's says that there is no password for it")

// helperEnvironment is what helpers get: they may have secrets of their own in any variable, as those of CI systems do.
// They get nothing that is ours, and nothing that would have git write what it reads.
func helperEnvironment() []string {
	return append(subprocess.Environment(), slices.DeleteFunc(os.Environ(), func(v string) bool {
		for _, ours := range []string{"EMBERFS_", "GIT_", "NOTIFY_SOCKET=", "LISTEN_", "WATCHDOG_"} {
			if strings.HasPrefix(v, ours) {
				return true // asUser puts GIT_CONFIG_* back
			}
		}
		return false
	})...)
}

// askHelpers has git's helpers say who we are at a repository; nil: they do not know, or git is not installed.
func askHelpers(ctx context.Context, at *url.URL, user string, challenges []string) (*login, error) {
	var ask helperText
	ask.add("capability[]", "authtype")
	ask.add("protocol", at.Scheme)
	ask.add("host", at.Host)
	ask.add("path", strings.Trim(at.Path, "/")) // git leaves it out where credential.useHttpPath is not set
	ask.add("username", user)
	for _, c := range challenges {
		ask.add("wwwauth[]", c)
	}
	answer, err := ask.call(ctx, "fill")
	switch {
	case errors.Is(err, errUnsafe) || errors.Is(err, errQuit) || ctx.Err() != nil:
		return nil, err
	case err != nil:
		return nil, nil
	case isTrue(answer.value("quit")):
		return nil, errQuit
	}
	l := &login{from: "a credential helper of git's", origin: originOf(at), lines: answer, expired: expiry(answer)}
	switch kind, whole := answer.value("authtype"), answer.value("credential"); {
	case kind != "" && whole != "":
		l.header = kind + " " + whole
	case answer.value("password") != "":
		l.header = basic(answer.value("username"), answer.value("password"))
	default:
		return nil, nil
	}
	if l.expired() {
		return nil, fmt.Errorf("%s gives a password that has expired", l.from)
	}
	return l, nil
}

// expiry reads password_expiry_utc, in seconds since 1970.
func expiry(answer helperText) func() bool {
	n, err := strconv.ParseInt(answer.value("password_expiry_utc"), 10, 64)
	if err != nil {
		return func() bool { return false }
	}
	return func() bool { return time.Now().Unix() >= n }
}
