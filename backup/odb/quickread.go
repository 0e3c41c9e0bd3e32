package odb

import (
	"encoding/binary"
	"errors"
	"io"

	"github.com/klauspost/compress/flate"
	"golang.org/x/sys/unix"
)

// storedHead is the length of a stored block's header where the block begins at a byte.
const storedHead = 5

// readQuick is what most reads of chunks take: it reads an entry that is no delta and has room in buf, straight into
// it. The stream has to end where the declared size says; its Adler-32 is not looked at, the id says more. Type 0: the
// entry is another one, or something is wrong. Reading it the common way says what.
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

// zlibHeader says whether a zlib stream without a dictionary may begin so.
func zlibHeader(cmf, flg byte) bool {
	return cmf&15 == 8 && cmf>>4 <= 7 && flg&0x20 == 0 && (uint(cmf)<<8|uint(flg))%31 == 0
}

// copyStored reads the stored blocks that our writer makes of what does not shrink. block is the header of the first
// one, which stands at off. False: there are others, or they do not make exactly dst.
func (p *pack) copyStored(off int64, block, dst []byte) bool {
	end := p.size - hashSize - 4
	for {
		if len(dst) == 0 && block[0] == 3 && block[1] == 0 { // klauspost ends with an empty block of fixed codes
			return off+2 <= end
		}
		n := binary.LittleEndian.Uint16(block[1:])
		last := block[0] == 1
		if block[0] > 1 || binary.LittleEndian.Uint16(block[3:]) != ^n || int(n) > len(dst) || n == 0 && !last {
			return false
		}
		// The next block's header comes with this one's bytes; behind the last one stands Adler-32 and more.
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

// inflateInto inflates the deflate stream at off, which has to make exactly dst.
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
