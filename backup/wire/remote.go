package wire

import (
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
	net  dialer // nil: a path

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

// Options say how a remote is reached.
type Options struct {
	Dir       string // where the socket of a connection that is kept may lie; "": none is kept
	AcceptNew bool   // take the key of an ssh host that is not known yet
}

// Open readies the repository that source means, as git reads it: a path (made absolute), or a URL. A path is looked
// at, and the errors name it: fs.ErrNotExist, fs.ErrPermission, ErrNotRepository, ErrObjectFormat, ErrForeignOwner,
// ErrNoGit. A host is asked for nothing yet. ErrNotSupported, ErrPassword.
func Open(source string, o Options) (*Remote, error) {
	a, err := parse(source)
	if err != nil {
		return nil, fmt.Errorf("open remote %s: %w", shown(source), err)
	}
	switch a.scheme {
	case "file":
		r, err := openPath(a.path)
		if err != nil {
			return nil, fmt.Errorf("open remote %s: %w", source, err)
		}
		return r, nil
	case "ssh":
		return &Remote{path: shown(source), net: newSSH(a, o.Dir, o.AcceptNew)}, nil
	case "http", "https":
		return &Remote{path: shown(source), net: newHTTP(a)}, nil
	case "git":
		return &Remote{path: shown(source), net: newGit(a)}, nil
	}
	return nil, fmt.Errorf("open remote %s: scheme %s: %w", shown(source), a.scheme, ErrNotSupported)
}

// CheckURL says what is wrong with a source, before anything is asked for it. Its errors repeat no password.
func CheckURL(source string) error {
	_, err := parse(source)
	return err
}

// openPath is Open for a repository of this machine.
func openPath(path string) (*Remote, error) {
	if err := checkRepository(path); err != nil {
		return nil, err
	}
	// git uses real paths when it checks owners.
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, err
	}
	git, err := subprocess.Find("git")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoGit, err)
	}
	return &Remote{path: path, git: git}, nil
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
	if c, ok := r.net.(interface{ close() error }); ok {
		return c.close()
	}
	return nil
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
