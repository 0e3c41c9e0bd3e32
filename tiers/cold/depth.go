package cold

import (
	"errors"
	"fmt"
	"strings"
)

const (
	// MaxDepth is how many levels below the root a directory may be for a commit to take it. git refuses trees of more
	// than 2,048 levels (core.maxTreeDepth in git-config(1)); the difference leaves room for the metadata's own
	// folders, for shards of wide directories and for chunks.
	MaxDepth = 2000
	// maxDirPath is how many bytes the path of such a directory may have. It bounds memory: whoever walks a tree holds
	// the paths of all directories above the current one.
	maxDirPath = 128 << 10
	// WalkDepth and walkPath are the limits for code that reads directories, in warm or in a commit that a stock client
	// may have made. They are larger than the limits for writing, so that whatever could be written can be read. Code
	// that meets such a directory skips it, reports it, and goes on with the rest.
	WalkDepth = 2 * MaxDepth
	walkPath  = 2 * maxDirPath
)

// ErrTooDeep says that a directory lies too far below the root.
var ErrTooDeep = errors.New("nested too deep")

// TooDeepToTake returns an ErrTooDeep if a commit cannot take the directory at this slash path (relative to the root),
// and nil if it can.
func TooDeepToTake(at string) error {
	if strings.Count(at, "/") >= MaxDepth || len(at) > maxDirPath {
		return fmt.Errorf("%w: a commit takes directories up to %d levels below the root, with paths of up to %d KiB",
			ErrTooDeep, MaxDepth, maxDirPath>>10)
	}
	return nil
}

// TooDeepToWalk returns an ErrTooDeep if a directory at this path, depth levels below the root, is beyond what readers
// walk into, and nil otherwise.
func TooDeepToWalk(at string, depth int) error {
	if depth > WalkDepth || len(at) > walkPath {
		return fmt.Errorf("%w: more than %d levels, or a path of more than %d KiB", ErrTooDeep, WalkDepth, walkPath>>10)
	}
	return nil
}
