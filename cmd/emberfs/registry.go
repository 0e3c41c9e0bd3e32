package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"emberfs/tiers"
)

// registration tells the command line which daemon serves a mountpoint.
type registration struct {
	Mountpoint string `json:"mountpoint"`
	State      string `json:"state"`
	PID        int    `json:"pid"`
}

// registry is a directory with one small file for each running daemon, named after its state directory: a volume has one
// daemon, while a mountpoint may have two, one of which still finishes its backup. The files are hints: whether a daemon lives
// is asked at its control socket.
type registry struct{ dir string }

// openRegistry chooses the directory; it is made at the first registration.
func openRegistry(uid int, getenv func(string) string) (registry, error) {
	if uid == 0 {
		return registry{"/run/emberfs"}, nil
	}
	candidates := []string{getenv("XDG_RUNTIME_DIR"), "/run/user/" + strconv.Itoa(uid)}
	for _, dir := range candidates {
		var st unix.Stat_t
		// A directory of another user could send our commands to that user's daemon.
		if filepath.IsAbs(dir) && unix.Stat(dir, &st) == nil && int(st.Uid) == uid {
			return registry{filepath.Join(dir, "emberfs")}, nil
		}
	}
	home, err := userStateHome(getenv)
	if err != nil {
		return registry{}, err
	}
	return registry{filepath.Join(home, "emberfs", "run")}, nil
}

func (r registry) file(state string) string {
	sum := sha256.Sum256([]byte(state))
	return filepath.Join(r.dir, hex.EncodeToString(sum[:8])+".json")
}

// add makes a daemon known, replacing what an earlier daemon of the same volume left.
func (r registry) add(e registration) error {
	data, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("register %s: %w", e.Mountpoint, err)
	}
	// Another daemon that leaves may remove the empty directory between the two steps.
	for range 3 {
		if err = os.MkdirAll(r.dir, 0o755); err != nil {
			break
		}
		if err = tiers.WriteFileDurable(r.file(e.State), append(data, '\n'), 0o644); !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("register %s: %w", e.Mountpoint, err)
	}
	return nil
}

// remove takes a registration away, unless another daemon has replaced it.
func (r registry) remove(e registration) error {
	path := r.file(e.State)
	have, err := readRegistration(path)
	if err != nil || have.PID != e.PID {
		return nil
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("unregister %s: %w", e.Mountpoint, err)
	}
	_ = os.Remove(r.dir) // the last one leaves nothing behind; with others in it this fails
	return nil
}

// list returns all registrations, sorted by mountpoint. Files that cannot be read are passed over.
func (r registry) list() ([]registration, error) {
	entries, err := os.ReadDir(r.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list daemons: %w", err)
	}
	var out []registration
	for _, d := range entries {
		if !strings.HasSuffix(d.Name(), ".json") {
			continue
		}
		if e, err := readRegistration(filepath.Join(r.dir, d.Name())); err == nil {
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

func readRegistration(path string) (registration, error) {
	var e registration
	data, err := os.ReadFile(path)
	if err != nil {
		return e, err
	}
	if err := json.Unmarshal(data, &e); err != nil {
		return e, fmt.Errorf("read %s: %w", path, err)
	}
	if !filepath.IsAbs(e.Mountpoint) || !filepath.IsAbs(e.State) {
		return e, fmt.Errorf("read %s: relative paths", path)
	}
	return e, nil
}

// prune removes registrations of daemons that are gone and left no mount behind. A dead daemon whose mount still stands is
// kept: status tells its user where the state is.
func (r registry) prune(alive func(registration) bool, mounted func(string) bool) error {
	list, err := r.list()
	if err != nil {
		return err
	}
	for _, e := range list {
		if !alive(e) && !mounted(e.Mountpoint) {
			err = errors.Join(err, r.remove(e))
		}
	}
	return err
}
