package wire

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"emberfs/tiers/cold"
)

// script is what a server of tests says: first how it introduces itself, then the answers to requests. Each function
// may go on for ever; the connection's error ends it.
type script []func(w io.Writer) error

// say is a part of a script.
func say(texts ...string) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := io.WriteString(w, strings.Join(texts, ""))
		return err
	}
}

// forEver repeats a text.
func forEver(text string, pause time.Duration) func(io.Writer) error {
	if pause == 0 {
		text = strings.Repeat(text, 1+100_000/len(text))
	}
	return func(w io.Writer) error {
		for {
			if _, err := io.WriteString(w, text); err != nil {
				return err
			}
			time.Sleep(pause)
		}
	}
}

// numbered repeats a format with a number in it.
func numbered(format string) func(io.Writer) error {
	return func(w io.Writer) error {
		var b bytes.Buffer
		for n := 0; ; n++ {
			b.WriteString(pkt(fmt.Sprintf(format, n)))
			if b.Len() > 100_000 {
				if _, err := b.WriteTo(w); err != nil {
					return err
				}
			}
		}
	}
}

// byteByByte sends a pack slowly.
func byteByByte(pack []byte) func(io.Writer) error {
	return func(w io.Writer) error {
		for i := range pack {
			if _, err := io.WriteString(w, inBand(pack[i : i+1])[:6]); err != nil {
				return err
			}
			time.Sleep(time.Millisecond)
		}
		return nil
	}
}

// then says one part after the other.
func then(parts ...func(io.Writer) error) func(io.Writer) error {
	return func(w io.Writer) error {
		for _, p := range parts {
			if err := p(w); err != nil {
				return err
			}
		}
		return nil
	}
}

// pkt is a packet.
func pkt(text string) string { return fmt.Sprintf("%04x%s", len(text)+4, text) }

// inBand is what a side-band makes of a pack.
func inBand(pack []byte) string {
	var b strings.Builder
	for len(pack) > 0 {
		n := min(len(pack), 60_000)
		b.WriteString(pkt("\x01" + string(pack[:n])))
		pack = pack[n:]
	}
	return b.String() + "0000"
}

// fakeDialer serves a script over pipes. It is a dialer.
type fakeDialer struct{ script script }

func (d fakeDialer) dial(ctx context.Context, service string) (*session, error) {
	fromUs, in := io.Pipe()
	out, toUs := io.Pipe()
	context.AfterFunc(ctx, func() { _ = out.Close() })
	go func() {
		err := d.script[0](toUs)
		requests := newPktReader(fromUs)
		for n := 1; err == nil && n < len(d.script); n++ {
			if err = readRequest(requests); err == nil {
				err = d.script[n](toUs)
			}
		}
		_ = toUs.CloseWithError(err)
		_, _ = io.Copy(io.Discard, fromUs)
	}()
	return &session{name: service, in: in, out: out, end: pipes{in, out}}, nil
}

// readRequest reads a request of version 2, to the flush packet, or of version 0, to the word done.
func readRequest(r *pktReader) error {
	version2 := false
	for {
		k, line, err := r.line()
		if err != nil {
			return err
		}
		version2 = version2 || strings.HasPrefix(line, "command=")
		if k == flush && version2 || line == "done" && !version2 {
			return nil
		}
	}
}

type pipes struct {
	in  *io.PipeWriter
	out *io.PipeReader
}

func (p pipes) bye(in io.Writer) error { return nil }
func (p pipes) wait() error            { return errors.Join(p.in.Close(), p.out.Close()) }
func (p pipes) kill(io.Closer)         { _ = p.wait() }
func (p pipes) orderly() bool          { return true }

// serveScript serves a script over HTTP, and returns its URL.
func serveScript(t *testing.T, s script) string {
	t.Helper()
	var posts atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, kind := 0, "advertisement"
		if r.Method == http.MethodPost {
			n, kind = int(posts.Add(1)), "result"
		}
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/x-git-upload-pack-"+kind)
		if n < len(s) {
			_ = s[n](flushing{w})
		}
	}))
	t.Cleanup(server.Close)
	return server.URL + "/repo.git"
}

// flushing is an answer that is sent as it is made.
type flushing struct{ http.ResponseWriter }

func (f flushing) Write(b []byte) (int, error) {
	n, err := f.ResponseWriter.Write(b)
	if flusher, ok := f.ResponseWriter.(http.Flusher); ok {
		flusher.Flush()
	}
	return n, err
}

// Introductions.

const anyCaps = "multi_ack_detailed side-band-64k ofs-delta thin-pack no-progress agent=fake"

// introduce0 is version 0 of a server with these branches, all at tip.
func introduce0(tip cold.ID, names ...string) string {
	text := ""
	for i, name := range names {
		line := tip.String() + " " + name
		if i == 0 {
			line += "\x00" + anyCaps
		}
		text += pkt(line + "\n")
	}
	return text + "0000"
}

func introduce2() string {
	return pkt("version 2\n") + pkt("agent=fake\n") + pkt("ls-refs=unborn\n") + pkt("fetch=shallow\n") +
		pkt("object-format=sha1\n") + "0000"
}

// heads is an answer to ls-refs.
func heads(tip cold.ID, names ...string) string {
	text := ""
	for _, name := range names {
		text += pkt(tip.String() + " " + name + "\n")
	}
	return text + "0000"
}
