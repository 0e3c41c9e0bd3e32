package odb

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/sirupsen/logrus"

	"emberfs/tiers/warm"
)

const (
	tempPrefix   = "emberfs_tmp_"
	maxOwnerFile = 256
)

// owner identifies a process. It is what .keep and lock files contain.
type owner struct {
	boot string
	pid  int
}

func thisProcess() (owner, error) {
	boot, err := warm.BootID()
	if err != nil {
		return owner{}, err
	}
	return owner{boot: boot, pid: os.Getpid()}, nil
}

func (o owner) String() string { return fmt.Sprintf("emberfs %s %d\n", o.boot, o.pid) }

// parseOwner parses what String wrote. ok is false if the file is not one of ours.
func parseOwner(s string) (o owner, ok bool) {
	f := strings.Fields(s)
	if len(f) != 3 || f[0] != "emberfs" {
		return owner{}, false
	}
	pid, err := strconv.Atoi(f[2])
	if err != nil || pid <= 0 {
		return owner{}, false
	}
	o = owner{boot: f[1], pid: pid}
	return o, o.String() == s
}

// dead reports whether the process o is gone: the machine has rebooted, the pid does not exist, or it belongs to a
// zombie or to another program.
func (o owner) dead(self owner) bool {
	if o.boot != self.boot || errors.Is(syscall.Kill(o.pid, 0), syscall.ESRCH) {
		return true
	}
	proc := filepath.Join("/proc", strconv.Itoa(o.pid))
	stat, err := os.ReadFile(filepath.Join(proc, "stat"))
	if err != nil {
		return errors.Is(err, fs.ErrNotExist) && errors.Is(syscall.Kill(o.pid, 0), syscall.ESRCH)
	}
	// The format is "pid (name) state ..."; the name may contain anything, even a parenthesis (proc(5)).
	if i := bytes.LastIndexByte(stat, ')'); i >= 0 && len(stat) > i+2 && (stat[i+2] == 'Z' || stat[i+2] == 'X') {
		return true
	}
	theirs, err := os.Readlink(filepath.Join(proc, "exe"))
	if err != nil {
		return false // it belongs to another user
	}
	ours, err := os.Readlink("/proc/self/exe")
	return err == nil && program(theirs) != program(ours)
}

// program returns the name of an executable, even if the file was replaced or removed since.
func program(exe string) string { return filepath.Base(strings.TrimSuffix(exe, " (deleted)")) }

// tempName returns a new name for a temporary file of this process.
func (o owner) tempName(what string) string {
	var r [8]byte
	_, _ = rand.Read(r[:]) // never fails
	return fmt.Sprintf("%s%s_%s_%d_%s", tempPrefix, what, o.boot, o.pid, hex.EncodeToString(r[:]))
}

// parseTemp parses the owner out of the name of a temporary file.
func parseTemp(name string) (owner, bool) {
	rest, ok := strings.CutPrefix(name, tempPrefix)
	f := strings.Split(rest, "_")
	if !ok || len(f) != 4 {
		return owner{}, false
	}
	pid, err := strconv.Atoi(f[2])
	return owner{boot: f[1], pid: pid}, err == nil && pid > 0
}

func isTemp(name string) bool {
	return strings.HasPrefix(name, tempPrefix) || strings.HasPrefix(name, warm.TempPrefix)
}

// cleanup removes what dead processes of EmberFS, or an earlier one with the same pid, left behind. The caller must own
// the repository.
func cleanup(dir string, self owner, log logrus.FieldLogger) error {
	list, err := staleFiles(dir, self, true)
	if err != nil {
		return fmt.Errorf("clean up: %w", err)
	}
	for _, f := range list {
		if err := f.Remove(); err != nil {
			return err
		}
		log.WithField("path", f.Path).Infof("removed a stale %s", f.What)
	}
	return nil
}

// StaleFile is a file that a dead process of EmberFS left behind.
type StaleFile struct {
	Path string
	What string // "temporary file", "keep file" or "lock file"
}

// Remove removes the file. If it is gone already, that is no error.
func (f StaleFile) Remove() error {
	if err := removeExisting(f.Path); err != nil {
		return fmt.Errorf("remove stale %s: %w", f.What, err)
	}
	return nil
}

// staleFiles returns the files that dead processes of EmberFS, or an earlier one with the same pid, left behind. owned
// says that no other EmberFS process is using the repository; only then do temporary files that do not name their
// process count.
func staleFiles(dir string, self owner, owned bool) ([]StaleFile, error) {
	var list []StaleFile
	stale := func(o owner) bool { return o.pid == self.pid || o.dead(self) }
	add := func(path, what string) { list = append(list, StaleFile{path, what}) }
	for _, d := range []string{dir, filepath.Join(dir, "objects"), filepath.Join(dir, "objects", "pack")} {
		names, err := os.ReadDir(d)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, e := range names {
			path := filepath.Join(d, e.Name())
			if o, ok := parseTemp(e.Name()); ok && stale(o) || owned && strings.HasPrefix(e.Name(), warm.TempPrefix) {
				add(path, "temporary file")
			} else if heldByStale(path, stale) || owned && keepsNothing(path) {
				add(path, strings.TrimPrefix(filepath.Ext(path), ".")+" file")
			}
		}
	}
	err := filepath.WalkDir(filepath.Join(dir, "refs"), func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if e.Type().IsRegular() && strings.HasSuffix(e.Name(), ".lock") && heldByStale(path, stale) {
			add(path, "lock file")
		}
		return nil
	})
	return list, err
}

// keepsNothing reports whether path is the .keep of a pack that was to be linked, but whose linking did not get
// further.
func keepsNothing(path string) bool {
	base, ok := strings.CutSuffix(path, ".keep")
	if !ok || !isLinked(base) {
		return false
	}
	there, err := exists(base + ".pack")
	return err == nil && !there
}

// heldByStale reports whether path is a .keep or .lock file of a stale process of EmberFS.
func heldByStale(path string, stale func(owner) bool) bool {
	if !strings.HasSuffix(path, ".keep") && !strings.HasSuffix(path, ".lock") {
		return false
	}
	data, err := readSmall(path, maxOwnerFile)
	if err != nil {
		return false // gone, or not one of ours: ours are small and readable
	}
	o, ok := parseOwner(string(data))
	return ok && stale(o)
}
