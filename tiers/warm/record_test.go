package warm

import (
	"testing"

	"emberfs/tiers/cold"
)

func TestRecordRoundTrip(t *testing.T) {
	for _, r := range []Record{
		{Flags: FlagClean | FlagCtime, Trust: 7, ID: cold.ID{1, 2, 3}, Size: 1 << 40,
			Mtime: cold.Time{Sec: -1, Nsec: 999999999}, Ctime: cold.Time{Sec: 1 << 38, Nsec: 1}, Group: 42},
		{Flags: FlagDir | FlagClean, Trust: 65535, ID: cold.ID{9}, Meta: cold.ID{8},
			Mtime: cold.Time{Sec: -(1 << 39), Nsec: 0}},
	} {
		b := r.Encode(nil)
		if len(b) > RecordMax {
			t.Fatalf("%d bytes", len(b))
		}
		if got, ok := DecodeRecord(b); !ok || got != r {
			t.Fatalf("got %+v, want %+v", got, r)
		}
	}
}

func FuzzDecodeRecord(f *testing.F) {
	r := Record{Flags: FlagClean, ID: cold.ID{1}}
	f.Add(r.Encode(nil))
	r.Flags |= FlagDir
	f.Add(r.Encode(nil))
	f.Add([]byte{RecordVersion})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, ok := DecodeRecord(b)
		if !ok {
			return
		}
		if got, ok := DecodeRecord(r.Encode(nil)); !ok || got != r {
			t.Fatalf("decodes to %+v, and that to %+v", r, got)
		}
	})
}
