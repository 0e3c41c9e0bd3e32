package warm

import (
	"encoding/binary"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
)

// RecordAttr is the extended attribute that holds a record, the state of a file or directory. Programs can neither see
// nor set it, nor user.emberfs.
const RecordAttr = "trusted.emberfs"

// RecordMax is the maximum size of a record in bytes: a longer attribute would not fit into ext4's inode and would cost
// a block of 4 KiB per file.
const RecordMax = 64

const RecordVersion = 1

const (
	FlagClean = 1 << iota // file: its content is that of id; directory: everything below is as in (tree, meta)
	FlagCtime             // stat shows this ctime (of a directory: only while mtime equals warm's)
	FlagDir               // directory record
	FlagStub              // the bytes are in cold only, warm has a hole; stat shows size, mtime and blocks
	FlagLazy              // the directory's children are not made in warm yet; stat shows mtime
	FlagGroup             // group holds the hard-link group
	// stat shows Blocks; of a file that is not a stub any more, only while size and mtime equal warm's.
	FlagBlocks
)

// Record is the state of one inode beside its data.
//
//	byte 0     version
//	byte 1     flags
//	byte 2-3   trust number (little endian): believed only when it is the volume's
//	file:      id 20, size 8, mtime 9, ctime 9, group 8        = 58 bytes
//	           with recBlocks: blocks 6                        = 64 bytes
//	directory: tree 20, meta 20, mtime 9, ctime 9              = 62 bytes
//
// A time is 40 bits of seconds, signed, and 32 bits of nanoseconds.
type Record struct {
	Flags uint8
	Trust uint16
	ID    cold.ID // file: blob; directory: tree
	Meta  cold.ID
	Size  int64
	Mtime cold.Time
	Ctime cold.Time
	Group uint64

	Blocks uint64 // of 512 bytes, at most 48 bits
}

// Has reports whether all of these flags are set.
func (r *Record) Has(flag uint8) bool { return r.Flags&flag == flag }

func putTime(b []byte, t cold.Time) []byte {
	s := uint64(t.Sec)
	b = append(b, byte(s), byte(s>>8), byte(s>>16), byte(s>>24), byte(s>>32))
	return binary.LittleEndian.AppendUint32(b, t.Nsec)
}

func getTime(b []byte) cold.Time {
	s := uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16 | uint64(b[3])<<24 | uint64(b[4])<<32
	return cold.Time{Sec: int64(s<<24) >> 24, Nsec: binary.LittleEndian.Uint32(b[5:])}
}

// Encode appends the attribute's value to b.
func (r *Record) Encode(b []byte) []byte {
	b = append(b, RecordVersion, r.Flags)
	b = binary.LittleEndian.AppendUint16(b, r.Trust)
	b = append(b, r.ID[:]...)
	if r.Has(FlagDir) {
		b = append(b, r.Meta[:]...)
	} else {
		b = binary.LittleEndian.AppendUint64(b, uint64(r.Size))
	}
	b = putTime(b, r.Mtime)
	b = putTime(b, r.Ctime)
	if !r.Has(FlagDir) {
		b = binary.LittleEndian.AppendUint64(b, r.Group)
		if r.Has(FlagBlocks) {
			var blocks [8]byte
			binary.LittleEndian.PutUint64(blocks[:], r.Blocks)
			b = append(b, blocks[:6]...)
		}
	}
	return b
}

// DecodeRecord parses a record. ok is false for anything that this version does not write; it counts as no record.
func DecodeRecord(b []byte) (r Record, ok bool) {
	if len(b) < 4 || b[0] != RecordVersion {
		return Record{}, false
	}
	r.Flags = b[1]
	r.Trust = binary.LittleEndian.Uint16(b[2:])
	copy(r.ID[:], b[4:])
	switch {
	case r.Has(FlagDir) && len(b) == 62:
		copy(r.Meta[:], b[24:])
		r.Mtime, r.Ctime = getTime(b[44:]), getTime(b[53:])
	case !r.Has(FlagDir) && (len(b) == 58 && !r.Has(FlagBlocks) || len(b) == 64 && r.Has(FlagBlocks)):
		r.Size = int64(binary.LittleEndian.Uint64(b[24:]))
		r.Mtime, r.Ctime = getTime(b[32:]), getTime(b[41:])
		r.Group = binary.LittleEndian.Uint64(b[50:])
		if r.Has(FlagBlocks) {
			var blocks [8]byte
			copy(blocks[:], b[58:])
			r.Blocks = binary.LittleEndian.Uint64(blocks[:])
		}
	default:
		return Record{}, false
	}
	if r.Mtime.Nsec >= 1e9 || r.Ctime.Nsec >= 1e9 {
		return Record{}, false
	}
	if r.Has(FlagDir|FlagStub) || !r.Has(FlagDir) && r.Has(FlagLazy) || r.Has(FlagStub) &&
		(r.Size <= 0 || r.ID.IsZero()) {
		return Record{}, false // this version does not write such a record
	}
	return r, true
}

// ReadRecord reads the record of an inode, without judging whether it can be believed. ok is false if there is none, or
// it cannot be read.
func ReadRecord(at XattrTarget) (r Record, ok bool) {
	var buf [RecordMax + 1]byte
	n, err := at.Get(RecordAttr, buf[:])
	if err != nil {
		return Record{}, false
	}
	return DecodeRecord(buf[:n])
}

// Believed returns the part of r that a volume with the given trust number may believe; the zero Record if none of it.
// The marks of a stub and of a lazy directory are believed whatever the trust number: the mark is set before the bytes
// go or the children are left out, and removed after they are here. The exception is a stub whose size is not the
// file's: the file was being emptied.
func (r Record) Believed(trust uint16, dir bool, st *unix.Statx_t) Record {
	switch {
	case r.Has(FlagDir) != dir:
		return Record{}
	case r.Has(FlagStub):
		if r.Size != int64(st.Size) {
			return Record{}
		}
	case r.Has(FlagLazy):
	case r.Trust != trust:
		return Record{}
	}
	return r
}

// IsStub reports whether the file's bytes are in cold only.
func (r *Record) IsStub() bool { return r.Has(FlagStub) && !r.Has(FlagDir) }

// ReservedXattr reports whether an attribute's name is reserved for EmberFS.
func ReservedXattr(name string) bool {
	for _, p := range [...]string{RecordAttr, "user.emberfs"} {
		if name == p || strings.HasPrefix(name, p+".") {
			return true
		}
	}
	return false
}

// SortXattrs sorts attributes by name, as commits have them.
func SortXattrs(x []cold.Xattr) {
	slices.SortFunc(x, func(a, b cold.Xattr) int { return strings.Compare(a.Name, b.Name) })
}

// CapsAttr holds a file's capabilities. The kernel removes it when the file's bytes change in any way, even by punching
// a hole, so a file that has it never leaves warm.
const CapsAttr = "security.capability"
