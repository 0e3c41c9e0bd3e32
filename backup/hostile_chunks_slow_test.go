//go:build slow

package backup

import (
	"errors"
	"strings"
	"testing"

	"emberfs/backup/coldtest"
	"emberfs/backup/format"
	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

// What a hostile tree of chunks may be. The rest of the directory is readable, and so is what git has below it.
func TestHostileChunks(t *testing.T) {
	t.Parallel()
	v := newVolume(t, Options{ChunkThreshold: testThreshold})
	blob := v.object("blob", coldtest.Noise(30, format.MinChunk))
	short := v.object("blob", []byte("short"))
	info := func(s string) cold.ID { return v.object("blob", []byte(s)) }
	good := info(`{"size":131072,"chunk":65536}` + "\n")
	for _, c := range []struct {
		name string
		tree []byte
		kind cold.Kind // of what is listed; KindOther: no directory can hold it
		say  string
	}{
		{"good", rawTree("100644", format.ChunksName, good, "100644", "00000000", blob, "100644", "00000001", blob),
			cold.KindFile, ""},
		{"info is a link", rawTree("120000", format.ChunksName, good, "100644", "00000000", blob), cold.KindDir,
			"120000"},
		{"info is a tree", rawTree("40000", format.ChunksName, odb.EmptyTree, "100644", "00000000", blob), cold.KindDir,
			"40000"},
		{"info is a submodule", rawTree("160000", format.ChunksName, good), cold.KindDir, "160000"},
		{"info is no blob", rawTree("100644", format.ChunksName, v.object("tree", rawTree("100644", "x", blob))),
			cold.KindDir, format.ChunksName},
		{"info is missing", rawTree("100644", format.ChunksName, cold.ID{1}), cold.KindDir, format.ChunksName},
		{"info is empty", rawTree("100644", format.ChunksName, info("")), cold.KindDir, format.ChunksName},
		{"info is long", rawTree("100644", format.ChunksName, blob), cold.KindDir, format.ChunksName},
		{"huge size", rawTree("100644", format.ChunksName, info(`{"size":9223372036854775807,"chunk":65536}`)),
			cold.KindDir, "size"},
		{"over the numbers", rawTree("100644", format.ChunksName, info(`{"size":6553600000001,"chunk":65536}`)),
			cold.KindDir, "size"},
		{"negative size", rawTree("100644", format.ChunksName, info(`{"size":-1,"chunk":65536}`)), cold.KindDir,
			format.ChunksName},
		{"no size", rawTree("100644", format.ChunksName, info(`{"chunk":65536}`)), cold.KindDir, "size"},
		{"size twice", rawTree("100644", format.ChunksName, info(`{"size":1,"size":1,"chunk":65536}`)), cold.KindDir,
			format.ChunksName},
		{"unknown key", rawTree("100644", format.ChunksName, info(`{"size":1,"chunk":65536,"zip":1}`)), cold.KindDir,
			format.ChunksName},
		{"no power of two", rawTree("100644", format.ChunksName, info(`{"size":1,"chunk":65537}`)), cold.KindDir,
			"65537"},
		{"small chunks", rawTree("100644", format.ChunksName, info(`{"size":1,"chunk":32768}`)), cold.KindDir,
			format.ChunksName},
		{"big chunks", rawTree("100644", format.ChunksName, info(`{"size":1,"chunk":8388608}`)), cold.KindDir,
			format.ChunksName},
		{"chunk zero", rawTree("100644", format.ChunksName, info(`{"size":1,"chunk":0}`)), cold.KindDir,
			format.ChunksName},
		{"seven digits", rawTree("100644", format.ChunksName, good, "100644", "0000000", blob), cold.KindDir,
			"0000000"},
		{"nine digits", rawTree("100644", format.ChunksName, good, "100644", "000000000", blob), cold.KindDir,
			"000000000"},
		{"plus sign", rawTree("100644", format.ChunksName, good, "100644", "+0000000", blob), cold.KindDir, "+0000000"},
		{"other name", rawTree("100644", format.ChunksName, good, "100644", "00000000", blob, "100644", "README", blob),
			cold.KindDir, "README"},
		{"tree as a chunk", rawTree("100644", format.ChunksName, good, "40000", "00000000", odb.EmptyTree),
			cold.KindDir, "00000000"},
		{"link as a chunk", rawTree("100644", format.ChunksName, good, "120000", "00000000", short), cold.KindDir,
			"00000000"},
		{"twice", rawTree("100644", format.ChunksName, good, "100644", "00000000", blob, "100644", "00000000", short),
			cold.KindDir, "00000000"},
		{"out of order", rawTree("100644", format.ChunksName, good, "100644", "00000001", blob, "100644", "00000000",
			blob), cold.KindDir, "00000000"},
		{"far behind the end", rawTree("100644", format.ChunksName, good, "100644", "99999999", blob), cold.KindDir,
			"99999999"},
		{"missing chunk", rawTree("100644", format.ChunksName, good, "100644", "00000000", cold.ID{1}, "100644",
			"00000001", blob), cold.KindOther, "00000000"},
		{"chunk is a tree", rawTree("100644", format.ChunksName, good, "100644", "00000000", odb.EmptyTree),
			cold.KindOther, "00000000"},
		{"long chunk", rawTree("100644", format.ChunksName, good, "100644", "00000000",
			v.object("blob", make([]byte, format.MaxLong+1)), "100644", "00000001", blob), cold.KindOther, "00000000"},
		{"long chunk and a hole", rawTree("100644", format.ChunksName, info(`{"size":196608,"chunk":65536}`), "100644",
			"00000000", v.object("blob", make([]byte, format.MinChunk+1))), cold.KindOther, "00000000"},
		{"all hole", rawTree("100644", format.ChunksName, info(`{"size":6553600000000,"chunk":65536}`)), cold.KindFile,
			""},
	} {
		t.Run(c.name, func(t *testing.T) {
			v.T = t
			v.forge(rawTree("40000", "bad", v.object("tree", c.tree), "100644", "good", short))
			s := v.HeadSnapshot()
			l, err := s.ReadDir(t.Context(), coldtest.RootOf(s))
			coldtest.Check(t, err)
			var kind cold.Kind
			for i := range l.Entries {
				e := &l.Entries[i]
				if e.Name != "bad" {
					continue
				}
				kind = e.Kind
				if kind == cold.KindDir {
					if _, err := s.ReadDir(t.Context(), e.Dir()); err != nil {
						t.Error(err)
					}
					if _, err := v.Open(t.Context(), e.ID, -1); !errors.Is(err, cold.ErrCorrupt) &&
						!errors.Is(err, cold.ErrMissing) {
						t.Errorf("opened as a file: %v", err)
					}
				}
			}
			if kind != c.kind || len(l.Entries) < 1 || l.Entries[len(l.Entries)-1].Name != "good" {
				t.Errorf("listed %+v", l.Entries)
			}
			switch {
			case kind == cold.KindOther:
				if why := l.Entries[0].Other.Why; len(l.Problems) > 0 || !strings.Contains(why, c.say) {
					t.Errorf("problems %v, why %q, want %q", l.Problems, why, c.say)
				}
			case c.say == "" && len(l.Problems) == 0:
			case len(l.Problems) != 1 || !strings.Contains(l.Problems[0].Error(), c.say) ||
				!strings.Contains(l.Problems[0].Error(), `"bad"`):
				t.Errorf("problems %v, want %q", l.Problems, c.say)
			}
		})
	}
}
