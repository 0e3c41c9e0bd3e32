package cold

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// ID is the SHA-1 id of a git object. The zero ID means "no object".
type ID [20]byte

// IsZero reports whether the id means "no object".
func (id ID) IsZero() bool { return id == ID{} }

// String returns the id as 40 hexadecimal digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// ParseID parses an id of 40 hexadecimal digits.
func ParseID(s string) (ID, error) {
	var id ID
	if len(s) != 40 {
		return id, fmt.Errorf("object id %q: want 40 hex digits", s)
	}
	if _, err := hex.Decode(id[:], []byte(s)); err != nil {
		return ID{}, fmt.Errorf("object id %q: %w", s, err)
	}
	return id, nil
}

// Time is a point in time as file systems keep it: seconds since the Unix epoch, possibly negative, and 0..999999999
// nanoseconds. Unlike time.Time it covers years that do not fit into UnixNano, can be compared with ==, and is small.
type Time struct {
	Sec  int64
	Nsec uint32
}

// Kind is the type of a directory entry.
type Kind uint8

const (
	KindFile Kind = iota + 1
	KindDir
	KindSymlink
	KindFIFO
	KindSocket
	KindChar
	KindBlock
	// KindOther is an entry of a git tree that no directory can hold; Entry.Other describes it. There is no metadata
	// about it.
	KindOther
)

// String returns the word that the metadata in a repository uses for k.
func (k Kind) String() string {
	switch k {
	case KindFile:
		return "file"
	case KindDir:
		return "dir"
	case KindSymlink:
		return "symlink"
	case KindFIFO:
		return "fifo"
	case KindSocket:
		return "socket"
	case KindChar:
		return "char"
	case KindBlock:
		return "block"
	case KindOther:
		return "other"
	}
	return "kind " + strconv.Itoa(int(k))
}

// DirID identifies one directory of a commit by the user's git tree and the tree of its metadata (FORMAT.md sections 1
// and 3). Meta is zero for a directory that a stock client made. The Tree of an empty directory is git's empty tree.
type DirID struct {
	Tree ID
	Meta ID
}

// Xattr is one extended attribute, ACLs (system.posix_acl_*) included.
type Xattr struct {
	Name  string
	Value []byte
}

// Entry is what cold stores about one directory entry.
type Entry struct {
	Name     string // the name in the volume: any bytes except '/' and NUL; "" for the root itself
	Kind     Kind
	Mode     uint32 // permission bits with suid, sgid, sticky: 07777
	UID, GID uint32
	Mtime    Time
	Size     int64   // files: bytes; symlinks: length of the target
	Rdev     uint64  // devices: unix.Mkdev
	ID       ID      // file: blob (or chunk tree); symlink: blob of its target; directory: DirID.Tree
	Meta     ID      // directory: DirID.Meta
	Target   string  // symlink: where it points to
	Xattrs   []Xattr // sorted by name
	Link     string  // hard-link group; "" where the file has one name
	Flags    uint32  // chattr(1) flags, only those in KeptFlags
	Lost     bool    // file: cold may have lost the content, so Tx.PutDir does not check that it exists
	Other    *Other  // KindOther only; such an entry has no other fields than this, Name, Kind and ID
	Holes    int64   // sparse file: how many blocks of 512 bytes are missing to its full size (see HolesOf)
}

// Other describes an entry of a git tree that a stock client made and that no directory can hold: a submodule, a name
// that is too long, or a blob that is missing. Commits carry it over unchanged.
type Other struct {
	Stored string // its name in git's tree; Entry.Name is the same or, if a directory cannot hold that, resembles it
	Mode   uint32 // the mode in git's tree
	Why    string // why no directory can hold it, for people
}

// KeptFlags are the chattr(1) flags that commits store: immutable, append only, nodump and noatime (see
// FS_IOC_SETFLAGS(2const)).
const KeptFlags = FlagImmutable | FlagAppend | 0x40 | FlagNoatime

const (
	FlagImmutable = 0x10
	FlagAppend    = 0x20
	FlagNoatime   = 0x80
)

// HolesOf returns Entry.Holes for a file of size bytes that occupies the given number of 512-byte blocks. It is 0
// unless the file is sparse by the test that cp(1) and tar(1) use.
func HolesOf(size int64, blocks uint64) int64 {
	if int64(blocks) >= size/512 {
		return 0
	}
	return int64(fullBlocks(size) - blocks)
}

// fullBlocks returns how many 512-byte blocks a file of this size occupies if it has no holes (in pages of 4 KiB).
func fullBlocks(size int64) uint64 { return uint64(size+4095) / 4096 * 8 }

// Blocks returns the number of 512-byte blocks that stat shows for a file that comes from cold.
func (e *Entry) Blocks() uint64 {
	full := fullBlocks(e.Size)
	return full - min(full, uint64(max(e.Holes, 0)))
}

// Dir returns the directory that e names.
func (e *Entry) Dir() DirID { return DirID{Tree: e.ID, Meta: e.Meta} }

// Timespec converts t for use in system calls.
func (t Time) Timespec() unix.Timespec { return unix.Timespec{Sec: t.Sec, Nsec: int64(t.Nsec)} }

// Before reports whether t is earlier than u.
func (t Time) Before(u Time) bool { return t.Sec < u.Sec || t.Sec == u.Sec && t.Nsec < u.Nsec }

// Format returns the S_IFMT bits of k.
func (k Kind) Format() uint32 {
	switch k {
	case KindDir:
		return unix.S_IFDIR
	case KindSymlink:
		return unix.S_IFLNK
	case KindFIFO:
		return unix.S_IFIFO
	case KindSocket:
		return unix.S_IFSOCK
	case KindChar:
		return unix.S_IFCHR
	case KindBlock:
		return unix.S_IFBLK
	}
	return unix.S_IFREG
}

// InodeGroup is the prefix of the hard-link group names that package inspect makes up for files in warm. Warm only has
// inode numbers; it does not know the group names that commits use.
const InodeGroup = "inode:"

// DateText formats a time for programs: RFC 3339 in UTC. Commits may carry years over 9999, which RFC 3339 cannot
// express; they come out as the last second of 9999.
func DateText(t time.Time) string {
	if t = t.UTC(); t.Year() > 9999 {
		return "9999-12-31T23:59:59Z"
	}
	return t.Format(time.RFC3339Nano)
}

// ClockText formats a time for people: RFC 3339 in UTC, with nanoseconds.
func ClockText(t Time) string {
	return time.Unix(t.Sec, int64(t.Nsec)).UTC().Format("2006-01-02T15:04:05.999999999Z")
}
