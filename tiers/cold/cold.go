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
	// SkipHole skips the hole at the current position, if cold knows of one there, and returns the number of bytes
	// skipped. It returns 0 if data follows, or at the end of the content. Read, in contrast, returns a hole as zeros.
	SkipHole() int64
}

// BlobAt is the content of a file in cold, for reading at any offset; holes read as zeros. It is safe for concurrent
// use, except that Close must come after all other calls.
type BlobAt interface {
	io.ReaderAt
	io.Closer
	Size() int64
	// Data returns the first range of data that ends after off, as Content.Data does. Only holes that cold knows of are
	// left out. ok is false if no data follows.
	Data(off int64) (r Range, ok bool, err error)
}

// Cold is where files live for good: a git repository (package backup implements it). It is safe for concurrent use,
// but only one Tx can be open at a time.
//
// The volume's branch, called main here, gets a commit at every backup. Commits of critical files in between go to a
// live branch, which begins at main's tip. The next commit to main absorbs the live branch: it contains all that the
// live branch had, and the live branch is deleted, so its commits never become part of main's history.
type Cold interface {
	VolumeID() string
	// Head returns main's tip, or nil, nil if there is no commit yet. While there is a live branch, Head is not the
	// newest commit; see Newest.
	Head(ctx context.Context) (Snapshot, error)
	// Newest returns the commit that a start or a restore uses: the tip of the live branch if there is one that
	// descends from main's tip (its Info then says Live), otherwise main's tip. It returns nil, nil if there is no
	// commit yet.
	Newest(ctx context.Context) (Snapshot, error)
	// Snapshot opens the commit with this id.
	Snapshot(ctx context.Context, commit ID) (Snapshot, error)
	// Follows reports whether newer contains everything that was committed in older: either older is an ancestor of
	// newer, or it is a live commit that main absorbed on the way to newer.
	Follows(ctx context.Context, newer, older ID) (bool, error)
	// Open returns a stream of a file's content. ctx must stay valid until the reading is over. If the bytes do not
	// match the id, Read fails, at the latest at the end.
	Open(ctx context.Context, id ID, size int64) (Blob, error)
	// OpenAt opens a file's content for reading in any order, for as long as ctx is not cancelled. Of a big file, a
	// read fetches only what it needs.
	OpenAt(ctx context.Context, id ID, size int64) (BlobAt, error)
	// Holds checks that every object of a file's content is in this repository itself. It reads only the objects that
	// nothing else vouches for. If one is not there, the error is ErrMissing and names it.
	Holds(ctx context.Context, id ID, size int64) error
	// Begin starts a commit to main that takes everything dirty. It absorbs the live branch, if there is one.
	Begin(ctx context.Context) (Tx, error)
	// BeginLive starts a commit to the live branch, for changes that cannot wait for the next commit to main.
	// Everything else that is dirty stays in it as Base has it. The commit goes to main instead if main has no commit
	// yet, if the live branch has grown very long, or if a reference that is not EmberFS's occupies the live branch's
	// name.
	BeginLive(ctx context.Context) (Tx, error)
	// BeginAt starts a Tx based on the given commit, to find out whether warm differs from that commit. Its Commit
	// fails with ErrRefMoved unless that commit is main's tip and there is no live branch.
	BeginAt(ctx context.Context, base ID) (Tx, error)
	// HasRemote reports whether there is a remote; without one, Fetch and Push do nothing.
	HasRemote() bool
	// Peek downloads the remote's main and live branch without moving the local branches, and reports whether they have
	// commits that the local ones lack.
	Peek(ctx context.Context) (moved bool, err error)
	// Fetch downloads both branches, objects first, and then moves the local branches forward if that loses nothing,
	// that is, if the remote has everything that the local branches have, as ancestors or absorbed. If both sides have
	// commits of their own, it returns ErrDiverged and leaves the local branches alone. Where there is no commit on
	// either side, but the remote has other references, it returns *NoBranchError unless a volume may begin there.
	Fetch(ctx context.Context) error
	// Push sends main and the live branch, provided that the remote's are still where this side last saw them. On the
	// remote it also deletes the live branches that main has absorbed; a server that refuses the deletion is reported
	// as a problem in Stats, not as an error. Push returns ErrDiverged if the remote has moved on, and *RefusedError if
	// the server refused permanently.
	Push(ctx context.Context) error
	// Contact returns when the remote last answered Peek or Fetch by listing its references, or the zero time if it has
	// not since the Cold was opened. What takes long comes after that. It never blocks.
	Contact() time.Time
	// Pushed returns the newest commit, of main or of the live branch, that the remote is known to have, or the zero ID
	// if none is known. It never blocks.
	Pushed() ID
	// Maintain keeps the repository quick to read, and does nothing if no upkeep is due. It may take long; it can run
	// beside everything else and changes nothing that callers can see. If ctx is cancelled it leaves everything as it
	// was.
	Maintain(ctx context.Context) error
	// GC removes objects that nothing refers to any more. If reachable objects are missing or damaged it returns
	// ErrMissing or ErrCorrupt and has removed nothing.
	GC(ctx context.Context, o GCOptions) (GCReport, error)
	// Aside lists, as texts for people, the work that the branch does not contain and that somebody has to look at:
	// versions of files from a machine that was lost, where both sides had changed the same file. It is as of the last
	// Fetch or Push.
	Aside() []string
	Stats() ColdStats
	Close() error
}

// DefaultGrace is how long GC keeps objects that nothing refers to, unless GCOptions.Grace says otherwise.
const DefaultGrace = 2 * time.Hour

// GCOptions say what Cold.GC removes.
type GCOptions struct {
	// Grace is how long objects that nothing refers to are kept after they were written. Zero means DefaultGrace; a
	// negative value means that they are not kept at all.
	Grace  time.Duration
	DryRun bool // change nothing, only report
	// Progress, if not nil, is called now and then with the number of objects looked at so far and the total.
	Progress func(done, total int64)
}

// GCReport says what GC removed, or with DryRun would remove.
type GCReport struct {
	Objects int64 `json:"objects"` // objects removed; one that lies in two packs counts twice
	Bytes   int64 `json:"bytes"`   // bytes freed on disk; with DryRun an estimate
	Packs   int   `json:"packs"`   // packs that were removed or rewritten without the objects
	Kept    int64 `json:"kept"`    // objects that stay, including those still within the grace period
	// Busy says that some objects were left because they kept coming back into use meanwhile. The next GC looks at them
	// again.
	Busy bool `json:"busy"`
}

// ColdStats describe the repository.
type ColdStats struct {
	Packs   int
	Objects int64
	Bytes   int64
	// Problems describes, for people, what is wrong with the repository's files.
	Problems []string
}
