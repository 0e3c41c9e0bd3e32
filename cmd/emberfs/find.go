package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"emberfs/fs"
)

// found is what a path on a command line refers to.
type found struct {
	path    string         // the path, resolved as far as possible
	mount   *fs.MountEntry // what is mounted there, if anything
	daemons []registration // the daemons of that mountpoint, or the one of that state directory
}

// find resolves a mountpoint or state directory. It does not touch what is mounted at the path.
func find(path string) (found, error) {
	table, err := fs.Mounts()
	if err != nil {
		return found{}, err
	}
	out := found{path: path}
	if out.path, out.mount, err = resolveMountpoint(path, table); err != nil {
		if out.path, err = filepath.Abs(path); err != nil {
			return out, err
		}
	}
	list, err := registrations()
	if err != nil {
		return out, err
	}
	out.daemons = out.daemonsIn(list, table)
	if len(out.daemons) == 0 && out.mount == nil && isState(out.path) {
		out.daemons = []registration{{State: out.path}}
	}
	return out, nil
}

// daemonsIn returns those of list that serve the path, or what is mounted there and bound to it from elsewhere.
//
// A device number says little: the kernel gives it to the next mount as soon as a volume is unmounted, while the
// volume's daemon still takes its final backup. So it does not count where the daemon registered at the path has that
// mount, and a daemon whose own mount is not to be seen is taken only if there is no other.
func (f found) daemonsIn(list []registration, table []fs.MountEntry) []registration {
	var named, bound, unseen []registration
	for _, e := range list {
		switch {
		case e.Mountpoint == f.path || e.State == f.path:
			named = append(named, e)
		case f.mount == nil || !f.mount.Ours() || e.Device == "" || e.Device != f.mount.Device:
		default:
			if m, ok := fs.MountAt(table, e.Mountpoint); ok && m.Device == e.Device {
				bound = append(bound, e)
			} else {
				unseen = append(unseen, e)
			}
		}
	}
	switch {
	case slices.ContainsFunc(named, func(e registration) bool { return f.mount == nil || e.Device == f.mount.Device }):
		return named
	case len(named)+len(bound) > 0:
		return append(bound, named...)
	}
	return unseen
}

// findAbove is find for any path in a mount: it uses the innermost mountpoint above the path.
func findAbove(path string) (found, error) {
	f, err := find(path)
	if err != nil || len(f.daemons) > 0 || f.mount != nil {
		return f, err
	}
	list, err := registrations()
	if err != nil {
		return f, err
	}
	best := ""
	for _, e := range list {
		if strings.HasPrefix(f.path, e.Mountpoint+"/") && len(e.Mountpoint) > len(best) {
			best = e.Mountpoint
		}
	}
	if best == "" {
		return f, nil
	}
	return find(best)
}

// findFile is find for the arguments of status: a volume by its mountpoint or state directory, or a path below a
// mountpoint. It returns the path resolved, or "" for the volume itself. A symbolic link below a mountpoint is not
// followed; elsewhere it is.
func findFile(arg string) (f found, file string, err error) {
	table, err := fs.Mounts()
	if err != nil {
		return f, "", err
	}
	abs, err := filepath.Abs(arg)
	if err != nil {
		return f, "", err
	}
	c := abs
	if dir, err := filepath.EvalSymlinks(filepath.Dir(abs)); err == nil {
		c = filepath.Join(dir, filepath.Base(abs))
	}
	root := mountAbove(table, c)
	if root == "" {
		if resolved, err := filepath.EvalSymlinks(c); err == nil {
			c, root = resolved, mountAbove(table, resolved)
		}
	}
	if f, err = find(arg); err != nil || root == "" || c == root {
		return f, "", err
	}
	for _, e := range f.daemons { // the path may be a volume's state directory inside another volume
		if e.State == c && e.PID != 0 {
			return f, "", nil
		}
	}
	f, err = find(root)
	return f, c, err
}

// mountAbove returns the mountpoint of the volume in which path is (or which it is). path must be free of symbolic
// links. It returns "" if the innermost mount above path is not one of EmberFS.
func mountAbove(table []fs.MountEntry, path string) string {
	var best fs.MountEntry
	for _, m := range table {
		if below(m.Path, path) && len(m.Path) >= len(best.Path) {
			best = m
		}
	}
	if !best.Ours() {
		return ""
	}
	return best.Path
}

// isState recognises a state directory by its lock.
func isState(path string) bool {
	_, err := os.Stat(filepath.Join(path, lockName))
	return err == nil
}

// registrations returns the running daemons that this user can find, after removing stale registrations.
func registrations() ([]registration, error) {
	r, err := openRegistry(os.Geteuid(), os.Getenv)
	if err != nil {
		return nil, err
	}
	table, err := fs.Mounts()
	if err != nil {
		return nil, err
	}
	err = r.prune(func(e registration) bool { return e.client().alive(context.Background()) },
		func(path string) bool { m, ok := fs.MountAt(table, path); return ok && m.Ours() })
	if err != nil {
		return nil, err
	}
	list, err := r.list()
	if err != nil || os.Geteuid() != 0 {
		return list, err
	}
	// Root may handle other users' mounts; the kernel says whose they are. But root does not clean up those users'
	// registries.
	asked := map[int]bool{0: true}
	for _, m := range table {
		if !m.Ours() || asked[m.UID] {
			continue
		}
		asked[m.UID] = true
		more, err := runtimeRegistry(m.UID).list()
		if err != nil {
			continue
		}
		for _, e := range more {
			if at, ok := fs.MountAt(table, e.Mountpoint); ok && at.Ours() && at.UID == m.UID {
				list = append(list, e)
			}
		}
	}
	return list, nil
}

// one returns the daemon that was asked for; of two at one mountpoint, the one that still has its mount.
func (f found) one(ctx context.Context) (registration, error) {
	var finishing []registration
	for _, e := range f.daemons {
		st, err := e.client().who(ctx)
		switch {
		case err == nil && st.Phase == phaseMounted:
			return registration{Mountpoint: st.Mountpoint, State: e.State, PID: st.PID}, nil
		case err == nil:
			finishing = append(finishing, registration{Mountpoint: st.Mountpoint, State: e.State, PID: st.PID})
		case !errors.Is(err, errNoDaemon):
			return e, err
		}
	}
	if len(finishing) > 0 {
		return finishing[0], nil
	}
	return registration{}, f.nobody()
}

// nobody returns the reason why there is no daemon to talk to.
func (f found) nobody() error {
	switch {
	case f.mount != nil && f.mount.Ours() && len(f.daemons) > 0:
		return fmt.Errorf("%w: the mount is dead; its state is in %s", errNoDaemon, f.daemons[0].State)
	case f.mount != nil && f.mount.Ours():
		return fmt.Errorf("%w: the mount is dead, or of another user", errNoDaemon)
	case len(f.daemons) > 0:
		return fmt.Errorf("%w: the volume in %s is not mounted", errNoDaemon, f.daemons[0].State)
	}
	return errNotMounted
}

// errNotMounted says that the path is not a mount of EmberFS.
var errNotMounted = errors.New("no emberfs is mounted there")

// remedy returns what to do about an error that one returned.
func (f found) remedy(err error) string {
	switch {
	case errors.Is(err, errNotMounted):
		return "emberfs status lists the mounts"
	case f.mount != nil && f.mount.Ours() && errors.Is(err, errNoDaemon):
		return "emberfs umount " + shellQuote(f.path) + " takes it away; mount the volume again to go on"
	case errors.Is(err, errNoDaemon):
		return "mount it first"
	case errors.Is(err, errSilent) && len(f.daemons) > 0:
		return fmt.Sprintf("look at process %d and at the log in %s", f.daemons[0].PID, f.daemons[0].State)
	}
	return ""
}
