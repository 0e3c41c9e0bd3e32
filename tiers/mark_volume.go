package tiers

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// volumeMark is the attribute of warm's root that says to which volume.json it belongs. A copy without extended attributes lacks it: its
// files that are in cold only would read as zeros, its unlisted directories would be empty, and the next commit would take both for true.
const volumeMark = recordName + ".volume"

// ErrUnproven: warm and volume.json do not belong together.
var ErrUnproven = errors.New("the warm directory is not the one that volume.json is about: it was copied without extended attributes, made anew, or is another volume's; " +
	"files whose bytes are in the repository only would read as zeros")

// UnprovenHelp is the way out.
const UnprovenHelp = "copy the state directory again, as root and with all extended attributes (cp -a, rsync -aHAX), or mount the repository with a new state directory; " +
	"what no commit has is in the copy's warm directory as plain files"

// proveWarm holds the mark on warm's root against volume.json. Where nothing may have left warm there is nothing to prove.
func (s *stateFile) proveWarm(fd int) error {
	if !s.Marked {
		return nil
	}
	buf := make([]byte, 256)
	n, err := byFD(fd).get(volumeMark, buf)
	switch {
	case errors.Is(err, unix.ENODATA) || err == nil && string(buf[:n]) != s.Machine:
		return ErrUnproven
	case err != nil:
		return fmt.Errorf("read the mark of the warm directory: %w", err)
	}
	return nil
}

// markWarm gives warm's root the mark, durably, before anything leaves warm; then volume.json may say so.
func (v *Volume) markWarm() error {
	if err := byFD(v.warmFD).set(volumeMark, []byte(v.state.Machine), 0); err != nil {
		return fmt.Errorf("mark the warm directory: %w", err)
	}
	fd, err := openAt(v.warmFD, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return fmt.Errorf("mark the warm directory: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.Fsync(fd); err != nil {
		return fmt.Errorf("mark the warm directory: %w", err)
	}
	return nil
}
