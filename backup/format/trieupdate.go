package format

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

// Change puts a line or, if Raw is nil, removes the line with that name.
type Change struct {
	Line
	hash   [32]byte
	hashed bool
}

func (c *Change) digit(level int) int {
	if !c.hashed {
		c.hash, c.hashed = sha256.Sum256([]byte(c.Name)), true
	}
	return TrieDigit(&c.hash, level)
}

// Node is a part of a trie during an update: a reference to a stored and unchanged part, a leaf, or an inner node.
type Node struct {
	ref   odb.TreeEntry // the stored part if it is unchanged; Mode is 0 otherwise
	Lines []Line        // the lines of a leaf
	Kids  []odb.TreeEntry
	Inner bool
	fewer bool // lines were removed below
}

func (n *Node) empty() bool {
	return n.ref.Mode == 0 && len(n.Lines) == 0 && len(n.Kids) == 0
}

// Updater changes a trie. It reads and writes only the shards that change.
type Updater struct {
	Ctx context.Context
	DB  Objects
	// Put stores an object, unless the base commit has it.
	Put func(t odb.Type, data []byte) (odb.ID, error)
}

// update applies changes, sorted by name, to the stored node old at path; Mode 0 means that there is none.
func (u *Updater) update(old odb.TreeEntry, path []byte, changes []*Change) (Node, error) {
	if len(changes) == 0 {
		return Node{ref: old}, nil
	}
	if err := u.Ctx.Err(); err != nil {
		return Node{}, err
	}
	if old.Mode == odb.ModeTree {
		kids, err := ReadTree(u.DB, old.ID, nil)
		if err != nil {
			return Node{}, fmt.Errorf("node %x: %w", path, err)
		}
		return u.UpdateNode(kids, path, changes)
	}
	lines, err := u.readLeaf(old, path)
	if err != nil {
		return Node{}, err
	}
	return u.UpdateLeaf(lines, path, changes)
}

// readLeaf reads a stored leaf strictly.
func (u *Updater) readLeaf(ref odb.TreeEntry, path []byte) ([]Line, error) {
	if ref.Mode == 0 {
		return nil, nil
	}
	data, err := u.DB.Read(ref.ID, odb.Blob, MaxMetaBlob)
	if err != nil {
		return nil, fmt.Errorf("node %x: %w", path, err)
	}
	return StrictLines(u.Ctx, data, path)
}

// StrictLines parses a blob of lines, accepting only what this package writes.
func StrictLines(ctx context.Context, data, path []byte) ([]Line, error) {
	var p Problems
	s := &scan{ctx: ctx, p: &p}
	s.leaf(data, path)
	if len(p.List) > 0 {
		return nil, fmt.Errorf("%w: %w", cold.ErrCorrupt, p.List[0])
	}
	if s.Disorder {
		return nil, fmt.Errorf("%w: node %x is not sorted", cold.ErrCorrupt, path)
	}
	return s.Lines, nil
}

// UpdateLeaf applies changes to the lines of a leaf. If there are then too many, it becomes an inner node.
func (u *Updater) UpdateLeaf(lines []Line, path []byte, changes []*Change) (Node, error) {
	merged, fewer := mergeLines(lines, changes)
	if len(merged) <= SplitOver || len(path) >= MaxLevels {
		return Node{Lines: merged, fewer: fewer}, nil
	}
	var all []*Change
	for i := range merged {
		all = append(all, &Change{Line: merged[i]})
	}
	n, err := u.UpdateNode(nil, path, all)
	n.fewer = fewer
	return n, err
}

// UpdateNode applies changes to an inner node. If few lines are left, it becomes a leaf.
func (u *Updater) UpdateNode(kids []odb.TreeEntry, path []byte, changes []*Change) (Node, error) {
	var old [TrieFanout]odb.TreeEntry
	for _, e := range kids {
		d, ok := parseDigit(e.Name)
		if !ok || e.Mode != odb.ModeTree && e.Mode != odb.ModeFile || len(path) >= MaxLevels {
			return Node{}, fmt.Errorf("%w: node %x has an entry %q of mode %o", cold.ErrCorrupt, path, e.Name, e.Mode)
		}
		old[d] = e
	}
	var by [TrieFanout][]*Change
	for _, c := range changes {
		d := c.digit(len(path))
		by[d] = append(by[d], c)
	}
	var nodes [TrieFanout]Node
	fewer := false
	for d := range nodes {
		var err error
		if nodes[d], err = u.update(old[d], append(slices.Clip(path), byte(d)), by[d]); err != nil {
			return Node{}, err
		}
		fewer = fewer || nodes[d].fewer
	}
	if fewer {
		if lines, ok, err := u.few(&nodes, path); err != nil || ok {
			return Node{Lines: lines, fewer: true}, err
		}
	}
	n := Node{Inner: true, fewer: fewer}
	for d := range nodes {
		if nodes[d].empty() {
			continue
		}
		e, err := u.store(&nodes[d])
		if err != nil {
			return Node{}, err
		}
		e.Name = DigitName(d)
		n.Kids = append(n.Kids, e)
	}
	return n, nil
}

// few returns the lines below the nodes if there are fewer than MergeUnder. It stops reading as soon as there are not.
func (u *Updater) few(nodes *[TrieFanout]Node, path []byte) ([]Line, bool, error) {
	total := 0
	for d := range nodes {
		n := &nodes[d]
		// An inner node has at least MergeUnder lines; otherwise it would be a leaf.
		if n.Inner || n.ref.Mode == odb.ModeTree {
			return nil, false, nil
		}
		total += len(n.Lines)
	}
	for d := range nodes {
		if total >= MergeUnder {
			return nil, false, nil
		}
		n := &nodes[d]
		if n.ref.Mode == 0 {
			continue
		}
		lines, err := u.readLeaf(n.ref, append(slices.Clip(path), byte(d)))
		if err != nil {
			return nil, false, err
		}
		total += len(lines)
		// Keep the reference, so that nothing has to be written if the node is not merged after all.
		n.Lines = lines
	}
	if total >= MergeUnder {
		return nil, false, nil
	}
	all := make([]Line, 0, total)
	for d := range nodes {
		all = append(all, nodes[d].Lines...)
	}
	slices.SortFunc(all, func(a, b Line) int { return strings.Compare(a.Name, b.Name) })
	return all, true, nil
}

// store writes a node and returns its tree entry, without a name.
func (u *Updater) store(n *Node) (odb.TreeEntry, error) {
	switch {
	case n.ref.Mode != 0:
		return n.ref, nil
	case n.Inner:
		data, err := odb.EncodeTree(n.Kids)
		if err != nil {
			return odb.TreeEntry{}, fmt.Errorf("%s: %w", EntriesName, err)
		}
		id, err := u.Put(odb.Tree, data)
		return odb.TreeEntry{Mode: odb.ModeTree, ID: id}, err
	}
	data, err := JoinLines(nil, n.Lines)
	if err != nil {
		return odb.TreeEntry{}, err
	}
	id, err := u.Put(odb.Blob, data)
	return odb.TreeEntry{Mode: odb.ModeFile, ID: id}, err
}

// JoinLines appends the lines to b.
func JoinLines(b []byte, lines []Line) ([]byte, error) {
	size := len(b)
	for i := range lines {
		size += len(lines[i].Raw) + 1
	}
	if size > MaxMetaBlob {
		return nil, TooMuch("%d entries with %d MiB of metadata together", len(lines), size>>20)
	}
	b = slices.Grow(b, size-len(b))
	for i := range lines {
		b = append(b, lines[i].Raw...)
		b = append(b, '\n')
	}
	return b, nil
}

// mergeLines applies changes to lines; both are sorted by name. fewer says that a line was removed.
func mergeLines(lines []Line, changes []*Change) (merged []Line, fewer bool) {
	merged = make([]Line, 0, len(lines)+len(changes))
	for _, c := range changes {
		for len(lines) > 0 && lines[0].Name < c.Name {
			merged = append(merged, lines[0])
			lines = lines[1:]
		}
		had := len(lines) > 0 && lines[0].Name == c.Name
		if had {
			lines = lines[1:]
		}
		if c.Raw != nil {
			merged = append(merged, c.Line)
		} else if had {
			fewer = true
		}
	}
	return append(merged, lines...), fewer
}
