package odb

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/go-git/go-git/v5/plumbing/format/idxfile"
)

// packedObject is what an index says of one object.
type packedObject struct {
	id  ID
	crc uint32 // of the entry as it stands in the pack
	off int64
}

// writeIndex writes the index of a pack with these objects (which it sorts) and this trailer. Two objects with one id are an
// error: git would refuse the pair.
func writeIndex(w io.Writer, objs []packedObject, packSum ID) error {
	slices.SortFunc(objs, func(a, b packedObject) int { return bytes.Compare(a.id[:], b.id[:]) })
	m := &idxfile.MemoryIndex{Version: idxfile.VersionSupported, PackfileChecksum: [20]byte(packSum)}
	for i := range m.FanoutMapping {
		m.FanoutMapping[i] = -1
	}
	long := uint32(0)
	for i, o := range objs {
		if i > 0 && objs[i-1].id == o.id {
			return corruptf("object %s is twice in the pack", o.id)
		}
		b := m.FanoutMapping[o.id[0]]
		if b < 0 {
			b = len(m.Names)
			m.FanoutMapping[o.id[0]] = b
			m.Names, m.CRC32, m.Offset32 = append(m.Names, nil), append(m.CRC32, nil), append(m.Offset32, nil)
		}
		m.Names[b] = append(m.Names[b], o.id[:]...)
		m.CRC32[b] = binary.BigEndian.AppendUint32(m.CRC32[b], o.crc)
		off := uint32(o.off)
		if o.off > math.MaxInt32 {
			off = long | 1<<31
			long++
			m.Offset64 = binary.BigEndian.AppendUint64(m.Offset64, uint64(o.off))
		}
		m.Offset32[b] = binary.BigEndian.AppendUint32(m.Offset32[b], off)
		m.Fanout[o.id[0]] = uint32(i + 1)
	}
	for i := 1; i < len(m.Fanout); i++ {
		m.Fanout[i] = max(m.Fanout[i], m.Fanout[i-1])
	}
	bw := bufio.NewWriterSize(w, 64<<10)
	if _, err := idxfile.NewEncoder(bw).Encode(m); err != nil {
		return fmt.Errorf("write index: %w", err)
	}
	return bw.Flush()
}
