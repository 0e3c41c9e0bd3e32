package cold

import (
	"errors"
	"fmt"
	"strings"
)

var (
	// ErrRefMoved says that the branch is no longer where it was when the Tx began.
	ErrRefMoved = errors.New("the branch was moved by another writer")
	// ErrDiverged says that the remote's branch has commits that the local one lacks.
	ErrDiverged = errors.New("the remote branch has commits of another machine")
	// ErrSizeChanged says that a file grew or shrank while it was read.
	ErrSizeChanged = errors.New("file changed size while it was read")
	// ErrMissing says that cold lacks an object. It is wrapped with the object's id.
	ErrMissing = errors.New("object is missing from cold")
	// ErrCorrupt says that bytes in cold do not match their id or their format. It is wrapped with what is damaged and
	// where.
	ErrCorrupt = errors.New("cold is damaged")
)

// TooMuchError is returned by a Tx for something that a commit cannot hold. The caller leaves it out of the commit and
// goes on with the rest.
type TooMuchError struct {
	// Names are the entries, among those passed to PutDir, that are too much; "" stands for the directory's own
	// attributes. If it is empty, the file or directory as a whole is too much.
	Names []string
	Links bool // PutDir: the root's hard-link groups are too much
	Err   error
}

// Error implements error.
func (e *TooMuchError) Error() string { return "more than a commit can hold: " + e.Err.Error() }

// Unwrap returns the reason.
func (e *TooMuchError) Unwrap() error { return e.Err }

// RefusedError is a permanent refusal by a remote, by a hook, a policy, its fsck or its permissions.
type RefusedError struct{ Reason string }

// Error implements error.
func (e *RefusedError) Error() string { return "the remote refused the push: " + e.Reason }

// NoBranchError says that the remote lacks the volume's branch and is not empty, so that it may be the wrong branch.
type NoBranchError struct {
	Branch string
	Others []string // the branches that there are, a few of them; empty: it has other references only
}

// Error implements error.
func (e *NoBranchError) Error() string {
	text := fmt.Sprintf("it has no branch %s", e.Branch)
	if len(e.Others) == 0 {
		return text + ", only references that are no branches"
	}
	return text + "; it has " + strings.Join(e.Others, ", ")
}
