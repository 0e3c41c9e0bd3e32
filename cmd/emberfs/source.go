package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"emberfs/backup/wire"
)

// sourceOf converts SOURCE, as the user wrote it, to an absolute path, or to "" if there is none. mount(8) requires a
// source, so the words that stand for nothing in an fstab mean that there is none.
func sourceOf(op, s string) (string, error) {
	switch s {
	case "", "none", "emberfs":
		return "", nil
	}
	if rest, ok := strings.CutPrefix(s, "file://"); ok {
		if !strings.HasPrefix(rest, "/") {
			return "", usageError(op, "source "+hideUser(s), "a file URL here has no host",
				"write file:///path or the path itself")
		}
		s = rest
	}
	if isRemoteURL(s) {
		if err := wire.CheckURL(s); err != nil {
			hint := "write ssh://HOST/PATH, https://HOST/PATH, HOST:PATH or the path of a bare repository"
			if errors.Is(err, wire.ErrPassword) {
				hint = "leave it out, and say by --token where the token is, or have it in EMBERFS_TOKEN"
			}
			return "", &failure{code: exitUsage, op: op, path: "source " + hideUser(s), err: err, hint: hint}
		}
		return s, nil
	}
	abs, err := filepath.Abs(s)
	if err != nil {
		return "", withCode(exitMount, op, "source "+s, err)
	}
	return abs, nil
}

// isRemoteURL recognises scheme://host/... and git's host:path form. As with git, a path with a colon has to be written
// ./a:b.
func isRemoteURL(s string) bool {
	if strings.Contains(s, "://") {
		return true
	}
	colon, slash := strings.IndexByte(s, ':'), strings.IndexByte(s, '/')
	return colon > 0 && (slash < 0 || colon < slash)
}

// gitHelp is what to do about a source that takes no pushes.
const gitHelp = "mount it read-only (-o ro), or name it by ssh:// or https://"

// checkSource refuses a source that cannot serve as the volume's remote.
func checkSource(path string, readOnly bool) error {
	if wire.ReadOnly(path) && !readOnly {
		return usageError("mount", "source "+redact(path), wire.ErrReadOnly.Error(), gitHelp)
	}
	if path == "" || isRemoteURL(path) {
		return nil
	}
	refuse := func(why, hint string) error {
		return mountError("source "+path, errors.New(why), hint)
	}
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return refuse("no such repository", "create it: git init --bare "+shellQuote(path))
	case errors.Is(err, fs.ErrPermission):
		return refuse("no permission to read it", "run as the repository's owner")
	case err != nil:
		return refuse(plain(err), "name a bare git repository")
	case !st.IsDir():
		return refuse("not a git repository", "name a bare git repository")
	}
	mode := uint32(unix.R_OK | unix.X_OK)
	if !readOnly {
		mode |= unix.W_OK
	}
	for _, name := range []string{"", "objects", "refs"} {
		p := filepath.Join(path, name)
		err := unix.Faccessat(unix.AT_FDCWD, p, mode, unix.AT_EACCESS)
		switch {
		case err == nil:
		case errors.Is(err, unix.ENOENT):
			if _, err := os.Stat(filepath.Join(path, ".git")); err == nil {
				return refuse("a work tree, not a bare repository", "name a bare one: git clone --bare "+
					shellQuote(path)+" DIR.git")
			}
			return refuse("not a git repository", "create one: git init --bare "+shellQuote(path))
		case errors.Is(err, unix.EACCES), errors.Is(err, unix.EROFS), errors.Is(err, unix.EPERM):
			return refuse(fmt.Sprintf("no permission to push to it (%s: %v)", p, err),
				"run as the repository's owner, or make it writable")
		default:
			return refuse(fmt.Sprintf("%s: %v", p, err), "name a bare git repository")
		}
	}
	if st, err := os.Stat(filepath.Join(path, "HEAD")); err != nil || !st.Mode().IsRegular() {
		return refuse("not a git repository (no HEAD)", "create one: git init --bare "+shellQuote(path))
	}
	return nil
}

// mayWait says whether a mount may go on with what an earlier one left here although the source cannot be used now. The
// daemon then says so.
func mayWait(c *config) bool { return c.Offline != offlineRefuse && holdsVolume(c.State) }

// beginsSource says whether the source is a repository that is to be made: init is on, there is nothing at its path,
// and nothing of the volume is here.
func (c *config) beginsSource() bool {
	if !c.Init || localSource(c.Source) == "" {
		return false
	}
	_, err := os.Lstat(c.Source)
	return errors.Is(err, fs.ErrNotExist) && !holdsVolume(c.State)
}

// beginSource makes the repository of a volume that begins where there is none. undo removes it again.
func beginSource(c *config) (undo func() error, err error) {
	if !c.beginsSource() {
		return func() error { return nil }, nil
	}
	undo, err = wire.Create(context.Background(), c.Source, c.Branch)
	if err != nil {
		return nil, mountError("source "+c.Source, plainError(err), "create it: git init --bare "+shellQuote(c.Source))
	}
	return undo, nil
}

// remoteHelp returns what to do about what another host said, by its words and those of git and ssh.
func remoteHelp(err error) string {
	text := strings.ToLower(err.Error())
	has := func(words ...string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(text, w) })
	}
	switch {
	case has("host key verification failed", "host identification has changed"):
		return "compare the host's key with what its owner says, and put it into known_hosts"
	case has("answers 401", "answers 403", "permission denied", "authentication failed"):
		return "check the user, and the key or the token"
	case has("answers 404", "not appear to be a git repository", "repository not found", "not exported",
		"no such file or directory"):
		return "check its name, or create it on the server (git init --bare, or in the web pages of the forge)"
	}
	return ""
}

// sourceHelp returns what to do about what is wrong with a source.
func sourceHelp(err error, path string) string {
	quoted := shellQuote(path)
	switch {
	case errors.Is(err, wire.ErrForeignOwner):
		return "run emberfs as its owner, or give it to this user: chown -R \"$(id -u)\" " + quoted
	case errors.Is(err, wire.ErrReftable):
		return "git refs migrate --ref-format=files (git 2.46) in " + quoted +
			", or push it to a new one: git init --bare --ref-format=files DIR.git"
	case errors.Is(err, wire.ErrPartial):
		return "name the repository that " + quoted + " was cloned from, or a full clone: git clone --bare URL DIR.git"
	case errors.Is(err, wire.ErrObjectFormat):
		return "push it to a new one: git init --bare --object-format=sha1 DIR.git"
	case isRemoteURL(path):
		return remoteHelp(err)
	}
	return ""
}

// credentials matches the user part of a URL anywhere in a text.
var credentials = regexp.MustCompile(`([A-Za-z][A-Za-z0-9+.-]*://)([^/@\s"']+)@`)

// redact removes users, passwords and tokens from URLs, for messages and logs.
func redact(text string) string { return credentials.ReplaceAllString(text, "${1}xxxxx@") }

// hideUser is redact for one URL that may not be valid: a password may have any character in it.
func hideUser(url string) string {
	scheme, rest, ok := strings.Cut(url, "://")
	if i := strings.LastIndexByte(rest, '@'); ok && i >= 0 {
		return scheme + "://xxxxx" + rest[i:]
	}
	return url
}

// publicSource is a source for the mount table and for status, which others read: the user of an https address may be a
// token.
func publicSource(source string) string {
	if strings.HasPrefix(source, "https://") || strings.HasPrefix(source, "http://") {
		return redact(source)
	}
	return source
}

// localSource is the path of a source; "" for one of another host.
func localSource(source string) string {
	if isRemoteURL(source) {
		return ""
	}
	return source
}
