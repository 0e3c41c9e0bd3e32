package heldback

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

var root = Key{2, 7}

func open(t *testing.T, path string) *Table {
	t.Helper()
	tab, err := Open(path, root, os.WriteFile)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tab.Close() })
	return tab
}

func put(t *testing.T, tab *Table, ino uint64, path, value string) {
	t.Helper()
	if err := tab.Put(Item{Key: Key{ino, 1}, Path: path, What: []string{"owner"},
		Value: json.RawMessage(value)}); err != nil {
		t.Fatal(err)
	}
}

// said returns the paths and values of a table.
func said(t *testing.T, tab *Table) (out []string) {
	t.Helper()
	list, more := tab.List(0)
	if more != 0 || len(list) != len(tab.All()) {
		t.Fatalf("%d of %d are listed, and %d more", len(list), len(tab.All()), more)
	}
	for _, it := range list {
		got, ok, err := tab.Get(it.Key)
		if err != nil || !ok {
			t.Fatalf("%v: %v", it, err)
		}
		out = append(out, fmt.Sprintf("%d %q %s %s", it.Key.Ino, got.Path, got.What, got.Value))
	}
	return out
}

func TestTable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "held")
	tab := open(t, path)
	if _, err := os.Stat(path); err == nil || !tab.Empty() {
		t.Error("an empty table has a file")
	}
	put(t, tab, 10, "a/b", `{"x":1}`)
	put(t, tab, 11, "a/c\xff", `2`)
	put(t, tab, 12, "ab", `3`)
	put(t, tab, 13, "gone", `4`)
	put(t, tab, 10, "a/b", `{"x":5}`)
	if err := tab.Moved("a", "z"); err != nil {
		t.Fatal(err)
	}
	if err := tab.Drop(Key{13, 1}); err != nil {
		t.Fatal(err)
	}
	if err := tab.Sync(); err != nil {
		t.Fatal(err)
	}
	want := []string{`12 "ab" [owner] 3`, `10 "z/b" [owner] {"x":5}`, `11 "z/c\xff" [owner] 2`}
	if got := said(t, tab); !reflect.DeepEqual(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got := said(t, open(t, path)); !reflect.DeepEqual(got, want) {
		t.Errorf("after another start %q, want %q", got, want)
	}
	if tab.Has(Key{10, 2}) || tab.Has(Key{13, 1}) || !tab.Has(Key{10, 1}) {
		t.Error("Has is wrong about reused or dropped inodes")
	}
}

// A line that was being written when the machine stopped is ignored, and what is written afterwards does not mix with
// it.
func TestTornLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "held")
	tab := open(t, path)
	put(t, tab, 10, "a", `1`)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"ino":11,"gen":1,"path":"torn"`); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	again := open(t, path)
	put(t, again, 12, "b", `2`)
	want := []string{`10 "a" [owner] 1`, `12 "b" [owner] 2`}
	if got := said(t, open(t, path)); !reflect.DeepEqual(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestDamagedLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "held")
	put(t, open(t, path), 10, "a", `1`)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append([]byte("{}\n"), data...), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, root, os.WriteFile); err == nil || !strings.Contains(err.Error(), "line 1") {
		t.Errorf("a line that is none: %v", err)
	}
}

func TestShrink(t *testing.T) {
	path := filepath.Join(t.TempDir(), "held")
	tab := open(t, path)
	for i := range 1200 {
		put(t, tab, 10, "a", fmt.Sprint(i))
	}
	put(t, tab, 11, "b", `true`)
	want := said(t, tab)
	shrunk := open(t, path)
	if got := said(t, shrunk); !reflect.DeepEqual(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if data, _ := os.ReadFile(path); strings.Count(string(data), "\n") != 3 {
		t.Errorf("%d lines are left", strings.Count(string(data), "\n"))
	}
	put(t, shrunk, 12, "c", `1`)
	if got := said(t, open(t, path)); len(got) != 3 {
		t.Errorf("%q", got)
	}
}

func TestCopiedTable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "held")
	tab := open(t, path)
	put(t, tab, 10, "a", `1`)
	put(t, tab, 11, "b", `2`)
	other, err := Open(path, Key{3, 3}, os.WriteFile)
	if err != nil || !other.Copied() {
		t.Fatalf("copied %v, %v", other.Copied(), err)
	}
	lost, err := other.Rekey(func(p string) (Key, bool) { return Key{20, 2}, p == "b" })
	if err != nil || !reflect.DeepEqual(lost, []string{"a"}) {
		t.Errorf("lost %q, %v", lost, err)
	}
	again, err := Open(path, Key{3, 3}, os.WriteFile)
	if err != nil || again.Copied() {
		t.Fatalf("copied %v, %v", again.Copied(), err)
	}
	if got, want := said(t, again), []string{`20 "b" [owner] 2`}; !reflect.DeepEqual(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// A read-only table finds a copy's inodes too and changes nothing; a table that has to shrink is rekeyed first.
func TestCopiedTableReadOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "held")
	tab := open(t, path)
	for i := range 1200 {
		put(t, tab, 10, "a", fmt.Sprint(i))
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	find := func(p string) (Key, bool) { return Key{20, 2}, p == "a" }
	view, err := Open(path, Key{3, 3}, nil)
	if err != nil || !view.Copied() {
		t.Fatalf("copied %v, %v", view.Copied(), err)
	}
	if _, err := view.Rekey(find); err != nil || !view.Has(Key{20, 2}) {
		t.Errorf("not found: %v", err)
	}
	if after, err := os.ReadFile(path); err != nil || string(after) != string(before) {
		t.Errorf("a view wrote, %v", err)
	}
	other, err := Open(path, Key{3, 3}, os.WriteFile)
	if err != nil || !other.Copied() {
		t.Fatalf("copied %v, %v", other.Copied(), err)
	}
	if lost, err := other.Rekey(find); err != nil || len(lost) > 0 {
		t.Errorf("lost %q, %v", lost, err)
	}
	again, err := Open(path, Key{3, 3}, os.WriteFile)
	if err != nil || again.Copied() || !again.Has(Key{20, 2}) {
		t.Errorf("copied %v, %v", again.Copied(), err)
	}
}

func TestPaths(t *testing.T) {
	path := filepath.Join(t.TempDir(), "held")
	tab := open(t, path)
	for i, name := range []string{"d/a", "d/b", "c"} {
		put(t, tab, uint64(10+i), name, "1")
	}
	for _, err := range []error{
		tab.MovedOne(Key{10, 1}, "d/a", "z"),
		tab.MovedOne(Key{11, 1}, "another name", "y"), // of one with several
		tab.Lost(Key{12, 1}, "c"),
		tab.Moved("d", "e"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, x := range []*Table{tab, open(t, path)} {
		var got []string
		list, more := x.List(2)
		for _, it := range list {
			got = append(got, it.Path)
		}
		if want := []string{"/", "e/b"}; !reflect.DeepEqual(got, want) || !list[0].Unknown() || more != 1 {
			t.Errorf("%q and %d more, want %q", got, more, want)
		}
		if all, more := x.List(0); len(all) != 3 || all[2].Path != "z" || more != 0 {
			t.Errorf("%v", all)
		}
	}
	if lost, err := tab.Rekey(func(p string) (Key, bool) {
		return Key{30, 1}, p == "/"
	}); err != nil || len(lost) != 3 {
		t.Errorf("an unknown path was looked for: %q, %v", lost, err)
	}
}

// Items with the same What share the text, but a caller may change what it got.
func TestSharedText(t *testing.T) {
	tab := open(t, filepath.Join(t.TempDir(), "held"))
	put(t, tab, 10, "a", "1")
	put(t, tab, 11, "b", "1")
	it, _, err := tab.Get(Key{10, 1})
	if err != nil {
		t.Fatal(err)
	}
	it.What[0] = "changed"
	list, _ := tab.List(1)
	list[0].What[0] = "changed"
	if got := said(t, tab); !reflect.DeepEqual(got, []string{`10 "a" [owner] 1`, `11 "b" [owner] 1`}) {
		t.Errorf("%q", got)
	}
}

// An item without What is not listed, and its mark is known without reading the file.
func TestMark(t *testing.T) {
	path := filepath.Join(t.TempDir(), "held")
	tab := open(t, path)
	put(t, tab, 10, "a", "1")
	if err := tab.Put(Item{Key: Key{11, 1}, Path: "b", Mark: 48, Value: json.RawMessage("2")}); err != nil {
		t.Fatal(err)
	}
	for _, x := range []*Table{tab, open(t, path)} {
		if list, more := x.List(5); len(list) != 1 || more != 0 || x.Mark(Key{11, 1}) != 48 ||
			x.Mark(Key{10, 1}) != 0 || x.Mark(Key{12, 1}) != 0 {
			t.Errorf("%v and %d more, mark %d", list, more, x.Mark(Key{11, 1}))
		}
	}
}
