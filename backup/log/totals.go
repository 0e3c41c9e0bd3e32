package log

import (
	"context"

	"emberfs/tiers/cold"
)

// Totals are the figures of a whole tree. A file with several names counts once per name.
type Totals struct {
	Files   int64 // number of names that are not directories
	Entries int64 // number of all names
	Bytes   int64 // total size of the files
}

// Totals counts a snapshot's tree. It returns false if that would mean listing more than limit entries.
func (c *Reader) Totals(ctx context.Context, s cold.Snapshot, limit int) (Totals, bool) {
	return c.Counter(limit).Count(ctx, s)
}

// Counter counts several snapshots within one limit. Directories that it has counted once, for any snapshot, cost
// nothing again. It must be used by one goroutine at a time.
type Counter struct {
	left  int // entries that may still be listed
	known map[cold.DirID]Totals
}

// Counter returns a Counter that lists at most limit entries in all.
func (c *Reader) Counter(limit int) *Counter {
	return &Counter{left: limit, known: make(map[cold.DirID]Totals)}
}

// maxEntries is more than any real volume has, and small enough for sums not to overflow.
const maxEntries = 1 << 56

// Count counts a snapshot's tree. It returns false if that would exceed the limit.
func (n *Counter) Count(ctx context.Context, s cold.Snapshot) (Totals, bool) {
	root := s.Root()
	return n.dir(ctx, s, root.Dir(), 0)
}

// Spent reports whether the limit is reached.
func (n *Counter) Spent() bool { return n.left <= 0 }

func (n *Counter) dir(ctx context.Context, s cold.Snapshot, dir cold.DirID, depth int) (t Totals, ok bool) {
	if t, ok := n.known[dir]; ok {
		return t, true
	}
	if n.left <= 0 || cold.TooDeepToWalk("", depth) != nil {
		return t, false
	}
	l, err := s.ReadDir(ctx, dir)
	if n.left -= 1 + len(l.Entries); err != nil || n.left < 0 {
		return t, false
	}
	for i := range l.Entries {
		e := &l.Entries[i]
		t.Entries++
		switch e.Kind {
		case cold.KindDir:
			sub, ok := n.dir(ctx, s, e.Dir(), depth+1)
			if !ok {
				return t, false
			}
			t.Files += sub.Files
			t.Entries += sub.Entries
			t.Bytes += sub.Bytes
			if t.Entries > maxEntries || t.Bytes > maxEntries {
				return t, false // a tree bomb, in which few trees are used again and again
			}
		case cold.KindFile:
			t.Bytes += e.Size
			fallthrough
		default:
			t.Files++
		}
	}
	n.known[dir] = t
	return t, true
}
