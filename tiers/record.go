package tiers

import (
	"encoding/binary"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
)

// recordName is the attribute that holds a file's or directory's state. Reserved, with user.emberfs: no program sees or sets them.
const recordName = "trusted.emberfs"

// recordMax bounds a record: a longer attribute leaves ext4's inode and costs a 4 KiB block a file.
const recordMax = 64

const recordVersion = 1

const (
	recClean    = 1 << iota // file: content is what id names; directory: everything below is as in (tree, meta)
	recCtime                // ctime is what stat shows (directory: while mtime is still warm's)
	recDir                  // directory record
	recStub                 // the bytes are in cold only: warm has a hole; size, mtime and blocks are what stat shows
	recUnlisted             // the children of this directory are not made in warm yet; mtime is what stat shows
	recGroup                // group holds the hard-link group
	recBlocks               // blocks is what stat shows (a file that is no stub any more: while size and mtime are warm's)
)

// record is the state of one inode beside its data.
//
//	byte 0     version
//	byte 1     flags
//	byte 2-3   trust number (little endian): believed only when it is the volume's
//	file:      id 20, size 8, mtime 9, ctime 9, group 8        = 58 bytes
//	           with recBlocks: blocks 6                        = 64 bytes
//	directory: tree 20, meta 20, mtime 9, ctime 9              = 62 bytes
//
// A time is 40 bits of seconds, signed, and 32 bits of nanoseconds.
type record struct {
	flags uint8
	trust uint16
	id    cold.ID // file: blob; directory: tree
	meta  cold.ID
	size  int64
	mtime cold.Time
	ctime cold.Time
	group uint64

	blocks uint64 // of 512 bytes, at most 48 bits
}

func (r *record) has(flag uint8) bool { return r.flags&flag == flag }

func putTime(b []byte, t cold.Time) []byte {
	s := uint64(t.Sec)
	b = append(b, byte(s), byte(s>>8), byte(s>>16), byte(s>>24), byte(s>>32))
	return binary.LittleEndian.AppendUint32(b, t.Nsec)
}

func getTime(b []byte) cold.Time {
	s := uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16 | uint64(b[3])<<24 | uint64(b[4])<<32
	return cold.Time{Sec: int64(s<<24) >> 24, Nsec: binary.LittleEndian.Uint32(b[5:])}
}

func (r *record) encode(b []byte) []byte {
	b = append(b, recordVersion, r.flags)
	b = binary.LittleEndian.AppendUint16(b, r.trust)
	b = append(b, r.id[:]...)
	if r.has(recDir) {
		b = append(b, r.meta[:]...)
	} else {
		b = binary.LittleEndian.AppendUint64(b, uint64(r.size))
	}
	b = putTime(b, r.mtime)
	b = putTime(b, r.ctime)
	if !r.has(recDir) {
		b = binary.LittleEndian.AppendUint64(b, r.group)
		if r.has(recBlocks) {
			var blocks [8]byte
			binary.LittleEndian.PutUint64(blocks[:], r.blocks)
			b = append(b, blocks[:6]...)
		}
	}
	return b
}

// decodeRecord reads a record; ok is false for anything that this version did not write, which then counts as no record.
func decodeRecord(b []byte) (r record, ok bool) {
	if len(b) < 4 || b[0] != recordVersion {
		return record{}, false
	}
	r.flags = b[1]
	r.trust = binary.LittleEndian.Uint16(b[2:])
	copy(r.id[:], b[4:])
	switch {
	case r.has(recDir) && len(b) == 62:
		copy(r.meta[:], b[24:])
		r.mtime, r.ctime = getTime(b[44:]), getTime(b[53:])
	case !r.has(recDir) && (len(b) == 58 && !r.has(recBlocks) || len(b) == 64 && r.has(recBlocks)):
		r.size = int64(binary.LittleEndian.Uint64(b[24:]))
		r.mtime, r.ctime = getTime(b[32:]), getTime(b[41:])
		r.group = binary.LittleEndian.Uint64(b[50:])
		if r.has(recBlocks) {
			var blocks [8]byte
			copy(blocks[:], b[58:])
			r.blocks = binary.LittleEndian.Uint64(blocks[:])
		}
	default:
		return record{}, false
	}
	if r.mtime.Nsec >= 1e9 || r.ctime.Nsec >= 1e9 {
		return record{}, false
	}
	if r.has(recDir|recStub) || !r.has(recDir) && r.has(recUnlisted) || r.has(recStub) && (r.size <= 0 || r.id.IsZero()) {
		return record{}, false // nothing that this version writes
	}
	return r, true
}

// readRecord reads the record of what at aims at, whoever wrote it; ok is false where there is none that can be read.
func readRecord(at xattrTarget) (r record, ok bool) {
	var buf [recordMax + 1]byte
	n, err := at.get(recordName, buf[:])
	if err != nil {
		return record{}, false
	}
	return decodeRecord(buf[:n])
}

// believed is r as far as a start with the given trust number may believe it; zero where not at all. That the bytes of a stub, or
// the children of an unlisted directory, are not here is true whatever happened: the mark was set before they went, and is
// taken away after they came. But a stub whose size is not the file's was being emptied.
func (r record) believed(trust uint16, dir bool, st *unix.Statx_t) record {
	switch {
	case r.has(recDir) != dir:
		return record{}
	case r.has(recStub):
		if r.size != int64(st.Size) {
			return record{}
		}
	case r.has(recUnlisted):
	case r.trust != trust:
		return record{}
	}
	return r
}

// isStub says that the bytes are in cold only.
func (r *record) isStub() bool { return r.has(recStub) && !r.has(recDir) }

// reservedXattr says whether an attribute belongs to EmberFS.
func reservedXattr(name string) bool {
	for _, p := range [...]string{recordName, "user.emberfs"} {
		if name == p || strings.HasPrefix(name, p+".") {
			return true
		}
	}
	return false
}

func sortXattrs(x []cold.Xattr) {
	slices.SortFunc(x, func(a, b cold.Xattr) int { return strings.Compare(a.Name, b.Name) })
}
