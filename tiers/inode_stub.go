package tiers

import (
	"emberfs/tiers/warm"
	"errors"
)

// errStub says that a file's bytes have to come back to warm before they can change. No program sees it: the type again
// handles it.
var errStub = errors.New("the bytes are in cold only")

// errBack says that a stub's bytes are being moved, in either direction, and that whoever wants to empty the file has
// to wait for the end of that with nothing locked. No program sees it: the type again handles it.
var errBack = errors.New("the bytes are being moved")

// hasRoom says whether warm's file system has some free blocks and inodes.
func (v *Volume) hasRoom() bool { return warm.HasRoom(v.warmFD) }

// voidStub returns the record to keep in memory for a stub whose file was cut while the mark on disk could not be
// replaced. It says that the file is dirty. FlagCtime in it makes the next change of the bytes replace the mark first,
// which would be true again if the file grew to its old size.
func voidStub(old *warm.Record) warm.Record {
	return warm.Record{Flags: warm.FlagCtime | old.Flags&warm.FlagGroup, Group: old.Group, ID: old.ID}
}

// tiered says whether there may be stubs and lazy directories: without records there are none.
func (v *Volume) tiered() bool { return v.records }
