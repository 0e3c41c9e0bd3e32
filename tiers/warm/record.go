package warm

import (
	"encoding/binary"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
)

// RecordAttr is the attribute that holds a file's or directory's state. Reserved, with user.emberfs: no program sees or
// sets them.
const RecordAttr = "trusted.emberfs"

// RecordMax bounds a record: a longer attribute leaves ext4's inode and costs a 4 KiB block a file.
const RecordMax = 64

const RecordVersion = 1

const (
	FlagClean = 1 << iota // file: content is what id names; directory: everything below is as in (tree, meta)
	FlagCtime             // ctime is what stat shows (directory: while mtime is still warm's)
	FlagDir               // directory record
	FlagStub              // the bytes are in cold only: warm has a hole; size, mtime and blocks are what stat shows
	FlagLazy              // the children of this directory are not made in warm yet; mtime is what stat shows
	FlagGroup             // group holds the hard-link group
	// Blocks is what stat shows (a file that is no stub any more: while size and mtime are warm's).
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

// Has says whether all of these flags are set.
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

// Encode is the value of the attribute.
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

// DecodeRecord reads a record; ok is false for anything that this version did not write, which then counts as no
// record.
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
		return Record{}, false // nothing that this version writes
	}
	return r, true
}

// ReadRecord reads the record of what at aims at, whoever wrote it; ok is false where there is none that can be read.
func ReadRecord(at XattrTarget) (r Record, ok bool) {
	var buf [RecordMax + 1]byte
	n, err := at.Get(RecordAttr, buf[:])
	if err != nil {
		return Record{}, false
	}
	return DecodeRecord(buf[:n])
}

// Believed is r as far as a start with the given trust number may believe it; zero where not at all. That the bytes of
// a stub, or the children of a lazy directory, are not here is true whatever happened: the mark was set before
// they went, and is taken away after they came. But a stub whose size is not the file's was being emptied.
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

// IsStub says that the bytes are in cold only.
func (r *Record) IsStub() bool { return r.Has(FlagStub) && !r.Has(FlagDir) }

// ReservedXattr says whether an attribute belongs to EmberFS.
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

// CapsAttr is the attribute that any change of a file's bytes takes away, of which making a hole is one: a file that
// has it never leaves warm.
const CapsAttr = "security.capability"
