package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"emberfs/tiers/warm"
)

// registration tells commands which daemon serves a mountpoint.
type registration struct {
	Mountpoint string `json:"mountpoint"`
	State      string `json:"state"`
	PID        int    `json:"pid"`
	// The namespaces to which PID and the paths belong. From other namespaces one cannot tell whether the daemon lives.
	MountNS string `json:"mount_ns,omitempty"`
	PIDNS   string `json:"pid_ns,omitempty"`
	Device  string `json:"device,omitempty"` // the mount's device, major:minor, to find bind mounts

	owner owner // the owner of the registry in which it is
}

// owner is a user, as uid + 1. 0 means nobody in particular.
type owner int

func ownedBy(uid int) owner { return owner(uid + 1) }

// registry is a directory with one small file for each running daemon. The file is named after the state directory: a
// volume has one daemon, while a mountpoint may have two, one of which is finishing its backup. The files are only
// hints; whether a daemon lives is found out at its control socket. Only what the registry's user wrote is believed, so
// that no directory, file or socket of somebody else can steer a command.
type registry struct {
	dir string
	uid int
}

// maxRegistration and maxRegistrations limit what is read of a registry. Honest files have some hundred bytes, and
// there are as many as daemons.
const (
	maxRegistration  = 64 << 10
	maxRegistrations = 10_000
)

// here returns the mount namespace and the PID namespace of this process.
func here() (mount, pid string) {
	mount, _ = os.Readlink("/proc/self/ns/mnt")
	pid, _ = os.Readlink("/proc/self/ns/pid")
	return mount, pid
}

// runtimeRegistry is the registry of the daemons of a user who has a runtime directory.
func runtimeRegistry(uid int) registry {
	return registry{filepath.Join("/run/user", strconv.Itoa(uid), "emberfs"), uid}
}

// openRegistry chooses the directory. It is made at the first registration.
func openRegistry(uid int, getenv func(string) string) (registry, error) {
	if uid == 0 {
		return registry{"/run/emberfs", 0}, nil
	}
	candidates := []string{getenv("XDG_RUNTIME_DIR"), "/run/user/" + strconv.Itoa(uid)}
	for _, dir := range candidates {
		var st unix.Stat_t
		// A directory of another user could send our commands to that user's daemon.
		if filepath.IsAbs(dir) && unix.Stat(dir, &st) == nil && int(st.Uid) == uid {
			return registry{filepath.Join(dir, "emberfs"), uid}, nil
		}
	}
	home, err := userStateHome(getenv)
	if err != nil {
		return registry{}, err
	}
	return registry{filepath.Join(home, "emberfs", "run"), uid}, nil
}

func (r registry) file(state string) string {
	sum := sha256.Sum256([]byte(state))
	return filepath.Join(r.dir, hex.EncodeToString(sum[:8])+".json")
}

// add registers a daemon, replacing the registration of an earlier daemon of the same volume.
func (r registry) add(e registration) error {
	e.MountNS, e.PIDNS = here()
	data, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("register %s: %w", e.Mountpoint, err)
	}
	// Another daemon that ends may remove the empty directory between the two steps.
	for range 3 {
		if err = os.MkdirAll(r.dir, 0o755); err != nil {
			break
		}
		if err = warm.WriteFileDurable(r.file(e.State), append(data, '\n'), 0o644); !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("register %s: %w", e.Mountpoint, err)
	}
	return nil
}

// remove removes a registration, unless another daemon has replaced it.
func (r registry) remove(e registration) error {
	path := r.file(e.State)
	have, err := r.read(filepath.Base(path))
	if err != nil || have.PID != e.PID {
		return nil
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("unregister %s: %w", e.Mountpoint, err)
	}
	_ = os.Remove(r.dir) // fails, as it should, if there are other registrations
	return nil
}

// list returns all registrations, sorted by mountpoint. Files that cannot be read are skipped.
func (r registry) list() ([]registration, error) {
	dir, err := os.OpenFile(r.dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		defer dir.Close()
		err = r.mine(dir)
	}
	var names []string
	if err == nil {
		names, err = dir.Readdirnames(maxRegistrations)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("list daemons: %w", err)
	}
	var out []registration
	for _, name := range names {
		if !strings.HasSuffix(name, ".json") {
			continue
		}
		if e, err := r.read(name); err == nil {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, func(a, b registration) int {
		if c := strings.Compare(a.Mountpoint, b.Mountpoint); c != 0 {
			return c
		}
		return a.PID - b.PID
	})
	return out, nil
}

// mine returns an error if another user owns the file or may write to it.
func (r registry) mine(f *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return &fs.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	if int(st.Uid) != r.uid || st.Mode&0o022 != 0 {
		return fmt.Errorf("%s belongs to uid %d, mode %o: it is not obeyed", f.Name(), st.Uid, st.Mode&0o7777)
	}
	return nil
}

// read reads one registration. It does not block, whatever else may be there.
func (r registry) read(name string) (registration, error) {
	path := filepath.Join(r.dir, name)
	e := registration{owner: ownedBy(r.uid)}
	f, err := os.OpenFile(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return e, err
	}
	defer f.Close()
	if err := r.mine(f); err != nil {
		return e, err
	}
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return e, fmt.Errorf("read %s: no regular file", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxRegistration+1))
	if err == nil && len(data) > maxRegistration {
		err = fmt.Errorf("more than %d bytes", maxRegistration)
	}
	if err != nil {
		return e, fmt.Errorf("read %s: %w", path, err)
	}
	if err := json.Unmarshal(data, &e); err != nil {
		return e, fmt.Errorf("read %s: %w", path, err)
	}
	if !filepath.IsAbs(e.Mountpoint) || !filepath.IsAbs(e.State) {
		return e, fmt.Errorf("read %s: relative paths", path)
	}
	return e, nil
}

// prune removes the registrations of daemons that are gone and left no mount behind. It keeps that of a dead daemon
// whose mount is still there, because status tells its user where the state is, and those from other namespaces, where
// a daemon only looks dead from here.
func (r registry) prune(alive func(registration) bool, mounted func(string) bool) error {
	list, err := r.list()
	if err != nil {
		return err
	}
	mountNS, pidNS := here()
	for _, e := range list {
		if e.MountNS != "" && (e.MountNS != mountNS || e.PIDNS != pidNS) {
			continue
		}
		if !alive(e) && !mounted(e.Mountpoint) {
			err = errors.Join(err, r.remove(e))
		}
	}
	return err
}
