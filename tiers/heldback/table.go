package heldback

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"unicode/utf8"
)

// Key is an inode: its number, and its birth time in nanoseconds.
type Key struct {
	Ino uint64 `json:"ino"`
	Gen uint64 `json:"gen"`
}

// Item is what is held back of one inode.
type Item struct {
	Key   Key
	Path  string          // a slash path below warm's root
	What  []string        // for people; nothing: List passes the item by
	Mark  uint32          // the caller's, for Mark
	Value json.RawMessage // the caller's
}

// Table holds items. Safe for concurrent use. A nil Table is empty.
type Table struct {
	mu    sync.RWMutex
	path  string
	file  *os.File    // nil until something is written
	end   int64       // of the file
	dirty atomic.Bool // something was put that is not durable
	items map[Key]*place
	texts map[string][]string // of what is held back: many files have the same
	lines int

	root    Key // warm's
	copied  bool
	rewrite Rewrite
}

// Rewrite replaces a file durably.
type Rewrite func(path string, data []byte, perm os.FileMode) error

// place is where an item's line is; its value stays in the file, for there may be many.
type place struct {
	path string
	what []string
	mark uint32
	off  int64
	size int
}

// unknown is the path of an inode that lost the name that was known: it has another one. (No path below a root begins so.)
const unknown = "/"

// Unknown says that nobody knows where the inode of an item is.
func (it *Item) Unknown() bool { return it.Path == unknown }

type line struct {
	Key
	Path   string          `json:"path,omitempty"`
	Path64 []byte          `json:"path64,omitempty"`
	From   string          `json:"from,omitempty"`
	From64 []byte          `json:"from64,omitempty"`
	What   []string        `json:"what,omitempty"`
	Mark   uint32          `json:"mark,omitempty"`
	Value  json.RawMessage `json:"value,omitempty"`
	Gone   bool            `json:"gone,omitempty"`
	Root   bool            `json:"root,omitempty"`
	Moved  bool            `json:"moved,omitempty"`
}

func text(s string) (string, []byte) {
	if utf8.ValidString(s) {
		return s, nil
	}
	return "", []byte(s)
}

// Open reads the table in the file at path; where there is none it is empty. root is warm's root. A nil rewrite: the table is only read,
// as it is at this moment.
func Open(path string, root Key, rewrite Rewrite) (*Table, error) {
	t := &Table{path: path, items: map[Key]*place{}, root: root, rewrite: rewrite}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return t, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read what is held back: %w", err)
	}
	data = data[:bytes.LastIndexByte(data, '\n')+1]
	for off := 0; off < len(data); {
		size := bytes.IndexByte(data[off:], '\n') + 1
		if err := t.take(data[off:off+size], int64(off)); err != nil {
			return nil, fmt.Errorf("read what is held back: %s, line %d: %w", path, t.lines, err)
		}
		off += size
	}
	t.end = int64(len(data))
	if rewrite != nil && !t.copied && t.lines > 2*len(t.items)+1000 {
		return t, t.shrink(data)
	}
	if t.file, err = openFile(path, rewrite != nil); err == nil && rewrite != nil {
		err = t.file.Truncate(t.end)
	}
	return t, err
}

// Copied says that the table is about another directory than root, which this one was copied from: nothing is found before Rekey.
func (t *Table) Copied() bool { return t.copied }

// Rekey finds the inodes by their paths, and gives those that it did not find: nothing is held back there any more. A table that is only
// read finds them for itself alone.
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
	if t.rewrite == nil {
		return lost, nil
	}
	old := t.file
	err = t.shrink(data)
	return lost, errors.Join(err, old.Close())
}

func openFile(path string, write bool) (*os.File, error) {
	if !write {
		return os.Open(path)
	}
	return os.OpenFile(path, os.O_RDWR, 0)
}

// take takes up one line of the file.
func (t *Table) take(raw []byte, off int64) error {
	t.lines++
	var l line
	if err := json.Unmarshal(raw, &l); err != nil {
		return err
	}
	path, from := l.Path+string(l.Path64), l.From+string(l.From64)
	switch {
	case l.Root:
		t.copied = t.root != (Key{}) && l.Key != t.root
	case l.Gone:
		delete(t.items, l.Key)
	case from != "":
		t.move(from, path)
	case l.Moved:
		if p := t.items[l.Key]; p != nil {
			p.path = path
		}
	case l.Ino == 0 || len(l.Value) == 0:
		return errors.New("is nothing that this version writes")
	default:
		t.items[l.Key] = &place{path: path, what: t.text(l.What), mark: l.Mark, off: off, size: len(raw)}
	}
	return nil
}

// text gives one copy of a text for all that have it.
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

// shrink writes the file anew with the living lines alone. data is what it holds.
func (t *Table) shrink(data []byte) error {
	all, err := t.head()
	if err != nil {
		return err
	}
	t.lines = 1
	for _, k := range t.keys() {
		p := t.items[k]
		var l line
		if err := json.Unmarshal(data[p.off:p.off+int64(p.size)], &l); err != nil {
			return err
		}
		l.Key = k
		l.Path, l.Path64 = text(p.path) // where it is now
		raw, err := json.Marshal(l)
		if err != nil {
			return err
		}
		p.off, p.size = int64(len(all)), len(raw)+1
		all = append(append(all, raw...), '\n')
		t.lines++
	}
	return t.replace(all)
}

// head is the first line of a file.
func (t *Table) head() ([]byte, error) {
	raw, err := json.Marshal(line{Key: t.root, Root: true})
	return append(raw, '\n'), err
}

func (t *Table) replace(all []byte) error {
	if err := t.rewrite(t.path, all, 0o600); err != nil {
		return err
	}
	t.end, t.copied = int64(len(all)), false
	var err error
	t.file, err = openFile(t.path, true)
	return err
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
	return cmp.Or(strings.Compare(t.items[a].path, t.items[b].path), cmp.Compare(a.Ino, b.Ino), cmp.Compare(a.Gen, b.Gen))
}

// write appends a line; t.mu is held.
func (t *Table) write(l line) (off int64, size int, err error) {
	raw, err := json.Marshal(l)
	if err != nil {
		return 0, 0, err
	}
	raw = append(raw, '\n')
	if t.file == nil {
		all, err := t.head()
		if err == nil {
			err = t.replace(all)
		}
		if err != nil {
			return 0, 0, err
		}
	}
	if _, err := t.file.WriteAt(raw, t.end); err != nil { // half a line at the end is overwritten by the next
		return 0, 0, err
	}
	off = t.end
	t.end += int64(len(raw))
	t.lines++
	t.dirty.Store(true)
	return off, len(raw), nil
}

// Put holds something back; it replaces what was held back of that inode. It is not durable before Sync.
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
	return nil
}

// Drop holds nothing back any more of an inode. Where that cannot be written it lasts until the next start.
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
	_, _, err := t.write(line{Key: k, Gone: true})
	return err
}

// MovedOne notes that an inode, no directory, has another path; one of several names was renamed where it was not at from.
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

// Lost notes that an inode has no name at a path any more, but others that nobody knows.
func (t *Table) Lost(k Key, at string) error { return t.MovedOne(k, at, unknown) }

// Moved notes that a directory has another path, and all below it.
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

// Empty says that nothing is held back.
func (t *Table) Empty() bool { return t.Len() == 0 }

// Len is of how many inodes something is held back.
func (t *Table) Len() int {
	if t == nil {
		return 0
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	return len(t.items)
}

// Has says whether something is held back of an inode.
func (t *Table) Has(k Key) bool {
	if t == nil {
		return false
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.items[k] != nil
}

// Mark is that of an inode, 0 where there is none.
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

// Get gives what is held back of an inode; ok is false where nothing is.
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

// List gives the first items that say something, in the order of their paths, without their values: so many at most, and 0 for all. more
// is how many there are besides.
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
		if most > 0 && len(keys) == most { // of very many a few are wanted
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
		out = append(out, Item{Key: k, Path: t.items[k].path, What: slices.Clone(t.items[k].what), Mark: t.items[k].mark})
	}
	return out, more
}

// All gives the keys and paths of all items, in no order.
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

// Sync makes durable what was put.
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

// Close ends the use of the table.
func (t *Table) Close() error {
	if t == nil || t.file == nil {
		return nil
	}
	return errors.Join(t.Sync(), t.file.Close())
}
