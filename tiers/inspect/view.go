package inspect

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	pathpkg "path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/heldback"
	"emberfs/tiers/rules"
	"emberfs/tiers/warm"
)

// View reads what a volume's directory holds now, with or without a daemon beside it, and writes nothing. Records are
// believed as far as the next start would believe them, so the cost of looking for changes depends on what changed. It
// is safe for concurrent use.
type View struct {
	fd      int
	trust   uint16 // the trust number of the next start
	records bool   // the volume has records
	rules   *rules.Set
	opened  cold.Time

	cold   ViewCold
	origin string // the commit that lazy directories are listed from; "": the branch's tip
	commit viewCommit
	held   *heldback.Table
}

// OpenView opens the directory of the volume with the given state directory. repo is the volume's repository; the
// caller closes it.
func OpenView(state string, repo ViewCold) (*View, error) {
	if _, err := os.Stat(filepath.Join(state, warm.StateName)); err != nil {
		return nil, fmt.Errorf("%s is no volume's state: %w", state, err)
	}
	s, err := warm.LoadState(state)
	if err != nil {
		return nil, err
	}
	boot, err := warm.BootID()
	if err != nil {
		return nil, err
	}
	path := filepath.Join(state, warm.DirName)
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	set, err := rules.ReadEffective(state)
	if err == nil {
		if err = s.ProveWarm(fd); err != nil {
			err = fmt.Errorf("%s: %w", state, err)
		}
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	w := &View{rules: set, fd: fd, trust: s.Trust, opened: cold.Time{Sec: time.Now().Unix()}, cold: repo,
		origin: s.Origin}
	if s.Boot != boot && !s.Clean {
		w.trust = max(1, w.trust+1) // a number that no record has yet
	}
	if w.held, _, err = heldback.OpenState(state, fd, nil); err != nil {
		unix.Close(fd)
		return nil, err
	}
	var buf [warm.RecordMax + 1]byte
	_, err = warm.ByFD(fd).Get(warm.RecordAttr, buf[:])
	w.records = err == nil // if there are records at all, the root has one
	return w, nil
}

// Close closes the directory.
func (w *View) Close() error { return errors.Join(w.held.Close(), unix.Close(w.fd)) }

// Root returns the root's entry. Its ids are zero unless everything is as in a commit.
func (w *View) Root() (cold.Entry, error) {
	var st unix.Statx_t
	r, err := w.look(w.fd, "", warm.ByFD(w.fd), &st)
	if err != nil {
		return cold.Entry{}, err
	}
	e := warm.EntryOf("", &st)
	if e.Xattrs, err = warm.ByFD(w.fd).All(); err != nil {
		return cold.Entry{}, err
	}
	known(&e, &r)
	return e, w.fill(&e, &st)
}

// fill completes an entry with what is held back of it, as commits have it.
func (w *View) fill(e *cold.Entry, st *unix.Statx_t) error {
	h, err := heldback.Holding(w.held, heldback.KeyOf(st))
	h.Fill(e)
	return err
}

// look returns the stat data of a name, and its record as far as it is believed. It makes sure that both are of the
// same moment, although a daemon may release or recall bytes in between.
func (w *View) look(fd int, name string, at warm.XattrTarget, st *unix.Statx_t) (r warm.Record, err error) {
	const tries = 3
	for range tries {
		if err := warm.StatAt(fd, name, st); err != nil {
			return warm.Record{}, err
		}
		kind := warm.KindOf(uint32(st.Mode))
		if kind != cold.KindFile && kind != cold.KindDir {
			return warm.Record{}, nil
		}
		found, ok := warm.ReadRecord(at)
		if !ok {
			return warm.Record{}, nil
		}
		if r = found.Believed(w.trust, kind == cold.KindDir, st); r.IsStub() || r.Has(warm.FlagLazy) ||
			r.Mtime == warm.TimeOf(st.Mtime) {
			break
		}
	}
	return r, nil
}

// known completes an entry with what its record says.
func known(e *cold.Entry, r *warm.Record) {
	switch {
	case e.Kind == cold.KindDir:
		e.Size = 0
		if r.Has(warm.FlagLazy) {
			e.Mtime = r.Mtime
		}
		if r.Has(warm.FlagLazy) || r.Has(warm.FlagClean) {
			e.ID, e.Meta = r.ID, r.Meta
		}
	case e.Kind != cold.KindFile:
	case r.IsStub():
		e.ID, e.Mtime, e.Holes = r.ID, r.Mtime, cold.HolesOf(r.Size, r.Blocks)
	case r.Has(warm.FlagClean) && r.Size == e.Size && r.Mtime == e.Mtime:
		e.ID = r.ID
		if r.Has(warm.FlagBlocks) {
			e.Holes = cold.HolesOf(r.Size, r.Blocks)
		}
	}
}

// List lists the directory at a slash path; dir is its entry, or nil. What vanishes meanwhile is left out. A lazy
// directory is listed from cold, and stays lazy.
func (w *View) List(ctx context.Context, at string, dir *cold.Entry) (cold.Listing, error) {
	fd, err := w.open(at, unix.O_PATH|unix.O_DIRECTORY)
	if gone := errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR); gone && inCold(dir) {
		return w.listCold(ctx, dir.Dir())
	} else if gone {
		return cold.Listing{}, nil
	}
	if err != nil {
		return cold.Listing{}, fmt.Errorf("open directory: %w", err)
	}
	defer unix.Close(fd)
	r, ok := warm.ReadRecord(warm.ByFD(fd))
	switch {
	case ok && r.Has(warm.FlagDir|warm.FlagLazy):
		return w.listCold(ctx, cold.DirID{Tree: r.ID, Meta: r.Meta})
	case !ok && inCold(dir): // the daemon is making it
		return w.listCold(ctx, dir.Dir())
	}
	names, err := warm.ListNames(fd)
	if err != nil {
		return cold.Listing{}, fmt.Errorf("list directory: %w", err)
	}
	var l cold.Listing
	for _, d := range names {
		if w.rules.Decide(pathpkg.Join(at, d.Name), d.Mode == unix.S_IFDIR).Ignored() {
			continue // the rules keep it out of commits
		}
		if err := ctx.Err(); err != nil {
			return cold.Listing{}, err
		}
		e, err := w.entry(fd, d.Name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return cold.Listing{}, fmt.Errorf("entry %q: %w", d.Name, err)
		default:
			l.Entries = append(l.Entries, e)
		}
	}
	slices.SortFunc(l.Entries, func(a, b cold.Entry) int { return strings.Compare(a.Name, b.Name) })
	return l, nil
}

func (w *View) entry(fd int, name string) (cold.Entry, error) {
	var st unix.Statx_t
	r, err := w.look(fd, name, warm.ByName(fd, name), &st)
	if err != nil {
		return cold.Entry{}, err
	}
	e := warm.EntryOf(name, &st)
	if e.Xattrs, err = warm.ByName(fd, name).All(); err != nil {
		return cold.Entry{}, err
	}
	if st.Nlink > 1 && e.Kind != cold.KindDir {
		e.Link = cold.InodeGroup + strconv.FormatUint(st.Ino, 10)
	}
	switch e.Kind {
	case cold.KindSymlink:
		to, err := warm.ReadlinkAt(fd, name)
		if err != nil {
			return cold.Entry{}, err
		}
		e.Target, e.Size = string(to), int64(len(to))
	case cold.KindFile, cold.KindDir:
		known(&e, &r)
	default:
		e.Size = 0
	}
	return e, w.fill(&e, &st)
}

// open opens what is at a slash path of any length.
func (w *View) open(at string, flags int) (int, error) {
	if at == "" {
		at = "."
	}
	const step = 3 << 10 // a length of path that the kernel accepts in any case
	dir := w.fd
	for len(at) > step {
		cut := strings.LastIndexByte(at[:step], '/')
		if cut < 0 {
			break
		}
		next, err := warm.OpenAt(dir, at[:cut], unix.O_PATH|unix.O_DIRECTORY, 0)
		if dir != w.fd {
			unix.Close(dir)
		}
		if err != nil {
			return -1, err
		}
		dir, at = next, at[cut+1:]
	}
	fd, err := warm.OpenAt(dir, at, flags, 0)
	if dir != w.fd {
		unix.Close(dir)
	}
	return fd, err
}

// Invented implements log.Side. Here no mtime is made up.
func (w *View) Invented(*cold.Entry) bool { return false }

// Surely reports whether equal size and mtime prove equal content. Without records there is nothing better to go by; an
// mtime close to when the view was opened proves nothing, because the file may have changed again within the same tick.
func (w *View) Surely(mtime cold.Time) bool { return !w.records && mtime.Sec < w.opened.Sec-1 }
