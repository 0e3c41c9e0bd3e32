package cold

import (
	"errors"
	"fmt"
	"strings"
	"time"
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

// RefusedError says that the remote refuses, or cannot be used, for a reason that only a person can change: a hook, a
// policy, its fsck, a size, permissions, a credential, a host key, an address. Trying again soon cannot help.
type RefusedError struct {
	Reason string // what is wrong, with the other side's words, cleaned of control characters, at most about 1 KiB
	Advice string // what to do about it; "" if the words have to say that
	Err    error  // the error of which this is the kind; may be nil
}

// Unwrap returns Err.
func (e *RefusedError) Unwrap() error { return e.Err }

// Error implements error.
func (e *RefusedError) Error() string {
	if e.Advice == "" {
		return "the remote refuses: " + e.Reason
	}
	return "the remote refuses: " + e.Reason + "; " + e.Advice
}

// BusyError says that the remote was reached but cannot do it now: its disk is full, it is overloaded, another process
// holds a lock. Trying again later may help.
type BusyError struct {
	Reason string        // as in RefusedError
	After  time.Duration // how long the remote asks to be left alone; 0: it does not say
	Soon   bool          // it may be over within a second: another process is at work in the repository
	Locked bool          // a lock may be the reason
	Err    error         // as in RefusedError
}

// Unwrap returns Err.
func (e *BusyError) Unwrap() error { return e.Err }

// Error implements error.
func (e *BusyError) Error() string { return "the remote cannot do it now: " + e.Reason }

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
