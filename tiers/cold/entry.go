package cold

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// ID is the SHA-1 id of a git object. The zero ID means "none".
type ID [20]byte

// IsZero says that there is no object.
func (id ID) IsZero() bool { return id == ID{} }

// String is the id in hexadecimal digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// ParseID reads 40 hex digits.
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

// Time is a point in time as file systems keep it: seconds since the epoch, possibly negative, and 0..999999999 ns.
// time.Time would do but for years beyond its UnixNano; Time is comparable and 12 bytes.
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
	// KindOther is what git has under a name and no directory can hold: Entry.Other tells. No metadata describes it.
	KindOther
)

// String is the word that volumes use for k in their metadata.
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

// DirID names one directory of a commit: the user's git tree and the tree of its metadata (FORMAT.md sections 1, 3).
// Meta is zero for a directory that a stock client made. An empty directory has the id of the empty tree.
type DirID struct {
	Tree ID
	Meta ID
}

// Xattr is one extended attribute, ACLs (system.posix_acl_*) included.
type Xattr struct {
	Name  string
	Value []byte
}

// Entry is what cold keeps of one directory entry.
type Entry struct {
	Name     string // true name, any bytes but '/' and NUL; "" for the root itself
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
	Flags    uint32  // of chattr(1), those in KeptFlags
	Lost     bool    // of a file: cold may have lost its content, so Tx.PutDir carries it over unseen
	Other    *Other  // of KindOther, which has a name and an ID besides, and nothing else
	Holes    int64   // of a sparse file: blocks of 512 bytes that it has less than its size asks for (see HolesOf)
}

// Other is an entry of a git tree that a stock client made and that no directory can hold: a submodule, a name that is
// too long, a blob that is missing. Commits carry it over as it is.
type Other struct {
	Stored string // its name in git; Entry.Name is like it, as far as a directory can hold that
	Mode   uint32 // as git's tree has it
	Why    string // for people
}

// KeptFlags are the flags of chattr(1) that commits keep: immutable, append only, nodump, noatime
// (FS_IOC_SETFLAGS(2const)).
const KeptFlags = FlagImmutable | FlagAppend | 0x40 | FlagNoatime

const (
	FlagImmutable = 0x10
	FlagAppend    = 0x20
	FlagNoatime   = 0x80
)

// HolesOf is an entry's Holes for a file of a size in bytes with so many blocks of 512: 0 unless it is sparse as cp(1)
// and tar(1) tell it.
func HolesOf(size int64, blocks uint64) int64 {
	if int64(blocks) >= size/512 {
		return 0
	}
	return int64(fullBlocks(size) - blocks)
}

// fullBlocks are the blocks of a file without holes.
func fullBlocks(size int64) uint64 { return uint64(size+4095) / 4096 * 8 }

// Blocks is what stat shows for a file that comes from cold.
func (e *Entry) Blocks() uint64 {
	full := fullBlocks(e.Size)
	return full - min(full, uint64(max(e.Holes, 0)))
}

// Dir returns the directory that e names.
func (e *Entry) Dir() DirID { return DirID{Tree: e.ID, Meta: e.Meta} }

// Timespec is t for system calls.
func (t Time) Timespec() unix.Timespec { return unix.Timespec{Sec: t.Sec, Nsec: int64(t.Nsec)} }

// Before says whether t is earlier than u.
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

// InodeGroup begins the names that a WarmView gives to hard-link groups: a directory knows inodes, not the groups of
// commits.
const InodeGroup = "inode:"

// DateText is a time for programs: RFC 3339 in UTC. Of what git stores it cannot say years over 9999: those are the
// last moment that it can.
func DateText(t time.Time) string {
	if t = t.UTC(); t.Year() > 9999 {
		return "9999-12-31T23:59:59Z"
	}
	return t.Format(time.RFC3339Nano)
}

// ClockText is a time for people, as RFC 3339 in UTC with its nanoseconds.
func ClockText(t Time) string {
	return time.Unix(t.Sec, int64(t.Nsec)).UTC().Format("2006-01-02T15:04:05.999999999Z")
}
