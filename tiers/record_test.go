package tiers

import (
	"testing"

	"emberfs/tiers/cold"
)

func TestRecordRoundTrip(t *testing.T) {
	for _, r := range []record{
		{flags: recClean | recCtime, trust: 7, id: cold.ID{1, 2, 3}, size: 1 << 40, mtime: cold.Time{Sec: -1, Nsec: 999999999}, ctime: cold.Time{Sec: 1 << 38, Nsec: 1}, group: 42},
		{flags: recDir | recClean, trust: 65535, id: cold.ID{9}, meta: cold.ID{8}, mtime: cold.Time{Sec: -(1 << 39), Nsec: 0}},
	} {
		b := r.encode(nil)
		if len(b) > recordMax {
			t.Fatalf("%d bytes", len(b))
		}
		if got, ok := decodeRecord(b); !ok || got != r {
			t.Fatalf("got %+v, want %+v", got, r)
		}
	}
}

func FuzzDecodeRecord(f *testing.F) {
	r := record{flags: recClean, id: cold.ID{1}}
	f.Add(r.encode(nil))
	r.flags |= recDir
	f.Add(r.encode(nil))
	f.Add([]byte{recordVersion})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, ok := decodeRecord(b)
		if !ok {
			return
		}
		if got, ok := decodeRecord(r.encode(nil)); !ok || got != r {
			t.Fatalf("decodes to %+v, and that to %+v", r, got)
		}
	})
}
