package odb

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"runtime/debug"
	"sort"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	idxHeader = 8
	idxFanout = 256 * 4
	idxTail   = 2 * hashSize
	hashSize  = 20
)

// index is a pack index of version 2, searched in place in the mapped file, so that it takes no heap per object. If a
// page cannot be read, because the disk fails or somebody truncated the file, the access raises SIGBUS (mmap(2)), which
// is caught: the method answers as if nothing were there, and from then on unread returns an error. Code that removes
// something because of such an answer must call unread first.
type index struct {
	path   string
	data   []byte // the whole file, mapped (or from a test)
	mapped bool
	count  int
	names  []byte // count ids, sorted
	crcs   []byte
	off32  []byte
	off64  []byte

	faulted atomic.Bool
}

// openIndex maps the index at path. If it is damaged or truncated, the error is cold.ErrCorrupt.
func openIndex(path string) (*index, error) {
	f, st, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if st.Size() < idxHeader+idxFanout+idxTail {
		return nil, corruptf("index %s: %d bytes are too few", path, st.Size())
	}
	data, err := unix.Mmap(int(f.Fd()), 0, int(st.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map index %s: %w", path, err)
	}
	probe := &index{path: path, data: data}
	x, err := probe.parse()
	if probe.faulted.Load() {
		err = probe.unread()
	}
	if err != nil {
		_ = unix.Munmap(data)
		return nil, fmt.Errorf("index %s: %w", path, err)
	}
	x.path, x.mapped = path, true
	return x, nil
}

func (x *index) parse() (*index, error) {
	defer x.guard(debug.SetPanicOnFault(true))
	return parseIndex(x.data)
}

// guard must be deferred with the result of debug.SetPanicOnFault. It recovers from a fault and notes that x could not
// be read.
func (x *index) guard(was bool) {
	debug.SetPanicOnFault(was)
	r := recover()
	if r == nil {
		return
	}
	fault, ok := r.(interface{ Addr() uintptr })
	if !ok || len(x.data) == 0 || fault.Addr()-uintptr(unsafe.Pointer(unsafe.SliceData(x.data))) >= uintptr(
		len(x.data)) {
		panic(r)
	}
	x.faulted.Store(true)
}

// unread returns an error, cold.ErrCorrupt, if some of x could not be read.
func (x *index) unread() error {
	if x.faulted.Load() {
		return corruptf("index %s: a part of the file cannot be read", x.path)
	}
	return nil
}

// allRead is unread for several packs.
func allRead(packs []*pack) error {
	for _, p := range packs {
		if err := p.idx.unread(); err != nil {
			return err
		}
	}
	return nil
}

// parseIndex checks that every table lies within data, and that the fan-out table makes searching safe. It does not
// check the ids; an object is compared with its id when it is read.
func parseIndex(data []byte) (*index, error) {
	if len(data) < idxHeader+idxFanout+idxTail {
		return nil, corruptf("%d bytes are too few", len(data))
	}
	if !bytes.Equal(data[:4], []byte{0xff, 't', 'O', 'c'}) {
		return nil, corruptf("not an index of version 2")
	}
	if v := binary.BigEndian.Uint32(data[4:]); v != 2 {
		return nil, corruptf("version %d, want 2", v)
	}
	x := &index{data: data}
	last := uint32(0)
	for i := range 256 {
		n := x.fan(i)
		if n < last {
			return nil, corruptf("fan-out goes down at %d", i)
		}
		last = n
	}
	x.count = int(last)
	rest := data[idxHeader+idxFanout : len(data)-idxTail]
	const per = hashSize + 4 + 4
	if len(rest)/per < x.count {
		return nil, corruptf("%d bytes are too few for %d objects", len(data), x.count)
	}
	x.names, rest = rest[:x.count*hashSize], rest[x.count*hashSize:]
	x.crcs, rest = rest[:x.count*4], rest[x.count*4:]
	x.off32, x.off64 = rest[:x.count*4], rest[x.count*4:]
	if len(x.off64)%8 != 0 || len(x.off64)/8 > x.count {
		return nil, corruptf("table of long offsets has %d bytes", len(x.off64))
	}
	return x, nil
}

func (x *index) close() error {
	if !x.mapped {
		return nil
	}
	x.mapped = false
	if err := unix.Munmap(x.data); err != nil {
		return fmt.Errorf("unmap index %s: %w", x.path, err)
	}
	return nil
}

func (x *index) fan(i int) uint32 { return binary.BigEndian.Uint32(x.data[idxHeader+4*i:]) }

// packSum returns the checksum in the trailer of the pack that x belongs to.
func (x *index) packSum() [hashSize]byte { return x.sum(len(x.data) - idxTail) }

// ownSum returns the checksum that the index has of itself.
func (x *index) ownSum() [hashSize]byte { return x.sum(len(x.data) - hashSize) }

func (x *index) sum(at int) (sum [hashSize]byte) {
	defer x.guard(debug.SetPanicOnFault(true))
	copy(sum[:], x.data[at:])
	return sum
}

func (x *index) id(i int) (id ID) {
	defer x.guard(debug.SetPanicOnFault(true))
	copy(id[:], x.names[i*hashSize:])
	return id
}

func (x *index) crc(i int) (crc uint32) {
	defer x.guard(debug.SetPanicOnFault(true))
	return binary.BigEndian.Uint32(x.crcs[4*i:])
}

// offset returns where object i begins in the pack. ok is false if the index points outside its own table.
func (x *index) offset(i int) (off int64, ok bool) {
	defer x.guard(debug.SetPanicOnFault(true))
	o := binary.BigEndian.Uint32(x.off32[4*i:])
	if o&(1<<31) == 0 {
		return int64(o), true
	}
	n := int(o &^ (1 << 31))
	if n >= len(x.off64)/8 {
		return 0, false
	}
	long := binary.BigEndian.Uint64(x.off64[8*n:])
	return int64(long), long < 1<<62
}

// find returns the position of id, or -1.
func (x *index) find(id ID) (at int) {
	at = -1
	defer x.guard(debug.SetPanicOnFault(true))
	if i := x.search(id); i < x.count && bytes.Equal(x.names[i*hashSize:(i+1)*hashSize], id[:]) {
		at = i
	}
	return at
}

// from returns the position of the first object whose id is not below id, or count if there is none.
func (x *index) from(id ID) (at int) {
	at = x.count
	defer x.guard(debug.SetPanicOnFault(true))
	at = x.search(id)
	return at
}

func (x *index) search(id ID) int {
	lo, hi := 0, int(x.fan(int(id[0])))
	if id[0] > 0 {
		lo = int(x.fan(int(id[0]) - 1))
	}
	return lo + sort.Search(hi-lo, func(i int) bool {
		at := (lo + i) * hashSize
		return bytes.Compare(x.names[at:at+hashSize], id[:]) >= 0
	})
}
