package tiers

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"
)

// ID is the SHA-1 id of a git object. The zero ID means "none".
type ID [20]byte

func (id ID) IsZero() bool   { return id == ID{} }
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

// Other is an entry of a git tree that a stock client made and that no directory can hold: a submodule, a name that is too long, a blob
// that is missing. Commits carry it over as it is.
type Other struct {
	Stored string // its name in git; Entry.Name is like it, as far as a directory can hold that
	Mode   uint32 // as git's tree has it
	Why    string // for people
}

// KeptFlags are the flags of chattr(1) that commits keep: immutable, append only, nodump, noatime (FS_IOC_SETFLAGS(2const)).
const KeptFlags = FlagImmutable | FlagAppend | 0x40 | FlagNoatime

const (
	FlagImmutable = 0x10
	FlagAppend    = 0x20
	FlagNoatime   = 0x80
)

// HolesOf is an entry's Holes for a file of a size in bytes with so many blocks of 512: 0 unless it is sparse as cp(1) and tar(1)
// tell it.
func HolesOf(size int64, blocks uint64) int64 {
	if int64(blocks) >= size/512 {
		return 0
	}
	return int64(fullBlocks(size) - blocks)
}

// fullBlocks are the blocks of a file without holes.
func fullBlocks(size int64) uint64 { return uint64(size+4095) / 4096 * 8 }

// blocks is what stat shows for a file that comes from cold.
func (e *Entry) blocks() uint64 {
	full := fullBlocks(e.Size)
	return full - min(full, uint64(max(e.Holes, 0)))
}

// Dir returns the directory that e names.
func (e *Entry) Dir() DirID { return DirID{Tree: e.ID, Meta: e.Meta} }

// Listing is one directory as a commit describes it.
type Listing struct {
	Entries []Entry // sorted by Name, bytewise
	// Reconciled says that a stock client changed this directory (its metadata describes another tree), so what is
	// listed was merged by FORMAT.md section 3 and the directory must be committed anew before it counts as clean.
	Reconciled bool
	// Problems are entries left out or mended because the repository lies about them; for the log.
	Problems []error
}

// CommitInfo is what a commit says of itself.
type CommitInfo struct {
	ID      ID
	Parent  ID
	Time    time.Time // the committer's, by which git orders commits: never before the parent's
	Made    time.Time // when it was made by its machine's clock; Time for a commit of a stock client
	Reason  string    // trailer Emberfs-Reason: sync, interval, unmount...; "" for a stock client's commit
	Machine string    // trailer Emberfs-Machine
	Subject string
	// Live says that the commit is on the live branch, not on main. Cold.Newest, Tx.Base and listings of commits tell.
	Live bool
	// Absorbed are live commits that this one of main took the place of, trailer Emberfs-Absorbs: the last one first, then those
	// at which another machine took over. What they have, and what went before them, went into this one.
	Absorbed []ID
}

// Snapshot reads one commit. Safe for concurrent use.
type Snapshot interface {
	Info() CommitInfo
	// Root is the root directory's entry (Name "").
	Root() Entry
	// ReadDir lists a directory of this commit. Errors of single entries are Problems, not errors.
	ReadDir(ctx context.Context, dir DirID) (Listing, error)
	// ReadNames is ReadDir without a look at each file's object: a size is what the metadata says, until Sizes looked at them.
	ReadNames(ctx context.Context, dir DirID) (Listing, error)
	// Sizes is ReadDir for who has what ReadNames gave.
	Sizes(ctx context.Context, dir DirID, names Listing) (Listing, error)
	// LinkDirs gives for each hard-link group that spans directories the directories (slash paths, "" the root) it is in.
	LinkDirs(ctx context.Context) (map[string][]string, error)
	// Valid says whether a directory of this commit and all below it are as EmberFS wrote them: its metadata describes its tree.
	// ErrMissing, ErrCorrupt.
	Valid(ctx context.Context, dir DirID) (bool, error)
	// Opened lists files in the order in which the session that made the commit opened them first: slash paths, the most urgent
	// first. They may be gone; a commit of a stock client, or one before there was such a list, has none.
	Opened(ctx context.Context) ([]string, error)
	// Rules is the text of the volume's own rules, nil where it has none. ErrCorrupt: it is too long, or no file.
	Rules(ctx context.Context) ([]byte, error)
	// Files counts the entries of all directories that git has, about, and those among them that are no directories; over most
	// names it may stop and gives a number over most. It costs a look at each distinct directory.
	Files(ctx context.Context, most int64) (files, names int64, err error)
}

// Root is what only the root directory's metadata holds.
type Root struct {
	Entry                     // the root's own attributes; Name, ID and Meta are not looked at
	Links map[string][]string // hard-link groups that span directories, as Snapshot.LinkDirs
}

// CommitOptions go into the commit's message as trailers.
type CommitOptions struct {
	Reason  string
	Machine string // id of this machine
	Files   int64  // files whose content or metadata this commit took
	Bytes   int64
	AtRisk  int64 // files that were dirty and could not be taken
	Root    DirID // what PutDir returned for the root
	When    time.Time
	Rules   *[]byte  // the volume's own rules from now on, empty: none; nil: those of the base commit go on
	Opened  []string // as Snapshot.Opened, cut off where it gets too long; nil: the base commit's list goes on
}

// Range is a half-open range of a file's bytes.
type Range struct{ Off, End int64 }

// Content is a file's bytes as a commit reads them. Its methods may be called concurrently.
type Content interface {
	// ReadAt fills p unless the file ends before: then it returns io.EOF.
	io.ReaderAt
	Size() int64
	// Data gives the first range of data that ends behind off, as lseek(2) with SEEK_DATA and SEEK_HOLE does; it may begin
	// before off. ok is false where only a hole follows.
	Data(off int64) (r Range, ok bool, err error)
}

// Base is what is known of a file's content before it is read.
type Base struct {
	// ID is what the last commit has, or what an earlier PutFile of the same Tx returned; zero: nothing is known.
	ID ID
	// Known says that outside of Changed the bytes are those of ID, up to the lesser size.
	Known   bool
	Changed []Range // sorted, disjoint
}

// Tx collects the objects of one commit. It is used by one goroutine at a time, except PutFile, which may be called concurrently.
type Tx interface {
	// Base is the newest snapshot when the Tx began, as Cold.Newest: what this commit's content extends; nil for the first. Where its
	// Info says Live a Tx of Cold.Begin absorbs it: the new commit's parent is main's tip all the same.
	Base() Snapshot
	// PutFile stores a file's content; it fails with ErrSizeChanged when c gives more or fewer bytes than its Size, with *TooMuchError
	// when that is too much.
	// What base has too is not stored again.
	PutFile(ctx context.Context, c Content, base Base) (ID, error)
	// PutSymlink stores a symlink's target.
	PutSymlink(ctx context.Context, target string, base ID) (ID, error)
	// PutDir stores one directory, children first. *TooMuchError: nothing is stored. With base non-zero and full false the entries in put replace or join those
	// of base and the names in del leave; with full true put is everything, and base only says what need not be stored again.
	// Entries that are directories carry the DirID that an earlier PutDir returned or that stands in the base commit.
	// root is nil but for the root directory, which comes last: equal content, attributes and links give the DirID that
	// Base().Root().Dir() has.
	PutDir(ctx context.Context, base DirID, full bool, root *Root, put []Entry, del []string) (DirID, error)
	// Commit publishes the objects durably and moves the branch to the new commit (FORMAT.md section 5): main, or for a Tx of
	// BeginLive the live branch. ErrRefMoved: somebody else moved one of them; nothing changed. After a commit to main the live
	// branch that it absorbed is gone. Where CommitOptions.Root is that of a Base that is Live, nothing need have been put.
	Commit(ctx context.Context, o CommitOptions) (ID, error)
	// Abort drops everything; a no-op after Commit.
	Abort()
}

// Blob is the content of a file in cold.
type Blob interface {
	io.Reader
	io.Closer
	Size() int64
	// SkipHole moves behind the hole that the current position is in, if it is known to be in one, and returns its rest's
	// length in bytes; 0: data follows, or the end. Read gives a hole as zeros.
	SkipHole() int64
}

// BlobAt is the content of a file in cold for reading at any offset, a hole as zeros. Safe for concurrent use, but for Close.
type BlobAt interface {
	io.ReaderAt
	io.Closer
	Size() int64
	// Data gives the first range of data that ends behind off, as in Content: holes are those that cold knows of.
	Data(off int64) (r Range, ok bool, err error)
}

// Cold is where files live for good: a git repository (package backup). Safe for concurrent use; one Tx at a time.
//
// The volume's branch, called main here, gets a commit at every backup. The commits of critical files in between are on a live
// branch that begins at main's tip, and that the next commit to main absorbs: then it is gone, and main's history never has them.
type Cold interface {
	VolumeID() string
	// Head is main's tip; nil, nil while there is no commit. It is not the newest commit while there is a live branch.
	Head(ctx context.Context) (Snapshot, error)
	// Newest is what a start or a restore takes: the tip of the live branch that descends from main's tip, where there is one (its
	// Info says Live), else main's tip; nil, nil while there is no commit.
	Newest(ctx context.Context) (Snapshot, error)
	// Snapshot opens the commit with this id.
	Snapshot(ctx context.Context, commit ID) (Snapshot, error)
	// Follows says whether all that the commit older has went into newer: it is an ancestor, or a live commit that main absorbed.
	Follows(ctx context.Context, newer, older ID) (bool, error)
	// Open streams a file's content; ctx holds for all of the reading. Read fails at the end when the bytes do not match the id.
	Open(ctx context.Context, id ID, size int64) (Blob, error)
	// OpenAt opens a file's content for reading in any order, as long as ctx lives. A read fetches what it needs of a big file, not the whole.
	OpenAt(ctx context.Context, id ID, size int64) (BlobAt, error)
	// Holds says whether every object of a file's content is in the repository itself. It reads only those for which nothing
	// else vouches. ErrMissing names one that is not.
	Holds(ctx context.Context, id ID, size int64) error
	// Begin starts a commit to main, of all that is dirty: it takes the place of the live branch.
	Begin(ctx context.Context) (Tx, error)
	// BeginLive starts a commit to the live branch, of what cannot wait for the next one to main; whatever else is dirty stands in it
	// as Base has it. It goes to main after all where main has no commit yet, where the live branch has grown very long, and where
	// a reference that is none of ours has its name.
	BeginLive(ctx context.Context) (Tx, error)
	// BeginAt starts one on another commit: for finding out whether warm differs from it. Its Commit fails with ErrRefMoved
	// unless that commit is main's tip and there is no live branch.
	BeginAt(ctx context.Context, base ID) (Tx, error)
	// HasRemote says whether Fetch and Push do anything.
	HasRemote() bool
	// Peek brings the remote's main and live branch without moving ours, and says whether they have commits that ours have not.
	Peek(ctx context.Context) (moved bool, err error)
	// Fetch brings them, objects first, then moves ours forward where that loses nothing: what ours have is in theirs, or was
	// absorbed there. ErrDiverged: both sides have commits of their own; the local branches stay.
	Fetch(ctx context.Context) error
	// Push sends main and the live branch, expecting the remote to be where we last saw it, and deletes there the live branches that
	// main has absorbed; a server that refuses that is a problem in Stats, no error.
	// ErrDiverged: the remote has moved on. *RefusedError: the server said no for good.
	Push(ctx context.Context) error
	// Pushed is the newest commit that the remote is known to have, live or main's; zero: none. It waits for nothing.
	Pushed() ID
	// Maintain keeps the repository quick to read, where that is due; it may take long, runs beside everything else and changes
	// nothing that can be seen. Ended by ctx it leaves everything as it was.
	Maintain(ctx context.Context) error
	// GC removes objects that nothing reaches any more. ErrMissing or ErrCorrupt: what is reachable is not whole, nothing was
	// removed.
	GC(ctx context.Context, o GCOptions) (GCReport, error)
	// Aside lists, for people, work that the branch does not have and that somebody has to look at: versions of files of a machine that was
	// lost, where both sides had changed them. As of the last Fetch.
	Aside() []string
	Stats() ColdStats
	Close() error
}

// DefaultGrace is for how long objects that nothing reaches stay.
const DefaultGrace = 2 * time.Hour

// GCOptions say what Cold.GC removes.
type GCOptions struct {
	// Grace is for how long objects stay after they were written although nothing reaches them; zero: DefaultGrace; negative: not
	// at all.
	Grace  time.Duration
	DryRun bool // change nothing, only report
	// Progress, where it is not nil, is called now and then with the objects that were looked at and how many there are.
	Progress func(done, total int64)
}

// GCReport says what GC removed, or with DryRun would remove.
type GCReport struct {
	Objects int64 `json:"objects"` // removed; one that lies in two packs counts twice
	Bytes   int64 `json:"bytes"`   // that were freed on disk; with DryRun an estimate
	Packs   int   `json:"packs"`   // packs that were removed, or written anew without the objects
	Kept    int64 `json:"kept"`    // objects that stay, those of the grace period among them
	Busy    bool  `json:"busy"`    // some were left because objects came back into use meanwhile, again and again; the next GC looks again
}

// ColdStats describe the repository.
type ColdStats struct {
	Packs   int
	Objects int64
	Bytes   int64
	// Problems are what is wrong with the repository's files, for people.
	Problems []string
}

var (
	// ErrRefMoved: the branch is not where it was when the Tx began.
	ErrRefMoved = errors.New("the branch was moved by another writer")
	// ErrDiverged: the remote's branch has commits that ours has not.
	ErrDiverged = errors.New("the remote branch has commits of another machine")
	// ErrSizeChanged: a file grew or shrank while it was read.
	ErrSizeChanged = errors.New("file changed size while it was read")
	// ErrMissing: cold lacks an object. Wrapped with the object's id.
	ErrMissing = errors.New("object is missing from cold")
	// ErrCorrupt: bytes in cold do not match their id or their format. Wrapped with what and where.
	ErrCorrupt = errors.New("cold is damaged")
)

// TooMuchError is what a Tx says of what a commit cannot hold: it stays out of the commit, and the rest is taken.
type TooMuchError struct {
	Names []string // entries of the directory that PutDir got, "" for its own attributes; none: the file or directory as a whole
	Links bool     // of PutDir: the root's link groups
	Err   error
}

func (e *TooMuchError) Error() string { return "more than a commit can hold: " + e.Err.Error() }
func (e *TooMuchError) Unwrap() error { return e.Err }

// RefusedError is a remote's permanent refusal: hook, policy, fsck, permission.
type RefusedError struct{ Reason string }

func (e *RefusedError) Error() string { return "the remote refused the push: " + e.Reason }
