package powercut

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// acked is a history whose operations were all acknowledged, one a second.
func acked(ops ...Op) *History {
	h := &History{Seed: 7, Dirs: []string{"d"}, Files: map[string][]byte{"old": []byte("what was there before")}}
	for i, o := range ops {
		h.Add(o)
		h.Events = append(h.Events, Event{Ack: true, At: time.Duration(i) * time.Second})
	}
	return h
}

// with is a tree of the paths that follow: a directory, or a file with these bytes.
func with(pathsAndData ...any) map[string]Node {
	tree := map[string]Node{"d": {Dir: true}, "old": {Data: []byte("what was there before")}}
	for i := 0; i < len(pathsAndData); i += 2 {
		p := pathsAndData[i].(string)
		switch d := pathsAndData[i+1].(type) {
		case nil:
			tree[p] = Node{Dir: true}
		case bool:
			delete(tree, p)
		case []byte:
			tree[p] = Node{Data: d}
		}
	}
	return tree
}

func TestJudge(t *testing.T) {
	const never = time.Hour
	create := func(p string, n int, s Sync) Op { return Op{Kind: Create, Path: p, Len: n, Sync: s} }
	put := func(p string, off, n int, s Sync) Op { return Op{Kind: Put, Path: p, Off: off, Len: n, Sync: s} }
	move := func(p, to string) Op { return Op{Kind: Rename, Path: p, To: to} }
	synced := func(p string) Op { return Op{Kind: Touch, Path: p, Sync: Fsync} }
	one := acked(create("f", 2000, Fsync), put("f", 100, 600, ""), put("f", 2000, 500, ""))
	bytesOf := func(h *History, n int) []byte { return h.content(h.live["f"], n) }
	mixed := append(append([]byte{}, bytesOf(one, 2)[:512]...), bytesOf(one, 1)[512:]...)
	zeroTail := append(append([]byte{}, bytesOf(one, 1)...), make([]byte, 300)...)
	hole := append([]byte{}, bytesOf(one, 1)...)
	clear(hole[:512])
	moved := acked(create("f", 900, Fsync), move("f", "d/g"))
	movedSure := acked(create("f", 900, Fsync), move("f", "d/g"), synced("d"))
	data := moved.Data(0)
	over := acked(create("f", 900, Fsync), create("new", 900, Fsync), move("new", "f"))
	first, second := over.Data(0), over.Data(1)
	gone := acked(create("f", 900, Fsync), Op{Kind: Unlink, Path: "f"})
	dirs := acked(create("d/f", 900, Fsync), move("d", "e"))
	// Nothing of this is durable, so each of the directories may be found in the other, but not both at once.
	cycle := acked(Op{Kind: Mkdir, Path: "a"}, Op{Kind: Mkdir, Path: "b"}, create("a/f", 900, ""), move("a", "b/a"),
		move("b/a", "a"), move("b", "a/b"))
	bare := acked(create("f", 900, ""))
	told := acked(create("f", 900, ""))
	told.Events = append(told.Events, Event{Op: 1})
	for what, c := range map[string]struct {
		h     *History
		age   time.Duration
		tree  map[string]Node
		wrong string // "" for a tree that may be
	}{
		"as of the fsync":           {one, never, with("f", bytesOf(one, 1)), ""},
		"as of the last write":      {one, never, with("f", bytesOf(one, 3)), ""},
		"one sector of a write":     {one, never, with("f", mixed), ""},
		"zeros behind the fsync":    {one, never, with("f", zeroTail), ""},
		"zeros before it":           {one, never, with("f", hole), "zeros"},
		"cut short":                 {one, never, with("f", bytesOf(one, 1)[:1900]), "1900 bytes"},
		"foreign bytes":             {one, never, with("f", []byte(strings.Repeat("x", 2000))), "nobody wrote"},
		"missing":                   {one, never, with(), "is missing"},
		"aged":                      {one, 500 * time.Millisecond, with("f", bytesOf(one, 1)), "durable by their age"},
		"the old name":              {moved, never, with("f", data), ""},
		"the new name":              {moved, never, with("d/g", data), ""},
		"both names":                {moved, never, with("f", data, "d/g", data), "several places"},
		"no name":                   {moved, never, with(), "is missing"},
		"the new name for sure":     {movedSure, never, with("d/g", data), ""},
		"the old name after fsync":  {movedSure, never, with("f", data), "should not be there"},
		"not replaced yet":          {over, never, with("f", first, "new", second), ""},
		"replaced":                  {over, never, with("f", second), ""},
		"replaced by nothing":       {over, never, with("new", second), "is missing"},
		"replaced, and still":       {over, never, with("f", second, "new", second), "several places"},
		"half replaced":             {over, never, with("f", append(second[:512:512], first[512:]...)), "holds"},
		"unlinked":                  {gone, never, with(), ""},
		"not unlinked yet":          {gone, never, with("f", data), ""},
		"old directory":             {dirs, never, with("d/f", dirs.Data(0)), ""},
		"new directory":             {dirs, never, with("d", false, "e", nil, "e/f", dirs.Data(0)), ""},
		"each in the other, undone": {cycle, never, with(), ""},
		"each in the other, begun":  {cycle, never, with("b", nil, "b/a", nil, "b/a/f", cycle.Data(2)), ""},
		"each in the other, done":   {cycle, never, with("a", nil, "a/b", nil, "a/f", cycle.Data(2)), ""},
		"itself below it": {cycle, never, with("b", nil, "b/a", nil, "b/a/b", nil),
			"b/a/b; it should not be there"},
		"never synced, missing":   {bare, never, with(), ""},
		"never synced, empty":     {bare, never, with("f", []byte{}), ""},
		"committed, missing":      {told, never, with(), "is missing"},
		"committed, empty":        {told, never, with("f", []byte{}), "durable by a commit"},
		"what was there is gone":  {bare, never, with("old", false), "is missing"},
		"what never was":          {bare, never, with("g", data), "should not be there"},
		"a directory, not a file": {one, never, with("f", nil), "is missing"},
	} {
		got := c.h.Judge(len(c.h.Events), c.age, c.tree)
		if (c.wrong == "") != (len(got) == 0) || !strings.Contains(fmt.Sprint(got), c.wrong) {
			t.Errorf("%s: %q, want %q", what, got, c.wrong)
		}
	}
	// Before it was acknowledged, what an operation does may be there, and need not.
	if bad := one.Judge(0, never, with()); bad != nil {
		t.Error(bad)
	}
	if bad := one.Judge(0, never, with("f", bytesOf(one, 1))); bad != nil {
		t.Error(bad)
	}
	if bad := one.Judge(1, never, with("f", bytesOf(one, 3))); bad == nil {
		t.Error("an operation that was not begun shows")
	}
}

// TestHistoryReplay: the tree after the operations, as whoever chooses the next one sees it.
func TestHistoryReplay(t *testing.T) {
	h := acked(Op{Kind: Mkdir, Path: "d/e"}, Op{Kind: Create, Path: "d/e/f", Len: 10},
		Op{Kind: Put, Path: "d/e/f", Off: 20, Len: 5},
		Op{Kind: Rename, Path: "d", To: "x"}, Op{Kind: Rename, Path: "old", To: "x/old"},
		Op{Kind: Rewrite, Path: "x/old", Len: 3})
	if got := fmt.Sprint(h.Paths(true), h.Paths(false), h.Size("x/e/f"), h.Size("x/old"),
		h.Size("old")); got != "[x x/e] [x/e/f x/old] 25 3 -1" {
		t.Errorf("the tree is %s", got)
	}
}
