package tiers

import (
	"fmt"

	"golang.org/x/sys/unix"

	"emberfs/tiers/warm"
)

// markWarm gives warm's root the mark, durably, before anything leaves warm; then volume.json may say so.
func (v *Volume) markWarm() error {
	if err := warm.ByFD(v.warmFD).Set(warm.MarkAttr, []byte(v.state.Machine), 0); err != nil {
		return fmt.Errorf("mark the warm directory: %w", err)
	}
	fd, err := warm.OpenAt(v.warmFD, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return fmt.Errorf("mark the warm directory: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.Fsync(fd); err != nil {
		return fmt.Errorf("mark the warm directory: %w", err)
	}
	return nil
}
