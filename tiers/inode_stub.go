package tiers

import (
	"emberfs/tiers/warm"
	"errors"
)

// errStub says that a file's bytes have to come back before they can change. No program sees it: see again.
var errStub = errors.New("the bytes are in cold only")

// errBack says that a stub's bytes are on their way, in either direction, and that whoever wants to empty it waits for
// the end of that while nothing is locked. No program sees it either.
var errBack = errors.New("the bytes are being moved")

// hasRoom says that warm's file system is not full: a block, and an inode, can be had.
func (v *Volume) hasRoom() bool { return warm.HasRoom(v.warmFD) }

// voidStub is what counts of a stub whose file was cut, as long as the mark on disk could not be replaced: nothing, but
// no change of the bytes gets by before it is, since the mark would be true again should the file grow to its old size.
func voidStub(old *warm.Record) warm.Record {
	return warm.Record{Flags: warm.FlagCtime | old.Flags&warm.FlagGroup, Group: old.Group, ID: old.ID}
}

// tiered says whether there may be stubs and lazy directories: without records there are none.
func (v *Volume) tiered() bool { return v.records }
