package wire

import (
	"bytes"
	"compress/zlib"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"runtime/metrics"
	"strings"
	"testing"
	"time"

	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

// hostile is one way in which a server misbehaves.
type hostile struct {
	name string
	// two are the answers to ls-refs and to fetch, in version 2; zero what comes after the references in version 0. nil
	// leaves out a version.
	two  script
	zero script
	want error  // that it is; nil: it is some error
	says string // that it says
}

// slow reports whether it is a matter of time.
func (h *hostile) slow() bool {
	return strings.HasPrefix(h.says, "it said nothing") || h.says == "bytes came in"
}

// rawPack is a pack of entries that need not be right.
func rawPack(count uint32, entries ...[]byte) []byte {
	head := binary.BigEndian.AppendUint32([]byte("PACK\x00\x00\x00\x02"), count)
	body := append(head, bytes.Join(entries, nil)...)
	sum := sha1.Sum(body)
	return append(body, sum[:]...)
}

// packEntry is an entry of a type with a declared size, which its bytes need not have. between comes before them.
func packEntry(typ byte, size uint64, between, inflated []byte) []byte {
	b := typ<<4 | byte(size&15)
	var out []byte
	for size >>= 4; size > 0; size >>= 7 {
		out = append(out, b|0x80)
		b = byte(size & 0x7f)
	}
	var z bytes.Buffer
	zw := zlib.NewWriter(&z)
	_, _ = zw.Write(inflated)
	_ = zw.Close()
	return append(append(append(out, b), between...), z.Bytes()...)
}

const blobEntry, refDelta = 3, 7

// packWithout is the pack of the last commit without one of its objects: 0 the commit, 1 the tree, 2 the file.
func packWithout(t *testing.T, v *volume, which int) []byte {
	t.Helper()
	all := v.ids
	defer func() { v.ids = all }()
	v.ids = append(append([]cold.ID{}, all[:which]...), all[which+1:]...)
	var b bytes.Buffer
	check(t, v.pack(&b))
	return b.Bytes()
}

// hostileServers are the ways in which an answer can be wrong; the tip of v is what is asked for.
func hostileServers(t *testing.T, v *volume) []hostile {
	t.Helper()
	var sound bytes.Buffer
	check(t, v.pack(&sound))
	list := heads(v.tip, mainRef)
	// sent is what is sent as a pack, in both versions.
	sent := func(name string, pack []byte, want error, says string) hostile {
		return hostile{name, script{say(list), say(pkt("packfile\n"), inBand(pack))},
			script{say(pkt("NAK\n"), inBand(pack))}, want, says}
	}
	// said is what comes in place of a pack.
	said := func(name string, want error, says string, part func(io.Writer) error) hostile {
		return hostile{name, script{say(list), then(say(pkt("packfile\n")), part)},
			script{then(say(pkt("NAK\n")), part)}, want, says}
	}
	zeros, random := make([]byte, 8<<20), make([]byte, 1<<20)
	rand.NewChaCha8([32]byte{}).Read(random)
	return []hostile{
		sent("no tip", packWithout(t, v, 0), cold.ErrCorrupt, v.tip.String()+", which was asked for, did not come"),
		sent("no tree", packWithout(t, v, 1), cold.ErrCorrupt, "tree "+v.ids[1].String()),
		sent("no file", packWithout(t, v, 2), cold.ErrCorrupt, v.ids[2].String()),
		sent("nothing", rawPack(0), cold.ErrCorrupt, "did not come"),
		sent("another content", rawPack(1, packEntry(blobEntry, 3, nil, []byte("abc"))), cold.ErrCorrupt,
			"did not come"),
		sent("zlib bomb", rawPack(1, packEntry(blobEntry, 10, nil, zeros)), cold.ErrCorrupt, ""),
		sent("bomb of a declared size", rawPack(1, packEntry(blobEntry, 1<<50, nil, zeros)), cold.ErrCorrupt, ""),
		sent("delta bomb", rawPack(1, packEntry(refDelta, 1<<50, v.ids[2][:], zeros)), odb.ErrTooLarge, ""),
		sent("huge count", rawPack(0xffffffff, packEntry(blobEntry, 1, nil, []byte("a"))), odb.ErrTooLarge,
			"4294967295 objects"),
		sent("big count", rawPack(900_000_000, packEntry(blobEntry, 1, nil, []byte("a"))), nil, ""),
		sent("delta to nothing", rawPack(1, packEntry(refDelta, 4, bytes.Repeat([]byte{7}, 20), []byte{1, 1, 1, 'x'})),
			cold.ErrCorrupt, "neither in the pack nor here"),
		sent("cut off", sound.Bytes()[:sound.Len()-30], io.ErrUnexpectedEOF, ""),
		sent("no pack", []byte("HTTP/1.1 404 Not Found"), cold.ErrCorrupt, ""),
		said("end", io.ErrUnexpectedEOF, "", say(inBand(sound.Bytes())[:100])),
		said("refusal", nil, "the other side says: no[31m you; do not",
			say(pkt("ERR no\x1b[31m you\r\ndo\u202e not\u0085\n"))),
		said("refusal in the side-band", nil, "says: no[31m you", say(pkt("\x03no\x1b[31m you\n"))),
		said("words", nil, "(it said: [2Jlook here)", say(pkt("\x02\x1b[2Jlook here\n"), pkt("\x03no\n"))),
		said("many words", nil, "it said: ... ", say(strings.Repeat(pkt("\x02look here\n"), 1000), pkt("\x03no\n"))),
		said("endless words", errFlood, "", forEver(pkt("\x02look here\n"), 0)),
		said("endless signs of life", errFlood, "", forEver(pkt("\x01"), 0)),
		said("signs of life, and nothing else", nil, "it said nothing for", forEver(pkt("\x01"), time.Millisecond)),
		said("a byte now and then", nil, "bytes came in",
			byteByByte(rawPack(1, packEntry(blobEntry, 1<<20, nil, random)))),
		said("no channel", errProtocol, "channel 9", say(pkt("\x09what"))),
		said("empty packet", errProtocol, "without a channel", say("0004")),
		said("packet too long", errProtocol, `"fff1"`, say("fff1"+strings.Repeat("x", 70_000))),
		said("no length", errProtocol, `"zzzz"`, say("zzzz")),
		said("reserved length", errProtocol, `"0003"`, say("0003")),
		{"endless acknowledgments", script{say(list), then(say(pkt("acknowledgments\n")), forEver(pkt("NAK\n"), 0))},
			script{forEver(pkt("ACK "+v.tip.String()+" common\n"), 0)}, errFlood, ""},
		{"endless shallow commits", script{say(list), then(say(pkt("shallow-info\n")),
			forEver(pkt("shallow "+v.tip.String()), 0))}, nil, errFlood, ""},
		{"no section", script{say(list), say(pkt("wanted-refs\n"))}, script{say(pkt("what\n"))}, errProtocol, ""},
		{"no pack follows", script{say(list), say(pkt("acknowledgments\n"), pkt("NAK\n"), "0000")}, script{say("0000")},
			errProtocol, ""},
		{"no answer", script{say(list), say("")}, script{say("")}, errEmpty, "answer is empty"},
		{"no references", script{say("")}, nil, errEmpty, "answer is empty"},
		{"references refused", script{say(pkt("ERR go\x1b]0;away\x07\n"))}, nil, nil, "the other side says: go]0;away"},
		{"endless references", script{numbered(v.tip.String() + " refs/heads/b%d")}, nil, errFlood, ""},
		{"slow references", script{forEver(pkt(v.tip.String()+" refs/heads/b"), time.Millisecond)}, nil, nil,
			"bytes came in"},
		{"delimiters", script{say("0001")}, nil, errProtocol, ""},
		{"malformed reference", script{say(pkt("what is this\x1b"))}, nil, errProtocol, `this\x1b"`},
	}
}

// introductions are the ways in which an introduction can be wrong.
func introductions(v *volume) []hostile {
	first := introduce0(v.tip, mainRef)
	first = first[:len(first)-4]
	return []hostile{
		{"silence", script{func(io.Writer) error { time.Sleep(300 * time.Millisecond); return nil }}, nil, nil,
			"it said nothing for"},
		{"nothing", script{say("")}, nil, errEmpty, "answer is empty"},
		{"endless", script{then(say(first), numbered(v.tip.String()+" refs/heads/b%d"))}, nil, errFlood, ""},
		{"endless capabilities", script{then(say(pkt("version 2\n")), numbered("cap%d"))}, nil, errFlood, ""},
		{"slow", script{then(say(first), forEver(pkt(v.tip.String()+" refs/heads/b"), time.Millisecond))}, nil, nil,
			"bytes came in"},
		{"refusal", script{say(pkt("ERR access \x1bdenied\n"))}, nil, nil, "the other side says: access denied"},
		{"cut off", script{say(first)}, nil, io.ErrUnexpectedEOF, ""},
		{"HTML", script{say("<html><head>")}, nil, errProtocol, `"<htm"`},
		{"another object format", script{say(pkt("version 2\n"), pkt("ls-refs\n"), pkt("fetch\n"),
			pkt("object-format=sha256\n"), "0000")}, nil, ErrObjectFormat, "sha256"},
		{"another object format, version 0", script{say(pkt(strings.Repeat("1", 64)+" "+mainRef+
			"\x00side-band-64k object-format=sha256\n"), "0000")}, nil, ErrObjectFormat, "sha256"},
		{"no fetch", script{say(pkt("version 2\n"), pkt("ls-refs\n"), "0000")}, nil, errProtocol, "no fetch"},
		{"no side-band", script{say(pkt(v.tip.String()+" "+mainRef+"\x00thin-pack\n"), "0000")}, nil, nil,
			"side-band-64k"},
		{"version 3", script{say(pkt("version 3\n"), "0000")}, nil, errProtocol, "version 3"},
	}
}

// TestHostileServers: every server that misbehaves is left with an error, soon, in little memory, and leaves nothing.
// What has no end is in TestHostileFloods, because the race detector takes ten times as long for it.
func TestHostileServers(t *testing.T) { besiege(t, func(name string) bool { return !isFlood(name) }) }

func isFlood(name string) bool { return strings.HasPrefix(name, "endless") }

// besiege runs the cases that are wanted.
func besiege(t *testing.T, wanted func(name string) bool) {
	t.Helper()
	v := newVolume(t)
	v.commit(strings.Repeat("some text\n", 100))
	cases := introductions(v)
	for _, h := range hostileServers(t, v) {
		if h.two != nil {
			two := h
			two.name, two.two = h.name+" in version 2", append(script{say(introduce2())}, h.two...)
			cases = append(cases, two)
		}
		if h.zero != nil {
			zero := h
			zero.name, zero.two = h.name+" in version 0", append(script{say(introduce0(v.tip, mainRef))}, h.zero...)
			cases = append(cases, zero)
		}
	}
	for _, h := range cases {
		if !wanted(h.name) {
			continue
		}
		t.Run(h.name, func(t *testing.T) {
			over := func(how string, r *Remote) {
				t.Helper()
				b := newVolume(t)
				before := objects(t, b.dir)
				if h.slow() {
					r.paces = &tempi{listing: tempo{every: 100 * time.Millisecond, some: 1, first: 1, least: 1 << 20},
						pack: tempo{every: 100 * time.Millisecond, first: 1, least: 1 << 10}, trailing: trailingTempo()}
				}
				peak := heapPeak()
				start := time.Now()
				_, _, err := r.Fetch(t.Context(), b.db, mainRef, nil)
				if used := peak(); used > 300<<20 {
					t.Errorf("%s: it took %d MiB", how, used>>20)
				}
				if took := time.Since(start); took > 30*time.Second {
					t.Errorf("%s: it took %v", how, took)
				}
				if err == nil || h.want != nil && !errors.Is(err, h.want) || !strings.Contains(err.Error(), h.says) {
					t.Errorf("%s: %v, want %v with %q", how, err, h.want, h.says)
				}
				if err != nil && (strings.ContainsAny(err.Error(), "\x1b\x07\n\r\u0085\u202e") ||
					len(err.Error()) > maxWords+500) {
					t.Errorf("%s: not fit for a terminal: %q", how, err)
				}
				if after := objects(t, b.dir); after != before {
					t.Errorf("%s: left over: %s", how, after)
				}
			}
			over("pipe", &Remote{path: "fake", net: fakeDialer{h.two}})
			if strings.HasPrefix(h.name, "endless ref") || h.name == "endless" {
				return // one of these is enough work
			}
			r, err := Open(serveScript(t, h.two), Options{})
			check(t, err)
			over("HTTP", r)
		})
	}
}

// objects lists all files below a repository's objects.
func objects(t *testing.T, dir string) string {
	t.Helper()
	var names []string
	check(t, filepath.WalkDir(filepath.Join(dir, "objects"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			names = append(names, path)
		}
		return err
	}))
	return strings.Join(names, " ")
}

// heapPeak watches the heap until the function that it returns is called, which returns the most that it grew by.
func heapPeak() func() int64 {
	read := func() int64 {
		s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
		metrics.Read(s)
		return int64(s[0].Value.Uint64())
	}
	first, done, peak := read(), make(chan struct{}), make(chan int64)
	go func() {
		var most int64
		for {
			most = max(most, read()-first)
			select {
			case <-done:
				peak <- most
				return
			case <-time.After(2 * time.Millisecond):
			}
		}
	}()
	return func() int64 {
		close(done)
		return <-peak
	}
}
