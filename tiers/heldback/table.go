package heldback

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// Key identifies an inode by its number and its birth time in nanoseconds.
type Key struct {
	Ino uint64 `json:"ino"`
	Gen uint64 `json:"gen"`
}

// Item is what is held back of one inode.
type Item struct {
	Key   Key
	Path  string          // a slash path below warm's root
	What  []string        // what is held back, for people; List leaves the item out if it is empty
	Mark  uint32          // chosen by the caller; Table.Mark returns it
	Value json.RawMessage // chosen by the caller
}

// Table is a set of items. It is safe for concurrent use. A nil Table is empty.
type Table struct {
	mu    sync.RWMutex
	path  string
	file  *os.File    // nil until something is written
	end   int64       // the file's length
	dirty atomic.Bool // something was written that is not durable yet
	items map[Key]*place
	n     atomic.Int64        // number of items; atomic, because every operation of the file system asks for it
	texts map[string][]string // interned Item.What, since many files have the same
	lines int

	root    Key // warm's root
	copied  bool
	rewrite Rewrite
}

// Rewrite replaces a file durably.
type Rewrite func(path string, data []byte, perm os.FileMode) error

// place says where an item's line is. The value stays in the file, because there may be many.
type place struct {
	path string
	what []string
	mark uint32
	off  int64
	size int
}

// unknown is the path of an inode that has lost the name that was known, but still has others. (No path below a root
// begins with a slash.)
const unknown = "/"

// Unknown reports whether the item's path is not known.
func (it *Item) Unknown() bool { return it.Path == unknown }

// Copied reports whether the table was written for another directory than root, which is a copy of it. Nothing is found
// in the table before Rekey.
func (t *Table) Copied() bool { return t.copied }

// Rekey finds the inodes by their paths, and returns the paths at which it found none; nothing is held back there any
// more. In a read-only table this has no effect on the file.
func (t *Table) Rekey(find func(path string) (Key, bool)) (lost []string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	data := make([]byte, t.end)
	if _, err := t.file.ReadAt(data, 0); err != nil {
		return nil, fmt.Errorf("read what is held back: %w", err)
	}
	was := t.items
	t.items = make(map[Key]*place, len(was))
	for _, p := range was {
		if k, ok := find(p.path); ok && p.path != unknown {
			t.items[k] = p
		} else {
			lost = append(lost, p.path)
		}
	}
	slices.Sort(lost)
	t.n.Store(int64(len(t.items)))
	if t.rewrite == nil {
		return lost, nil
	}
	old := t.file
	err = t.shrink(data)
	return lost, errors.Join(err, old.Close())
}

// text returns a shared copy of what.
func (t *Table) text(what []string) []string {
	key := strings.Join(what, "\x00")
	one, ok := t.texts[key]
	if !ok {
		if t.texts == nil {
			t.texts = map[string][]string{}
		}
		one = what
		t.texts[key] = one
	}
	return one
}

func (t *Table) keys() []Key {
	keys := make([]Key, 0, len(t.items))
	for k := range t.items {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, t.compare)
	return keys
}

func (t *Table) compare(a, b Key) int {
	return cmp.Or(strings.Compare(t.items[a].path, t.items[b].path), cmp.Compare(a.Ino, b.Ino),
		cmp.Compare(a.Gen, b.Gen))
}

// Put holds something back, and replaces what was held back of that inode before. It is not durable before Sync.
func (t *Table) Put(it Item) error {
	l := line{Key: it.Key, What: it.What, Mark: it.Mark, Value: it.Value}
	l.Path, l.Path64 = text(it.Path)
	t.mu.Lock()
	defer t.mu.Unlock()
	off, size, err := t.write(l)
	if err != nil {
		return fmt.Errorf("note what is held back of %q: %w", it.Path, err)
	}
	t.items[it.Key] = &place{path: it.Path, what: t.text(slices.Clone(it.What)), mark: it.Mark, off: off, size: size}
	t.n.Store(int64(len(t.items)))
	return nil
}

// Drop removes the item of an inode. If that cannot be written, the item is back at the next start.
func (t *Table) Drop(k Key) error {
	if t.Empty() {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.items[k]; !ok {
		return nil
	}
	delete(t.items, k)
	t.n.Store(int64(len(t.items)))
	_, _, err := t.write(line{Key: k, Gone: true})
	return err
}

// MovedOne notes that an inode other than a directory was renamed from one path to another. It does nothing if the
// inode's known path is another one, since then another of its names was renamed.
func (t *Table) MovedOne(k Key, from, to string) error {
	if !t.Has(k) {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.items[k]
	if p == nil || p.path != from && p.path != unknown || p.path == to {
		return nil
	}
	p.path = to
	l := line{Key: k, Moved: true}
	l.Path, l.Path64 = text(to)
	_, _, err := t.write(l)
	return err
}

// Lost notes that an inode has lost its name at a path and now only has names that are not known.
func (t *Table) Lost(k Key, at string) error { return t.MovedOne(k, at, unknown) }

// Moved notes that a directory was renamed, and with it everything below.
func (t *Table) Moved(from, to string) error {
	if t.Empty() {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.move(from, to) == 0 {
		return nil
	}
	var l line
	l.From, l.From64 = text(from)
	l.Path, l.Path64 = text(to)
	_, _, err := t.write(l)
	return err
}

func (t *Table) move(from, to string) (moved int) {
	for _, p := range t.items {
		if rest, ok := strings.CutPrefix(p.path, from); ok && (rest == "" || rest[0] == '/') {
			p.path = to + rest
			moved++
		}
	}
	return moved
}

// Empty reports whether nothing is held back.
func (t *Table) Empty() bool { return t.Len() == 0 }

// Len returns of how many inodes something is held back.
func (t *Table) Len() int {
	if t == nil {
		return 0
	}
	return int(t.n.Load())
}

// Has reports whether something is held back of an inode.
func (t *Table) Has(k Key) bool {
	if t == nil {
		return false
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.items[k] != nil
}

// Mark returns the mark of an inode's item, or 0 if it has none.
func (t *Table) Mark(k Key) uint32 {
	if t == nil {
		return 0
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	if p := t.items[k]; p != nil {
		return p.mark
	}
	return 0
}

// Get returns what is held back of an inode. ok is false if that is nothing.
func (t *Table) Get(k Key) (it Item, ok bool, err error) {
	if t == nil {
		return Item{}, false, nil
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	p := t.items[k]
	if p == nil {
		return Item{}, false, nil
	}
	raw := make([]byte, p.size)
	var l line
	if _, err = t.file.ReadAt(raw, p.off); err == nil {
		err = json.Unmarshal(raw, &l)
	}
	if err != nil {
		return Item{}, true, fmt.Errorf("read what is held back of %q: %w", p.path, err)
	}
	return Item{Key: k, Path: p.path, What: slices.Clone(p.what), Mark: p.mark, Value: l.Value}, true, nil
}

// List returns the first items that have a What, sorted by path and without their values: at most most of them, or all
// if most is 0. more is how many others there are.
func (t *Table) List(most int) (out []Item, more int) {
	if t == nil {
		return nil, 0
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	var keys []Key
	for k, p := range t.items {
		if len(p.what) == 0 {
			continue
		}
		if most > 0 && len(keys) == most { // keep only the first ones
			if more++; t.compare(k, keys[most-1]) >= 0 {
				continue
			}
			keys = keys[:most-1]
		}
		if most > 0 {
			at, _ := slices.BinarySearchFunc(keys, k, t.compare)
			keys = slices.Insert(keys, at, k)
		} else {
			keys = append(keys, k)
		}
	}
	if most <= 0 {
		slices.SortFunc(keys, t.compare)
	}
	out = make([]Item, 0, len(keys))
	for _, k := range keys {
		out = append(out, Item{Key: k, Path: t.items[k].path, What: slices.Clone(t.items[k].what),
			Mark: t.items[k].mark})
	}
	return out, more
}

// All returns the keys, paths and marks of all items, in no particular order.
func (t *Table) All() []Item {
	if t == nil {
		return nil
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	out := make([]Item, 0, len(t.items))
	for k, p := range t.items {
		out = append(out, Item{Key: k, Path: p.path, Mark: p.mark})
	}
	return out
}

// Sync makes what was written durable.
func (t *Table) Sync() error {
	if t == nil || !t.dirty.Load() {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.dirty.Load() {
		return nil
	}
	if err := t.file.Sync(); err != nil {
		return fmt.Errorf("make durable what is held back: %w", err)
	}
	t.dirty.Store(false)
	return nil
}

// Close syncs and closes the table.
func (t *Table) Close() error {
	if t == nil || t.file == nil {
		return nil
	}
	return errors.Join(t.Sync(), t.file.Close())
}
