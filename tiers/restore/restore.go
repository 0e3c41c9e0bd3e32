package restore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/heldback"
	"emberfs/tiers/subprocess"
	"emberfs/tiers/warm"
)

// Options say where and what Copy writes.
type Options struct {
	To        string   // an existing, empty directory
	Paths     []string // what to restore, with everything below; none: all
	Untrusted bool     // no security.*, trusted.*, suid, sgid, devices or foreign owners
	Log       logrus.FieldLogger
	Progress  Progress // may be nil
}

// Copy writes an exact copy of a snapshot, or of parts of it, without a volume. Parents of a path given come with
// it. A file that cannot be restored is an error that names it; the others are restored all the same. If the snapshot
// does not hold one of the paths, Copy returns an error before it makes anything.
func Copy(ctx context.Context, snap cold.Snapshot, repo cold.Cold, o Options) error {
	subprocess.ClearUmask()
	fd, err := unix.Open(o.To, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", o.To, err)
	}
	defer unix.Close(fd)
	list, err := warm.ListNames(fd)
	if err != nil {
		return fmt.Errorf("list %s: %w", o.To, err)
	}
	if len(list) > 0 {
		return fmt.Errorf("%s is not empty: restore into an empty directory", o.To)
	}
	r := &Restorer{Cold: repo, Snap: snap, Log: o.Log, Untrusted: o.Untrusted, Progress: o.Progress, keepGoing: true}
	want := cold.CleanPaths(o.Paths)
	if err := missing(ctx, snap, want); err != nil {
		return err
	}
	if err := r.Run(ctx, fd, want); err != nil {
		return err
	}
	dir, err := unix.Open(o.To, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	if err := unix.Syncfs(dir); err != nil {
		return fmt.Errorf("make %s durable: %w", o.To, err)
	}
	r.setFlags()
	if r.rootOnly > 0 {
		err := fmt.Errorf("%sowners, modes and attributes that only root may set, %d in all, the first of %q; as "+
			"root all is restored, --untrusted asks for a copy without them",
			heldback.LeftOutHere, r.rootOnly, r.rootOnlyAt)
		r.Log.Warn(err)
		r.failures = append(r.failures, err)
	}
	return errors.Join(r.failures...)
}

// missing returns an error that names the paths which a snapshot does not hold. Paths in directories that cannot be
// read are not among them: the restore reports those.
func missing(ctx context.Context, snap cold.Snapshot, paths []string) error {
	var errs []error
	for _, p := range paths {
		at := snap.Root()
		for name := range strings.SplitSeq(p, "/") {
			var there bool
			if at.Kind == cold.KindDir {
				l, err := snap.ReadDir(ctx, at.Dir())
				if err != nil {
					break
				}
				i := slices.IndexFunc(l.Entries, func(e cold.Entry) bool { return e.Name == name })
				if there = i >= 0; there {
					at = l.Entries[i]
				}
			}
			if !there {
				errs = append(errs, fmt.Errorf("%s: not in commit %s", p, snap.Info().ID))
				break
			}
		}
	}
	return errors.Join(errs...)
}

// Restorer makes directories what a snapshot says. It is idempotent: what is there already and right stays.
type Restorer struct {
	Cold      cold.Cold
	Snap      cold.Snapshot
	Log       logrus.FieldLogger
	Vol       *Volume // nil: a plain copy, without records
	Untrusted bool    // leave out what Options.Untrusted leaves out
	Lazy      bool    // make stubs and lazy directories instead of bringing contents
	Progress  Progress

	// For listing; Run finds them out itself.
	RootFD int
	DirAt  string      // the path of the directory whose children are made
	Owner  uint32      // our own uid: a plain user can give nothing away
	Times  *warm.Times // that the file system keeps

	// What came of it.
	Files    int64
	Problems int   // what the repository describes wrongly
	First    error // of these

	keepGoing bool // collect failures instead of stopping at the first
	failures  []error
	total     int64 // files of the whole commit, about; 0: not known
	bytes     int64
	links     map[LinkKey]string       // path of the first name restored
	firsts    map[LinkKey]heldback.Key // which file the first name of a group is
	at        string                   // the path of what is being restored

	rootOnly   int64  // owners, modes and attributes that a plain user's copy has not
	rootOnlyAt string // the first of them
	flags      []flagged
}

// Volume is what a restorer knows of the volume whose warm directory it restores into.
type Volume struct {
	Held     *heldback.Table
	Records  bool                             // warm takes records
	Trust    uint16                           // what they carry
	Restored bool                             // a commit was restored before: most of it is there
	Ignored  func(path string, dir bool) bool // by the rules: no commit has it, and it stays
	Step     func(failpoint string) error
}

// LinkKey identifies a hard-link group. Kind, content and device are part of it, so that names which cannot be the same
// file are never linked, whatever the repository says.
type LinkKey struct {
	group string
	kind  cold.Kind
	id    cold.ID
	rdev  uint64
}

// LinkKeyOf returns the group that an entry with a Link belongs to.
func LinkKeyOf(e *cold.Entry) LinkKey { return LinkKey{e.Link, e.Kind, e.ID, e.Rdev} }

// Run makes the directory behind rootFD what the snapshot says. want are paths from cold.CleanPaths; nil: everything.
func (r *Restorer) Run(ctx context.Context, rootFD int, want []string) error {
	r.RootFD, r.links = rootFD, map[LinkKey]string{}
	r.Owner = uint32(os.Geteuid())
	r.Times = warm.TimesOf(rootFD)
	root := r.Snap.Root()
	everything := !r.Lazy
	if r.Lazy {
		// The next commit lists all of a tree that a stock client committed. In other trees a directory that nobody
		// looks at needs no room.
		valid, err := r.valid(ctx, &root)
		if err != nil {
			return err
		}
		everything = !valid
	}
	if want == nil && everything {
		if err := r.fits(ctx, rootFD); err != nil {
			return err
		}
	}
	if r.Lazy {
		if done, err := r.lazyRoot(ctx, rootFD, &root); done || err != nil {
			return err
		}
	}
	clean, err := r.dir(ctx, rootFD, "", root.Dir(), want, 0)
	if err != nil {
		return err
	}
	if len(want) > 0 {
		return nil
	}
	return r.finishDir(rootFD, warm.ByFD(rootFD), &root, "", clean)
}

// fits refuses a commit that holds more files than the file system has room for, before the first is made: a small
// repository can describe more than any disk holds.
func (r *Restorer) fits(ctx context.Context, rootFD int) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(rootFD, &st); err != nil {
		return err
	}
	room := int64(1) << 32 // file systems that make inodes as they need them say 0
	switch {
	case st.Files > 0 && r.Vol != nil && r.Vol.Restored:
		room = int64(st.Files) // what is there already is not made again
	case st.Files > 0:
		room = int64(st.Ffree)
	}
	_, n, err := r.Snap.Files(ctx, room)
	r.total = n
	if err == nil && n > room {
		err = fmt.Errorf("commit %s holds more than the %d files that there is room for: %w", r.Snap.Info().ID, room,
			unix.ENOSPC)
	}
	return err
}

// fail notes that the path at cannot be restored and returns nil, or returns the error where it ends the restore.
func (r *Restorer) fail(at string, err error) error {
	err = fmt.Errorf("restore %q: %w", at, err)
	if !r.keepGoing || errors.Is(err, context.Canceled) || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return err
	}
	r.Log.Error(err)
	r.failures = append(r.failures, err)
	return nil
}

// dir makes the children of the directory behind fd, whose path is at, as far as want asks for them (nil: all). clean
// says that all of it is as the commit has it, so that it may be marked clean.
func (r *Restorer) dir(ctx context.Context, fd int, at string, id cold.DirID, want []string, depth int) (clean bool,
	err error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	if err := cold.TooDeepToWalk(at, depth); err != nil {
		return false, r.fail(at, err)
	}
	l, err := r.Snap.ReadDir(ctx, id)
	if err != nil {
		return false, r.fail(at, err)
	}
	for _, p := range l.Problems {
		r.Log.WithField("path", at).WithError(p).Warn("the repository describes this directory wrongly")
		if r.Problems++; r.Problems == 1 {
			r.First = fmt.Errorf("%q: %w", at, p)
		}
	}
	clean = !l.Reconciled && len(l.Problems) == 0
	if want == nil {
		if err := r.removeOthers(fd, at, l.Entries); err != nil {
			return false, err
		}
	}
	for i := range l.Entries {
		e := &l.Entries[i]
		below, _, skip := cold.Wanted(want, e.Name)
		if skip {
			continue
		}
		full := path.Join(at, e.Name)
		ok, err := r.entry(ctx, fd, full, e, below, depth)
		if err != nil {
			if r.links[LinkKeyOf(e)] == full {
				delete(r.links, LinkKeyOf(e)) // the next name of the group gets the content
			}
			if err := r.fail(full, err); err != nil {
				return false, err
			}
			ok = false
		}
		if e.Link != "" {
			ok = false // a directory that holds a name of a file with several is never clean
		}
		clean = clean && ok
	}
	return clean, nil
}

// removeOthers removes what the commit does not have in a directory: leftovers of the state before a fast-forward.
// Files that the rules ignore stay.
func (r *Restorer) removeOthers(fd int, at string, entries []cold.Entry) error {
	list, err := warm.ListNames(fd)
	if err != nil {
		return fmt.Errorf("list %q: %w", at, err)
	}
	if len(list) == 0 {
		return nil
	}
	for _, d := range list {
		_, ok := slices.BinarySearchFunc(entries, d.Name, func(e cold.Entry, name string) int {
			return strings.Compare(e.Name, name)
		})
		if !ok {
			if r.Vol != nil && r.Vol.Ignored(path.Join(at, d.Name), d.Mode == unix.S_IFDIR) {
				continue // no commit has it
			}
			if err := warm.RemoveTree(fd, d.Name); err != nil {
				return fmt.Errorf("remove %q: %w", path.Join(at, d.Name), err)
			}
		}
	}
	return nil
}

// Progress is called after each file with the number of files made so far, their bytes, and about how many files there
// are altogether, 0 where that is not known.
type Progress func(files, bytes, total int64)
