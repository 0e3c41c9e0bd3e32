package cold

import (
	"errors"
	"fmt"
	"strings"
)

const (
	// MaxDepth is how many levels below the root a commit takes directories. git refuses trees of more than 2,048
	// levels (core.maxTreeDepth of git-config(1)); the metadata's own folders, shards of wide directories and chunks
	// are among these.
	MaxDepth = 2000
	// maxDirPath is how many bytes the path of such a directory may have: whoever walks a tree has all paths of a
	// branch in memory.
	maxDirPath = 128 << 10
	// WalkDepth and walkPath bound those who read what is there, or in a commit of a stock client. They are larger, for
	// no reader has a limit that the writer has not. Whoever meets them passes that directory by, says so, and goes on
	// with the rest.
	WalkDepth = 2 * MaxDepth
	walkPath  = 2 * maxDirPath
)

// ErrTooDeep says that a directory lies too far below the root.
var ErrTooDeep = errors.New("nested too deep")

// TooDeepToTake says why a commit does not take the directory at a slash path, nil where it does.
func TooDeepToTake(at string) error {
	if strings.Count(at, "/") >= MaxDepth || len(at) > maxDirPath {
		return fmt.Errorf("%w: a commit takes directories up to %d levels below the root, with paths of up to %d KiB",
			ErrTooDeep, MaxDepth, maxDirPath>>10)
	}
	return nil
}

// TooDeepToWalk says why nobody walks into the directory at a path, as many levels below the root; nil: there is no
// reason.
func TooDeepToWalk(at string, depth int) error {
	if depth > WalkDepth || len(at) > walkPath {
		return fmt.Errorf("%w: more than %d levels, or a path of more than %d KiB", ErrTooDeep, WalkDepth, walkPath>>10)
	}
	return nil
}
