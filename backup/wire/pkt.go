package wire

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// go-git's pktline knows no packets but those with data and the flush packet, which version 2 of the protocol does not
// do with, and neither it nor go-git's sideband has a bound on what comes.

// kind is what a packet is (gitprotocol-common(5), gitprotocol-v2(5)).
type kind int

const (
	data      kind = iota
	flush          // the end of a message
	delimiter      // the end of a section of a message
	end            // the end of an answer, over connections without state
)

const (
	// maxPacket is how many bytes a packet may have with its length.
	maxPacket = 65520
	// unbounded is a pktReader.left without a bound.
	unbounded = -1
)

var (
	// errProtocol says that what came is not what git's protocols allow.
	errProtocol = errors.New("the other side does not keep to git's protocol")
	// errEmpty says that an answer has not a byte.
	errEmpty = errors.New("the other side's answer is empty")
	// errFlood says that more came than is any use.
	errFlood = errors.New("the other side sends more than it may")
)

// pktReader reads packets.
type pktReader struct {
	from io.Reader
	r    *bufio.Reader // of from
	left int64         // how many bytes may still come; unbounded
	some bool          // something has come
	buf  []byte
}

func newPktReader(r io.Reader) *pktReader {
	return &pktReader{from: r, r: bufio.NewReaderSize(r, maxPacket), left: unbounded}
}

// next returns the next packet. Its bytes are valid until the next call. At the end of the input the error is io.EOF,
// or errEmpty if nothing has come at all. An ERR packet is returned as a *ServerError.
func (p *pktReader) next() (kind, []byte, error) {
	var head [4]byte
	switch _, err := io.ReadFull(p.r, head[:]); {
	case errors.Is(err, io.EOF) && !p.some:
		return 0, nil, errEmpty
	case err != nil:
		return 0, nil, err
	}
	p.some = true
	n, err := strconv.ParseUint(string(head[:]), 16, 16)
	if err != nil || n == 3 || n > maxPacket {
		return 0, nil, fmt.Errorf("%w: %q is no length of a packet", errProtocol, head[:])
	}
	if p.left != unbounded {
		if p.left -= int64(max(n, 4)); p.left < 0 {
			return 0, nil, errFlood
		}
	}
	if n < 4 {
		return kind(n + 1), nil, nil
	}
	if p.buf == nil {
		p.buf = make([]byte, maxPacket)
	}
	b := p.buf[:n-4]
	if _, err := io.ReadFull(p.r, b); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	if words, ok := bytes.CutPrefix(b, []byte("ERR ")); ok {
		return 0, nil, &ServerError{cleanBytes(words)}
	}
	return data, b, nil
}

// line is next for a packet that is a line of text, which is returned without its end.
func (p *pktReader) line() (kind, string, error) {
	k, b, err := p.next()
	return k, string(bytes.TrimSuffix(b, []byte{'\n'})), err
}

// strange is the error for a line that means nothing where it stands.
func strange(line string) error { return fmt.Errorf("%w: it sends %.200q", errProtocol, line) }

// request is made of packets.
type request struct{ bytes.Buffer }

func (r *request) linef(format string, a ...any) {
	text := fmt.Sprintf(format, a...)
	fmt.Fprintf(r, "%04x%s\n", len(text)+5, text)
}

func (r *request) delimiter() { r.WriteString("0001") }
func (r *request) flush()     { r.WriteString("0000") }
