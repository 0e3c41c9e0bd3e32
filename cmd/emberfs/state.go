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

// defaultState is the state directory of a volume that was given none: one for each source and branch, or for each
// mountpoint where there is no source.
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

// userStateHome is $XDG_STATE_HOME or its default, also without a HOME in the environment.
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

// slug is the last part of a path with everything odd taken out, for people who look into /var/lib/emberfs.
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
	lock    *os.File // flock'ed; the lock lives as long as any process has it open
	created []string // directories that did not exist before, outermost first
	empty   bool     // there was nothing in it when it was locked
}

// openState makes the directory where it is missing and locks it. On failure nothing is left behind. What is in it is
// judged, and removed, only under the lock: until then it may be another's, who is making a volume there at this
// moment.
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
	// What a killed process, or a power cut, left is nobody's now. One that stays is for emberfs check.
	if temps, err := inspect.StaleTemps(path); err == nil {
		for _, t := range temps {
			_ = os.Remove(t)
		}
	}
	return s, nil
}

// checkState refuses a directory that is not a state directory of ours, or of a version to come.
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
		if strings.HasPrefix(name, warm.TempPrefix) { // a power cut before the first file had its name
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
	return nil // what else may be wrong with the file, tiers says
}

// make creates the missing directories, 0700 for the state directory itself.
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
				continue // somebody else was faster; then it is not ours to remove
			}
			return err
		}
		s.created = append(s.created, p)
	}
	// The warm directory inside shows every file with its own mode: nobody else may walk in here.
	return os.Chmod(s.path, 0o700)
}

// holdsNothing says that there is nothing in a locked state directory but the lock.
func holdsNothing(path string) bool {
	entries, err := os.ReadDir(path)
	return err == nil && !slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() != lockName })
}

// discard undoes openState for a mount that never served: what this call made goes away again, and nothing else.
func (s *stateDir) discard() error {
	var err error
	if s.empty {
		err = tmpfs.Drop(s.path) // of a daemon that was killed while it started
		entries, _ := os.ReadDir(s.path)
		for _, e := range entries {
			err = errors.Join(err, os.RemoveAll(filepath.Join(s.path, e.Name())))
		}
	}
	for i := len(s.created) - 1; i >= 0; i-- {
		// A parent that somebody else uses by now is not empty and stays.
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

// lockState takes the exclusive lock of a volume and notes our pid in it.
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
		// A failed mount may have removed the file between our open and our lock: then the lock protects nothing.
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

// notePID writes who holds the lock. The pid is for people: the lock itself is the kernel's.
func notePID(f *os.File, pid int) error {
	if _, err := f.WriteAt(fmt.Appendf(nil, "%-10d\n", pid), 0); err != nil {
		return fmt.Errorf("write %s: %w", f.Name(), err)
	}
	return nil
}

// lockPID reads the pid that the holder noted; 0 where there is none.
func lockPID(f *os.File) int {
	buf := make([]byte, 16)
	n, _ := f.ReadAt(buf, 0)
	pid, err := strconv.Atoi(strings.TrimSpace(string(buf[:n])))
	if err != nil {
		return 0
	}
	return pid
}

// isEmpty is true for an empty directory and for none at all.
func isEmpty(path string) bool {
	entries, err := os.ReadDir(path)
	return len(entries) == 0 && (err == nil || errors.Is(err, fs.ErrNotExist))
}
