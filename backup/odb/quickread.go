package odb

import (
	"encoding/binary"
	"errors"
	"io"

	"github.com/klauspost/compress/flate"
	"golang.org/x/sys/unix"
)

// storedHead is the length of a stored block's header if the block begins at a byte boundary.
const storedHead = 5

// readQuick serves most reads of chunks: it reads an entry that is not a delta and fits into buf straight into buf. The
// stream must end where the declared size says. Its Adler-32 is not checked, because the id is the better check. If it
// returns type 0, the entry is of another kind or something is wrong; the ordinary way of reading will tell.
func (db *DB) readQuick(s source, id ID, want Type, limit int64, buf []byte) (Type, []byte) {
	if s.p == nil || buf == nil {
		return 0, nil
	}
	h, err := s.p.header(s.off)
	if err != nil || h.isDelta() || h.size > min(limit, int64(cap(buf))) || want != 0 && h.typ != want {
		return 0, nil
	}
	buf = buf[:h.size]
	var head [2 + storedHead]byte
	if _, err := s.p.f.ReadAt(head[:], h.data); err != nil || !zlibHeader(head[0], head[1]) {
		return 0, nil
	}
	if !s.p.copyStored(h.data+2, head[2:], buf) && !db.inflateInto(s.p, h.data+2, buf) {
		return 0, nil
	}
	if db.hasherFor(s, h.typ, h.size).verify(buf, id) != nil {
		return 0, nil
	}
	return h.typ, buf
}

// zlibHeader reports whether these bytes can begin a zlib stream without a dictionary.
func zlibHeader(cmf, flg byte) bool {
	return cmf&15 == 8 && cmf>>4 <= 7 && flg&0x20 == 0 && (uint(cmf)<<8|uint(flg))%31 == 0
}

// copyStored reads the stored blocks that our writer produces for data that cannot be compressed. block is the header
// of the first one, which is at off. It returns false if there are other blocks, or if they do not yield exactly dst.
func (p *pack) copyStored(off int64, block, dst []byte) bool {
	end := p.size - hashSize - 4
	for {
		if len(dst) == 0 && block[0] == 3 && block[1] == 0 { // klauspost's zlib ends with an empty block of fixed codes
			return off+2 <= end
		}
		n := binary.LittleEndian.Uint16(block[1:])
		last := block[0] == 1
		if block[0] > 1 || binary.LittleEndian.Uint16(block[3:]) != ^n || int(n) > len(dst) || n == 0 && !last {
			return false
		}
		// Read the next block's header together with this block's bytes. After the last block there are the Adler-32
		// and other bytes.
		off += storedHead
		got, err := unix.Preadv(int(p.f.Fd()), [][]byte{dst[:n], block}, off)
		if err != nil || got != int(n)+len(block) {
			return false
		}
		dst = dst[n:]
		off += int64(n)
		if last {
			return len(dst) == 0 && off <= end
		}
	}
}

// inflateInto inflates the deflate stream at off, which must yield exactly dst.
func (db *DB) inflateInto(p *pack, off int64, dst []byte) bool {
	br := db.bufioFor(p.section(off))
	defer func() {
		br.Reset(nil)
		db.pools.buf.Put(br)
	}()
	fr, ok := db.pools.fr.Get().(io.ReadCloser)
	if !ok {
		fr = flate.NewReader(br)
	} else if rs, ok := fr.(flate.Resetter); !ok || rs.Reset(br, nil) != nil {
		return false
	}
	defer db.pools.fr.Put(fr)
	if _, err := io.ReadFull(fr, dst); err != nil {
		return false
	}
	var more [1]byte
	if _, err := io.ReadFull(fr, more[:]); !errors.Is(err, io.EOF) {
		return false
	}
	_, err := br.Discard(4)
	return err == nil
}
