package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"emberfs/tiers/inspect"
	"emberfs/tiers/tmpfs"
	"emberfs/tiers/warm"
)

// Names in a state directory.
const (
	lockName     = "lock"
	controlName  = "control.sock"
	receiptsName = "receipts"
	coldName     = "cold.git"
	volumeName   = "volume.json"
	logName      = "emberfs.log"
)

// stateFormat is the newest layout of a state directory that this version reads.
const stateFormat = warm.StateFormat

// defaultState returns the state directory of a volume for which none was given. It depends on source and branch or,
// without a source, on the mountpoint.
func defaultState(c *config, root bool, getenv func(string) string) (string, error) {
	base := "/var/lib/emberfs"
	if !root {
		dir, err := userStateHome(getenv)
		if err != nil {
			return "", err
		}
		base = filepath.Join(dir, "emberfs")
	}
	what, key := c.Mountpoint, "mountpoint\x00"+c.Mountpoint
	if c.Source != "" {
		what, key = c.Source, "source\x00"+c.Source+"\x00"+c.Branch
	}
	sum := sha256.Sum256([]byte(key))
	return filepath.Join(base, slug(what)+"-"+hex.EncodeToString(sum[:6])), nil
}

// userStateHome returns $XDG_STATE_HOME or its default, even if the environment has no HOME.
func userStateHome(getenv func(string) string) (string, error) {
	if dir := getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return dir, nil
	}
	home := getenv("HOME")
	if !filepath.IsAbs(home) {
		u, err := user.Current()
		if err != nil || !filepath.IsAbs(u.HomeDir) {
			return "", errors.New("no home directory to keep the volume's state in")
		}
		home = u.HomeDir
	}
	return filepath.Join(home, ".local", "state"), nil
}

// slug returns the last part of a path, reduced to plain characters, to make names in /var/lib/emberfs recognisable for
// people.
func slug(path string) string {
	name := strings.TrimSuffix(filepath.Base(path), ".git")
	name = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' {
			return r
		}
		return '-'
	}, name)
	if len(name) > 40 {
		name = name[:40]
	}
	if name = strings.Trim(name, "-"); name == "" {
		return "volume"
	}
	return name
}

// stateDir is a locked state directory.
type stateDir struct {
	path    string
	lock    *os.File // locked by flock(2) as long as any process has it open
	created []string // directories that did not exist before, outermost first
	empty   bool     // there was nothing in it when it was locked
}

// openState makes the directory if it is missing, and locks it. On failure it leaves nothing behind. The content is
// judged and removed only under the lock: before that, somebody else may just be creating a volume there.
func openState(path string) (*stateDir, error) {
	if err := checkState(path); err != nil {
		return nil, err
	}
	s := &stateDir{path: path}
	if err := s.make(); err != nil {
		return nil, errors.Join(mountError("state directory "+path, plainError(err), "choose another by --state"),
			s.discard())
	}
	f, err := lockState(path)
	if err != nil {
		return nil, errors.Join(err, s.discard())
	}
	s.lock = f
	if err := checkState(path); err != nil {
		return nil, errors.Join(err, s.discard())
	}
	s.empty = holdsNothing(path)
	// Remove what a killed process or a power cut left. If that fails, emberfs check reports it.
	if temps, err := inspect.StaleTemps(path); err == nil {
		for _, t := range temps {
			_ = os.Remove(t)
		}
	}
	return s, nil
}

// checkState refuses a directory that is not a state directory of EmberFS, or one of a newer version.
func checkState(path string) error {
	const choose = "choose another directory by --state"
	refuse := func(err error, hint string) error { return mountError("state directory "+path, err, hint) }
	entries, err := os.ReadDir(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, unix.ENOTDIR):
		return refuse(errors.New("not a directory"), choose)
	case err != nil:
		return refuse(plainError(err), choose)
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return refuse(err, choose)
	}
	if int(st.Uid) != os.Geteuid() {
		return refuse(fmt.Errorf("belongs to uid %d", st.Uid), "run as its owner, or "+choose)
	}
	ours := func(name string) bool {
		if strings.HasPrefix(name, warm.TempPrefix) { // the power was cut before the first file got its name
			return true
		}
		return slices.Contains([]string{lockName, controlName, receiptsName, coldName, volumeName, logName, "warm",
			"memory"}, name)
	}
	if len(entries) > 0 && !slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return ours(e.Name()) }) {
		return refuse(fmt.Errorf("holds something else (%s)", entries[0].Name()), choose)
	}
	data, err := os.ReadFile(filepath.Join(path, volumeName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return refuse(err, choose)
	}
	var v struct {
		Format int `json:"format"`
	}
	if json.Unmarshal(data, &v) == nil && v.Format > stateFormat {
		return refuse(fmt.Errorf("has format %d, this version of emberfs reads up to %d", v.Format, stateFormat),
			"use a newer emberfs")
	}
	return nil // package tiers reports what else may be wrong with the file
}

// make creates the missing directories. The state directory itself gets mode 0700.
func (s *stateDir) make() error {
	var missing []string
	for p := s.path; ; p = filepath.Dir(p) {
		if _, err := os.Lstat(p); err == nil {
			break
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		missing = append(missing, p)
	}
	slices.Reverse(missing)
	for _, p := range missing {
		mode := os.FileMode(0o755)
		if p == s.path || os.Geteuid() != 0 {
			mode = 0o700
		}
		if err := os.Mkdir(p, mode); err != nil {
			if errors.Is(err, fs.ErrExist) {
				continue // somebody else has made it, so discard must not remove it
			}
			return err
		}
		s.created = append(s.created, p)
	}
	// In the warm directory inside every file has its own mode, so nobody else may get in here.
	return os.Chmod(s.path, 0o700)
}

// holdsVolume reports whether a state directory has something of a volume to go on with: a commit, or files.
func holdsVolume(path string) bool {
	s, err := warm.LoadState(path)
	return err != nil || s.Head != "" || s.Restore != "" || !isEmpty(filepath.Join(path, warm.DirName))
}

// holdsNothing reports whether a locked state directory contains nothing but the lock.
func holdsNothing(path string) bool {
	entries, err := os.ReadDir(path)
	return err == nil && !slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() != lockName })
}

// discard undoes openState for a mount that never served: it removes what openState made, and nothing else.
func (s *stateDir) discard() error {
	var err error
	if s.empty {
		err = tmpfs.Drop(s.path) // it may be left by a daemon that was killed while it started
		entries, _ := os.ReadDir(s.path)
		for _, e := range entries {
			err = errors.Join(err, os.RemoveAll(filepath.Join(s.path, e.Name())))
		}
	}
	for i := len(s.created) - 1; i >= 0; i-- {
		// A parent that somebody else is using by now is not empty, and stays.
		if rm := os.Remove(s.created[i]); rm != nil && !errors.Is(rm, fs.ErrNotExist) &&
			!errors.Is(rm, unix.ENOTEMPTY) {
			err = errors.Join(err, rm)
		}
	}
	if s.lock != nil {
		err = errors.Join(err, s.lock.Close())
		s.lock = nil
	}
	return err
}

// inUseError says which process holds a state directory.
type inUseError struct {
	state string
	pid   int // 0: unknown
}

func (e *inUseError) Error() string {
	if e.pid == 0 {
		return "in use by another emberfs"
	}
	return fmt.Sprintf("in use by the emberfs with pid %d", e.pid)
}

// lockState takes the exclusive lock of a volume and notes our pid in the lock file.
func lockState(state string) (*os.File, error) {
	path := filepath.Join(state, lockName)
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, mountError(path, plainError(err), "choose another state directory by --state")
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			pid := lockPID(f)
			closeErr := f.Close()
			if !errors.Is(err, unix.EWOULDBLOCK) {
				return nil, errors.Join(mountError(path, fmt.Errorf("lock: %w", err), ""), closeErr)
			}
			inUse := &inUseError{state: state, pid: pid}
			return nil, mountError("state directory "+state, inUse, "emberfs status "+shellQuote(state)+
				" shows what it does; one volume is mounted once")
		}
		// If a failed mount removed the file between our open and our lock, we have locked a file that protects
		// nothing.
		var have, want unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &have); err == nil {
			if unix.Stat(path, &want) == nil && have.Ino == want.Ino && have.Dev == want.Dev {
				return f, notePID(f, os.Getpid())
			}
		}
		if err := f.Close(); err != nil {
			return nil, mountError(path, err, "")
		}
	}
}

// notePID writes the pid of the lock's holder into the file. That is for people; the lock itself is in the kernel.
func notePID(f *os.File, pid int) error {
	if _, err := f.WriteAt(fmt.Appendf(nil, "%-10d\n", pid), 0); err != nil {
		return fmt.Errorf("write %s: %w", f.Name(), err)
	}
	return nil
}

// lockPID returns the pid that the lock's holder noted, or 0 if there is none.
func lockPID(f *os.File) int {
	buf := make([]byte, 16)
	n, _ := f.ReadAt(buf, 0)
	pid, err := strconv.Atoi(strings.TrimSpace(string(buf[:n])))
	if err != nil {
		return 0
	}
	return pid
}

// isEmpty reports whether a directory is empty or does not exist.
func isEmpty(path string) bool {
	entries, err := os.ReadDir(path)
	return len(entries) == 0 && (err == nil || errors.Is(err, fs.ErrNotExist))
}
