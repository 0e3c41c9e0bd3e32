//go:build slow

package backup

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"emberfs/backup/coldtest"
	"emberfs/backup/format"
	"emberfs/tiers/cold"
)

// chunkedBase is a volume with a file in chunks of ten and a bit, and one with a hole in it.
func chunkedBase() *coldtest.File {
	f := coldtest.NewDir(0o755)
	whole := coldtest.Noise(20, 10*format.MinChunk+100)
	b := f.Text("big", string(whole))
	b.Mode, b.UID = 0o4750, 42
	b.Xattrs = []cold.Xattr{{Name: "security.capability", Value: []byte{1}}, {Name: "user.tag", Value: []byte("t")}}
	f.Text("d/in", "in")
	f.Text("small", "s")
	h := f.Text("holes", "")
	h.Data = slices.Concat(coldtest.Noise(21, format.MinChunk), make([]byte, 4*format.MinChunk),
		coldtest.Noise(22, 3*format.MinChunk))
	h.Size = int64(len(h.Data))
	h.Mode = 0o640
	return f
}

// commitChunked commits chunkedBase; the zeros of "holes" are one.
func (v *testVolume) commitChunked() *coldtest.File {
	v.T.Helper()
	f := chunkedBase()
	x, err := v.Begin(v.T.Context())
	coldtest.Check(v.T, err)
	defer x.Abort()
	for name, k := range map[string]*coldtest.File{"big": f.Kids["big"], "holes": f.Kids["holes"],
		"small": f.Kids["small"], "in": f.Kids["d"].Kids["in"]} {
		c := holed{size: k.Size, parts: map[int64][]byte{0: k.Data}}
		if name == "holes" {
			c.parts = map[int64][]byte{0: k.Data[:format.MinChunk], 5 * format.MinChunk: k.Data[5*format.MinChunk:]}
		}
		k.ID, err = x.PutFile(v.T.Context(), c, cold.Base{})
		coldtest.Check(v.T, err)
	}
	d := f.Kids["d"]
	id, err := x.PutDir(v.T.Context(), cold.DirID{}, true, nil, d.Entries(), nil)
	coldtest.Check(v.T, err)
	d.ID, d.Meta = id.Tree, id.Meta
	id, err = x.PutDir(v.T.Context(), cold.DirID{}, true, &cold.Root{Entry: f.Entry}, f.Entries(), nil)
	coldtest.Check(v.T, err)
	if _, err := x.Commit(v.T.Context(), cold.CommitOptions{Root: id}); err != nil {
		v.T.Fatal(err)
	}
	return f
}

// commitKnown commits a tree whose files are said to have changed only in the range.
func (v *testVolume) commitKnown(f *coldtest.File, changed cold.Range) {
	v.T.Helper()
	x, err := v.Begin(v.T.Context())
	coldtest.Check(v.T, err)
	defer x.Abort()
	var files func(f *coldtest.File)
	files = func(f *coldtest.File) {
		for _, k := range f.Kids {
			files(k)
			if k.Kind == cold.KindFile {
				base := cold.Base{ID: k.ID, Known: true, Changed: []cold.Range{changed}}
				k.ID, err = x.PutFile(v.T.Context(), coldtest.Content(k.Data), base)
				coldtest.Check(v.T, err)
			}
		}
	}
	files(f)
	coldtest.Check(v.T, coldtest.PutDirs(v.T.Context(), x, f, true))
	if _, err := x.Commit(v.T.Context(), cold.CommitOptions{Root: f.Dir()}); err != nil {
		v.T.Fatal(err)
	}
}

func TestStockClientAndChunks(t *testing.T) {
	t.Parallel()
	const c = format.MinChunk
	edited := func(f *coldtest.File, name string, data []byte) {
		k := f.Kids[name]
		k.Data, k.Size, k.Mtime = data, int64(len(data)), cold.Time{}
		k.Mode &^= 0o6000
		k.Xattrs = slices.DeleteFunc(k.Xattrs, func(x cold.Xattr) bool {
			return strings.HasPrefix(x.Name, "security.")
		})
	}
	fresh := func(f *coldtest.File, path string, data []byte) *coldtest.File {
		k := f.Text(path, string(data))
		k.UID, k.GID, k.Mtime = 501, 502, cold.Time{}
		return k
	}
	freshDir := func(f *coldtest.File, path string) {
		d := f.Mkdir(path)
		d.UID, d.GID, d.Mtime = 501, 502, cold.Time{}
	}
	cut := func(data []byte, from, to int, with string) []byte {
		return slices.Concat(data[:from], []byte(with), data[to:])
	}
	for _, tc := range []struct {
		name, script string
		want         func(f *coldtest.File)
		problem      string
	}{
		{"a chunk", "printf XYZ | dd of=big/00000003 conv=notrunc status=none", func(f *coldtest.File) {
			edited(f, "big", cut(f.Kids["big"].Data, 3*c, 3*c+3, "XYZ"))
		}, ""},
		{"the last, longer", "printf XYZ >>big/00000010", func(f *coldtest.File) {
			edited(f, "big", append(f.Kids["big"].Data, "XYZ"...))
		}, ""},
		{"the last, shorter", "truncate -s 7 big/00000010", func(f *coldtest.File) {
			edited(f, "big", f.Kids["big"].Data[:10*c+7])
		}, ""},
		{"the last, empty", "truncate -s 0 big/00000010", func(f *coldtest.File) {
			edited(f, "big", f.Kids["big"].Data[:10*c])
		}, ""},
		{"the last, longer than a chunk", "head -c 100000 /dev/zero | tr '\\0' x >>big/00000010",
			func(f *coldtest.File) {
				edited(f, "big", append(f.Kids["big"].Data, strings.Repeat("x", 100000)...))
			}, ""},
		{"an inner one, longer", "printf XYZ >>big/00000003", func(f *coldtest.File) {
			edited(f, "big", cut(f.Kids["big"].Data, 4*c, 4*c, "XYZ"))
		}, ""},
		{"an inner one, shorter", "truncate -s 7 big/00000003", func(f *coldtest.File) {
			edited(f, "big", cut(f.Kids["big"].Data, 3*c+7, 4*c, ""))
		}, ""},
		{"an inner one, empty", "truncate -s 0 big/00000003", func(f *coldtest.File) {
			edited(f, "big", cut(f.Kids["big"].Data, 3*c, 4*c, ""))
		}, ""},
		{"two that make up for each other", "truncate -s 65535 big/00000003; printf X >>big/00000005",
			func(f *coldtest.File) {
				edited(f, "big", cut(cut(f.Kids["big"].Data, 6*c, 6*c, "X"), 4*c-1, 4*c, ""))
			}, ""},
		{"an inner one, shorter, with a hole", "truncate -s 7 holes/00000005", func(f *coldtest.File) {
			edited(f, "holes", cut(f.Kids["holes"].Data, 5*c+7, 6*c, string(make([]byte, c-7))))
		}, "00000005"},
		{"an inner one, longer, with a hole", "printf X >>holes/00000005", func(f *coldtest.File) {
			delete(f.Kids, "holes")
		}, "00000005"},
		{"the last, longer, with a hole", "printf X >>holes/00000007", func(f *coldtest.File) {
			edited(f, "holes", append(f.Kids["holes"].Data, 'X'))
		}, ""},
		{"one more", "printf XYZ >holes/00000008", func(f *coldtest.File) {
			edited(f, "holes", append(f.Kids["holes"].Data, "XYZ"...))
		}, ""},
		{"two more", "cp big/00000000 big/00000011; printf X >big/00000012", func(f *coldtest.File) {
			d := f.Kids["big"].Data
			edited(f, "big", slices.Concat(d, d[:c], []byte("X")))
		}, ""},
		{"a hole filled", "printf X >big/x; cp big/00000000 holes/00000001; rm big/x", func(f *coldtest.File) {
			d := f.Kids["holes"].Data
			copy(d[c:], f.Kids["big"].Data[:c])
			edited(f, "holes", d)
		}, ""},
		{"one less", "rm big/00000003", func(f *coldtest.File) {
			d := f.Kids["big"].Data
			clear(d[3*c : 4*c])
			edited(f, "big", d)
		}, ""},
		{"the last less", "rm big/00000010", func(f *coldtest.File) {
			d := f.Kids["big"].Data
			clear(d[10*c:])
			edited(f, "big", d)
		}, ""},
		{"all less", "rm big/0*", func(f *coldtest.File) { edited(f, "big", make([]byte, 10*c+100)) }, ""},
		{"description less", "rm holes/.emberfs%chunks", func(f *coldtest.File) {
			d := f.Kids["holes"].Data
			delete(f.Kids, "holes")
			for _, n := range []int{0, 5, 6, 7} {
				fresh(f, fmt.Sprintf("holes/%08d", n), d[n*c:(n+1)*c])
			}
			freshDir(f, "holes")
		}, ""},
		{"file instead", "rm -r big; printf new >big; chmod +x big", func(f *coldtest.File) {
			edited(f, "big", []byte("new"))
		}, ""},
		{"plain file instead", "rm -r big; printf new >big", func(f *coldtest.File) {
			edited(f, "big", []byte("new"))
			f.Kids["big"].Mode &^= 0o111
		}, ""},
		{"directory instead", "rm -r big; mkdir big; printf x >big/x", func(f *coldtest.File) {
			delete(f.Kids, "big")
			fresh(f, "big/x", []byte("x"))
			freshDir(f, "big")
		}, ""},
		{"chunks instead of a file", "rm small; cp -r holes small", func(f *coldtest.File) {
			edited(f, "small", f.Kids["holes"].Data)
		}, ""},
		{"chunks instead of a directory", "rm -r d; cp -r holes d", func(f *coldtest.File) {
			fresh(f, "d", f.Kids["holes"].Data)
		}, ""},
		{"renamed", "git mv big other", func(f *coldtest.File) {
			d := f.Kids["big"].Data
			delete(f.Kids, "big")
			fresh(f, "other", d)
		}, ""},
		{"copied below", "mkdir -p n/m; cp -r big n/m/copy", func(f *coldtest.File) {
			fresh(f, "n/m/copy", f.Kids["big"].Data)
			freshDir(f, "n/m")
			freshDir(f, "n")
		}, ""},
		{"mode", "chmod +x big/00000003", func(f *coldtest.File) { edited(f, "big", f.Kids["big"].Data) }, ""},
		{"beside it", "printf X >small", func(f *coldtest.File) {
			k := f.Kids["small"]
			k.Data, k.Mtime = []byte("X"), cold.Time{}
		}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			v := newVolume(t, Options{UID: 501, GID: 502, ChunkThreshold: testThreshold})
			v.commitChunked()
			v.StockEdit(tc.script)
			s := v.HeadSnapshot()
			got := &coldtest.File{Entry: s.Root()}
			problems := v.ReadAny(s, got)
			if tc.problem == "" && len(problems) > 0 {
				t.Errorf("problems: %v", problems)
			}
			if tc.problem != "" && (len(problems) != 1 || !strings.Contains(problems[0].Error(), tc.problem)) {
				t.Errorf("problems: %v, want one of %s", problems, tc.problem)
			}
			want := chunkedBase()
			tc.want(want)
			setTime(want, cold.Time{Sec: s.Info().Time.Unix()})
			want.Mtime = got.Mtime
			coldtest.CompareTrees(t, got, want)
			for name, k := range got.Kids {
				if k.Kind == cold.KindFile {
					v.checkAt(k.Entry, want.Kids[name].Data)
				}
			}
			if t.Failed() {
				return
			}
			// First the trees as they are, as when somebody did a chmod; then the contents.
			x := v.MustBegin()
			coldtest.Check(t, coldtest.PutDirs(t.Context(), x, got, true))
			if _, err := x.Commit(t.Context(), cold.CommitOptions{Root: got.Dir()}); err != nil {
				t.Fatal(err)
			}
			coldtest.CompareTrees(t, v.ReadTree(v.HeadSnapshot()), want)
			for _, k := range got.Kids {
				if k.Kind == cold.KindFile && len(k.Data) > 5*c {
					k.Data[4*c+9] ^= 1
					want.Kids[k.Name].Data = k.Data
				}
			}
			v.commitKnown(got, cold.Range{Off: 4*c + 9, End: 4*c + 10})
			coldtest.CompareTrees(t, v.ReadTree(v.HeadSnapshot()), want)
			coldtest.Fsck(t, v.Dir)
		})
	}
}

// Metadata that lie about a file in chunks.
func TestChunkMetadataLies(t *testing.T) {
	t.Parallel()
	const entries = ".emberfs/meta/.emberfs%entries"
	sed := func(expr string) string { return "sed -i '/\"name\":\"big\"/" + expr + "' " + entries }
	for _, c := range []struct {
		name, script string
		kind         cold.Kind
	}{
		{"size", sed(`s/"size":[0-9]*/"size":1000000000000/`), cold.KindFile},
		{"no size", sed(`s/"size":[0-9]*/"size":0/`), cold.KindFile},
		{"chunk", sed(`s/"chunk":65536/"chunk":131072/`), cold.KindFile},
		{"no chunk", sed(`s/,"chunk":65536//`), cold.KindFile},
		{"bad chunk", sed(`s/"chunk":65536/"chunk":7/`), cold.KindFile},
		{"git mode", sed(`s/"git":"40000","chunk":65536/"git":"100755"/`), cold.KindFile},
		{"directory", sed(`s/"type":"file"/"type":"dir"/;s/"size":[0-9]*,//;s/,"chunk":65536//`), cold.KindDir},
		{"other tree", sed(`s/"id":"[0-9a-f]*"/"id":"4b825dc642cb6eb9a060e54bf8d69288fbee4904"/`), cold.KindFile},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			v := newVolume(t, Options{ChunkThreshold: testThreshold})
			v.commitChunked()
			want := chunkedBase()
			v.StockEdit(c.script)
			s := v.HeadSnapshot()
			got := &coldtest.File{Entry: s.Root()}
			if problems := v.ReadAny(s, got); len(problems) == 0 {
				t.Error("no problem was reported")
			}
			k := got.Kids["big"]
			if k == nil || k.Kind != c.kind || k.Kind == cold.KindFile && !bytes.Equal(k.Data, want.Kids["big"].Data) {
				t.Fatalf("big is %+v", k)
			}
			if !bytes.Equal(got.Kids["holes"].Data, want.Kids["holes"].Data) || string(got.Kids["small"].Data) != "s" {
				t.Error("another file differs")
			}
			v.CommitTree(got, nil)
			coldtest.CompareTrees(t, v.ReadTree(v.HeadSnapshot()), got)
			v.CheckGit()
		})
	}
}
