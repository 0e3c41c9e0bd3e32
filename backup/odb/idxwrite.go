package odb

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"encoding/binary"
	"fmt"
	"io"
	"iter"
	"math"
	"slices"
)

// packedObject is what an index says about one object.
type packedObject struct {
	id  ID
	crc uint32 // checksum of the entry's bytes in the pack
	off int64
}

// writeIndex writes the index of a pack with these objects (which it sorts) and this trailer.
func writeIndex(w io.Writer, objs []packedObject, packSum ID) error {
	slices.SortFunc(objs, func(a, b packedObject) int { return bytes.Compare(a.id[:], b.id[:]) })
	return encodeIndex(w, slices.Values(objs), packSum)
}

// encodeIndex writes an index of version 2 in several passes over the objects, which must be sorted by id; it takes no
// memory per object. Two objects with the same id are an error, because git would refuse them.
func encodeIndex(w io.Writer, objs iter.Seq[packedObject], packSum ID) error {
	sum := sha1.New()
	bw := bufio.NewWriterSize(io.MultiWriter(w, sum), 64<<10)
	var fan [256]uint32
	var last ID
	n := 0
	for o := range objs {
		if n > 0 && bytes.Compare(last[:], o.id[:]) >= 0 {
			return corruptf("object %s is twice in the pack", o.id)
		}
		last = o.id
		n++
		fan[o.id[0]]++
	}
	total := uint32(0)
	head := []byte{0xff, 't', 'O', 'c', 0, 0, 0, 2}
	for _, k := range fan {
		total += k
		head = binary.BigEndian.AppendUint32(head, total)
	}
	_, _ = bw.Write(head) // Flush returns the first error
	for o := range objs {
		_, _ = bw.Write(o.id[:])
	}
	var b [8]byte
	for o := range objs {
		_, _ = bw.Write(binary.BigEndian.AppendUint32(b[:0], o.crc))
	}
	long := uint32(0)
	for o := range objs {
		off := uint32(o.off)
		if o.off > math.MaxInt32 {
			off = long | 1<<31
			long++
		}
		_, _ = bw.Write(binary.BigEndian.AppendUint32(b[:0], off))
	}
	for o := range objs {
		if o.off > math.MaxInt32 {
			_, _ = bw.Write(binary.BigEndian.AppendUint64(b[:0], uint64(o.off)))
		}
	}
	_, _ = bw.Write(packSum[:])
	if err := bw.Flush(); err != nil {
		return fmt.Errorf("write index: %w", err)
	}
	if _, err := w.Write(sum.Sum(nil)); err != nil {
		return fmt.Errorf("write index: %w", err)
	}
	return nil
}
