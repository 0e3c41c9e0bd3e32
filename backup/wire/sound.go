package wire

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/subprocess"
)

// maxLooked is how many loose references are checked before a service starts.
const maxLooked = 10_000

// checkFiles returns an error for files that git would read and wait for: a reference that is a FIFO blocks it for
// ever. Errors call the repository name.
func (h *held) checkFiles(name string) error {
	regular := func(file string) error {
		st, err := os.Stat(h.at(file))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && !st.Mode().IsRegular() && !st.IsDir() {
			err = fmt.Errorf("%s: %w: it is no file (%s), remove it", filepath.Join(name, file), ErrNotRepository,
				st.Mode().Type())
		}
		return err
	}
	for _, file := range []string{"HEAD", "packed-refs", "config", "shallow"} {
		if err := regular(file); err != nil {
			return err
		}
	}
	looked := 0
	return fs.WalkDir(os.DirFS(h.at(".")), "refs", func(path string, e fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // removed meanwhile, as a gc does with empty directories
		case err != nil:
			return err
		case e.IsDir() || e.Type().IsRegular():
		default:
			err = regular(path)
		}
		if looked++; looked >= maxLooked && err == nil {
			err = fs.SkipAll
		}
		return err
	})
}

// Broken returns an error if a reference that the remote did not list exists all the same; git leaves out what it
// cannot read. Only if Broken returns nil does an unlisted branch not exist.
func (r *Remote) Broken(ctx context.Context, ref string) error {
	if r.net != nil {
		return nil // nobody can look
	}
	if _, err := os.Lstat(filepath.Join(r.path, filepath.FromSlash(ref))); err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
			return nil
		}
		return fmt.Errorf("%s of %s: %w", ref, r.path, err)
	}
	refs, err := r.Refs(ctx) // it may just have been created
	if err != nil {
		return err
	}
	if _, ok := refs[ref]; ok {
		return nil
	}
	if st, err := os.Stat(filepath.Join(r.path, filepath.FromSlash(ref))); err == nil && st.IsDir() {
		return nil // of other branches
	}
	return fmt.Errorf("%s of %s: %w: git cannot read it; make it a branch again, or remove it there", ref, r.path,
		cold.ErrCorrupt)
}

// SetHead makes ref the branch that a clone checks out. It is for a repository that had no branch, because git init
// chose one that may never exist.
func (r *Remote) SetHead(ctx context.Context, ref string) error {
	if r.net != nil {
		return nil // no git server takes that
	}
	h, err := r.hold()
	if err != nil {
		return fmt.Errorf("set HEAD of %s: %w", r.path, err)
	}
	defer h.close()
	cmd := subprocess.Command(ctx, r.git, "--git-dir=.", "symbolic-ref", "HEAD", ref)
	cmd.Env = environment(append(h.settings, "safe.directory", h.real)...)
	cmd.Dir = h.at("")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("set HEAD of %s to %s: %w: %s", r.path, ref, err, out)
	}
	return nil
}
