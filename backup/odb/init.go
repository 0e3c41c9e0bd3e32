package odb

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"emberfs/tiers/warm"
)

// Init makes dir a bare repository with the configuration that EmberFS needs and with HEAD on refs/heads/<branch>. It
// is durable when Init returns. For an existing repository it keeps the objects, references and other settings. It
// refuses a directory that holds something else.
func Init(dir, branch string) error {
	head := "refs/heads/" + branch
	if err := checkRefName(head); err != nil {
		return fmt.Errorf("init %s: %w", dir, err)
	}
	fresh, err := isFresh(dir)
	if err != nil {
		return fmt.Errorf("init: %w", err)
	}
	if !fresh {
		if err := checkLayout(dir); err != nil {
			return err
		}
	}
	// HEAD is written last: without it neither git nor isFresh takes the directory for a repository.
	if err := mkdirDurable(0o755, baseDirs(dir)...); err != nil {
		return fmt.Errorf("init: %w", err)
	}
	if err := applySettings(dir); err != nil {
		return err
	}
	want := []byte("ref: " + head + "\n")
	path := filepath.Join(dir, "HEAD")
	if old, err := readSmall(path, maxRefFile); err == nil && string(old) == string(want) {
		return nil
	}
	return warm.WriteFileDurable(path, want, 0o644)
}

// isFresh reports whether dir is missing, empty, or left by an Init that did not finish.
func isFresh(dir string) (bool, error) {
	if _, err := os.Lstat(filepath.Join(dir, "HEAD")); err == nil {
		return false, nil
	}
	names, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	for _, e := range names {
		switch e.Name() {
		case "objects", "refs", "config":
		default:
			if !isTemp(e.Name()) {
				return false, nil
			}
		}
	}
	return true, nil
}

// baseDirs returns the directories that every repository has.
func baseDirs(dir string) []string {
	var list []string
	for _, sub := range []string{"objects/pack", "objects/info", "refs/heads", "refs/tags"} {
		list = append(list, filepath.Join(dir, sub))
	}
	return list
}

// mkdirDurable makes the directories and their missing parents, and makes them durable. Each directory that changed is
// synced once, all of them concurrently.
func mkdirDurable(perm os.FileMode, paths ...string) error {
	changed := map[string]struct{}{}
	for _, p := range paths {
		if err := mkdirNoting(p, perm, changed); err != nil {
			return err
		}
	}
	return syncDirs(changed)
}

// syncDirs makes directories durable, all of them concurrently.
func syncDirs(dirs map[string]struct{}) error {
	var g errgroup.Group
	for dir := range dirs {
		g.Go(func() error { return warm.SyncDir(dir) })
	}
	return g.Wait()
}

// mkdirNoting makes path and its missing parents, and adds the directories in which one was made to changed.
func mkdirNoting(path string, perm os.FileMode, changed map[string]struct{}) error {
	if st, err := os.Stat(path); err == nil {
		if !st.IsDir() {
			return &fs.PathError{Op: "mkdir", Path: path, Err: fs.ErrExist}
		}
		return nil
	}
	parent := filepath.Dir(path)
	if parent != path {
		if err := mkdirNoting(parent, perm, changed); err != nil {
			return err
		}
	}
	if err := os.Mkdir(path, perm); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	changed[parent] = struct{}{}
	return nil
}
