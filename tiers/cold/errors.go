package cold

import "errors"

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
	// Entries of the directory that PutDir got, "" for its own attributes; none: the file or directory as a whole.
	Names []string
	Links bool // of PutDir: the root's link groups
	Err   error
}

// Error implements error.
func (e *TooMuchError) Error() string { return "more than a commit can hold: " + e.Err.Error() }

// Unwrap gives what is too much.
func (e *TooMuchError) Unwrap() error { return e.Err }

// RefusedError is a remote's permanent refusal: hook, policy, fsck, permission.
type RefusedError struct{ Reason string }

// Error implements error.
func (e *RefusedError) Error() string { return "the remote refused the push: " + e.Reason }
