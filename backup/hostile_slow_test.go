//go:build slow

package backup

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"emberfs/backup/coldtest"
	"emberfs/backup/format"
	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

// Metadata that lie give problems, and all else is read as it was.
func TestMetadataLies(t *testing.T) {
	t.Parallel()
	const entries = ".emberfs/meta/.emberfs%entries"
	sed := func(expr string) string { return "sed -i '" + expr + "' " + entries }
	add := func(l string) string { return "cat >>" + entries + " <<'END'\n" + l + "\nEND\n" }
	long := strings.Repeat("x", 300)
	for _, c := range []struct {
		name, script string
		// changed are the names whose entries are not as they were; gone those that are left out.
		changed, gone []string
	}{
		{"size", sed(`/"a"/s/"size":3/"size":1000000/`), nil, nil},
		{"other object", sed(`/"name":"a"/s/"id":"[0-9a-f]*"/"id":"4b825dc642cb6eb9a060e54bf8d69288fbee4904"/`),
			[]string{"a"}, nil},
		{"other git mode", sed(`/"name":"b"/s/100644/100755/`), nil, nil},
		{"type", sed(`/"name":"a"/s/"type":"file"/"type":"dir"/`), []string{"a"}, nil},
		{"type and keys", sed(
			`/"name":"b"/s/.*/{"name":"b","type":"fifo","mode":"0644","uid":0,"gid":0,"mtime":[0,0]}/`), []string{"b"},
			nil},
		{"target", sed(`/"name":"l"/{s/"target":"a"/"target":"b"/}`), nil, nil},
		{"target and size", sed(`/"name":"l"/{s/"target":"a"/"target":"\/etc\/passwd"/;s/"size":1/"size":11/}`), nil,
			nil},
		{"line removed", sed(`/"name":"a"/d`), []string{"a"}, nil},
		{"line twice", sed(`/"name":"a"/p`), nil, nil},
		{"not JSON", sed(`/"name":"a"/s/.*/<<<<<<< HEAD/`), []string{"a"}, nil},
		{"unknown key", sed(`/"name":"a"/s/{/{"chunk":65536,/`), []string{"a"}, nil},
		{"path out", add(`{"name":"../evil","type":"fifo","mode":"0644","uid":0,"gid":0,"mtime":[0,0]}`), nil, nil},
		{"dot dot", add(`{"name":"..","type":"fifo","mode":"0644","uid":0,"gid":0,"mtime":[0,0]}`), nil, nil},
		{"absolute", add(`{"name":"/etc/x","type":"fifo","mode":"0644","uid":0,"gid":0,"mtime":[0,0]}`), nil, nil},
		{"long name", add(`{"name":"` + long + `","type":"fifo","mode":"0644","uid":0,"gid":0,"mtime":[0,0]}`), nil,
			nil},
		{"own record", sed(`/"name":"b"/s/"size"/"xattrs":[{"name":"trusted.emberfs","value":"x"}],"size"/`),
			[]string{"b"}, nil},
		{"file from nowhere", add(
			`{"name":"z","type":"file","mode":"0644","uid":0,"gid":0,"mtime":[0,0],"size":1,"id":"4b825dc642cb6eb9a060e54bf8d69288fbee4904","git":"100644"}`), nil, nil},
		{"group of two files", sed(`/"name":"b"/s/"id"/"link":"g","id"/`), nil, nil},
		{"group across types", sed(`/"name":"fifo"/s/"uid"/"link":"g","uid"/`), nil, nil},
		{"no header", sed(`1d`), nil, nil},
		{"empty", ": >" + entries, []string{"a", "b", "l", "fifo", "h1", "h2", "d"}, []string{"fifo"}},
		{"missing", "rm " + entries, []string{"a", "b", "l", "fifo", "h1", "h2", "d"}, []string{"fifo"}},
		{"symlink", "rm " + entries + "; ln -s /etc/passwd " + entries,
			[]string{"a", "b", "l", "fifo", "h1", "h2", "d"}, []string{"fifo"}},
		{"directory", "rm " + entries + "; mkdir -p '" + entries + "/00'; echo x >" + entries + "/00/x",
			[]string{"a", "b", "l", "fifo", "h1", "h2", "d"}, []string{"fifo"}},
		{"own directory is a file", "rm -r .emberfs; echo x >.emberfs", []string{"a", "b", "l", "fifo", "h1", "h2", "d",
			"d/in"}, []string{"fifo"}},
		{"own directory is a link", "rm -r .emberfs; ln -s /etc .emberfs",
			[]string{"a", "b", "l", "fifo", "h1", "h2", "d", "d/in"}, []string{"fifo"}},
		{"meta is a file", "rm -r .emberfs/meta; echo x >.emberfs/meta",
			[]string{"a", "b", "l", "fifo", "h1", "h2", "d", "d/in"}, []string{"fifo"}},
		{"volume.json is a link", "rm .emberfs/volume.json; ln -s /etc/passwd .emberfs/volume.json", nil, nil},
		{"volume.json is junk", "echo '{' >.emberfs/volume.json", nil, nil},
		{"bad escapes", "echo 1 >.emberfs%entries; echo 2 >.emberfs%plain; echo 3 >.emberfs%%" +
			strings.Repeat("a", 64), []string{""}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			v := newVolume(t, Options{VolumeID: "vol"})
			v.CommitTree(hostileBase(), nil)
			want := hostileBase()
			v.StockEdit(c.script)
			s := v.HeadSnapshot()
			got := &coldtest.File{Entry: s.Root()}
			problems := v.ReadAny(s, got)
			if len(problems) == 0 {
				t.Error("no problem was reported")
			}
			for _, p := range problems {
				if p.Error() == "" || len(p.Error()) > 2000 {
					t.Errorf("problem of %d bytes", len(p.Error()))
				}
			}
			have := got.Flat("")
			for _, l := range want.Flat("") {
				path := l[1 : 1+strings.IndexByte(l[1:], '"')]
				if path != "" && !slices.Contains(c.changed, path) && !slices.Contains(have, l) {
					t.Errorf("lacks %s", l)
				}
			}
			for name := range want.Kids {
				if k := got.Kids[name]; (k == nil) != slices.Contains(c.gone, name) {
					t.Errorf("%s is there: %v", name, k != nil)
				}
			}
			if len(got.Kids) > len(want.Kids) {
				t.Errorf("names appeared: %v", have)
			}
			// Contents are what git says, whatever the metadata say.
			for name, k := range got.Kids {
				if k.Kind == cold.KindFile && string(k.Data) != string(want.Kids[name].Data) {
					t.Errorf("%s holds %q", name, k.Data)
				}
			}
			// A commit whole is sound again.
			v.CommitTree(got, nil)
			coldtest.CompareTrees(t, v.ReadTree(v.HeadSnapshot()), got)
			v.CheckGit()
		})
	}
}

// A list that lies is an empty one and a problem; everything else is read as it was, and the next commit may have its
// own.
func TestOpenedLies(t *testing.T) {
	t.Parallel()
	const file = ".emberfs/opened"
	for name, script := range map[string]string{
		"up":         `echo '{"path":"../x"}' >>` + file,
		"up inside":  `echo '{"path":"a/../../x"}' >` + file,
		"absolute":   `echo '{"path":"/etc/passwd"}' >` + file,
		"NUL":        `echo '{"path":"a\u0000b"}' >` + file,
		"empty path": `echo '{"path":""}' >` + file,
		"no path":    `echo '{}' >` + file,
		"twice":      `echo '{"path":"a","path64":"YQ=="}' >` + file,
		"key":        `echo '{"path":"a","size":1}' >` + file,
		"base64":     `echo '{"path64":"YQ"}' >` + file,
		"no JSON":    `echo hello >` + file,
		"type":       `echo '{"path":1}' >` + file,
		"too many":   `yes '{"path":"a"}' | head -n 4097 >` + file,
		"too long":   `{ printf '{"x_y":"'; head -c 300000 /dev/zero | tr '\0' y; echo '","path":"a"}'; } >` + file,
		"symlink":    "rm " + file + "; ln -s /etc/passwd " + file,
		"directory":  "rm " + file + "; mkdir " + file + "; echo >" + file + "/x",
		"executable": "chmod +x " + file,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := newVolume(t, Options{})
			f := coldtest.StockBase()
			v.commitOpened(f, []string{"a"})
			v.StockEdit(script)
			s := v.HeadSnapshot()
			if got := openedOf(t, s); got != nil {
				t.Errorf("Opened = %q", got)
			}
			l, err := s.ReadDir(t.Context(), coldtest.RootOf(s))
			if err != nil || len(l.Entries) != len(f.Kids) {
				t.Fatalf("%d entries, want %d: %v", len(l.Entries), len(f.Kids), err)
			}
			if len(l.Problems) != 1 || !errors.Is(l.Problems[0], cold.ErrCorrupt) ||
				!strings.Contains(l.Problems[0].Error(), file) {
				t.Errorf("problems %v", l.Problems)
			}
			if ok, err := s.Valid(t.Context(), coldtest.RootOf(s)); !ok || err != nil {
				t.Errorf("Valid = %v, %v", ok, err)
			}
			s = v.commitOpened(f, []string{"b"})
			if got := openedOf(t, s); !slices.Equal(got, []string{"b"}) {
				t.Errorf("afterwards Opened = %q", got)
			}
			coldtest.CompareTrees(t, v.ReadTree(s), f)
		})
	}
	for _, line := range []string{`{"path":"a","x_since":5}`, `{"path64":"/w=="}`} {
		if got, err := decodeOpened([]byte(line + "\n")); len(got) != 1 || err != nil {
			t.Errorf("%s: %q, %v", line, got, err)
		}
	}
}

// A trie without end is given up soon, and the directory is read without it.
func TestTrieBombs(t *testing.T) {
	t.Parallel()
	v := newVolume(t, Options{})
	blob := v.object("blob", []byte("x"))
	all := func(mode string, id cold.ID) []any {
		var e []any
		for d := range format.TrieFanout {
			e = append(e, mode, format.DigitName(d), id)
		}
		return e
	}
	shard := v.object("blob", []byte(`{"name":"good","type":"fifo","mode":"0644","uid":0,"gid":0,"mtime":[0,0]}`+"\n"))
	for _, leaf := range []struct {
		mode string
		id   cold.ID
	}{{"40000", odb.EmptyTree}, {"100644", shard}, {"100644", v.object("blob", nil)}, {"160000", blob},
		{"100644", blob}} {
		node := v.object("tree", rawTree(all(leaf.mode, leaf.id)...))
		for range format.MaxLevels + 3 {
			node = v.object("tree", rawTree(all("40000", node)...))
		}
		header := v.object("blob", []byte(`{"tree":"`+odb.EmptyTree.String()+`"}`))
		entries := v.object("tree", rawTree(append(all("40000", node), "100644", format.HeaderName, header)...))
		meta := v.object("tree", rawTree("40000", format.EntriesName, entries))
		own := v.object("tree", rawTree("40000", format.MetaName, meta))
		v.forge(rawTree("40000", format.OwnName, own, "100644", "good", blob))
		start := time.Now()
		s := v.HeadSnapshot()
		l, err := s.ReadDir(t.Context(), coldtest.RootOf(s))
		if err != nil || len(l.Entries) != 1 || l.Entries[0].Kind != cold.KindFile || len(l.Problems) == 0 ||
			!l.Reconciled {
			t.Errorf("%+v: %+v, %v", leaf, l, err)
		}
		if took := time.Since(start); took > 20*time.Second {
			t.Errorf("took %v", took)
		}
	}
}
