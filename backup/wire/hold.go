package wire

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"emberfs/backup/odb"
)

// held is the repository, opened for one use. Somebody who may rename a directory above it could put another repository
// in its place at any time, so it is checked, used and passed to git only by this descriptor.
type held struct {
	dir  *os.File // O_PATH
	real string   // its real path, as git determines it
	// settings for git that switch off hooks and programs of the repository, if somebody else can change them; why says
	// what can be changed.
	settings []string
	why      error
}

func (h *held) close() { _ = h.dir.Close() }

// at returns a path for a file in it.
func (h *held) at(name string) string {
	return filepath.Join("/proc/self/fd", strconv.Itoa(int(h.dir.Fd())), name)
}

// hold opens the repository and checks it as it is now. The error may be ErrForeignOwner or fs.ErrNotExist.
func (r *Remote) hold() (*held, error) {
	path := r.path
	if r.late {
		var err error
		if path, err = usablePath(r.path); err != nil {
			return nil, err
		}
	}
	dir, err := os.OpenFile(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	h := &held{dir: dir}
	if h.real, err = os.Readlink(h.at("")); err == nil {
		err = checkOwner(h.at("."), r.path)
	}
	if err == nil {
		err = h.checkFiles(r.path)
	}
	if err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	if h.why = h.changeable(); h.why != nil {
		h.settings = []string{"core.hooksPath", "/dev/null", "core.alternateRefsCommand", "true", "core.fsmonitor",
			"false", "receive.autogc", "false", "gc.auto", "0"}
	}
	return h, nil
}

// checkOwner refuses a repository that belongs to neither us nor root. Errors call it name.
func checkOwner(path, name string) error {
	var own unix.Stat_t
	if err := unix.Stat(path, &own); err != nil {
		return &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	if own.Uid != 0 && int(own.Uid) != os.Geteuid() {
		return fmt.Errorf("%s: %w (owner %d, we are %d)", name, ErrForeignOwner, own.Uid, os.Geteuid())
	}
	return nil
}

// changeable returns an error that says what another user could change of what runs here: the hooks, the directory that
// they are in, and the configuration, which names programs. It returns nil if there is nothing.
func (h *held) changeable() error {
	look := func(path, name string) error {
		var st unix.Stat_t
		err := unix.Stat(path, &st)
		switch {
		case errors.Is(err, unix.ENOENT):
			return nil
		case err != nil:
			return fmt.Errorf("%s cannot be looked at: %w", name, err)
		case st.Uid != 0 && int(st.Uid) != os.Geteuid():
			return fmt.Errorf("%s belongs to uid %d", name, st.Uid)
		case st.Mode&0o002 != 0, st.Mode&0o020 != 0 && st.Gid != 0 && int(st.Gid) != os.Getegid():
			return fmt.Errorf("%s can be changed by others (mode %04o, group %d)", name, st.Mode&0o7777, st.Gid)
		}
		return nil
	}
	for _, name := range []string{".", "config", "config.worktree", "hooks"} {
		if err := look(h.at(name), name); err != nil {
			return err
		}
	}
	hooks := h.at("hooks")
	if path, err := odb.HooksPath(h.at(".")); err != nil {
		return err
	} else if path != "" {
		if hooks = path; !filepath.IsAbs(path) {
			hooks = h.at(path)
		}
		if err := look(hooks, path); err != nil {
			return err
		}
	}
	list, err := os.ReadDir(hooks)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
		return fmt.Errorf("%s cannot be looked at: %w", hooks, err)
	}
	for _, e := range list {
		if err := look(filepath.Join(hooks, e.Name()), "hooks/"+e.Name()); err != nil {
			return err
		}
	}
	return nil
}
