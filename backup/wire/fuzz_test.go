package wire

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/go-git/go-git/v5/plumbing/protocol/packp/sideband"

	"emberfs/tiers/cold"
)

// reading is a session that reads these bytes.
func reading(service string, input []byte) *session {
	ctx, cancel := context.WithCancelCause(context.Background())
	return &session{name: service, pkt: newPktReader(bytes.NewReader(input)), ctx: ctx, cancel: cancel}
}

// wantKnown fails for an error that is not one of those of wrong input, or that is not fit for a terminal.
func wantKnown(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		return
	}
	var refused *ServerError
	if !errors.Is(err, errProtocol) && !errors.Is(err, errEmpty) && !errors.Is(err, errFlood) &&
		!errors.Is(err, ErrObjectFormat) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.As(err, &refused) {
		t.Errorf("an error of another kind: %v", err)
	}
	if strings.ContainsFunc(err.Error(), func(r rune) bool { return unicode.IsControl(r) }) {
		t.Errorf("not fit for a terminal: %q", err)
	}
}

func wantGood(t *testing.T, refs map[string]cold.ID) {
	t.Helper()
	for name, id := range refs {
		if !startsWith(name, headsPrefix, tagsPrefix) || strings.ContainsAny(name, " \x00\n\x1b") || id.IsZero() {
			t.Errorf("%q: %s is a reference", name, id)
		}
	}
}

// FuzzAdvertised reads how a service introduces itself.
func FuzzAdvertised(f *testing.F) {
	tip := cold.ID{1}
	for _, text := range []string{introduce0(tip, mainRef, "HEAD", "refs/tags/v"), introduce2(), pkt("ERR no\n"),
		pkt("# service=git-upload-pack\n") + "0000" + introduce0(tip, mainRef), pkt("version 1\n") +
			introduce0(tip, mainRef), pkt(strings.Repeat("0", 40)+" capabilities^{}\x00side-band-64k\n") + "0000",
		introduce0(tip, mainRef)[:60], "0000", "0001", "fff1", ""} {
		f.Add([]byte(text))
	}
	f.Add([]byte(strings.TrimSuffix(introduce0(tip, mainRef), "0000") + pkt("shallow "+tip.String()) + "0000"))
	f.Fuzz(func(t *testing.T, input []byte) {
		p := reading(uploadPack, input)
		err := p.readAdvertised()
		wantKnown(t, err)
		wantGood(t, p.heads)
		if err == nil && p.v2 != nil && (!p.v2.has("fetch", "") || !p.v2.has("ls-refs", "")) {
			t.Errorf("version 2 without commands: %v", p.v2)
		}
		p = reading(receivePack, input)
		wantKnown(t, p.readAdvertised())
		for name := range p.adv.References {
			if !strings.HasPrefix(name, "refs/") {
				t.Errorf("%q is a reference", name)
			}
		}
	})
}

// FuzzHeads reads an answer to ls-refs.
func FuzzHeads(f *testing.F) {
	tip := cold.ID{1}
	for _, text := range []string{heads(tip, mainRef, "refs/heads/x"), heads(tip),
		pkt("unborn HEAD symref-target:"+mainRef) + "0000",
		pkt(tip.String()+" "+mainRef+" peeled:"+tip.String()+"\n") + "0000", pkt("ERR no"), "0001", "0002"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		refs, err := readHeads(newPktReader(bytes.NewReader(input)), headsPrefix, tagsPrefix)
		wantKnown(t, err)
		wantGood(t, refs)
	})
}

// FuzzAnswer reads an answer to a fetch, in both versions. The pack is what go-git takes for it, too.
func FuzzAnswer(f *testing.F) {
	tip := cold.ID{1}
	pack := inBand([]byte("PACK and so on"))
	f.Add(true, []byte(pkt("packfile\n")+pack))
	f.Add(true, []byte(pkt("acknowledgments\n")+pkt("ACK "+tip.String())+pkt("ready\n")+"0001"+pkt("packfile\n")+pack))
	f.Add(true, []byte(pkt("shallow-info\n")+pkt("shallow "+tip.String())+"0001"+pkt("packfile\n")+pkt("\x02hm")+pack))
	f.Add(true, []byte(pkt("acknowledgments\n")+pkt("NAK\n")+"0000"))
	f.Add(false, []byte(pkt("NAK\n")+pack))
	f.Add(false, []byte(pkt("ACK "+tip.String()+" common\n")+pkt("ACK "+tip.String()+" ready\n")+pkt("NAK\n")+
		pkt("ACK "+tip.String()+"\n")+pkt("\x01")+pack))
	f.Add(false, []byte(pkt("NAK\n")+pkt("\x03no\n")))
	f.Add(false, []byte(pkt("NAK\n")+pkt("\x04")+"0004"))
	f.Fuzz(func(t *testing.T, version2 bool, input []byte) {
		p := reading(uploadPack, input)
		p.pkt.left = maxNegotiated
		var err error
		if version2 {
			err = p.sections()
		} else {
			err = p.acknowledged()
		}
		if wantKnown(t, err); err != nil {
			return
		}
		rest, err := io.ReadAll(p.pkt.r)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(&packReader{pkt: newPktReader(bytes.NewReader(rest)), said: io.Discard})
		wantKnown(t, err)
		if err != nil {
			return
		}
		want, err := io.ReadAll(sideband.NewDemuxer(sideband.Sideband64k, bytes.NewReader(rest)))
		if err == nil && !bytes.Equal(got, want) {
			t.Errorf("%q, go-git says %q", got, want)
		}
	})
}

// FuzzClean holds what Clean promises.
func FuzzClean(f *testing.F) {
	f.Add("words\r\nmore \x1b[31m", uint8(0))
	f.Add("\u202e\u0085\xff", uint8(1))
	f.Add("走 ", uint8(255))
	f.Fuzz(func(t *testing.T, text string, more uint8) {
		got := Clean(strings.Repeat(text, 1+int(more)))
		if len(got) > maxWords || !utf8.ValidString(got) || strings.ContainsFunc(got, func(r rune) bool {
			return !unicode.IsGraphic(r)
		}) {
			t.Errorf("%q", got)
		}
		if again := Clean(got); again != got && len(got) < maxWords-8 {
			t.Errorf("%q, and once more %q", got, again)
		}
	})
}
