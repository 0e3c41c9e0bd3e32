package odb

import (
	"bufio"
	"context"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
)

// packFile is a pack that is being written under a temporary name. It can be truncated to an earlier length, so that a
// failed or unwanted entry leaves no trace. It is not safe for concurrent use.
type packFile struct {
	db   *DB
	f    *os.File
	path string
	buf  []byte // bytes that follow what was written to f
	done int64  // bytes written to f
	objs []packedObject
	full *index // the index of a pack that is full, which then replaces objs; nil before

	// sorted and count take the place of objs if the pack has too many objects for a slice: sorted yields them in the
	// order of their ids.
	sorted iter.Seq[packedObject]
	count  int
	// firstEnd is then where the first entry ends, and firstCRC points to where its checksum is kept. ctx cancels the
	// hashing of a big pack.
	firstEnd int64
	firstCRC *uint32
	ctx      context.Context

	// Set by seal and publish.
	sum     ID
	summed  int64 // sum is valid for a pack of this length, whose header is right; 0: not known
	idxPath string
	final   string   // final path in the repository, without extension
	moved   []string // the files that were renamed to it, in order
	keep    string   // our .keep file; "" if there is none
	linked  bool     // hard link to another repository's pack: complete, and kept until it was verified
}

const packBuffer = 256 << 10

func (db *DB) newPackFile() (*packFile, error) {
	path := filepath.Join(db.packDir(), db.self.tempName("pack"))
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return nil, fmt.Errorf("create pack: %w", err)
	}
	pf := &packFile{db: db, f: f, path: path, buf: make([]byte, 0, packBuffer)}
	return pf, pf.write(make([]byte, packHeader)) // seal writes the header
}

func (db *DB) packDir() string { return filepath.Join(db.dir, "objects", "pack") }

// len returns the length of the pack so far.
func (pf *packFile) len() int64 { return pf.done + int64(len(pf.buf)) }

// write appends p.
func (pf *packFile) write(p []byte) error {
	if len(pf.buf)+len(p) > cap(pf.buf) {
		if err := pf.flush(); err != nil {
			return err
		}
		if len(p) >= cap(pf.buf) {
			n, err := pf.f.WriteAt(p, pf.done)
			pf.done += int64(n)
			if err != nil {
				return fmt.Errorf("write pack: %w", err)
			}
			return nil
		}
	}
	pf.buf = append(pf.buf, p...)
	return nil
}

func (pf *packFile) flush() error {
	n, err := pf.f.WriteAt(pf.buf, pf.done)
	pf.done += int64(n)
	pf.buf = pf.buf[:copy(pf.buf, pf.buf[n:])]
	if err != nil {
		return fmt.Errorf("write pack: %w", err)
	}
	return nil
}

// truncate removes everything from off on.
func (pf *packFile) truncate(off int64) error {
	if off >= pf.done {
		pf.buf = pf.buf[:off-pf.done]
		return nil
	}
	pf.buf = pf.buf[:0]
	pf.done = off
	if err := pf.f.Truncate(off); err != nil {
		return fmt.Errorf("take back a pack entry: %w", err)
	}
	return nil
}

// reader returns a reader for the bytes from off to end. Everything must have been flushed.
func (pf *packFile) reader(off, end int64) *bufio.Reader {
	return bufio.NewReaderSize(io.NewSectionReader(pf.f, off, end-off), packBuffer)
}

// seal puts the object count into the header and appends the trailer.
func (pf *packFile) seal() error {
	if err := pf.flush(); err != nil {
		return err
	}
	if pf.summed != pf.done {
		var head [packHeader]byte
		copy(head[:], "PACK")
		binary.BigEndian.PutUint32(head[4:], 2)
		binary.BigEndian.PutUint32(head[8:], uint32(max(pf.count, len(pf.objs))))
		if _, err := pf.f.WriteAt(head[:], 0); err != nil {
			return fmt.Errorf("write pack: %w", err)
		}
		if err := pf.checksum(); err != nil {
			return err
		}
	}
	for level := byte(1); pf.exists() && level < 4; level++ {
		if err := pf.distinguish(level); err != nil {
			return err
		}
	}
	if pf.exists() {
		return fmt.Errorf("publish pack %s: %w", pf.sum, fs.ErrExist)
	}
	if err := pf.write(pf.sum[:]); err != nil {
		return err
	}
	return pf.flush()
}

// checksum computes sum by reading the whole pack back; usually it is still in the page cache.
func (pf *packFile) checksum() error {
	h := sha1.New()
	for r := pf.reader(0, pf.done); ; {
		if pf.ctx != nil && pf.ctx.Err() != nil {
			return pf.ctx.Err()
		}
		if _, err := io.CopyN(h, r, 16<<20); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return fmt.Errorf("read pack back: %w", err)
		}
	}
	copy(pf.sum[:], h.Sum(nil))
	return nil
}

func (pf *packFile) exists() bool {
	_, err := os.Lstat(filepath.Join(pf.db.packDir(), "pack-"+pf.sum.String()+".pack"))
	return err == nil
}

// distinguish changes the pack's checksum, and thus its name, by changing the compression level (which is
// informational) in the zlib header of the first entry. It is needed if a pack with the same content exists, left by a
// commit that failed: a git gc that is running may have that one on its list of packs to remove.
func (pf *packFile) distinguish(level byte) error {
	crc, end := pf.firstCRC, pf.firstEnd
	if pf.sorted == nil {
		if len(pf.objs) == 0 {
			return nil
		}
		end = pf.done
		for i, o := range pf.objs {
			if o.off == packHeader {
				crc = &pf.objs[i].crc
			} else if o.off < end {
				end = o.off
			}
		}
	}
	off := int64(packHeader)
	h, err := readEntryHeader(pf.reader(off, end), off)
	if err != nil {
		return fmt.Errorf("read pack back: %w", err)
	}
	var z [2]byte
	if _, err := pf.f.ReadAt(z[:], h.data); err != nil {
		return fmt.Errorf("read pack back: %w", err)
	}
	z[1] = z[1]&^0xdf | level<<6 // FLEVEL, and room for FCHECK
	if r := (uint(z[0])<<8 | uint(z[1])) % 31; r != 0 {
		z[1] += byte(31 - r)
	}
	if _, err := pf.f.WriteAt(z[:], h.data); err != nil {
		return fmt.Errorf("write pack: %w", err)
	}
	if *crc, err = crcOf(pf.reader(off, end)); err != nil {
		return fmt.Errorf("read pack back: %w", err)
	}
	return pf.checksum()
}

// discard closes the pack and removes its files under temporary names.
func (pf *packFile) discard() error {
	var err error
	if pf.f != nil {
		err = pf.f.Close()
	}
	if errors.Is(err, os.ErrClosed) {
		err = nil
	}
	err = errors.Join(err, closeIndexes([]*packFile{pf}))
	for _, path := range []string{pf.path, pf.idxPath} {
		if path != "" {
			err = errors.Join(err, removeExisting(path))
		}
	}
	return err
}

func removeExisting(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
