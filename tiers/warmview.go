package tiers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// InodeGroup begins the names that a WarmView gives to hard-link groups: a directory knows inodes, not the groups of commits.
const InodeGroup = "inode:"

// WarmView reads what a volume's directory holds now, beside a daemon or without one, and writes nothing. What records say is
// believed as far as the next start would believe it, so looking for changes costs what changed. Safe for concurrent use.
type WarmView struct {
	fd      int
	trust   uint16
	trusted bool // records are more than hints
	records bool // there are records at all
	opened  Time
}

// OpenWarmView opens the directory of the volume whose state directory is given.
func OpenWarmView(state string) (*WarmView, error) {
	if _, err := os.Stat(filepath.Join(state, stateName)); err != nil {
		return nil, fmt.Errorf("%s is no volume's state: %w", state, err)
	}
	s, err := loadState(state)
	if err != nil {
		return nil, err
	}
	boot, err := BootID()
	if err != nil {
		return nil, err
	}
	path := filepath.Join(state, warmName)
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	w := &WarmView{fd: fd, trust: s.Trust, trusted: s.Boot == boot || s.Clean, opened: Time{Sec: time.Now().Unix()}}
	var buf [recordMax + 1]byte
	_, err = byFD(fd).get(recordName, buf[:])
	w.records = err == nil // the root has one as soon as there are any
	return w, nil
}

// Close lets go of the directory.
func (w *WarmView) Close() error { return unix.Close(w.fd) }

// Root is the root's entry; its ids are zero unless everything is as a commit has it.
func (w *WarmView) Root() (Entry, error) {
	var st unix.Statx_t
	if err := statAt(w.fd, "", &st); err != nil {
		return Entry{}, err
	}
	e := entryOf("", &st)
	var err error
	if e.Xattrs, err = byFD(w.fd).all(); err != nil {
		return Entry{}, err
	}
	w.fromRecord(byFD(w.fd), &st, &e)
	return e, nil
}

// fromRecord completes e with what its record knows.
func (w *WarmView) fromRecord(at xattrTarget, st *unix.Statx_t, e *Entry) {
	if e.Kind == KindDir {
		e.Size = 0
	}
	if e.Kind != KindFile && e.Kind != KindDir {
		return
	}
	var buf [recordMax + 1]byte
	n, err := at.get(recordName, buf[:])
	if err != nil {
		return
	}
	r, ok := decodeRecord(buf[:n])
	if !ok || !w.trusted || r.trust != w.trust || !r.has(recClean) || r.has(recDir) != (e.Kind == KindDir) {
		return
	}
	if e.Kind == KindDir {
		e.ID, e.Meta = r.id, r.meta
	} else if r.size == int64(st.Size) && r.mtime == timeOf(st.Mtime) {
		e.ID = r.id
	}
}

// List lists the directory at a slash path. What goes away meanwhile is left out.
func (w *WarmView) List(ctx context.Context, at string, _ *Entry) (Listing, error) {
	fd, err := w.open(at, unix.O_PATH|unix.O_DIRECTORY)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return Listing{}, nil
	}
	if err != nil {
		return Listing{}, fmt.Errorf("open directory: %w", err)
	}
	defer unix.Close(fd)
	names, err := listNames(fd)
	if err != nil {
		return Listing{}, fmt.Errorf("list directory: %w", err)
	}
	var l Listing
	for _, d := range names {
		if err := ctx.Err(); err != nil {
			return Listing{}, err
		}
		e, err := w.entry(fd, d.Name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return Listing{}, fmt.Errorf("entry %q: %w", d.Name, err)
		default:
			l.Entries = append(l.Entries, e)
		}
	}
	slices.SortFunc(l.Entries, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
	return l, nil
}

func (w *WarmView) entry(fd int, name string) (Entry, error) {
	var st unix.Statx_t
	if err := statAt(fd, name, &st); err != nil {
		return Entry{}, err
	}
	e := entryOf(name, &st)
	var err error
	if e.Xattrs, err = byName(fd, name).all(); err != nil {
		return Entry{}, err
	}
	if st.Nlink > 1 && e.Kind != KindDir {
		e.Link = InodeGroup + strconv.FormatUint(st.Ino, 10)
	}
	switch e.Kind {
	case KindSymlink:
		to, err := readlinkAt(fd, name)
		if err != nil {
			return Entry{}, err
		}
		e.Target, e.Size = string(to), int64(len(to))
	case KindFile, KindDir:
		w.fromRecord(byName(fd, name), &st, &e)
	default:
		e.Size = 0
	}
	return e, nil
}

// open opens what is at a slash path, however deep it lies.
func (w *WarmView) open(at string, flags int) (int, error) {
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
		next, err := openAt(dir, at[:cut], unix.O_PATH|unix.O_DIRECTORY, 0)
		if dir != w.fd {
			unix.Close(dir)
		}
		if err != nil {
			return -1, err
		}
		dir, at = next, at[cut+1:]
	}
	fd, err := openAt(dir, at, flags, 0)
	if dir != w.fd {
		unix.Close(dir)
	}
	return fd, err
}

// Open opens a file for reading.
func (w *WarmView) Open(_ context.Context, at string, _ *Entry) (io.ReadCloser, error) {
	fd, err := w.open(at, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	var st unix.Statx_t
	if err := statAt(fd, "", &st); err != nil || kindOf(uint32(st.Mode)) != KindFile {
		return nil, errors.Join(errNotAFile, err, unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), at), nil
}

// Invented says that an mtime is none: never, here.
func (w *WarmView) Invented(*Entry) bool { return false }

// Surely says that equal size and mtime are proof of equal content: where there are no records nothing better is to be had,
// and a file changed within the last tick may be caught all the same.
func (w *WarmView) Surely(mtime Time) bool { return !w.records && mtime.Sec < w.opened.Sec-1 }
