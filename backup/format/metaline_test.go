package format

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

func sampleEntries(t *testing.T) []cold.Entry {
	t.Helper()
	id := lineID(t, "x")
	return []cold.Entry{
		{Name: "a", Kind: cold.KindFile, Mode: 0o644, Size: 1, ID: id},
		{Name: "\xff\"\\\n\u2028<>&", Kind: cold.KindFile, Mode: 0o7777, UID: 1<<32 - 2, GID: 5, Size: 1<<63 - 1,
			ID: id, Link: "g\u00e9",
			Mtime: cold.Time{Sec: -1 << 63, Nsec: 999999999}, Xattrs: []cold.Xattr{{Name: "a", Value: []byte{}},
				{Name: "b\xff", Value: []byte{0}}}},
		{Name: "d", Kind: cold.KindDir, Mode: 0o2755, ID: odb.EmptyTree},
		{Name: "l", Kind: cold.KindSymlink, Mode: 0o777, ID: lineID(t, "caf\xe9"), Target: "caf\xe9", Size: 4},
		{Name: "p", Kind: cold.KindFIFO}, {Name: "s", Kind: cold.KindSocket},
		{Name: "c", Kind: cold.KindChar, Rdev: unix.Mkdev(1<<32-1, 1<<32-1)},
		{Name: "b", Kind: cold.KindBlock, Rdev: unix.Mkdev(8, 1)},
	}
}

func TestLineRoundTrip(t *testing.T) {
	for _, e := range sampleEntries(t) {
		if err := CheckEntry(&e); err != nil {
			t.Errorf("%q: %v", e.Name, err)
			continue
		}
		chunk := int64(0)
		if e.Kind == cold.KindFile && e.Size > 1 {
			chunk = MaxChunk
		}
		l := EncodeLine(&e, chunk)
		if !json.Valid(l.Raw) || !utf8.Valid(l.Raw) || strings.ContainsRune(string(l.Raw), '\n') {
			t.Errorf("not a line of JSON: %s", l.Raw)
		}
		got, err := DecodeLine(l.Raw)
		if err != nil {
			t.Errorf("%s: %v", l.Raw, err)
			continue
		}
		if !reflect.DeepEqual(got, l) {
			t.Errorf("%s:\n got %+v\nwant %+v", l.Raw, got.Entry, e)
		}
	}
}

// The exact bytes are the format: they may not change by accident.
func TestLineBytes(t *testing.T) {
	e := cold.Entry{Name: "f\xff", Kind: cold.KindFile, Mode: 0o4755, UID: 1, GID: 2, Mtime: cold.Time{Sec: 3, Nsec: 4},
		Size: 5, ID: odb.EmptyTree, Link: "g",
		Xattrs: []cold.Xattr{{Name: "trusted.emberfs", Value: []byte("never")}, {Name: "user.a", Value: []byte("\x80")},
			{Name: "user.b", Value: []byte("v")}}}
	want := `{"name64":"Zv8=","type":"file","mode":"4755","uid":1,"gid":2,"mtime":[3,4],` +
		`"xattrs":[{"name":"user.a","value64":"gA=="},{"name":"user.b","value":"v"}],"size":5,` +
		`"id":"4b825dc642cb6eb9a060e54bf8d69288fbee4904","git":"100755","link":"g"}`
	if got := string(EncodeLine(&e, 0).Raw); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	want = strings.Replace(want, `"git":"100755",`, `"git":"40000","chunk":65536,`, 1)
	if got := string(EncodeLine(&e, MinChunk).Raw); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

const goodLine = `{"name":"a","type":"file","mode":"0644","uid":0,"gid":0,"mtime":[0,0],"size":1,"id":"4b825dc642cb6eb9a060e54bf8d69288fbee4904","git":"100644"}`

func TestLineAccepts(t *testing.T) {
	for _, raw := range []string{
		goodLine,
		" { " + strings.ReplaceAll(goodLine[1:], ",", " , ") + "\r",
		strings.Replace(goodLine, `"a"`, `"\u0061"`, 1),
		strings.Replace(goodLine, `{`, `{"x_later":[1,{"a":-1.5e3,"b":[null,true,"\ud83d\ude00"]}],`, 1),
		strings.Replace(goodLine, `"name":"a"`, `"name64":"YQ=="`, 1),
	} {
		if l, err := DecodeLine([]byte(raw)); err != nil || l.Name != "a" {
			t.Errorf("%s: %q, %v", raw, l.Name, err)
		}
	}
}

func TestLineRefuses(t *testing.T) {
	swap := func(old, now string) string {
		s := strings.Replace(goodLine, old, now, 1)
		if s == goodLine {
			t.Fatalf("%q is not in the line", old)
		}
		return s
	}
	dir := strings.NewReplacer(`"file"`, `"dir"`, `"100644"`, `"40000"`, `"size":1,`, "").Replace(goodLine)
	if _, err := DecodeLine([]byte(dir)); err != nil {
		t.Fatal(err)
	}
	for _, raw := range []string{
		"", "{}", "null", "[]", goodLine + "x", goodLine + goodLine, goodLine[:len(goodLine)-1], `{,}`,
		swap(`"name"`, `"Name"`), swap(`{`, `{"name":"b",`), swap(`{`, `{"later":1,`), swap(`{`, `{"x_a":1,"x_a":2,`),
		swap(`{`, `{"x_a":tru,`),
		swap(`{`, `{"x_a":`+strings.Repeat("[", 100)+strings.Repeat("]", 100)+`,`), swap(`{`, `{"name64":"YQ==",`),
		swap(`"a"`, `"a/b"`), swap(`"a"`, `".."`), swap(`"a"`, `""`), swap(`"a"`, `"\u0000"`), swap(`"a"`, "\"\xff\""),
		swap(`"a"`, `"\ud800"`), swap(`"a"`, `"\ud800\u0061"`),
		swap(`"a"`, "\"\n\""), swap(`"a"`, `"\x"`), swap(`"a"`, `"`+strings.Repeat("a", 256)+`"`), swap(`"a"`, `1`),
		swap(`"name":"a"`, `"name64":"YQ"`), swap(`"name":"a"`, `"name64":"YR=="`),
		swap(`"file"`, `"File"`), swap(`"file"`, `""`), swap(`"file"`, `"dir"`), swap(`"file"`, `"fifo"`),
		swap(`"file"`, `"symlink"`),
		swap(`"0644"`, `"644"`), swap(`"0644"`, `"0648"`), swap(`"0644"`, `420`), swap(`"0644"`, `"+644"`),
		swap(`"0644"`, `"00644"`),
		swap(`"uid":0`, `"uid":-1`), swap(`"uid":0`, `"uid":4294967295`), swap(`"uid":0`, `"uid":00`),
		swap(`"uid":0`, `"uid":0.0`), swap(`"uid":0`, `"uid":"0"`), swap(`"uid":0,`, ``),
		swap(`[0,0]`, `[0]`), swap(`[0,0]`, `[0,0,0]`), swap(`[0,0]`, `[0,1000000000]`), swap(`[0,0]`, `[0,-1]`),
		swap(`[0,0]`, `[9223372036854775808,0]`), swap(`[0,0]`, `[-0,0]`), swap(`[0,0]`, `0`),
		swap(`"size":1`, `"size":-1`), swap(`"size":1,`, ``), swap(`"size":1`, `"size":1e3`),
		swap(`4b82`, `4B82`), swap(`4b82`, `4b8`), swap(`4b825dc642cb6eb9a060e54bf8d69288fbee4904`,
			strings.Repeat("0", 40)), swap(`"100644"`, `"40000"`), swap(`"100644"`, `"160000"`),
		swap(`,"git":"100644"`, ``),
		swap(`"100644"`, `"40000","chunk":0`), swap(`"100644"`, `"40000","chunk":65535`),
		swap(`"100644"`, `"40000","chunk":98304`), swap(`"100644"`, `"40000","chunk":8388608`),
		swap(`"100644"`, `"40000","chunk":"65536"`), swap(`{`, `{"chunk":65536,`),
		strings.Replace(dir, `{`, `{"chunk":65536,`, 1),
		swap(`{`, `{"link":"",`), swap(`{`, `{"target":"x",`), swap(`{`, `{"rdev":[1,1],`),
		swap(`{`, `{"tree":"4b825dc642cb6eb9a060e54bf8d69288fbee4904",`),
		strings.Replace(dir, `{`, `{"link":"g",`, 1), strings.Replace(dir, `{`, `{"size":0,`, 1),
		swap(`{`, `{"xattrs":[{"name":"b","value":""},{"name":"a","value":""}],`),
		swap(`{`, `{"xattrs":[{"name":"a","value":""},{"name":"a","value":""}],`),
		swap(`{`, `{"xattrs":[{"name":"trusted.emberfs","value":""}],`),
		swap(`{`, `{"xattrs":[{"name":"user.emberfs","value":""}],`),
		swap(`{`, `{"xattrs":[{"name":"a"}],`), swap(`{`, `{"xattrs":[{"value":"a"}],`),
		swap(`{`, `{"xattrs":[{"name":"","value":""}],`), swap(`{`, `{"xattrs":{},`),
		swap(`{`, `{"xattrs":[{"name":"a","value":"","value64":""}],`),
		swap(`{`, `{"xattrs":[{"name":"a","value":"`+strings.Repeat("v", 65537)+`"}],`),
	} {
		if l, err := DecodeLine([]byte(raw)); err == nil {
			t.Errorf("%.300s: accepted as %+v", raw, l.Entry)
		}
	}
}

func TestHeader(t *testing.T) {
	root := sampleEntries(t)[1]
	root = cold.Entry{Kind: cold.KindDir, Mode: root.Mode, UID: 1, GID: 2, Mtime: root.Mtime, Xattrs: root.Xattrs}
	for _, h := range []Header{{Tree: odb.EmptyTree}, {Tree: odb.EmptyTree, Root: &root}} {
		raw := EncodeHeader(h)
		got, err := decodeHeader(raw[:len(raw)-1])
		if err != nil || !reflect.DeepEqual(got, h) {
			t.Errorf("%s: %+v, %v", raw, got, err)
		}
	}
	const tree = `"tree":"4b825dc642cb6eb9a060e54bf8d69288fbee4904"`
	for _, raw := range []string{
		"", "{}", `{"tree":""}`, `{"mode":"0755","uid":0,"gid":0,"mtime":[0,0],` + tree + `}`,
		`{` + tree + `,"mode":"0755"}`, `{` + tree + `,"name":"a"}`, `{` + tree + `}x`, `{` + tree + `,` + tree + `}`,
	} {
		if _, err := decodeHeader([]byte(raw)); err == nil {
			t.Errorf("%s: accepted", raw)
		}
	}
}

func TestLinks(t *testing.T) {
	links := map[string][]string{"a": {"", "x/y"}, "b\"\n": {"caf\xe9", "z"}}
	data, err := EncodeLinks(links)
	if err != nil {
		t.Fatal(err)
	}
	got, problems := DecodeLinks(data)
	if len(problems) > 0 || !reflect.DeepEqual(got, links) {
		t.Errorf("%s: %q, %v", data, got, problems)
	}
	bad := `{"link":"a","dirs":["../x"]}` + "\n" + `{"link":"b","dirs":["/x"]}` + "\n" +
		`{"link":"c","dirs":["y","x"]}` + "\n" + `{"link":"","dirs":[]}` + "\nx\n" +
		`{"link":"d","dirs":["a//b"]}` + "\n" + `{"link":"ok","dirs":["a"]}` + "\n" + `{"link":"ok","dirs":["b"]}` +
		"\n"
	got, problems = DecodeLinks([]byte(bad))
	if want := map[string][]string{"ok": {"a"}}; !reflect.DeepEqual(got, want) || len(problems) != 7 {
		t.Errorf("%q, %v", got, problems)
	}
}

func FuzzLine(f *testing.F) {
	f.Add([]byte(goodLine))
	f.Add([]byte(`{"name64":"Zv8=","type":"symlink","mode":"0777","uid":1,"gid":2,"mtime":[-3,4],"size":1,"id":"4b825dc642cb6eb9a060e54bf8d69288fbee4904","git":"120000","target":"x","link":"g","x_n":[{}]}`))
	f.Add([]byte(strings.Replace(goodLine, `"100644"`, `"40000","chunk":65536`, 1)))
	f.Add([]byte(`{"name":"c","type":"char","mode":"0600","uid":1,"gid":2,"mtime":[3,4],"rdev":[1,3],"xattrs":[{"name64":"/w==","value64":"AA=="}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		l, err := DecodeLine(raw)
		if err != nil {
			return
		}
		if !json.Valid(raw) {
			t.Fatalf("accepted what is no JSON: %s", raw)
		}
		if err := CheckEntry(&l.Entry); err != nil {
			t.Fatalf("accepted what cannot be written: %s: %v", raw, err)
		}
		e := EncodeLine(&l.Entry, l.Chunk)
		again, err := DecodeLine(e.Raw)
		if err != nil {
			t.Fatalf("%s became %s: %v", raw, e.Raw, err)
		}
		again.Raw, l.Raw = nil, nil
		// The mode recorded for git follows from the entry's own when it is written again; an empty list is no list.
		again.GitMode, l.GitMode = 0, 0
		if len(l.Xattrs) == 0 {
			l.Xattrs = nil
		}
		if !reflect.DeepEqual(again, l) {
			t.Fatalf("%s became %s", raw, e.Raw)
		}
	})
}

func FuzzHeaderAndLinks(f *testing.F) {
	f.Add([]byte(`{"tree":"4b825dc642cb6eb9a060e54bf8d69288fbee4904","mode":"0755","uid":0,"gid":0,"mtime":[0,0],"xattrs":[]}`))
	f.Add([]byte(`{"link":"a","dirs":["","x/y"]}`))
	f.Add([]byte(`{"link":"b","dirs64":["Y2Fm6Q=="]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if h, err := decodeHeader(raw); err == nil {
			b := EncodeHeader(h)
			if _, err := decodeHeader(b[:len(b)-1]); err != nil {
				t.Fatalf("%s became %s: %v", raw, b, err)
			}
		}
		links, _ := DecodeLinks(raw)
		if b, err := EncodeLinks(links); err != nil {
			t.Fatalf("%q: %v", links, err)
		} else if again, problems := DecodeLinks(b); len(problems) > 0 || len(again) != len(links) {
			t.Fatalf("%q: %q, %v", links, again, problems)
		}
	})
}

// lineID is the id of a blob that a line names.
func lineID(t *testing.T, data string) cold.ID {
	t.Helper()
	id, err := odb.HashObject(odb.Blob, []byte(data))
	if err != nil {
		t.Fatal(err)
	}
	return id
}
