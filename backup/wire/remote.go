package wire

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"emberfs/backup/odb"
	"emberfs/tiers/subprocess"
)

var (
	// ErrNotRepository says that the path exists but is not a bare git repository.
	ErrNotRepository = errors.New("not a bare git repository")
	// ErrNotSupported says that this version cannot talk to this kind of remote.
	ErrNotSupported = errors.New("this kind of remote is not supported")
	// ErrObjectFormat says that the repository uses another hash than SHA-1.
	ErrObjectFormat = errors.New("repository is not supported")
	// ErrForeignOwner says that the repository belongs to neither us nor root.
	ErrForeignOwner = errors.New("the repository belongs to somebody else, whose hooks would run with our rights")
	// ErrReftable says that the repository does not store its references as files, but in a way that not every git can
	// read.
	ErrReftable = errors.New("it keeps its references as a reftable, which this version cannot use")
	// ErrPartial says that the repository is a partial clone.
	ErrPartial = errors.New("it is a partial clone, which lacks objects that it would have to give")
	// ErrNoGit says that the git program is missing.
	ErrNoGit = errors.New("a remote that is a path needs the git program")
)

// Remote is a repository to fetch from and to push to.
type Remote struct {
	path string // or what stands for it in messages
	git  string // the program
	late bool   // path is as it was given: it could not be used when the Remote was opened
	net  dialer // nil: a path
	// pushes is the way that pushes take, where git's configuration sends them elsewhere; nil: net.
	pushes dialer

	journal string // the file in which a push is noted; "": none
	log     logrus.FieldLogger
	noHooks sync.Once // logs why hooks do not run

	paces *tempi // of tests; nil: those that tempi returns
}

// tempi are what the other side is held to.
type tempi struct{ listing, pack, trailing tempo }

func (r *Remote) tempi() tempi {
	if r.paces != nil {
		return *r.paces
	}
	return tempi{listingTempo(), packTempo(), trailingTempo()}
}

// logger returns the logger for problems that are not errors.
func (r *Remote) logger() logrus.FieldLogger {
	if r.log == nil {
		return logrus.StandardLogger()
	}
	return r.log
}

// Options say how a remote is reached. Files are read, and secrets looked up, at each use. The zero value works.
type Options struct {
	// Dir is where the socket of a connection that is kept may lie, and a key that is in no file; "": no connection is
	// kept, and the key lies in a directory for temporary files.
	Dir string
	// Later makes it no error of Open that a path cannot be used, except that the git program is missing: each use
	// finds it out anew.
	Later     bool
	AcceptNew bool // take the key of an ssh host that is not known yet

	User  string // on the host, where the source names none
	Token string // reference to the token or password for http(s), as ParseReference reads it; "": the usual places

	TLSCA           string // file of the certificates (PEM) that servers are checked by; "": git's, or the system's
	TLSCert, TLSKey string // files of a client certificate and its key (PEM); one file may have both
	Proxy           string // URL for http(s), as CheckProxy wants it; "": git's, or what the environment says

	SSHKey     string // file of a private key, or a reference to it; "": systemd's credential emberfs-ssh-key, or ssh's
	KnownHosts string // file of the keys of ssh hosts; "": systemd's credential emberfs-known-hosts, or ssh's
}

// Open readies the repository that source means, as git reads it: a path (made absolute), or a URL, to which git's
// url.<base>.insteadOf and pushInsteadOf apply. A path is looked at, and the errors name it: fs.ErrNotExist,
// fs.ErrPermission, ErrNotRepository, ErrObjectFormat, ErrForeignOwner, ErrNoGit. A host is asked for nothing yet.
// ErrNotSupported, ErrPassword, ErrReference, ErrProxy, ErrProxyPassword.
func Open(source string, o Options) (*Remote, error) {
	r, err := open(source, &o)
	if err != nil {
		return nil, fmt.Errorf("open remote %s: %w", shown(source), err)
	}
	return r, nil
}

func open(source string, o *Options) (*Remote, error) {
	a, err := parse(source)
	if err != nil {
		return nil, err
	}
	if a.scheme == "file" {
		return openPath(a.path, o.Later)
	}
	fetch, push, err := rewrite(context.Background(), source)
	if err != nil {
		return nil, err
	}
	if fetch != source {
		if a, err = parseTrusted(fetch); err != nil {
			return nil, fmt.Errorf("as git's configuration (url.*.insteadOf) rewrites it: %w", err)
		}
	}
	if a.scheme == "file" {
		if push != fetch {
			return nil, fmt.Errorf("it is a path and git's configuration (url.*.pushInsteadOf) has it pushed to a host: %w",
				ErrNotSupported)
		}
		return openPath(a.path, o.Later)
	}
	r := &Remote{path: shown(source)}
	if r.net, err = r.dialer(a, o, "ssh"); err != nil || push == fetch {
		return r, err
	}
	to, err := parseTrusted(push)
	if err == nil {
		r.pushes, err = r.dialer(to, o, "ssh_push")
	}
	if err != nil {
		return nil, fmt.Errorf("as git's configuration (url.*.pushInsteadOf) rewrites it: %w", err)
	}
	return r, nil
}

// dialer readies the way to a host. What it keeps in the directory of the options has the name.
func (r *Remote) dialer(a *address, o *Options, name string) (dialer, error) {
	if a.user == "" {
		a.user = o.User
	}
	switch a.scheme {
	case "ssh":
		return newSSH(a, o, name)
	case "http", "https":
		var token Reference
		if o.Token != "" {
			var err error
			if token, err = ParseReference(o.Token); err != nil {
				return nil, fmt.Errorf("token: %w", err)
			}
		}
		if o.Proxy != "" {
			if err := CheckProxy(o.Proxy); err != nil {
				return nil, err
			}
		}
		if strings.ContainsFunc(a.user, isControl) || strings.Contains(a.user, ":") {
			return nil, errors.New("the name of a user has no colon and no control characters in it")
		}
		return newHTTP(a, o, token, r.logger), nil
	case "git":
		return newGit(a), nil
	}
	return nil, fmt.Errorf("scheme %s: %w", a.scheme, ErrNotSupported)
}

// CheckURL says what is wrong with a source, before anything is asked for it. Its errors repeat no password.
func CheckURL(source string) error {
	_, err := parse(source)
	return err
}

// openPath is Open for a repository of this machine.
func openPath(path string, later bool) (*Remote, error) {
	at, err := usablePath(path)
	if err != nil && !later {
		return nil, err
	}
	late := err != nil
	if late {
		at = path
	}
	git, err := subprocess.Find("git")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoGit, err)
	}
	return &Remote{path: at, git: git, late: late}, nil
}

// usablePath checks a repository of this machine, and returns its real path, which git uses when it checks owners.
func usablePath(path string) (string, error) {
	if err := checkRepository(path); err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(path)
}

// shown is a source for messages: without a password that somebody put there.
func shown(source string) string {
	u, err := url.Parse(source)
	if err != nil || u.User == nil {
		if strings.Contains(source, "://") && err != nil {
			return "(a URL that is not valid)"
		}
		return source
	}
	return u.Redacted()
}

// Close ends what is kept of connections.
func (r *Remote) Close() error {
	var err error
	for _, d := range []dialer{r.net, r.pushes} {
		if c, ok := d.(interface{ close() error }); ok {
			err = errors.Join(err, c.close())
		}
	}
	return err
}

// String is the repository for messages: its real path, or its URL without a password.
func (r *Remote) String() string { return r.path }

// checkRepository looks at the files themselves, so that the message can be clearer than git's.
func checkRepository(path string) error {
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !st.IsDir() {
		return fmt.Errorf("%s: %w: it is no directory", path, ErrNotRepository)
	}
	if err := checkOwner(path, path); err != nil {
		return err
	}
	for _, name := range []string{"HEAD", "objects", "refs"} {
		sub, err := os.Stat(filepath.Join(path, name))
		if errors.Is(err, fs.ErrNotExist) || err == nil && sub.IsDir() == (name == "HEAD") {
			hint := ""
			if _, err := os.Stat(filepath.Join(path, ".git")); err == nil {
				hint = " (it has a work tree; a bare clone of it will do)"
			}
			return fmt.Errorf("%s: %w: it has no proper %s%s", path, ErrNotRepository, name, hint)
		}
		if err != nil {
			return err
		}
	}
	switch what, err := odb.Unusual(path); {
	case err != nil:
		return err
	case what == "refstorage":
		return fmt.Errorf("%s: %w", path, ErrReftable)
	case what == "partialclone":
		return fmt.Errorf("%s: %w", path, ErrPartial)
	}
	format, err := odb.ObjectFormat(path)
	if err != nil {
		return err
	}
	if err := checkFormat(format); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if err := unix.Access(filepath.Join(path, "objects"), unix.R_OK|unix.X_OK); err != nil {
		return &fs.PathError{Op: "read", Path: filepath.Join(path, "objects"), Err: err}
	}
	return nil
}

// checkFormat refuses repositories with another hash than SHA-1.
func checkFormat(format string) error {
	if format != "sha1" {
		return fmt.Errorf("%w: its object format is %s, only sha1 is known", ErrObjectFormat, Clean(format))
	}
	return nil
}
