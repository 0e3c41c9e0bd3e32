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

// View reads what a volume's directory holds now, beside a daemon or without one, and writes nothing. What records say
// is believed as far as the next start would believe it, so looking for changes costs what changed. Safe for concurrent
// use.
type View struct {
	fd      int
	trust   uint16 // as the next start would have it
	records bool   // there are records at all
	rules   *rules.Set
	opened  cold.Time

	cold   ViewCold
	origin string // the commit that lazy directories are of; "": the branch's tip
	commit viewCommit
	held   *heldback.Table
}

// OpenView opens the directory of the volume whose state directory is given. cold is the volume's: the caller closes
// it.
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
		w.trust = max(1, w.trust+1) // what no record has yet
	}
	if w.held, _, err = heldback.OpenState(state, fd, nil); err != nil {
		unix.Close(fd)
		return nil, err
	}
	var buf [warm.RecordMax + 1]byte
	_, err = warm.ByFD(fd).Get(warm.RecordAttr, buf[:])
	w.records = err == nil // the root has one as soon as there are any
	return w, nil
}

// Close lets go of the directory.
func (w *View) Close() error { return errors.Join(w.held.Close(), unix.Close(w.fd)) }

// Root is the root's entry; its ids are zero unless everything is as a commit has it.
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

// fill completes an entry with what is held back of it: commits have it.
func (w *View) fill(e *cold.Entry, st *unix.Statx_t) error {
	h, err := heldback.Holding(w.held, heldback.KeyOf(st))
	h.Fill(e)
	return err
}

// look stats a name and reads its record as far as it is believed: both of one moment, although a daemon may take bytes
// away, or bring them, between the two.
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

// known completes an entry with what its record knows.
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

// List lists the directory at a slash path; dir is its entry, or nil. What goes away meanwhile is left out. A directory
// whose children are not made yet is listed as cold has it, and stays as it is.
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
	case !ok && inCold(dir): // just being made
		return w.listCold(ctx, dir.Dir())
	}
	names, err := warm.ListNames(fd)
	if err != nil {
		return cold.Listing{}, fmt.Errorf("list directory: %w", err)
	}
	var l cold.Listing
	for _, d := range names {
		if w.rules.Decide(pathpkg.Join(at, d.Name), d.Mode == unix.S_IFDIR).Ignored() {
			continue // no commit is to have it
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

// open opens what is at a slash path, however deep it lies.
func (w *View) open(at string, flags int) (int, error) {
	if at == "" {
		at = "."
	}
	const step = 3 << 10 // bytes of a path that the kernel takes for certain
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

// Invented says that an mtime is none: never, here.
func (w *View) Invented(*cold.Entry) bool { return false }

// Surely says that equal size and mtime are proof of equal content: where there are no records nothing better is to be
// had, and a file changed within the last tick may be caught all the same.
func (w *View) Surely(mtime cold.Time) bool { return !w.records && mtime.Sec < w.opened.Sec-1 }
