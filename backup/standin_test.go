package backup

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"emberfs/backup/coldtest"
	"emberfs/backup/format"
	"emberfs/tiers/cold"
)

func TestStandIn(t *testing.T) {
	for _, stored := range []string{strings.Repeat("n", 256), strings.Repeat("ü", 200), ".emberfs%%zz",
		strings.Repeat("\xff", 400), "a"} {
		name := format.StandIn(stored, 0)
		if err := format.CheckName(name); err != nil || !format.MayStandIn(name) || utf8.ValidString(stored) &&
			!utf8.ValidString(name) {
			t.Errorf("%q shows as %q: %v", stored, name, err)
		}
	}
	if format.StandIn(strings.Repeat("n", 256), 0) == format.StandIn(strings.Repeat("n", 257), 0) {
		t.Error("two names show as one")
	}
	for _, name := range []string{"a", "~0123456789abcdef", "a~0123456789abcdeg", ""} {
		if format.MayStandIn(name) {
			t.Errorf("%q looks like a stand-in", name)
		}
	}
}

// TestOtherEntries: what no directory can hold goes on in commits under its name in git until its stand-in is removed,
// replaced or renamed; a name in the clear goes on as long as it is of the same type.
func TestOtherEntries(t *testing.T) {
	v := newVolume(t, Options{})
	blob := v.object("blob", []byte("x"))
	link := v.object("blob", []byte("target"))
	long := strings.Repeat("n", 300)
	v.forge(rawTree("100644", ".gitattributes", blob, "100644", ".gitmodules", blob, "100644", long, blob, "160000",
		"sub", blob))
	other := func(s cold.Snapshot) map[string]cold.Entry {
		t.Helper()
		root := s.Root()
		l, err := s.ReadDir(t.Context(), root.Dir())
		if err != nil || len(l.Problems) > 0 {
			t.Fatal(err, l.Problems)
		}
		out := map[string]cold.Entry{}
		for _, e := range l.Entries {
			out[e.Name] = e
		}
		return out
	}
	put := func(entries []cold.Entry, del ...string) string {
		t.Helper()
		tx := v.MustBegin()
		root := tx.Base().Root()
		if root.Meta.IsZero() {
			root.Mode = 0o755
		}
		id, err := tx.PutDir(t.Context(), root.Dir(), false, &cold.Root{Entry: root}, entries, del)
		coldtest.Check(t, err)
		if _, err := tx.Commit(t.Context(), cold.CommitOptions{Root: id}); err != nil {
			t.Fatal(err)
		}
		var names []string
		for l := range strings.SplitSeq(strings.TrimSpace(coldtest.Git(t, v.Dir, "ls-tree", "main")), "\n") {
			mode, _, _ := strings.Cut(l, " ")
			if _, name, _ := strings.Cut(l, "\t"); name != format.OwnName {
				names = append(names, mode+" "+strings.ReplaceAll(name, long, "LONG"))
			}
		}
		slices.Sort(names)
		return strings.Join(names, ", ")
	}
	file := func(name string) cold.Entry {
		return cold.Entry{Name: name, Kind: cold.KindFile, Mode: 0o644, ID: blob, Size: 1}
	}
	shown := format.StandIn(long, 0)
	if got, want := put([]cold.Entry{file("new"), file(".gitattributes")}),
		"100644 .gitattributes, 100644 .gitmodules, 100644 LONG, 100644 new, 160000 sub"; got != want {
		t.Errorf("beside a change: %s", got)
	}
	all := other(v.HeadSnapshot())
	if all["sub"].Kind != cold.KindOther || all[shown].Kind != cold.KindOther ||
		all[".gitmodules"].Kind != cold.KindFile {
		t.Fatalf("%+v", all)
	}
	moved := all[shown]
	moved.Name = "short"
	sym := cold.Entry{Name: ".gitmodules", Kind: cold.KindSymlink, Mode: 0o777, ID: link, Target: "target", Size: 6}
	if got, want := put([]cold.Entry{moved, sym, file("sub")}, shown),
		"100644 .gitattributes, 100644 new, 100644 short, 100644 sub, 120000 .emberfs%.gitmodules"; got != want {
		t.Errorf("renamed and replaced: %s", got)
	}
	if e := other(v.HeadSnapshot())["short"]; e.Kind != cold.KindFile || e.ID != blob || e.Size != 1 {
		t.Errorf("%+v", e)
	}
	if got, want := put(nil, ".gitattributes", ".gitmodules", "short"), "100644 new, 100644 sub"; got != want {
		t.Errorf("removed: %s", got)
	}
}

// listed gives the directory's entries by the names that a mount shows, with what they are in git.
func (v *testVolume) listed() map[string]string {
	v.T.Helper()
	s := v.HeadSnapshot()
	root := s.Root()
	l, err := s.ReadDir(v.T.Context(), root.Dir())
	coldtest.Check(v.T, err)
	out := map[string]string{}
	for _, e := range l.Entries {
		if _, ok := out[e.Name]; ok {
			v.T.Errorf("%q is listed twice", e.Name)
		}
		out[e.Name] = e.ID.String()
		if e.Kind == cold.KindOther {
			out[e.Name] += " as " + e.Other.Stored
		}
	}
	return out
}

// change commits a change of the root directory, as extension or as a whole with all that is listed.
func (v *testVolume) change(whole bool, put []cold.Entry, del ...string) {
	v.T.Helper()
	tx, err := v.Begin(v.T.Context())
	coldtest.Check(v.T, err)
	root := tx.Base().Root()
	if root.Meta.IsZero() {
		root.Mode = 0o755
	}
	if whole {
		l, err := tx.Base().ReadDir(v.T.Context(), root.Dir())
		coldtest.Check(v.T, err)
		for _, e := range l.Entries {
			if !slices.Contains(del, e.Name) && !slices.ContainsFunc(put, func(p cold.Entry) bool {
				return p.Name == e.Name
			}) {
				put = append(put, e)
			}
		}
		del = nil
	}
	id, err := tx.PutDir(v.T.Context(), root.Dir(), whole, &cold.Root{Entry: root}, put, del)
	coldtest.Check(v.T, err)
	if _, err := tx.Commit(v.T.Context(), cold.CommitOptions{Root: id}); err != nil {
		v.T.Fatal(err)
	}
	coldtest.Git(v.T, v.Dir, "fsck", "--no-dangling")
}

// TestNamesInTheWay: what no directory can hold is there whatever the names of other entries come to be, and so are
// those.
func TestNamesInTheWay(t *testing.T) {
	for _, whole := range []bool{false, true} {
		v := newVolume(t, Options{})
		a, b, c := v.object("blob", []byte("a")), v.object("blob", []byte("b")), v.object("blob", []byte("c"))
		file := func(name string, id cold.ID) cold.Entry {
			return cold.Entry{Name: name, Kind: cold.KindFile, Mode: 0o644, ID: id, Size: 1}
		}
		long, weird := strings.Repeat("n", 300), format.OwnName+strings.Repeat("\x01 ", 122)
		hash := format.EncodeName(weird)
		if !isHash(hash) {
			t.Fatalf("%q is stored as %q", weird, hash)
		}
		v.forge(rawTree("100644", hash, a, "100644", format.EncodeName(".gitattributes"), b, "100644", ".gitattributes",
			a, "100644", long, a, "100644", format.StandIn(long, 0), b))
		expect := func(what string, want ...string) {
			t.Helper()
			got := v.listed()
			ids := strings.NewReplacer(a.String(), "a", b.String(), "b", c.String(), "c", long, "LONG", hash, "HASH",
				weird, "WEIRD", long[:200], "CUT")
			var lines []string
			for name, id := range got {
				if i := strings.LastIndex(name, format.StandInMark); i >= 0 && format.MayStandIn(name) {
					name = name[:i] + "~"
				}
				lines = append(lines, ids.Replace(name+": "+id))
			}
			slices.Sort(lines)
			slices.Sort(want)
			if !slices.Equal(lines, want) {
				t.Errorf("%s, whole %v:\n%s\nwant\n%s", what, whole, strings.Join(lines, "\n"),
					strings.Join(want, "\n"))
			}
		}
		all := []string{".gitattributes: b", ".gitattributes~: a as .gitattributes", "HASH~: a as HASH",
			"CUT~: a as LONG", "CUT~: b"}
		expect("as it was forged", all...)
		v.change(whole, []cold.Entry{file("new", c)})
		expect("beside a new file", append(all, "new: c")...)
		v.change(whole, nil, ".gitattributes")
		expect("one of two removed", ".gitattributes~: a", "HASH~: a as HASH", "CUT~: a as LONG", "CUT~: b", "new: c")
		v.change(whole, []cold.Entry{file(".gitattributes", c)})
		expect("and made anew", ".gitattributes: c", ".gitattributes~: a", "HASH~: a as HASH", "CUT~: a as LONG",
			"CUT~: b", "new: c")
		v.change(whole, []cold.Entry{file(weird, c)})
		expect("what the hash is of", ".gitattributes: c", ".gitattributes~: a", "WEIRD: c", "HASH~: a",
			"CUT~: a as LONG", "CUT~: b", "new: c")
	}
}
