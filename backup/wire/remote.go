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
	ErrNotSupported = errors.New("this kind of remote is not supported yet, only a path to a bare repository is")
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
	path string
	git  string // path of the git program

	journal string // the file in which a push is noted; "": none
	log     logrus.FieldLogger
	noHooks sync.Once // logs why hooks do not run
}

// logger returns the logger for problems that are not errors.
func (r *Remote) logger() logrus.FieldLogger {
	if r.log == nil {
		return logrus.StandardLogger()
	}
	return r.log
}

// Open checks that there is a repository at source, which is a path or a file:// URL. Errors name the path. They are
// fs.ErrNotExist, fs.ErrPermission, ErrNotRepository, ErrObjectFormat, ErrForeignOwner, ErrNotSupported or ErrNoGit.
func Open(source string) (*Remote, error) {
	path, err := localPath(source)
	if err != nil {
		return nil, fmt.Errorf("open remote %s: %w", source, err)
	}
	if err := checkRepository(path); err != nil {
		return nil, fmt.Errorf("open remote %s: %w", source, err)
	}
	// git uses real paths when it checks owners.
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return nil, fmt.Errorf("open remote %s: %w", source, err)
	}
	git, err := subprocess.Find("git")
	if err != nil {
		return nil, fmt.Errorf("open remote %s: %w: %w", source, ErrNoGit, err)
	}
	return &Remote{path: path, git: git}, nil
}

// String returns the repository's real path.
func (r *Remote) String() string { return r.path }

// localPath returns the path that source stands for. As in git, a colon before the first slash means a host.
func localPath(source string) (string, error) {
	if source == "" {
		return "", fs.ErrNotExist
	}
	if !strings.Contains(source, "://") {
		if i := strings.IndexAny(source, ":/"); i >= 0 && source[i] == ':' {
			return "", ErrNotSupported
		}
		return filepath.Abs(source)
	}
	u, err := url.Parse(source)
	if err != nil {
		return "", err
	}
	if u.Scheme != "file" {
		return "", fmt.Errorf("scheme %s: %w", u.Scheme, ErrNotSupported)
	}
	if u.Host != "" && u.Host != "localhost" {
		return "", fmt.Errorf("file URL with the host %s: %w", u.Host, ErrNotSupported)
	}
	if u.RawQuery != "" || u.Fragment != "" {
		return "", errors.New("a file URL with ? or # must have it escaped as %3F or %23")
	}
	return filepath.Clean(u.Path), nil
}

// checkRepository checks the files itself, for clearer messages than git's.
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
		return fmt.Errorf("%w: its object format is %s, only sha1 is known", ErrObjectFormat, format)
	}
	return nil
}
