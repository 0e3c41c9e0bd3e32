package warm

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// MarkAttr is an attribute of warm's root that says to which volume.json it belongs. A copy made without extended
// attributes lacks it. In such a copy, stubs would read as zeros and lazy directories would be empty, and the next
// commit would store that.
const MarkAttr = RecordAttr + ".volume"

// ErrUnproven says that warm and volume.json do not belong together.
var ErrUnproven = errors.New("the warm directory is not the one that volume.json is about: it was copied without " +
	"extended attributes, made anew, or is another volume's; " +
	"files whose bytes are in the repository only would read as zeros")

// UnprovenHelp tells the user what to do about ErrUnproven.
const UnprovenHelp = "copy the state directory again, as root and with all extended attributes (cp -a, rsync -aHAX), " +
	"or mount the repository with a new state directory; " +
	"what no commit has is in the copy's warm directory as plain files"

// ProveWarm checks the mark on warm's root against volume.json. It returns nil without checking if no bytes may have
// left warm.
func (s *StateFile) ProveWarm(fd int) error {
	if !s.Marked {
		return nil
	}
	buf := make([]byte, 256)
	n, err := ByFD(fd).Get(MarkAttr, buf)
	switch {
	case errors.Is(err, unix.ENODATA) || err == nil && string(buf[:n]) != s.Machine:
		return ErrUnproven
	case err != nil:
		return fmt.Errorf("read the mark of the warm directory: %w", err)
	}
	return nil
}
