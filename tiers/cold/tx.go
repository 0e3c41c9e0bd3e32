package cold

import (
	"context"
	"io"
	"time"
)

// Root is what only the metadata of the root directory contains.
type Root struct {
	Entry                     // the root's own attributes; Name, ID and Meta are ignored
	Links map[string][]string // hard-link groups that span directories, as Snapshot.LinkDirs returns them
}

// CommitOptions is what a commit says besides its directories. Most of it goes into trailers of the commit message.
type CommitOptions struct {
	Reason  string
	Machine string // id of this machine
	Files   int64  // number of files whose content or metadata this commit took
	Bytes   int64
	AtRisk  int64 // number of files that were dirty and that this commit has not taken
	// AtRiskBytes is how many bytes of these files no commit has, as far as that is known.
	AtRiskBytes int64
	// Clean says that the session ends with this commit, and that the commit has everything.
	Clean bool
	// Lacking are the slash paths of files that this commit should have taken and could not: a few of them, for the
	// next machine to name.
	Lacking []string
	Took    time.Duration // since the commit began
	Root    DirID         // what PutDir returned for the root directory
	Repeat  bool          // nothing was put: the commit has the tree of its base, and is there for what it says
	When    time.Time
	Rules   *[]byte  // the rules to store in the volume; empty removes them, nil keeps those of the base commit
	Opened  []string // as Snapshot.Opened returns it; cut off if too long; nil keeps the base commit's list
}

// Range is a half-open range of a file's bytes.
type Range struct{ Off, End int64 }

// Content is a file's bytes as a commit reads them. Its methods may be called concurrently.
type Content interface {
	// ReadAt fills p unless the file ends before that; then it returns io.EOF.
	io.ReaderAt
	Size() int64
	// Data returns the first range of data that ends after off, as lseek(2) with SEEK_DATA and SEEK_HOLE would find it;
	// the range may begin before off. ok is false if only a hole follows.
	Data(off int64) (r Range, ok bool, err error)
}

// Base is what is known about a file's content before it is read.
type Base struct {
	// ID is the content in the last commit, or what an earlier PutFile of the same Tx returned. Zero means that nothing
	// is known.
	ID ID
	// Known says that the bytes outside of Changed are the same as those of ID, up to the smaller of the two sizes.
	Known   bool
	Changed []Range // sorted, disjoint
}

// Tx collects the objects of one commit. It must be used by one goroutine at a time, except that PutFile may be called
// concurrently.
type Tx interface {
	// Base returns the snapshot that this commit extends, nil for the first commit: the newest one when the Tx began,
	// as Cold.Newest, or the one that BeginAt named. If its Info says Live, a Tx of Cold.Begin will absorb it; the new
	// commit's parent is then main's tip all the same.
	Base() Snapshot
	// PutFile stores a file's content, except what base already has. It fails with ErrSizeChanged if c yields more or
	// fewer bytes than its Size, and with *TooMuchError if the content is more than a commit can hold.
	PutFile(ctx context.Context, c Content, base Base) (ID, error)
	// PutSymlink returns the id of a symlink's target, to be used as the entry's ID in PutDir.
	PutSymlink(ctx context.Context, target string, base ID) (ID, error)
	// PutDir stores one directory. Children come before their parents, and the root comes last.
	//
	// If base is non-zero and full is false, the entries in put replace or join those of base, and the names in del are
	// removed. If full is true, put is the whole directory, and base only tells what need not be stored again. An entry
	// that is a directory must carry a DirID that an earlier PutDir returned or that is in the base commit.
	//
	// root must be nil for every directory but the root. For the root, equal content, attributes and links yield the
	// same DirID as Base().Root().Dir().
	//
	// After *TooMuchError nothing of the directory is stored, and the Tx can go on.
	PutDir(ctx context.Context, base DirID, full bool, root *Root, put []Entry, del []string) (DirID, error)
	// Commit makes the objects durable and moves the branch to the new commit (FORMAT.md section 5): main, or the live
	// branch if the Tx is one of BeginLive. It fails with ErrRefMoved, and changes nothing, if somebody else moved one
	// of the two branches since the Tx began. A commit to main deletes the live branch that it absorbed. A Tx may
	// commit without any PutDir if CommitOptions.Root is the root of its Base, and that is Live or CommitOptions.Repeat
	// is set; then the commit has the tree of that Base, and Rules and Opened count for nothing.
	Commit(ctx context.Context, o CommitOptions) (ID, error)
	// Abort drops everything that was put. After a successful Commit it does nothing.
	Abort()
}
