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

// verdict is what two commits have to say of one path.
type verdict int

const (
	same verdict = iota
	differ
	unclear // the objects differ, but perhaps only because a stock client left the metadata behind
)

// cursor stands in a directory of a commit; zero ids where there is none.
type cursor struct {
	tree, meta cold.ID
}

// rootCursor stands in a commit's root; c nil: nowhere.
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

// treeEntry finds a stored name in a tree; Mode 0 where it is not there.
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
	entry odb.TreeEntry // Mode 0: not in git's tree
	line  string        // of the metadata, as it is stored; "" for none
	meta  cold.ID       // metadata of what is below; zero where there is none
}

// find looks a true name up in the directory at cur. The line is read only with full.
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

// comparePath compares what two commits have at a path, without listing directories: where the objects on the way are
// the same there is nothing to look at. b nil: no commit.
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
				how = differ // it is there now
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
	x.entry.Name, y.entry.Name = "", "" // a forbidden name may be escaped in one and in the clear in the other
	switch {
	case x == y:
		return same
	case x.entry.Mode != odb.ModeTree && y.entry.Mode != odb.ModeTree && x.entry != y.entry:
		return differ // content, type, executable or not, or whether it is there at all
	}
	return unclear
}

// compareMerged decides what comparePath could not. Where both commits' metadata is their own it is believed.
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

// rawLine finds a name's line in a directory's metadata, reading of a trie only the nodes that lead there; "" where
// there is none.
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
