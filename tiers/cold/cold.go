package cold

import (
	"context"
	"io"
	"time"
)

// Blob is the content of a file in cold.
type Blob interface {
	io.Reader
	io.Closer
	Size() int64
	// SkipHole moves behind the hole that the current position is in, if it is known to be in one, and returns its
	// rest's length in bytes; 0: data follows, or the end. Read gives a hole as zeros.
	SkipHole() int64
}

// BlobAt is the content of a file in cold for reading at any offset, a hole as zeros. Safe for concurrent use, but for
// Close.
type BlobAt interface {
	io.ReaderAt
	io.Closer
	Size() int64
	// Data gives the first range of data that ends behind off, as in Content: holes are those that cold knows of.
	Data(off int64) (r Range, ok bool, err error)
}

// Cold is where files live for good: a git repository (package backup). Safe for concurrent use; one Tx at a time.
//
// The volume's branch, called main here, gets a commit at every backup. The commits of critical files in between are on
// a live branch that begins at main's tip, and that the next commit to main absorbs: then it is gone, and main's
// history never has them.
type Cold interface {
	VolumeID() string
	// Head is main's tip; nil, nil while there is no commit. It is not the newest commit while there is a live branch.
	Head(ctx context.Context) (Snapshot, error)
	// Newest is what a start or a restore takes: the tip of the live branch that descends from main's tip, where there
	// is one (its Info says Live), else main's tip; nil, nil while there is no commit.
	Newest(ctx context.Context) (Snapshot, error)
	// Snapshot opens the commit with this id.
	Snapshot(ctx context.Context, commit ID) (Snapshot, error)
	// Follows says whether all that the commit older has went into newer: it is an ancestor, or a live commit that main
	// absorbed.
	Follows(ctx context.Context, newer, older ID) (bool, error)
	// Open streams a file's content; ctx holds for all of the reading. Read fails at the end when the bytes do not
	// match the id.
	Open(ctx context.Context, id ID, size int64) (Blob, error)
	// OpenAt opens a file's content for reading in any order, as long as ctx lives. A read fetches what it needs of a
	// big file, not the whole.
	OpenAt(ctx context.Context, id ID, size int64) (BlobAt, error)
	// Holds says whether every object of a file's content is in the repository itself. It reads only those for which
	// nothing else vouches. ErrMissing names one that is not.
	Holds(ctx context.Context, id ID, size int64) error
	// Begin starts a commit to main, of all that is dirty: it takes the place of the live branch.
	Begin(ctx context.Context) (Tx, error)
	// BeginLive starts a commit to the live branch, of what cannot wait for the next one to main; whatever else is
	// dirty stands in it as Base has it. It goes to main after all where main has no commit yet, where the live branch
	// has grown very long, and where a reference that is none of ours has its name.
	BeginLive(ctx context.Context) (Tx, error)
	// BeginAt starts one on another commit: for finding out whether warm differs from it. Its Commit fails with
	// ErrRefMoved unless that commit is main's tip and there is no live branch.
	BeginAt(ctx context.Context, base ID) (Tx, error)
	// HasRemote says whether Fetch and Push do anything.
	HasRemote() bool
	// Peek brings the remote's main and live branch without moving ours, and says whether they have commits that ours
	// have not.
	Peek(ctx context.Context) (moved bool, err error)
	// Fetch brings them, objects first, then moves ours forward where that loses nothing: what ours have is in theirs,
	// or was absorbed there. ErrDiverged: both sides have commits of their own; the local branches stay.
	Fetch(ctx context.Context) error
	// Push sends main and the live branch, expecting the remote to be where we last saw it, and deletes there the live
	// branches that main has absorbed; a server that refuses that is a problem in Stats, no error. ErrDiverged: the
	// remote has moved on. *RefusedError: the server said no for good.
	Push(ctx context.Context) error
	// Pushed is the newest commit that the remote is known to have, live or main's; zero: none. It waits for nothing.
	Pushed() ID
	// Maintain keeps the repository quick to read, where that is due; it may take long, runs beside everything else and
	// changes nothing that can be seen. Ended by ctx it leaves everything as it was.
	Maintain(ctx context.Context) error
	// GC removes objects that nothing reaches any more. ErrMissing or ErrCorrupt: what is reachable is not whole,
	// nothing was removed.
	GC(ctx context.Context, o GCOptions) (GCReport, error)
	// Aside lists, for people, work that the branch does not have and that somebody has to look at: versions of files
	// of a machine that was lost, where both sides had changed them. As of the last Fetch.
	Aside() []string
	Stats() ColdStats
	Close() error
}

// DefaultGrace is for how long objects that nothing reaches stay.
const DefaultGrace = 2 * time.Hour

// GCOptions say what Cold.GC removes.
type GCOptions struct {
	// Grace is for how long objects stay after they were written although nothing reaches them; zero: DefaultGrace;
	// negative: not at all.
	Grace  time.Duration
	DryRun bool // change nothing, only report
	// Progress, where it is not nil, is called now and then with the objects that were looked at and how many there
	// are.
	Progress func(done, total int64)
}

// GCReport says what GC removed, or with DryRun would remove.
type GCReport struct {
	Objects int64 `json:"objects"` // removed; one that lies in two packs counts twice
	Bytes   int64 `json:"bytes"`   // that were freed on disk; with DryRun an estimate
	Packs   int   `json:"packs"`   // packs that were removed, or written anew without the objects
	Kept    int64 `json:"kept"`    // objects that stay, those of the grace period among them
	// Some were left because objects came back into use meanwhile, again and again; the next GC looks again.
	Busy bool `json:"busy"`
}

// ColdStats describe the repository.
type ColdStats struct {
	Packs   int
	Objects int64
	Bytes   int64
	// Problems are what is wrong with the repository's files, for people.
	Problems []string
}
