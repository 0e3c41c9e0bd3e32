package tiers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

// RestoreOptions say where and what Restore writes.
type RestoreOptions struct {
	To        string   // an existing, empty directory
	Paths     []string // what to restore, with everything below; none: all
	Untrusted bool     // no security.*, trusted.*, suid, sgid, devices or foreign owners
	Log       logrus.FieldLogger
	// Progress is told the totals so far, after each file; may be nil.
	Progress func(files, bytes int64)
}

// Restore writes an exact copy of a snapshot, or of parts of it, without a volume. Parents of a path given come with it. A
// file that cannot be restored is an error that names it; the others are restored all the same.
func Restore(ctx context.Context, snap Snapshot, cold Cold, o RestoreOptions) error {
	clearUmask()
	fd, err := unix.Open(o.To, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", o.To, err)
	}
	defer unix.Close(fd)
	list, err := listNames(fd)
	if err != nil {
		return fmt.Errorf("list %s: %w", o.To, err)
	}
	if len(list) > 0 {
		return fmt.Errorf("%s is not empty: restore into an empty directory", o.To)
	}
	r := &restorer{cold: cold, snap: snap, log: o.Log, untrusted: o.Untrusted, progress: o.Progress, keepGoing: true}
	if r.progress == nil {
		r.progress = func(int64, int64) {}
	}
	var want []string
	for _, p := range o.Paths {
		p = strings.Trim(path.Clean("/"+p), "/")
		if p == "" {
			want = nil
			break
		}
		want = append(want, p)
	}
	if err := r.run(ctx, fd, want); err != nil {
		return err
	}
	for _, p := range want {
		if !r.found[p] {
			r.failures = append(r.failures, fmt.Errorf("%s: not in commit %s", p, snap.Info().ID))
		}
	}
	dir, err := unix.Open(o.To, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	if err := unix.Syncfs(dir); err != nil {
		return fmt.Errorf("make %s durable: %w", o.To, err)
	}
	return errors.Join(r.failures...)
}

// restorer makes directories what a snapshot says. It is idempotent: what is there already and right stays.
type restorer struct {
	cold      Cold
	snap      Snapshot
	log       logrus.FieldLogger
	vol       *Volume // nil: a plain copy, without records
	untrusted bool
	keepGoing bool // collect failures instead of stopping at the first
	failures  []error
	progress  func(files, bytes int64)
	rootFD    int
	links     map[linkKey]string // path of the first name restored
	found     map[string]bool
	files     int64
	bytes     int64
	owner     uint32 // our own uid: a plain user can give nothing away
}

// linkKey is a hard-link group. What is not the same file cannot be in it, whatever the repository says.
type linkKey struct {
	group string
	kind  Kind
	id    ID
	rdev  uint64
}

func keyOf(e *Entry) linkKey { return linkKey{e.Link, e.Kind, e.ID, e.Rdev} }

// maxDepth bounds the recursion: Linux paths end at 4096 bytes, a hostile tree does not.
const maxDepth = 2048

func (r *restorer) run(ctx context.Context, rootFD int, want []string) error {
	r.rootFD, r.links, r.found = rootFD, map[linkKey]string{}, map[string]bool{}
	r.owner = uint32(os.Geteuid())
	root := r.snap.Root()
	clean, err := r.dir(ctx, rootFD, "", root.Dir(), want, 0)
	if err != nil {
		return err
	}
	if len(want) > 0 {
		return nil
	}
	return r.finishDir(rootFD, byFD(rootFD), &root, "", clean)
}

// fail notes a failure, or ends the restore with it.
func (r *restorer) fail(at string, err error) error {
	err = fmt.Errorf("restore %q: %w", at, err)
	if !r.keepGoing || errors.Is(err, context.Canceled) || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return err
	}
	r.log.Error(err)
	r.failures = append(r.failures, err)
	return nil
}

// wanted narrows the paths asked for to a child: skip says that it is none of them, and below lists what is wanted of it, nil for all.
func wanted(want []string, name string) (below []string, whole, skip bool) {
	if want == nil {
		return nil, false, false
	}
	for _, p := range want {
		first, rest, more := strings.Cut(p, "/")
		if first != name {
			continue
		}
		if !more {
			return nil, true, false
		}
		below = append(below, rest)
	}
	return below, false, below == nil
}

// dir makes the children of one directory: the function that will one day run on first access. It says whether all of it is as
// the commit has it, so that it may be marked clean.
func (r *restorer) dir(ctx context.Context, fd int, at string, id DirID, want []string, depth int) (clean bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	if depth > maxDepth {
		return false, r.fail(at, fmt.Errorf("more than %d levels deep", maxDepth))
	}
	l, err := r.snap.ReadDir(ctx, id)
	if err != nil {
		return false, r.fail(at, err)
	}
	for _, p := range l.Problems {
		r.log.WithField("path", at).WithError(p).Warn("the repository describes this directory wrongly")
	}
	clean = !l.Reconciled && len(l.Problems) == 0
	if want == nil {
		if err := r.removeOthers(fd, at, l.Entries); err != nil {
			return false, err
		}
	}
	for i := range l.Entries {
		e := &l.Entries[i]
		below, whole, skip := wanted(want, e.Name)
		if skip {
			continue
		}
		full := path.Join(at, e.Name)
		if whole {
			r.found[full] = true
		}
		ok, err := r.entry(ctx, fd, full, e, below, depth)
		if err != nil {
			if r.links[keyOf(e)] == full {
				delete(r.links, keyOf(e)) // the next name of the group gets the content
			}
			if err := r.fail(full, err); err != nil {
				return false, err
			}
			ok = false
		}
		if e.Link != "" {
			ok = false // never clean
		}
		clean = clean && ok
	}
	return clean, nil
}

// removeOthers takes away what the commit does not have: leftovers of the state before a fast-forward.
func (r *restorer) removeOthers(fd int, at string, entries []Entry) error {
	list, err := listNames(fd)
	if err != nil {
		return fmt.Errorf("list %q: %w", at, err)
	}
	if len(list) == 0 {
		return nil
	}
	for _, d := range list {
		_, ok := slices.BinarySearchFunc(entries, d.Name, func(e Entry, name string) int { return strings.Compare(e.Name, name) })
		if !ok {
			if err := removeTree(fd, d.Name); err != nil {
				return fmt.Errorf("remove %q: %w", path.Join(at, d.Name), err)
			}
		}
	}
	return nil
}

// removeTree removes name and all below it, never following a symlink.
func removeTree(dirfd int, name string) error {
	err := unix.Unlinkat(dirfd, name, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM) {
		return err
	}
	fd, err := openAt(dirfd, name, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	list, err := listNames(fd)
	if err != nil {
		return err
	}
	for _, d := range list {
		if err := removeTree(fd, d.Name); err != nil {
			return err
		}
	}
	return unix.Unlinkat(dirfd, name, unix.AT_REMOVEDIR)
}

// entry restores one entry of the directory behind fd.
func (r *restorer) entry(ctx context.Context, fd int, at string, e *Entry, want []string, depth int) (clean bool, err error) {
	var st unix.Statx_t
	exists := statAt(fd, e.Name, &st) == nil
	if exists && kindOf(uint32(st.Mode)) != e.Kind {
		if err := removeTree(fd, e.Name); err != nil {
			return false, err
		}
		exists = false
	}
	switch e.Kind {
	case KindDir:
		return r.subdir(ctx, fd, at, e, exists, want, depth)
	case KindFile:
		return r.file(ctx, fd, at, e, exists, &st)
	}
	if (e.Kind == KindChar || e.Kind == KindBlock) && r.untrusted {
		r.log.WithField("path", at).Warn("device not restored: the source is not trusted")
		return false, nil
	}
	if exists {
		if err := unix.Unlinkat(fd, e.Name, 0); err != nil {
			return false, err
		}
	}
	if done, err := r.link(fd, at, e); done || err != nil {
		return true, err
	}
	if e.Kind == KindSymlink {
		err = unix.Symlinkat(e.Target, fd, e.Name)
	} else {
		err = unix.Mknodat(fd, e.Name, e.Kind.format()|e.Mode&0777, int(e.Rdev))
	}
	if err != nil {
		return false, err
	}
	r.count(0)
	return true, r.attrs(fd, e.Name, e)
}

func (r *restorer) subdir(ctx context.Context, fd int, at string, e *Entry, exists bool, want []string, depth int) (bool, error) {
	if exists && r.vol != nil && want == nil {
		if rec, ok := r.record(fd, e.Name); ok && rec.has(recDir|recClean) && e.Dir() == (DirID{Tree: rec.id, Meta: rec.meta}) {
			return true, r.attrs(fd, e.Name, e) // as the commit has it, all the way down
		}
	}
	if !exists {
		if err := unix.Mkdirat(fd, e.Name, 0700); err != nil {
			return false, err
		}
	}
	sub, err := openAt(fd, e.Name, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return false, err
	}
	defer unix.Close(sub)
	clean, err := r.dir(ctx, sub, at, e.Dir(), want, depth+1)
	if err != nil {
		return false, err
	}
	r.count(0)
	return clean, r.finishDir(sub, byName(fd, e.Name), e, at, clean)
}

// finishDir sets a directory's attributes once its children are there, and its record last.
func (r *restorer) finishDir(sub int, at xattrTarget, e *Entry, name string, clean bool) error {
	if err := r.attrsOf(sub, at, e); err != nil {
		return fmt.Errorf("attributes of %q: %w", name, err)
	}
	if r.vol == nil || !r.vol.records {
		return nil
	}
	var st unix.Statx_t
	if err := statAt(sub, "", &st); err != nil {
		return err
	}
	rec := record{flags: recDir | recCtime, mtime: timeOf(st.Mtime), ctime: timeOf(st.Ctime)}
	if clean {
		rec.flags |= recClean
		rec.id, rec.meta = e.ID, e.Meta
	}
	return r.putRecord(at, rec)
}

func (r *restorer) putRecord(at xattrTarget, rec record) error {
	rec.trust = r.vol.trust
	err := at.set(recordName, rec.encode(make([]byte, 0, recordMax)), 0)
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return nil // present and dirty: the next commit compares it
	}
	return err
}

func (r *restorer) record(fd int, name string) (record, bool) {
	if !r.vol.records {
		return record{}, false
	}
	var buf [recordMax + 1]byte
	n, err := byName(fd, name).get(recordName, buf[:])
	if err != nil {
		return record{}, false
	}
	rec, ok := decodeRecord(buf[:n])
	return rec, ok && rec.trust == r.vol.trust
}

// file restores a regular file: content, owner, mode, attributes, times, record, in an order in which each survives the next.
func (r *restorer) file(ctx context.Context, fd int, at string, e *Entry, exists bool, st *unix.Statx_t) (bool, error) {
	if exists {
		if r.vol != nil && st.Nlink == 1 && e.Link == "" {
			rec, ok := r.record(fd, e.Name)
			if ok && rec.has(recClean) && rec.id == e.ID && rec.size == int64(st.Size) && rec.mtime == timeOf(st.Mtime) {
				if err := r.attrs(fd, e.Name, e); err != nil {
					return false, err
				}
				rec.mtime, rec.flags = e.Mtime, rec.flags&^recCtime
				return true, r.putRecord(byName(fd, e.Name), rec)
			}
		}
		if err := unix.Unlinkat(fd, e.Name, 0); err != nil {
			return false, err
		}
	}
	if done, err := r.link(fd, at, e); done || err != nil {
		return true, err
	}
	blob, err := r.cold.Open(ctx, e.ID, e.Size)
	if err != nil {
		return false, err
	}
	defer blob.Close()
	f, err := openAt(fd, e.Name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0600)
	if err != nil {
		return false, err
	}
	defer unix.Close(f)
	size, err := writeSparse(ctx, f, blob)
	if err == nil && size != e.Size {
		err = fmt.Errorf("%w: %d bytes, the metadata says %d", ErrCorrupt, size, e.Size)
	}
	if err == nil {
		err = r.attrsOf(f, byName(fd, e.Name), e)
	}
	if err != nil {
		return false, errors.Join(err, unix.Unlinkat(fd, e.Name, 0))
	}
	r.count(size)
	if r.vol == nil || !r.vol.records {
		return true, nil
	}
	var now unix.Statx_t
	if err := statAt(f, "", &now); err != nil {
		return false, err
	}
	return true, r.putRecord(byName(fd, e.Name), record{
		flags: recClean | recCtime, id: e.ID, size: e.Size, mtime: timeOf(now.Mtime), ctime: timeOf(now.Ctime),
	})
}

// link makes e another name of a file of its group that is there already.
func (r *restorer) link(fd int, at string, e *Entry) (done bool, err error) {
	if e.Link == "" {
		return false, nil
	}
	first, ok := r.links[keyOf(e)]
	if !ok {
		r.links[keyOf(e)] = at
		return false, nil
	}
	old, err := openAt(r.rootFD, first, unix.O_PATH, 0)
	if err != nil {
		return false, fmt.Errorf("other name %q of the same file: %w", first, err)
	}
	defer unix.Close(old)
	if err := unix.Linkat(unix.AT_FDCWD, fdPath(old), fd, e.Name, unix.AT_SYMLINK_FOLLOW); err != nil {
		if errors.Is(err, unix.EMLINK) {
			delete(r.links, keyOf(e))
			return false, nil
		}
		return false, err
	}
	r.count(0)
	return true, nil
}

// attrs sets the attributes of name in the directory behind fd.
func (r *restorer) attrs(fd int, name string, e *Entry) error {
	f, err := openAt(fd, name, unix.O_PATH, 0)
	if err != nil {
		return err
	}
	defer unix.Close(f)
	return r.attrsOf(f, byName(fd, name), e)
}

// attrsOf sets owner, mode, xattrs and mtime in the order in which none undoes another: chown clears suid, an ACL changes the
// mode, everything but the mtime itself changes the mtime of nothing.
func (r *restorer) attrsOf(f int, at xattrTarget, e *Entry) error {
	if r.owner == 0 && !r.untrusted {
		if err := unix.Fchownat(f, "", int(e.UID), int(e.GID), unix.AT_EMPTY_PATH); err != nil {
			return fmt.Errorf("chown to %d:%d: %w", e.UID, e.GID, err)
		}
	}
	mode := e.Mode
	if r.untrusted {
		mode &^= unix.S_ISUID | unix.S_ISGID
	}
	if e.Kind != KindSymlink {
		if err := unix.Chmod(fdPath(f), mode); err != nil {
			return fmt.Errorf("chmod %o: %w", mode, err)
		}
	}
	if err := r.xattrs(at, e); err != nil {
		return err
	}
	if e.Kind != KindSymlink && len(e.Xattrs) > 0 {
		if err := unix.Chmod(fdPath(f), mode); err != nil { // an ACL may have changed the mode
			return fmt.Errorf("chmod %o: %w", mode, err)
		}
	}
	ts := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, e.Mtime.timespec()}
	if err := utimens(f, ts); err != nil {
		return fmt.Errorf("set the mtime: %w", err)
	}
	return nil
}

// xattrs makes the extended attributes what e says.
func (r *restorer) xattrs(at xattrTarget, e *Entry) error {
	have, err := at.all()
	if err != nil {
		return err
	}
	for _, x := range have {
		if !slices.ContainsFunc(e.Xattrs, func(y Xattr) bool { return x.Name == y.Name }) {
			if err := at.remove(x.Name); err != nil && !errors.Is(err, unix.ENODATA) {
				return fmt.Errorf("remove attribute %s: %w", x.Name, err)
			}
		}
	}
	for _, x := range e.Xattrs {
		if reservedXattr(x.Name) {
			continue
		}
		guarded := strings.HasPrefix(x.Name, "security.") || strings.HasPrefix(x.Name, "trusted.")
		if guarded && (r.untrusted || r.owner != 0) {
			continue
		}
		if err := at.set(x.Name, x.Value, 0); err != nil {
			return fmt.Errorf("set attribute %s: %w", x.Name, err)
		}
	}
	return nil
}

func (r *restorer) count(bytes int64) {
	r.files++
	r.bytes += bytes
	r.progress(r.files, r.bytes)
}

// writeSparse copies blob to f, leaving holes where it has whole pages of zeros, and returns its length.
func writeSparse(ctx context.Context, f int, blob Blob) (int64, error) {
	const page = 4 << 10
	buf := make([]byte, 256<<10)
	var off int64
	for {
		if err := ctx.Err(); err != nil {
			return off, err
		}
		n, err := readFull(blob, buf)
		for start := 0; start < n; {
			stop := min(start+page, n)
			zero := stop-start == page && allZero(buf[start:stop])
			for stop < n {
				next := min(stop+page, n)
				if (next-stop == page && allZero(buf[stop:next])) != zero {
					break
				}
				stop = next
			}
			if !zero {
				if _, err := pwriteFull(f, buf[start:stop], off+int64(start)); err != nil {
					return off, err
				}
			}
			start = stop
		}
		off += int64(n)
		if err != nil {
			if errors.Is(err, io.EOF) {
				return off, unix.Ftruncate(f, off)
			}
			return off, err
		}
	}
}

var zeros [4 << 10]byte

func allZero(p []byte) bool { return string(p) == string(zeros[:len(p)]) }

// readFull fills p as far as the reader goes: n < len(p) only with an error, io.EOF at the end.
func readFull(r io.Reader, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var m int
		m, err = r.Read(p[n:])
		n += m
	}
	return n, err
}
