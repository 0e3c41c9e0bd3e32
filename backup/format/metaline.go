package format

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

// Limits of what one line may hold; Linux has the same for names and values of attributes.
const (
	MaxLine       = 16 << 20
	maxXattrName  = 255
	maxXattrValue = 64 << 10
	maxXattrs     = 16 << 10
	MaxTarget     = 4095
	MaxLink       = 128
)

// Line is the metadata of one entry: the content of one line of a directory's entries.
type Line struct {
	// Entry.ID is the git object that the line was written for; Entry.Meta is not part of a line.
	cold.Entry
	GitMode uint32
	Chunk   int64 // chunk size in bytes of a file in chunks
	// Raw is the line as it was read or will be written, without the newline. Lines that do not change are copied.
	Raw []byte
}

// kindNamed returns the kind with this name in a line, or 0.
func kindNamed(name string) cold.Kind {
	for k := cold.KindFile; k <= cold.KindBlock; k++ {
		if k.String() == name {
			return k
		}
	}
	return 0
}

// InGit reports whether git can hold the entry, as it can except for special files and empty directories.
func InGit(e *cold.Entry) bool {
	switch e.Kind {
	case cold.KindFile, cold.KindSymlink:
		return true
	case cold.KindDir:
		return e.ID != odb.EmptyTree
	}
	return false
}

// GitModeOf returns the mode that an entry has in a git tree, or 0 for special files. chunk is the chunk size, or 0 for
// a single blob.
func GitModeOf(e *cold.Entry, chunk int64) uint32 {
	switch e.Kind {
	case cold.KindFile:
		if chunk != 0 {
			return odb.ModeTree
		}
		return BlobMode(e)
	case cold.KindDir:
		return odb.ModeTree
	case cold.KindSymlink:
		return odb.ModeSymlink
	}
	return 0
}

// BlobMode returns the git mode of a file that is a single blob.
func BlobMode(e *cold.Entry) uint32 {
	if e.Mode&0o100 != 0 {
		return odb.ModeExec
	}
	return odb.ModeFile
}

// ownXattr reports whether an attribute is one of EmberFS's own records, which describe one machine's warm directory
// and must not get into a commit.
func ownXattr(name string) bool { return name == "trusted.emberfs" || name == "user.emberfs" }

// EncodeLine returns the line of an entry, which must have passed CheckEntry. chunk is a file's chunk size, or 0 for a
// single blob.
func EncodeLine(e *cold.Entry, chunk int64) Line {
	b := make([]byte, 0, 192+len(e.Name)+len(e.Target))
	b = append(b, '{')
	b = AppendText(b, "name", e.Name)
	b = append(b, `,"type":"`...)
	b = append(b, e.Kind.String()...)
	b = append(b, `",`...)
	b = appendAttrs(b, e)
	if e.Kind == cold.KindFile || e.Kind == cold.KindSymlink {
		b = append(b, `,"size":`...)
		b = strconv.AppendInt(b, e.Size, 10)
	}
	if e.Kind == cold.KindFile && e.Holes > 0 {
		b = append(b, `,"x_holes":`...)
		b = strconv.AppendInt(b, e.Holes, 10)
	}
	mode := GitModeOf(e, chunk)
	if mode != 0 {
		b = append(b, `,"id":"`...)
		b = append(b, e.ID.String()...)
		b = append(b, `","git":"`...)
		b = strconv.AppendUint(b, uint64(mode), 8)
		b = append(b, '"')
	}
	if chunk != 0 {
		b = append(b, `,"chunk":`...)
		b = strconv.AppendInt(b, chunk, 10)
	}
	if e.Kind == cold.KindSymlink {
		b = append(b, ',')
		b = AppendText(b, "target", e.Target)
	}
	if e.Kind == cold.KindChar || e.Kind == cold.KindBlock {
		b = append(b, `,"rdev":[`...)
		b = strconv.AppendUint(b, uint64(unix.Major(e.Rdev)), 10)
		b = append(b, ',')
		b = strconv.AppendUint(b, uint64(unix.Minor(e.Rdev)), 10)
		b = append(b, ']')
	}
	if e.Link != "" {
		b = append(b, `,"link":`...)
		b = appendJSON(b, e.Link)
	}
	b = append(b, '}')
	l := Line{Entry: *e, GitMode: mode, Chunk: chunk, Raw: b}
	l.Meta = cold.ID{}
	return l
}

// appendAttrs appends the attributes that both a directory's header and a line have.
func appendAttrs(b []byte, e *cold.Entry) []byte {
	b = append(b, `"mode":"`...)
	b = fmt.Appendf(b, "%04o", e.Mode)
	b = append(b, `","uid":`...)
	b = strconv.AppendUint(b, uint64(e.UID), 10)
	b = append(b, `,"gid":`...)
	b = strconv.AppendUint(b, uint64(e.GID), 10)
	b = append(b, `,"mtime":[`...)
	b = strconv.AppendInt(b, e.Mtime.Sec, 10)
	b = append(b, ',')
	b = strconv.AppendUint(b, uint64(e.Mtime.Nsec), 10)
	b = append(b, ']')
	if e.Flags != 0 {
		b = append(b, `,"x_flags":`...)
		b = strconv.AppendUint(b, uint64(e.Flags), 10)
	}
	sep := `,"xattrs":[{`
	for _, x := range e.Xattrs {
		if ownXattr(x.Name) {
			continue
		}
		b = append(b, sep...)
		b = AppendText(b, "name", x.Name)
		b = append(b, ',')
		b = AppendText(b, "value", string(x.Value))
		b = append(b, '}')
		sep = `,{`
	}
	if sep == `,{` {
		b = append(b, ']')
	}
	return b
}

// DecodeLine parses one line strictly.
func DecodeLine(raw []byte) (Line, error) {
	l := Line{Raw: raw}
	if len(raw) > MaxLine {
		return l, fmt.Errorf("%d bytes, more than %d", len(raw), MaxLine)
	}
	r := JSONReader{B: raw}
	var f fields
	err := r.Object(func(key string) error { return l.field(&r, &f, key) })
	if err == nil {
		err = r.End()
	}
	if err == nil {
		err = l.validate(&f)
	}
	return l, err
}

// fields records which keys a line or header has.
type fields struct {
	name, mode, uid, gid, mtime, size, ID, git, chunk, target, rdev, link, tree bool
}

// Set sets f, and returns an error if it was set already: a key and its base64 form must not both be there.
func Set(f *bool) error {
	if *f {
		return errors.New("comes as text and as base64")
	}
	*f = true
	return nil
}

func (l *Line) field(r *JSONReader, f *fields, key string) (err error) {
	switch key {
	case "name":
		if err = Set(&f.name); err == nil {
			l.Name, err = r.Str()
		}
	case "name64":
		if err = Set(&f.name); err == nil {
			l.Name, err = r.Base64()
		}
	case "type":
		var s string
		if s, err = r.Str(); err == nil {
			if l.Kind = kindNamed(s); l.Kind == 0 {
				return fmt.Errorf("type %q", s)
			}
		}
	case "size":
		f.size = true
		l.Size, err = r.integer(0, 1<<63-1)
	case "x_holes":
		l.Holes, err = r.integer(1, 1<<55)
	case "id":
		f.ID = true
		l.ID, err = r.ID()
	case "git":
		f.git = true
		var s string
		if s, err = r.Str(); err == nil {
			l.GitMode, err = parseGitMode(s)
		}
	case "chunk":
		f.chunk = true
		if l.Chunk, err = r.integer(MinChunk, MaxChunk); err == nil {
			err = checkChunkSize(l.Chunk)
		}
	case "target":
		if err = Set(&f.target); err == nil {
			l.Target, err = r.Str()
		}
	case "target64":
		if err = Set(&f.target); err == nil {
			l.Target, err = r.Base64()
		}
	case "rdev":
		f.rdev = true
		l.Rdev, err = r.rdev()
	case "link":
		f.link = true
		l.Link, err = r.Str()
	default:
		return attr(r, f, &l.Entry, key)
	}
	return err
}

// attr parses the keys that both a header and a line may have.
func attr(r *JSONReader, f *fields, e *cold.Entry, key string) (err error) {
	var n int64
	switch key {
	case "mode":
		f.mode = true
		var s string
		if s, err = r.Str(); err == nil {
			var m uint64
			m, err = strconv.ParseUint(s, 8, 12)
			if err != nil || len(s) != 4 {
				return fmt.Errorf("mode %q: want four octal digits", s)
			}
			e.Mode = uint32(m)
		}
	case "uid":
		f.uid = true
		n, err = r.integer(0, 1<<32-2)
		e.UID = uint32(n)
	case "gid":
		f.gid = true
		n, err = r.integer(0, 1<<32-2)
		e.GID = uint32(n)
	case "mtime":
		f.mtime = true
		e.Mtime, err = r.time()
	case "xattrs":
		e.Xattrs, err = r.xattrs()
	case "x_flags":
		n, err = r.integer(1, 1<<31-1)
		e.Flags = uint32(n) & cold.KeptFlags // a newer version may store more flags
	default:
		return ErrUnknownKey
	}
	return err
}

// ID parses an id of 40 lower-case hex digits.
func (r *JSONReader) ID() (cold.ID, error) {
	s, err := r.Str()
	if err != nil {
		return cold.ID{}, err
	}
	id, err := cold.ParseID(s)
	if err != nil || id.IsZero() || id.String() != s {
		return cold.ID{}, r.errorf("object id %q", s)
	}
	return id, nil
}

func parseGitMode(s string) (uint32, error) {
	switch s {
	case "100644":
		return odb.ModeFile, nil
	case "100755":
		return odb.ModeExec, nil
	case "120000":
		return odb.ModeSymlink, nil
	case "40000":
		return odb.ModeTree, nil
	}
	return 0, fmt.Errorf("git mode %q", s)
}

// pair parses an array of two whole numbers.
func (r *JSONReader) pair(low0, high0, low1, high1 int64) (a, b int64, err error) {
	n := 0
	err = r.array(func() (err error) {
		switch n++; n {
		case 1:
			a, err = r.integer(low0, high0)
		case 2:
			b, err = r.integer(low1, high1)
		default:
			err = r.errorf("more than two numbers")
		}
		return err
	})
	if err == nil && n != 2 {
		err = r.errorf("want two numbers")
	}
	return a, b, err
}

func (r *JSONReader) time() (cold.Time, error) {
	sec, nsec, err := r.pair(-1<<63, 1<<63-1, 0, 999999999)
	return cold.Time{Sec: sec, Nsec: uint32(nsec)}, err
}

func (r *JSONReader) rdev() (uint64, error) {
	major, minor, err := r.pair(0, 1<<32-1, 0, 1<<32-1)
	return unix.Mkdev(uint32(major), uint32(minor)), err
}

func (r *JSONReader) xattrs() ([]cold.Xattr, error) {
	var all []cold.Xattr
	err := r.array(func() error {
		if len(all) >= maxXattrs {
			return r.errorf("more than %d attributes", maxXattrs)
		}
		var x cold.Xattr
		var name, value bool
		err := r.Object(func(key string) (err error) {
			var s string
			switch key {
			case "name", "name64":
				err = Set(&name)
			case "value", "value64":
				err = Set(&value)
			default:
				return ErrUnknownKey
			}
			if err != nil {
				return err
			}
			if strings.HasSuffix(key, "64") {
				s, err = r.Base64()
			} else {
				s, err = r.Str()
			}
			if strings.HasPrefix(key, "name") {
				x.Name = s
			} else {
				x.Value = []byte(s)
			}
			return err
		})
		if err == nil && (!name || !value) {
			err = r.errorf("attribute without name or value")
		}
		if n := len(all); err == nil && n > 0 && all[n-1].Name >= x.Name {
			err = r.errorf("attribute %q is out of order", x.Name)
		}
		// A record of another machine would make ours believe that a file is clean.
		if err == nil && ownXattr(x.Name) {
			err = r.errorf("attribute %q belongs to EmberFS itself", x.Name)
		}
		if err == nil {
			err = checkXattr(&x)
		}
		all = append(all, x)
		return err
	})
	return all, err
}
