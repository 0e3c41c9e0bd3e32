package wire

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"emberfs/tiers/subprocess"
)

// Create makes a bare repository at path, which must not exist, as `git init --bare` does, with HEAD on branch and the
// missing directories above it. undo removes what was made, unless a branch came into it.
func Create(ctx context.Context, path, branch string) (undo func() error, err error) {
	fail := func(err error) (func() error, error) { return nil, fmt.Errorf("create %s: %w", path, err) }
	git, err := subprocess.Find("git")
	if err != nil {
		return fail(fmt.Errorf("%w: %w", ErrNoGit, err))
	}
	above, err := makeAbove(path)
	if err == nil {
		err = os.Mkdir(path, 0o777) // less the umask, as git
	}
	if err != nil {
		above()
		return fail(err)
	}
	cmd := subprocess.Command(ctx, git, "init", "--quiet", "--bare", ".")
	// Formats that not every git can read may be somebody's defaults.
	cmd.Env = append(environment("init.defaultBranch", branch), "GIT_DEFAULT_HASH=sha1", "GIT_DEFAULT_REF_FORMAT=files")
	cmd.Dir = path
	if out, err := cmd.CombinedOutput(); err != nil {
		err = fmt.Errorf("git init: %w (it said: %s)", err, strings.TrimSpace(string(out)))
		err = errors.Join(err, os.RemoveAll(path))
		above()
		return fail(err)
	}
	return func() error {
		list, err := os.ReadDir(filepath.Join(path, "refs/heads"))
		if err != nil || len(list) > 0 {
			return err
		}
		defer above()
		return os.RemoveAll(path)
	}, nil
}

// makeAbove makes the missing directories above path. undo removes those that it made and that are empty.
func makeAbove(path string) (undo func(), err error) {
	var made []string // the innermost first
	undo = func() {
		for _, dir := range made {
			_ = os.Remove(dir) // somebody else may use it by now
		}
	}
	var missing []string
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		missing = append(missing, dir)
	}
	for i := len(missing) - 1; i >= 0; i-- {
		if err := os.Mkdir(missing[i], 0o777); err != nil && !errors.Is(err, fs.ErrExist) {
			return undo, err
		} else if err == nil {
			made = append([]string{missing[i]}, made...)
		}
	}
	return undo, nil
}
