package wire

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"emberfs/tiers/subprocess"
)

// home is the user's home directory, also where HOME is not set, as in a system unit; "" if nobody knows it.
func home() string {
	if h := os.Getenv("HOME"); h != "" {
		return h
	}
	if u, err := user.Current(); err == nil {
		return u.HomeDir
	}
	return ""
}

// expand replaces the ~ at the start of a path of git's configuration.
func expand(path string) string {
	if path == "~" || strings.HasPrefix(path, "~/") {
		return home() + path[1:]
	}
	if strings.HasPrefix(path, "~") {
		name, rest, _ := strings.Cut(path[1:], "/")
		if u, err := user.Lookup(name); err == nil {
			return filepath.Join(u.HomeDir, rest)
		}
	}
	return path
}

// asUser is the environment of git programs that ask for what the user configured: with HOME, and with the variables
// that name git's configuration, but never of a repository that somebody works in.
func asUser(env []string) []string {
	for _, v := range os.Environ() {
		if strings.HasPrefix(v, "GIT_CONFIG_") {
			env = append(env, v)
		}
	}
	if os.Getenv("HOME") == "" {
		env = append(env, "HOME="+home())
	}
	return append(env, "LC_ALL=C", "GIT_TERMINAL_PROMPT=0", "GIT_DIR=/nonexistent")
}

// gitConfig asks the git program for what its configuration says outside of repositories. There is nothing if git is
// not installed, or if the configuration says nothing of it.
func gitConfig(ctx context.Context, args ...string) (string, error) {
	return gitConfigWith(ctx, nil, args...)
}

// gitConfigWith is gitConfig with more variables.
func gitConfigWith(ctx context.Context, more []string, args ...string) (string, error) {
	git, err := subprocess.Find("git")
	if err != nil {
		return "", nil
	}
	cmd := subprocess.Command(ctx, git, append([]string{"config"}, args...)...)
	cmd.Env = append(asUser(subprocess.Environment()), more...)
	cmd.Dir = "/"
	var said messages
	out, err := capture(cmd, &said)
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 1 && out == "" {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read git's configuration: %w (it said: %s)", errors.Join(ctx.Err(), err), said.String())
	}
	return out, nil
}

// capture runs a program and returns what it wrote. What it has started ends with it.
func capture(cmd *exec.Cmd, said *messages) (string, error) {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, said
	cmd.SysProcAttr.Setpgid = true
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	// A helper may leave a daemon behind that holds the pipes.
	cmd.WaitDelay = killDelay
	err := cmd.Run()
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil
	}
	return out.String(), err
}

// entry is one line of git's configuration.
type entry struct{ key, value string }

// entries reads what git config writes with -z. A key without a value is true (git-config(1)).
func entries(out string) (list []entry) {
	for item := range strings.SplitSeq(out, "\x00") {
		if item == "" {
			continue
		}
		key, value, has := strings.Cut(item, "\n")
		if !has {
			value = "true"
		}
		list = append(list, entry{key, value})
	}
	return list
}

// subsection is the middle of a key: the URL in http.URL.proxy.
func (e entry) subsection() string {
	_, rest, _ := strings.Cut(e.key, ".")
	if i := strings.LastIndexByte(rest, '.'); i >= 0 {
		return rest[:i]
	}
	return ""
}

// isTrue reads a boolean of git's.
func isTrue(value string) bool {
	switch strings.ToLower(value) {
	case "", "false", "no", "off", "0":
		return false
	}
	return true
}

// rewrite applies url.<base>.insteadOf to a source, and url.<base>.pushInsteadOf to what is pushed to, where there is
// any; the longest prefix counts (git-config(1)).
func rewrite(ctx context.Context, source string) (fetch, push string, err error) {
	out, err := gitConfig(ctx, "-z", "--get-regexp", `^url\..*\.(insteadof|pushinsteadof)$`)
	if err != nil {
		return "", "", err
	}
	list := entries(out)
	fetch, _ = longest(list, ".insteadof", source)
	push, ok := longest(list, ".pushinsteadof", source)
	if !ok {
		push = fetch
	}
	return fetch, push, nil
}

// longest replaces the longest prefix of source that a key with this end has.
func longest(list []entry, end, source string) (string, bool) {
	var best *entry
	for i, e := range list {
		if strings.HasSuffix(e.key, end) && strings.HasPrefix(source, e.value) && e.value != "" &&
			(best == nil || len(e.value) > len(best.value)) {
			best = &list[i]
		}
	}
	if best == nil {
		return source, false
	}
	return best.subsection() + source[len(best.value):], true
}

// httpEntries are the values of http.* for a URL, by key, and its extra headers, of which there may be several.
func httpEntries(ctx context.Context, at string) (values map[string]string, headers []string, err error) {
	out, err := gitConfig(ctx, "-z", "--get-urlmatch", "http", at)
	if err != nil {
		return nil, nil, err
	}
	values = map[string]string{}
	for _, e := range entries(out) {
		values[strings.TrimPrefix(e.key, "http.")] = e.value
	}
	if _, ok := values["extraheader"]; ok {
		headers, err = extraHeaders(ctx, at)
	}
	return values, headers, err
}

// extraHeaders are all values of http.extraHeader that are for a URL; --get-urlmatch shows the last one alone. An empty
// one takes back those before it.
func extraHeaders(ctx context.Context, at string) ([]string, error) {
	out, err := gitConfig(ctx, "-z", "--get-regexp", `^http\.(.*\.)?extraheader$`)
	if err != nil {
		return nil, err
	}
	matches := map[string]bool{"": true}
	var headers []string
	for _, e := range entries(out) {
		section := e.subsection()
		match, known := matches[section]
		if !known {
			if match, err = urlMatches(ctx, section, at); err != nil {
				return nil, err
			}
			matches[section] = match
		}
		switch {
		case match && e.value == "":
			headers = nil
		case match:
			headers = append(headers, e.value)
		}
	}
	return headers, nil
}

// urlMatches has git say whether the section of a URL is for another one.
func urlMatches(ctx context.Context, section, at string) (bool, error) {
	n := 0 // our variable stands behind those of the user
	_, _ = fmt.Sscan(os.Getenv("GIT_CONFIG_COUNT"), &n)
	out, err := gitConfigWith(ctx, []string{fmt.Sprintf("GIT_CONFIG_COUNT=%d", n+1),
		fmt.Sprintf("GIT_CONFIG_KEY_%d=http.%s.emberfs", n, section), fmt.Sprintf("GIT_CONFIG_VALUE_%d=true", n)},
		"--get-urlmatch", "http.emberfs", at)
	return out != "", err
}
