package heldback

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"unicode/utf8"
)

// This file has the format of the table's file.

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

// Open reads the table in the file at path; if the file does not exist the table is empty. root is warm's root. If
// rewrite is nil, the table is a read-only copy of the file's present content.
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
	t.n.Store(int64(len(t.items)))
	if rewrite != nil && !t.copied && t.lines > 2*len(t.items)+1000 {
		return t, t.shrink(data)
	}
	if t.file, err = openFile(path, rewrite != nil); err == nil && rewrite != nil {
		err = t.file.Truncate(t.end)
	}
	return t, err
}

func openFile(path string, write bool) (*os.File, error) {
	if !write {
		return os.Open(path)
	}
	return os.OpenFile(path, os.O_RDWR, 0)
}

// take applies one line of the file, which begins at off.
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

// shrink rewrites the file, whose content is data, with the living lines only.
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
		l.Path, l.Path64 = text(p.path) // its current path
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

// head returns the first line of a file.
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

// write appends a line. t.mu must be held.
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
	if _, err := t.file.WriteAt(raw, t.end); err != nil { // if it is incomplete, the next write overwrites it
		return 0, 0, err
	}
	off = t.end
	t.end += int64(len(raw))
	t.lines++
	t.dirty.Store(true)
	return off, len(raw), nil
}
