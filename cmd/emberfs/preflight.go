package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"emberfs/fs"
	"emberfs/tiers/subprocess"
)

// plain returns the reason inside a path error, for a message that has the path already.
func plain(err error) string {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Err.Error()
	}
	return err.Error()
}

func plainError(err error) error { return errors.New(plain(err)) }

// resolveMountpoint makes path absolute and resolves symbolic links, without touching what is mounted there, and
// returns that mount.
func resolveMountpoint(path string, table []fs.MountEntry) (string, *fs.MountEntry, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", nil, err
	}
	// A path in the table is resolved already, and looking it up would ask a daemon that may be dead.
	if m, ok := fs.MountAt(table, abs); ok {
		return abs, &m, nil
	}
	if dir, err := filepath.EvalSymlinks(filepath.Dir(abs)); err == nil {
		joined := filepath.Join(dir, filepath.Base(abs))
		if m, ok := fs.MountAt(table, joined); ok {
			return joined, &m, nil
		}
	}
	resolved, err := filepath.EvalSymlinks(abs)
	if err != nil {
		return abs, nil, err
	}
	if m, ok := fs.MountAt(table, resolved); ok {
		return resolved, &m, nil
	}
	return resolved, nil, nil
}

// checkMountpoint refuses a path that is not a directory or has something mounted. It returns the resolved path, and
// whether it is an automount point, over which one may mount.
func checkMountpoint(path string, table []fs.MountEntry) (resolved string, auto bool, err error) {
	const hint = "choose an empty directory"
	refuse := func(why, hint string) (string, bool, error) {
		return "", false, mountError(path, errors.New(why), hint)
	}
	resolved, m, err := resolveMountpoint(path, table)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return refuse("mountpoint does not exist", "create it: mkdir -p "+shellQuote(path))
	case errors.Is(err, os.ErrPermission):
		return refuse("no permission to reach the mountpoint", "choose a directory of your own")
	case err != nil:
		return refuse(plain(err), hint)
	}
	if m != nil && m.FSType != "autofs" {
		if m.Ours() {
			return refuse("a volume is already mounted there", "emberfs status "+shellQuote(path)+
				" shows it; emberfs umount "+shellQuote(path)+" ends it")
		}
		return refuse("something is already mounted there ("+m.FSType+")",
			"choose another directory, or unmount it first")
	}
	st, err := os.Stat(resolved)
	if err != nil {
		return refuse(plain(err), hint)
	}
	if !st.IsDir() {
		return refuse("mountpoint is not a directory", hint)
	}
	return resolved, m != nil, nil
}

// checkEmpty refuses a mountpoint that contains something, which the mount would hide.
func checkEmpty(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return mountError(path, fmt.Errorf("cannot read the mountpoint: %w", plainError(err)),
			"choose a directory of your own")
	}
	defer d.Close()
	switch _, err := d.Readdirnames(1); {
	case err == nil:
		return mountError(path, errors.New("mountpoint is not empty"),
			"choose an empty directory, or hide what is in it by -o nonempty")
	case err != io.EOF:
		return mountError(path, plainError(err), "choose an empty directory")
	}
	return nil
}

// checkApart refuses paths of the daemon's own under the mountpoint (the daemon would wait for itself), and a
// mountpoint inside the state directory (the volume would contain itself).
func checkApart(mountpoint string, c *config) error {
	if inside, err := within(mountpoint, c.State); err != nil {
		return mountError(mountpoint, err, "")
	} else if inside {
		return mountError(mountpoint, fmt.Errorf("mountpoint lies in the state directory %s", c.State),
			"choose a mountpoint outside of it")
	}
	for _, p := range []struct{ what, path, hint string }{
		{"state directory", c.State, "choose one outside of the mountpoint by --state"},
		{"source", localSource(c.Source), "a repository under the mountpoint would be hidden by it"},
		{"notice file", noticeFile(c), "the daemon does not look into its own mount; name one outside by --notice"},
		{"log file", c.LogFile, "choose one outside of the mountpoint by --log-file"},
	} {
		if p.path == "" {
			continue
		}
		if inside, err := within(p.path, mountpoint); err != nil {
			return mountError(mountpoint, err, "")
		} else if inside {
			return mountError(mountpoint, fmt.Errorf("the %s %s lies under the mountpoint", p.what, p.path), p.hint)
		}
	}
	return nil
}

// within reports whether path is dir or below it, by name and by identity (bind mounts, symbolic links), as far as path
// exists.
func within(path, dir string) (bool, error) {
	resolved, err := resolveExisting(path)
	if err != nil {
		return false, fmt.Errorf("resolve %s: %w", path, plainError(err))
	}
	realDir, err := resolveExisting(dir)
	if err != nil {
		return false, fmt.Errorf("resolve %s: %w", dir, plainError(err))
	}
	if resolved == realDir || strings.HasPrefix(resolved, strings.TrimSuffix(realDir, "/")+"/") {
		return true, nil
	}
	target, err := os.Stat(realDir)
	if err != nil {
		return false, nil // dir does not exist, so it contains nothing
	}
	for p := resolved; ; p = filepath.Dir(p) {
		if st, err := os.Stat(p); err == nil && os.SameFile(st, target) {
			return true, nil
		}
		if p == "/" || p == "." {
			return false, nil
		}
	}
}

// resolveExisting resolves the symbolic links in the part of path that exists, and keeps the rest.
func resolveExisting(path string) (string, error) {
	rest := ""
	for p := filepath.Clean(path); ; p = filepath.Dir(p) {
		resolved, err := filepath.EvalSymlinks(p)
		if err == nil {
			return filepath.Join(resolved, rest), nil
		}
		if !errors.Is(err, os.ErrNotExist) || p == "/" || p == "." {
			return "", err
		}
		rest = filepath.Join(filepath.Base(p), rest)
	}
}

// checkFUSE returns an error if the kernel's device or, for a plain user, the setuid helper is missing.
func checkFUSE(mountpoint string, root bool) error {
	if _, err := os.Stat("/dev/fuse"); err != nil {
		return mountError(mountpoint, errors.New("/dev/fuse is missing"),
			"load the fuse module, or hand the device to the container (--device /dev/fuse)")
	}
	if root {
		return nil
	}
	if _, err := subprocess.Fusermount(); err != nil {
		return mountError(mountpoint, errors.New("fusermount3 is missing, and only root can mount without it"),
			"install the package fuse3")
	}
	return nil
}

// shellQuote quotes s for pasting into a shell.
func shellQuote(s string) string {
	plain := func(c rune) bool {
		return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
			strings.ContainsRune("/._-+:@%,", c)
	}
	if s != "" && strings.IndexFunc(s, func(c rune) bool { return !plain(c) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
