package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"emberfs/backup/log"
	"emberfs/tiers/restore"
)

// restoreRequest holds the arguments of `emberfs restore`.
type restoreRequest struct {
	paths     []string
	from      string // repository, state directory or mountpoint; "": the volume in which the paths are
	commit    string
	branch    string
	to        string
	untrusted bool
}

func restoreCommand(w world) *cobra.Command {
	var r restoreRequest
	cmd := &cobra.Command{
		Use:   "restore [PATH...] [--from REPO|STATE] [--commit COMMIT] --to DIR",
		Short: "Write an exact copy of a commit, without a mount",
		Long: `This command writes an exact copy of a commit into the directory DIR, which must be empty or
missing, without a mount: all of it, or only each PATH, relative to the root of the volume, with what lies
below it. With --from it reads a repository, a state directory or a mountpoint; without it each PATH is a
name in a mounted volume.

Without --commit the command takes the newest commit of --branch, or of the branch that HEAD of the repository
names, and the critical files on the live branch of it. ` + log.RevisionHelp + `

The command exits 1, with nothing made, where the commit does not hold a PATH. It exits 3 where some files, or
parts of them, could not be restored. A plain user cannot set owners and some other attributes; with --untrusted
the command makes a copy without them.`,
		Example: `  emberfs restore --from /srv/git/work.git --to /tmp/copy
  emberfs restore /mnt/work/src --commit "2 hours ago" --to /tmp/src`,
		DisableFlagsInUseLine: true,
		Args:                  argsBetween(0, -1, ""),
	}
	cmd.Flags().StringVar(&r.from, "from", "", "read the repository, state directory or mountpoint `REPO`")
	cmd.Flags().StringVar(&r.commit, "commit", "", "restore `COMMIT` (default the newest of the branch)")
	cmd.Flags().StringVar(&r.branch, "branch", "",
		"restore the newest commit of the branch `NAME` (default the repository's HEAD)")
	cmd.Flags().StringVar(&r.to, "to", "", "restore into `DIR`, which must be empty or missing")
	cmd.Flags().BoolVar(&r.untrusted, "untrusted", false,
		"restore no suid, devices, foreign owners, security.* or trusted.* attributes")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		r.paths = args
		switch {
		case r.to == "":
			return usageError("restore", "", "missing --to DIR", "usage: "+cmd.UseLine())
		case r.from == "" && len(args) == 0:
			return usageError("restore", "", "missing --from REPO or STATE", "usage: "+cmd.UseLine())
		}
		ctx, stop := w.interrupts()
		defer stop()
		return withCode(exitFailed, "restore", r.to, restoreCopy(ctx, r, w))
	}
	return cmd
}

func restoreCopy(ctx context.Context, r restoreRequest, w world) (err error) {
	h, paths, err := restoreSource(ctx, r)
	if err != nil {
		return err
	}
	shown := newProgress(w, "restore", "file")
	defer shown.done()
	if err := h.open(r.branch, shown); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.cold.Close()) }()
	commit, err := h.resolveOr(ctx, r.commit)
	if err != nil {
		return err
	}
	snap, err := h.cold.Snapshot(ctx, commit)
	if err != nil {
		return &failure{code: exitFailed, op: "restore", path: h.repo, err: err, hint: "emberfs log " +
			shellQuote(h.target) + " lists the commits"}
	}
	made, err := emptyTarget(r.to)
	if err != nil {
		return &failure{code: exitFailed, op: "restore", path: r.to, err: err,
			hint: "name a new or empty directory by --to"}
	}
	var whole log.Totals
	if len(paths) == 0 && shown.show {
		whole, _ = log.Of(h.cold).Totals(ctx, snap, maxTotals) // if too many, only files are counted
	}
	var files, bytes int64
	err = restore.Copy(ctx, snap, h.cold, restore.Options{To: r.to, Paths: paths, Untrusted: r.untrusted,
		Log: newLogger(&config{LogLevel: "warn", LogFormat: "text"}, shown, false),
		Progress: func(f, b, total int64) {
			files, bytes = f, b
			shown.expect(max(whole.Entries, total), whole.Bytes)
			shown.set(f, b)
		}})
	shown.done()
	if err != nil {
		code := exitPart
		if isEmpty(r.to) {
			code = exitFailed
			if made {
				err = errors.Join(err, os.Remove(r.to))
			}
		}
		return &failure{code: code, op: "restore", path: r.to, err: err}
	}
	_, err = fmt.Fprintf(w.out, "restored %s, %s of commit %s to %s\n", count(files, "file"), size(bytes),
		snap.Info().ID, r.to)
	return err
}

// maxTotals is how many entries are counted before a restore, with their sizes, to estimate how long it will take.
const maxTotals = 100_000

// restoreSource finds the repository, and makes the paths relative to the volume's root.
func restoreSource(ctx context.Context, r restoreRequest) (*history, []string, error) {
	if r.from == "" {
		return restoreFromMount(r.paths)
	}
	h, err := findHistory(ctx, "restore", r.from)
	return h, r.paths, err
}

// restoreFromMount takes PATHs as names in a single mounted volume.
func restoreFromMount(paths []string) (*history, []string, error) {
	state, mountpoint := "", ""
	var inside []string
	for _, p := range paths {
		f, err := findAbove(p)
		if err != nil {
			return nil, nil, err
		}
		if len(f.daemons) == 0 || f.daemons[0].Mountpoint == "" {
			return nil, nil, &failure{code: exitFailed, op: "restore", path: p,
				err:  errors.New("lies in no mounted volume"),
				hint: "name the repository or state directory by --from"}
		}
		e := f.daemons[0]
		if state != "" && state != e.State {
			return nil, nil, usageError("restore", p, "lies in another volume than "+paths[0],
				"restore one volume at a time")
		}
		state, mountpoint = e.State, e.Mountpoint
		abs, err := filepath.Abs(p)
		if err != nil {
			return nil, nil, err
		}
		if dir, err := filepath.EvalSymlinks(filepath.Dir(abs)); err == nil && abs != e.Mountpoint {
			abs = filepath.Join(dir, filepath.Base(abs))
		}
		rel, err := filepath.Rel(e.Mountpoint, abs)
		if err != nil {
			return nil, nil, err
		}
		inside = append(inside, rel)
	}
	return &history{op: "restore", target: mountpoint, repo: filepath.Join(state, coldName), state: state,
		mountpoint: mountpoint}, inside, nil
}

// emptyTarget makes sure that dir exists and is empty. made reports whether it was created.
func emptyTarget(dir string) (made bool, err error) {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return false, plainError(err)
		}
		return true, nil
	case err != nil:
		return false, plainError(err)
	case len(entries) > 0:
		return false, errors.New("the directory is not empty")
	}
	return false, nil
}
