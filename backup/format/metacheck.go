package format

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

// validate checks the keys of a line in combination.
func (l *Line) validate(f *fields) error {
	if !f.name || l.Kind == 0 || !f.mode || !f.uid || !f.gid || !f.mtime {
		return errors.New("a key is missing: name, type, mode, uid, gid and mtime are needed")
	}
	file, symlink, dir := l.Kind == cold.KindFile, l.Kind == cold.KindSymlink, l.Kind == cold.KindDir
	device := l.Kind == cold.KindChar || l.Kind == cold.KindBlock
	object := file || symlink || dir
	switch {
	case f.size != (file || symlink):
		return errors.New("size is for files and symlinks")
	case f.ID != object || f.git != object:
		return errors.New("id and git are for files, symlinks and directories")
	case f.target != symlink:
		return errors.New("target is for symlinks")
	case f.rdev != device:
		return errors.New("rdev is for devices")
	case f.link && (l.Link == "" || dir):
		return errors.New("link is for what is no directory, and not empty")
	case f.chunk != (file && l.GitMode == odb.ModeTree):
		return errors.New("chunk is for files with the git mode 40000")
	case file && l.GitMode == odb.ModeSymlink,
		dir && l.GitMode != odb.ModeTree, symlink && l.GitMode != odb.ModeSymlink:
		return fmt.Errorf("git mode %o does not go with type %s", l.GitMode, l.Kind)
	}
	return CheckEntry(&l.Entry)
}

// CheckEntry refuses an entry that no directory or no metadata line can hold.
func CheckEntry(e *cold.Entry) error {
	if err := CheckName(e.Name); err != nil {
		return err
	}
	switch e.Kind {
	case cold.KindFile, cold.KindDir:
		if e.ID.IsZero() {
			return errors.New("no object id")
		}
	case cold.KindSymlink:
		switch {
		case e.ID.IsZero():
			return errors.New("no object id")
		case e.Target == "" || len(e.Target) > MaxTarget || strings.IndexByte(e.Target, 0) >= 0:
			return fmt.Errorf("symlink target %q", e.Target)
		case e.Size != int64(len(e.Target)):
			return fmt.Errorf("symlink of %d bytes with a target of %d", e.Size, len(e.Target))
		}
	case cold.KindFIFO, cold.KindSocket, cold.KindChar, cold.KindBlock:
	case cold.KindOther:
		if e.ID.IsZero() || e.Other == nil || e.Other.Stored == "" {
			return errors.New("nothing that git has")
		}
		return nil
	default:
		return errors.New(e.Kind.String())
	}
	if e.Size < 0 {
		return fmt.Errorf("size %d", e.Size)
	}
	if len(e.Link) > MaxLink || !utf8.ValidString(e.Link) || e.Kind == cold.KindDir && e.Link != "" {
		return fmt.Errorf("link group %q", e.Link)
	}
	return CheckAttrs(e)
}

// CheckAttrs checks those attributes that the root's entry has too.
func CheckAttrs(e *cold.Entry) error {
	if e.Mode&^0o7777 != 0 {
		return fmt.Errorf("mode %o", e.Mode)
	}
	if e.UID == 1<<32-1 || e.GID == 1<<32-1 {
		return errors.New("owner 4294967295 means no owner")
	}
	if e.Mtime.Nsec > 999999999 {
		return fmt.Errorf("mtime with %d ns", e.Mtime.Nsec)
	}
	if len(e.Xattrs) > maxXattrs {
		return fmt.Errorf("%d attributes, more than %d", len(e.Xattrs), maxXattrs)
	}
	for i := range e.Xattrs {
		if err := checkXattr(&e.Xattrs[i]); err != nil {
			return err
		}
		if i > 0 && e.Xattrs[i-1].Name >= e.Xattrs[i].Name {
			return fmt.Errorf("attribute %q is out of order", e.Xattrs[i].Name)
		}
	}
	return nil
}

func checkXattr(x *cold.Xattr) error {
	if x.Name == "" || len(x.Name) > maxXattrName || strings.IndexByte(x.Name, 0) >= 0 {
		return fmt.Errorf("attribute name %q", x.Name)
	}
	if len(x.Value) > maxXattrValue {
		return fmt.Errorf("attribute %q: %d bytes, more than %d", x.Name, len(x.Value), maxXattrValue)
	}
	return nil
}
