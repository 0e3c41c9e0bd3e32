package cold

import (
	"context"
	"io"
	"time"
)

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
	// Data gives the first range of data that ends behind off, as lseek(2) with SEEK_DATA and SEEK_HOLE does; it may
	// begin before off. ok is false where only a hole follows.
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

// Tx collects the objects of one commit. It is used by one goroutine at a time, except PutFile, which may be called
// concurrently.
type Tx interface {
	// Base is the newest snapshot when the Tx began, as Cold.Newest: what this commit's content extends; nil for the
	// first. Where its Info says Live a Tx of Cold.Begin absorbs it: the new commit's parent is main's tip all the
	// same.
	Base() Snapshot
	// PutFile stores a file's content; it fails with ErrSizeChanged when c gives more or fewer bytes than its Size,
	// with *TooMuchError when that is too much. What base has too is not stored again.
	PutFile(ctx context.Context, c Content, base Base) (ID, error)
	// PutSymlink stores a symlink's target.
	PutSymlink(ctx context.Context, target string, base ID) (ID, error)
	// PutDir stores one directory, children first. *TooMuchError: nothing is stored. With base non-zero and full false
	// the entries in put replace or join those of base and the names in del leave; with full true put is everything,
	// and base only says what need not be stored again. Entries that are directories carry the DirID that an earlier
	// PutDir returned or that stands in the base commit. root is nil but for the root directory, which comes last:
	// equal content, attributes and links give the DirID that Base().Root().Dir() has.
	PutDir(ctx context.Context, base DirID, full bool, root *Root, put []Entry, del []string) (DirID, error)
	// Commit publishes the objects durably and moves the branch to the new commit (FORMAT.md section 5): main, or for a
	// Tx of BeginLive the live branch. ErrRefMoved: somebody else moved one of them; nothing changed. After a commit to
	// main the live branch that it absorbed is gone. Where CommitOptions.Root is that of a Base that is Live, nothing
	// need have been put.
	Commit(ctx context.Context, o CommitOptions) (ID, error)
	// Abort drops everything; a no-op after Commit.
	Abort()
}
