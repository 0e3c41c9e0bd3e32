package wire

import (
	"errors"
	"fmt"
	"io"
)

// maxChatter is how many bytes may come beside a pack while it comes: we ask for no progress, so it is some words, and
// the empty packets by which git shows that it is alive, 5 bytes in 5 seconds.
const maxChatter = 4 << 20

// channels of a side-band (gitprotocol-pack(5)).
const (
	packChannel, wordsChannel, faultChannel = 1, 2, 3
)

// packReader reads the pack that comes in the packets of a side-band, up to their flush packet.
type packReader struct {
	pkt     *pktReader
	said    io.Writer // the other side's words
	tempo   *pace     // counts what comes of the pack
	pending []byte
	chatter int64 // bytes that were not of the pack
	size    int64 // bytes that were
	err     error // sticky
}

func (r *packReader) Read(b []byte) (int, error) {
	for len(r.pending) == 0 && len(b) > 0 {
		if r.err == nil {
			r.pending, r.err = r.next()
		}
		if r.err != nil {
			return 0, r.err
		}
	}
	n := copy(b, r.pending)
	r.pending = r.pending[n:]
	return n, nil
}

// next returns the next bytes of the pack; there may be none.
func (r *packReader) next() ([]byte, error) {
	k, b, err := r.pkt.next()
	switch {
	case errors.Is(err, io.EOF):
		return nil, io.ErrUnexpectedEOF
	case err != nil:
		return nil, err
	case k != data:
		return nil, io.EOF
	case len(b) == 0:
		return nil, fmt.Errorf("%w: a packet of a side-band without a channel", errProtocol)
	}
	channel, b := b[0], b[1:]
	if channel == packChannel && len(b) > 0 {
		r.size += int64(len(b))
		r.tempo.count(len(b))
		return b, nil
	}
	if r.chatter += int64(len(b)) + 5; r.chatter > maxChatter {
		return nil, fmt.Errorf("%w beside a pack: over %d bytes", errFlood, maxChatter)
	}
	switch channel {
	case packChannel:
		return nil, nil
	case wordsChannel:
		_, err := r.said.Write(b)
		return nil, err
	case faultChannel:
		return nil, &ServerError{cleanBytes(b)}
	}
	return nil, fmt.Errorf("%w: a side-band has no channel %d", errProtocol, channel)
}
