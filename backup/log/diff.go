package log

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"emberfs/backup/format"
	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

// Side is one side of a Diff: a snapshot (Reader.Side), or the present content of a volume's directory (inspect.View).
type Side interface {
	Root() (cold.Entry, error)
	// List lists the directory dir, which is at the slash path at. An entry has no ID if its content is not known to be
	// that of an object, or, if it is a directory, not known to be in a commit.
	List(ctx context.Context, at string, dir *cold.Entry) (cold.Listing, error)
	// Open opens the file e, which is at the path at.
	Open(ctx context.Context, at string, e *cold.Entry) (io.ReadCloser, error)
	// Invented reports whether an entry's mtime is made up, because whoever made the commit did not record it.
	Invented(e *cold.Entry) bool
	// Surely reports whether equal size and mtime have to do as proof of equal content, because there is nothing better
	// to go by.
	Surely(mtime cold.Time) bool
}

// Status says what happened to a path, as one letter.
type Status byte

const (
	Added    Status = 'A'
	Deleted  Status = 'D'
	Modified Status = 'M' // content, target of a symlink, number of a device
	Retyped  Status = 'T'
	Metadata Status = 'm' // only mode, owner, mtime, xattrs or hard links
)

// Change is one difference.
type Change struct {
	Path     string // slash path; "" for the root
	Status   Status
	Old, New *cold.Entry // nil if there is none on that side
	// Fields names what differs if the path is on both sides: type, content, size, target, rdev, mode, owner, mtime,
	// xattrs, link.
	Fields []string
}

// DiffOptions narrow a Diff.
type DiffOptions struct {
	Paths []string // only these paths and what is below them; empty: everything
	// Problem, if not nil, is called with what the repository describes wrongly.
	Problem func(at string, err error)
}

// Diff calls visit for each difference between from and to, in the order of a walk: a directory before its content,
// names sorted bytewise. It looks into directories only if their ids differ, and reads content only if an id is not
// known. The mtime of a directory is ignored if names or files in it changed, because then it tells nothing new.
// Directories that cannot be read are errors, joined at the end. An error of visit ends the Diff at once.
func Diff(ctx context.Context, from, to Side, o DiffOptions, visit func(Change) error) error {
	d := comparison{ctx: ctx, from: from, to: to, problem: o.Problem, visit: visit, groups: map[string]string{},
		inodes: map[string]string{}}
	if d.problem == nil {
		d.problem = func(string, error) {}
	}
	a, err := root(from)
	if err != nil {
		return err
	}
	b, err := root(to)
	if err != nil {
		return err
	}
	if err := d.dirs("", a, b, cold.CleanPaths(o.Paths), 0); err != nil {
		return err
	}
	return errors.Join(d.failed...)
}

// root returns a side's root, or nil for an empty volume.
func root(s Side) (*cold.Entry, error) {
	if _, ok := s.(nothing); ok {
		return nil, nil
	}
	e, err := s.Root()
	return &e, err
}

type comparison struct {
	ctx      context.Context
	from, to Side
	problem  func(string, error)
	visit    func(Change) error
	failed   []error
	// Hard-link groups of one side by those of the other, if their names differ.
	groups map[string]string
	inodes map[string]string
}

// maxFailures is how many errors are collected.
const maxFailures = 100

// fail records an error, or returns it if it ends everything.
func (d *comparison) fail(at string, err error) error {
	if cerr := d.ctx.Err(); cerr != nil {
		return cerr
	}
	if len(d.failed) < maxFailures {
		d.failed = append(d.failed, fmt.Errorf("%q: %w", at, err))
	}
	return nil
}

// pair is a name in one or both of the two directories.
type pair struct {
	a, b   *cold.Entry
	want   []string // what is wanted below it; nil: everything
	status Status   // set if it is not a directory on either side
	fields []string
}

// list lists a directory of one side. A nil dir has no entries.
func (d *comparison) list(s Side, at string, dir *cold.Entry) ([]cold.Entry, error) {
	if dir == nil {
		return nil, nil
	}
	l, err := s.List(d.ctx, at, dir)
	for _, p := range l.Problems {
		d.problem(at, p)
	}
	return l.Entries, err
}

// dirs compares two directories. If one is nil, everything in the other is new, or gone.
func (d *comparison) dirs(at string, a, b *cold.Entry, want []string, depth int) error {
	if err := d.ctx.Err(); err != nil {
		return err
	}
	if err := cold.TooDeepToWalk(at, depth); err != nil {
		return d.fail(at, err)
	}
	var fields []string
	both := a != nil && b != nil
	if both {
		fields = d.fields(a, b)
		if !a.Dir().Tree.IsZero() && a.Dir() == b.Dir() {
			return d.tell(Change{Path: at, Status: Metadata, Old: a, New: b, Fields: fields}, want)
		}
	}
	old, err := d.list(d.from, at, a)
	if err != nil {
		return d.fail(at, err)
	}
	now, err := d.list(d.to, at, b)
	if err != nil {
		return d.fail(at, err)
	}
	pairs, direct, err := d.pairs(at, old, now, want)
	if err != nil {
		return err
	}
	if both {
		if direct || d.from.Invented(a) || d.to.Invented(b) {
			fields = slices.DeleteFunc(fields, func(f string) bool { return f == "mtime" })
		}
		if err := d.tell(Change{Path: at, Status: Metadata, Old: a, New: b, Fields: fields}, want); err != nil {
			return err
		}
	}
	for i := range pairs {
		if err := d.pair(at, &pairs[i], depth); err != nil {
			return err
		}
	}
	return nil
}

// tell reports a change of metadata if there is one, and if the path itself was asked for, not only something below it.
func (d *comparison) tell(c Change, want []string) error {
	if want != nil || len(c.Fields) == 0 {
		return nil
	}
	return d.visit(c)
}

// pairs joins two listings by name. direct says that a name was added or removed, or that something other than a
// directory changed.
func (d *comparison) pairs(at string, old, now []cold.Entry, want []string) (out []pair, direct bool, err error) {
	for len(old) > 0 || len(now) > 0 {
		var p pair
		order := 0
		if len(old) > 0 && len(now) > 0 {
			order = strings.Compare(old[0].Name, now[0].Name)
		}
		var name string
		if len(now) == 0 || len(old) > 0 && order <= 0 {
			p.a, old, name = &old[0], old[1:], old[0].Name
		}
		if p.a == nil || len(now) > 0 && order == 0 && now[0].Name == name {
			p.b, now, name = &now[0], now[1:], now[0].Name
		}
		below, _, skip := cold.Wanted(want, name)
		if skip {
			direct = direct || p.a == nil || p.b == nil
			continue
		}
		p.want = below
		if p.a != nil && p.b != nil && p.a.Kind == p.b.Kind && p.a.Kind != cold.KindDir {
			p.fields = d.fields(p.a, p.b)
			differs, err := d.content(path.Join(at, name), p.a, p.b)
			if err != nil {
				if err := d.fail(path.Join(at, name), err); err != nil {
					return nil, false, err
				}
			}
			switch {
			case differs:
				p.fields = append(what(p.a, p.b), p.fields...)
				p.status = Modified
			case len(p.fields) > 0:
				p.status = Metadata
			}
			direct = direct || p.status != 0
		} else if p.a == nil || p.b == nil || p.a.Kind != p.b.Kind {
			direct = true
		}
		out = append(out, p)
	}
	return out, direct, nil
}

// pair reports one name and what is below it.
func (d *comparison) pair(at string, p *pair, depth int) error {
	c := Change{Status: p.status, Old: p.a, New: p.b, Fields: p.fields}
	var a, b *cold.Entry // the entries that are directories
	if p.a != nil {
		c.Path = path.Join(at, p.a.Name)
		if p.a.Kind == cold.KindDir {
			a = p.a
		}
	}
	if p.b != nil {
		c.Path = path.Join(at, p.b.Name)
		if p.b.Kind == cold.KindDir {
			b = p.b
		}
	}
	switch {
	case a != nil && b != nil:
		return d.dirs(c.Path, a, b, p.want, depth+1)
	case p.b == nil:
		c.Status = Deleted
	case p.a == nil:
		c.Status = Added
	case p.a.Kind != p.b.Kind:
		c.Status = Retyped
		c.Fields = append([]string{"type"}, d.fields(p.a, p.b)...)
	}
	// If something below a path was asked for and that path is not a directory, the entry itself was not asked for.
	if c.Status != 0 && p.want == nil {
		if err := d.visit(c); err != nil {
			return err
		}
	}
	if a != nil || b != nil {
		return d.dirs(c.Path, a, b, p.want, depth+1)
	}
	return nil
}

// what returns the name of the difference in content between two entries of the same kind.
func what(a, b *cold.Entry) []string {
	switch a.Kind {
	case cold.KindSymlink:
		return []string{"target"}
	case cold.KindChar, cold.KindBlock:
		return []string{"rdev"}
	}
	if a.Size != b.Size {
		return []string{"content", "size"}
	}
	return []string{"content"}
}

// fields returns the names of the differences in metadata.
func (d *comparison) fields(a, b *cold.Entry) []string {
	var f []string
	if a.Mode != b.Mode {
		f = append(f, "mode")
	}
	if a.UID != b.UID || a.GID != b.GID {
		f = append(f, "owner")
	}
	if a.Mtime != b.Mtime && !(d.from.Invented(a) && d.to.Invented(b)) {
		f = append(f, "mtime")
	}
	if !slices.EqualFunc(a.Xattrs, b.Xattrs, func(x, y cold.Xattr) bool {
		return x.Name == y.Name && bytes.Equal(x.Value, y.Value)
	}) {
		f = append(f, "xattrs")
	}
	if a.Flags != b.Flags {
		f = append(f, "flags")
	}
	if !d.sameGroup(a.Link, b.Link) {
		f = append(f, "link")
	}
	return f
}

// sameGroup reports whether two hard-link groups are the same. A directory names its groups by inode, so the first two
// that are compared are taken to be the same.
func (d *comparison) sameGroup(a, b string) bool {
	if a == b {
		return true
	}
	if a == "" || b == "" || !strings.HasPrefix(b, cold.InodeGroup) {
		return false
	}
	x, ok := d.groups[a]
	y, ok2 := d.inodes[b]
	if !ok && !ok2 {
		d.groups[a], d.inodes[b] = b, a
		return true
	}
	return x == b && y == a
}

// content reports whether two entries of the same kind, not directories, have different content.
func (d *comparison) content(at string, a, b *cold.Entry) (bool, error) {
	switch a.Kind {
	case cold.KindSymlink:
		return a.Target != b.Target, nil
	case cold.KindChar, cold.KindBlock:
		return a.Rdev != b.Rdev, nil
	case cold.KindOther:
		return a.ID != b.ID || a.Other.Mode != b.Other.Mode, nil
	case cold.KindFile:
	default:
		return false, nil
	}
	switch {
	case a.Size != b.Size:
		return true, nil
	case !a.ID.IsZero() && a.ID == b.ID:
		return false, nil
	case !a.ID.IsZero() && !b.ID.IsZero() && d.sameForm(a, b):
		return true, nil
	case !a.ID.IsZero() && !b.ID.IsZero():
	case a.Mtime == b.Mtime && d.to.Surely(b.Mtime):
		return false, nil
	}
	return d.bytesDiffer(at, a, b)
}

// sameForm reports whether two files are stored in the same form, as one blob or in chunks of the same size, so that
// different ids mean different bytes. The form of a file changes only if it grew, or if it was written with another
// threshold.
func (d *comparison) sameForm(a, b *cold.Entry) bool {
	from, ok := d.from.(snapshotSide)
	to, ok2 := d.to.(snapshotSide)
	if !ok || !ok2 || a.Size < format.MinChunk {
		return true
	}
	return from.chunkSize(a) == to.chunkSize(b)
}

// chunkSize returns the chunk size of a file's content, 0 for a single blob, or -1 if it cannot be read.
func (s snapshotSide) chunkSize(e *cold.Entry) int64 {
	kind, _, err := s.c.DB().Stat(e.ID)
	if err == nil && kind == odb.Blob {
		return 0
	}
	if c, cerr := format.LoadChunks(s.c.DB(), e.ID); err == nil && cerr == nil {
		return c.Chunk
	}
	return -1
}

// bytesDiffer compares two files byte by byte.
func (d *comparison) bytesDiffer(at string, a, b *cold.Entry) (_ bool, err error) {
	x, err := d.from.Open(d.ctx, at, a)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, x.Close()) }()
	y, err := d.to.Open(d.ctx, at, b)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, y.Close()) }()
	p, q := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		if err := d.ctx.Err(); err != nil {
			return false, err
		}
		n, errX := io.ReadFull(x, p)
		m, errY := io.ReadFull(y, q)
		if !bytes.Equal(p[:n], q[:m]) {
			return true, nil
		}
		for _, err := range []error{errX, errY} {
			if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				return false, err
			}
		}
		if n < len(p) {
			return false, nil
		}
	}
}
