package log

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"strings"

	"emberfs/backup/format"
	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

// verdict is the result of comparing one path in two commits.
type verdict int

const (
	same verdict = iota
	differ
	unclear // the objects differ, but perhaps only because a stock client did not update the metadata
)

// cursor is a directory of a commit. Both ids are zero if it does not exist.
type cursor struct {
	tree, meta cold.ID
}

// rootCursor returns the cursor of a commit's root, or the zero cursor if commit is nil.
func (c *Reader) rootCursor(commit *odb.CommitData) (cursor, error) {
	if commit == nil {
		return cursor{}, nil
	}
	at := cursor{tree: commit.Tree}
	own, err := c.treeEntry(commit.Tree, format.OwnName)
	if err == nil && own.Mode == odb.ModeTree {
		var meta odb.TreeEntry
		if meta, err = c.treeEntry(own.ID, format.MetaName); err == nil && meta.Mode == odb.ModeTree {
			at.meta = meta.ID
		}
	}
	return at, err
}

// treeEntry finds a stored name in a tree. Mode is 0 if it is not there.
func (c *Reader) treeEntry(tree cold.ID, name string) (odb.TreeEntry, error) {
	if tree.IsZero() {
		return odb.TreeEntry{}, nil
	}
	entries, err := format.ReadTree(c.DB(), tree, format.Ignored())
	for _, e := range entries {
		if e.Name == name {
			return e, err
		}
	}
	return odb.TreeEntry{}, err
}

// spot is what a commit has under one name.
type spot struct {
	entry odb.TreeEntry // Mode is 0 if it is not in git's tree
	line  string        // its metadata line as stored; "" if there is none
	meta  cold.ID       // metadata tree of what is below; zero if there is none
}

// find looks up a name in the directory at cur. It reads the metadata line only if full is true.
func (c *Reader) find(cur cursor, name string, full bool) (spot, error) {
	var s spot
	stored := format.EncodeName(name)
	var err error
	if s.entry, err = c.treeEntry(cur.tree, stored); err != nil {
		return s, err
	}
	if s.entry.Mode == 0 && stored != name && format.PlainForbidden(name) {
		if s.entry, err = c.treeEntry(cur.tree, name); err != nil {
			return s, err
		}
	}
	if cur.meta.IsZero() {
		return s, nil
	}
	m, err := format.LoadMetaDir(c.DB(), cur.meta, format.Ignored())
	if err != nil {
		return s, err
	}
	s.meta = m.Subs[stored]
	if full {
		s.line, err = rawLine(c.DB(), &m, name)
	}
	return s, err
}

// comparePath compares a path in two commits without listing directories; where the objects on the way are the same it
// need not look further. A nil b stands for no commit.
func (c *Reader) comparePath(a, b *odb.CommitData, path string) (verdict, error) {
	at, err := c.rootCursor(a)
	if err != nil {
		return same, err
	}
	to, err := c.rootCursor(b)
	if err != nil {
		return same, err
	}
	names := strings.Split(path, "/")
	for i, name := range names {
		if at == to {
			return same, nil
		}
		last := i == len(names)-1
		x, err := c.find(at, name, last)
		if err != nil {
			return same, err
		}
		y, err := c.find(to, name, last)
		if err != nil {
			return same, err
		}
		if last {
			how := judge(x, y)
			if how == unclear && b == nil {
				how = differ // there was nothing at the path before
			}
			return how, nil
		}
		at, to = below(x), below(y)
	}
	return same, nil
}

func below(s spot) cursor {
	cur := cursor{meta: s.meta}
	if s.entry.Mode == odb.ModeTree {
		cur.tree = s.entry.ID
	}
	return cur
}

func judge(x, y spot) verdict {
	x.entry.Name, y.entry.Name = "", "" // a forbidden name may be escaped in one and unescaped in the other
	switch {
	case x == y:
		return same
	case x.entry.Mode != odb.ModeTree && y.entry.Mode != odb.ModeTree && x.entry != y.entry:
		return differ // in content, type, executable bit, or existence
	}
	return unclear
}

// compareMerged decides what comparePath could not. If both commits have valid metadata, it is believed.
func (c *Reader) compareMerged(ctx context.Context, a, b cold.ID, path string) (verdict, error) {
	x, err := c.At(a)
	if err != nil {
		return same, err
	}
	y, err := c.At(b)
	if err != nil {
		return same, err
	}
	if x.Described() && y.Described() {
		return differ, nil
	}
	found := errors.New("found")
	err = Diff(ctx, c.Side(y), c.Side(x), DiffOptions{Paths: []string{path}}, func(Change) error { return found })
	if errors.Is(err, found) {
		return differ, nil
	}
	return same, err
}

// rawLine returns a name's line in a directory's metadata, or "". Of a trie it reads only the nodes on the way to it.
func rawLine(db format.Objects, m *format.MetaDir, name string) (string, error) {
	if m.Entries.Mode == 0 {
		return "", nil
	}
	at := m.Entries
	if at.Mode == odb.ModeTree {
		hash := sha256.Sum256([]byte(name))
		for level := 0; at.Mode == odb.ModeTree; level++ {
			nodes, err := format.ReadTree(db, at.ID, nil)
			if err != nil || level == format.MaxLevels {
				return "", err
			}
			digit := format.DigitName(format.TrieDigit(&hash, level))
			at = odb.TreeEntry{}
			for _, e := range nodes {
				if e.Name == digit {
					at = e
				}
			}
		}
		if at.Mode != odb.ModeFile {
			return "", nil
		}
	}
	data, err := db.Read(at.ID, odb.Blob, format.MaxMetaBlob)
	if err != nil {
		return "", err
	}
	for raw := range bytes.SplitSeq(data, []byte{'\n'}) {
		if l, err := format.DecodeLine(raw); err == nil && l.Name == name {
			return string(raw), nil
		}
	}
	return "", nil
}
