package powercut

import (
	"encoding/binary"
	"fmt"
	"os"
)

// Kind is what an entry of a log says.
type Kind uint32

const (
	Write Kind = 1
	Flush Kind = 2
	Mark  Kind = 3 // what a program noted meanwhile
)

// Entry is one entry of a log.
type Entry struct {
	Kind Kind
	Off  int64
	Data []byte
}

// Log is what was done to a disk, in order.
type Log []Entry

const headerSize = 16

// ReadLog reads the log of a recorder that has ended.
func ReadLog(path string) (Log, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var log Log
	for at := 0; at < len(b); {
		if len(b)-at < headerSize {
			return nil, fmt.Errorf("%s: ends within an entry", path)
		}
		h := b[at : at+headerSize]
		e := Entry{Kind: Kind(binary.LittleEndian.Uint32(h)), Off: int64(binary.LittleEndian.Uint64(h[8:]))}
		size := int(binary.LittleEndian.Uint32(h[4:]))
		at += headerSize
		if e.Kind < Write || e.Kind > Mark || e.Off < 0 || size > len(b)-at {
			return nil, fmt.Errorf("%s: no entry at %d: kind %d, offset %d, %d bytes", path, at-headerSize, e.Kind,
				e.Off, size)
		}
		e.Data = b[at : at+size : at+size]
		at += size
		log = append(log, e)
	}
	return log, nil
}

// Marks returns the marks among the first at entries, in order.
func (l Log) Marks(at int) []string {
	var marks []string
	for _, e := range l[:at] {
		if e.Kind == Mark {
			marks = append(marks, string(e.Data))
		}
	}
	return marks
}
