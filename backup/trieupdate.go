package backup

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

// change puts a line or, without raw, removes the one of that name.
type change struct {
	line
	hash   [32]byte
	hashed bool
}

func (c *change) digit(level int) int {
	if !c.hashed {
		c.hash, c.hashed = sha256.Sum256([]byte(c.Name)), true
	}
	return trieDigit(&c.hash, level)
}

// node is a part of a trie in the course of an update: one of a reference to what is stored, a leaf, or an inner node.
type node struct {
	ref   odb.TreeEntry // stored and unchanged; Mode 0: not that
	lines []line        // leaf
	kids  []odb.TreeEntry
	inner bool
	fewer bool // lines were removed below
}

func (n *node) empty() bool {
	return n.ref.Mode == 0 && len(n.lines) == 0 && len(n.kids) == 0
}

// updater changes a trie, reading and writing only the shards concerned.
type updater struct {
	ctx context.Context
	db  objects
	// put stores an object, or knows that the base commit has it.
	put func(t odb.Type, data []byte) (odb.ID, error)
}

// update applies changes, sorted by name, to the stored node old (Mode 0: none) at a level.
func (u *updater) update(old odb.TreeEntry, path []byte, changes []*change) (node, error) {
	if len(changes) == 0 {
		return node{ref: old}, nil
	}
	if err := u.ctx.Err(); err != nil {
		return node{}, err
	}
	if old.Mode == odb.ModeTree {
		kids, err := readTree(u.db, old.ID, nil)
		if err != nil {
			return node{}, fmt.Errorf("node %x: %w", path, err)
		}
		return u.updateNode(kids, path, changes)
	}
	lines, err := u.readLeaf(old, path)
	if err != nil {
		return node{}, err
	}
	return u.updateLeaf(lines, path, changes)
}

// readLeaf reads a stored leaf; anything odd in it is an error.
func (u *updater) readLeaf(ref odb.TreeEntry, path []byte) ([]line, error) {
	if ref.Mode == 0 {
		return nil, nil
	}
	data, err := u.db.Read(ref.ID, odb.Blob, maxMetaBlob)
	if err != nil {
		return nil, fmt.Errorf("node %x: %w", path, err)
	}
	return strictLines(u.ctx, data, path)
}

// strictLines reads a blob of lines as this package writes them.
func strictLines(ctx context.Context, data, path []byte) ([]line, error) {
	var p problems
	s := &scan{ctx: ctx, p: &p}
	s.leaf(data, path)
	if len(p.list) > 0 {
		return nil, fmt.Errorf("%w: %w", cold.ErrCorrupt, p.list[0])
	}
	if s.disorder {
		return nil, fmt.Errorf("%w: node %x is not sorted", cold.ErrCorrupt, path)
	}
	return s.lines, nil
}

func (u *updater) updateLeaf(lines []line, path []byte, changes []*change) (node, error) {
	merged, fewer := mergeLines(lines, changes)
	if len(merged) <= splitOver || len(path) >= maxLevels {
		return node{lines: merged, fewer: fewer}, nil
	}
	var all []*change
	for i := range merged {
		all = append(all, &change{line: merged[i]})
	}
	n, err := u.updateNode(nil, path, all)
	n.fewer = fewer
	return n, err
}

func (u *updater) updateNode(kids []odb.TreeEntry, path []byte, changes []*change) (node, error) {
	var old [trieFanout]odb.TreeEntry
	for _, e := range kids {
		d, ok := parseDigit(e.Name)
		if !ok || e.Mode != odb.ModeTree && e.Mode != odb.ModeFile || len(path) >= maxLevels {
			return node{}, fmt.Errorf("%w: node %x has an entry %q of mode %o", cold.ErrCorrupt, path, e.Name, e.Mode)
		}
		old[d] = e
	}
	var by [trieFanout][]*change
	for _, c := range changes {
		d := c.digit(len(path))
		by[d] = append(by[d], c)
	}
	var nodes [trieFanout]node
	fewer := false
	for d := range nodes {
		var err error
		if nodes[d], err = u.update(old[d], append(slices.Clip(path), byte(d)), by[d]); err != nil {
			return node{}, err
		}
		fewer = fewer || nodes[d].fewer
	}
	if fewer {
		if lines, ok, err := u.few(&nodes, path); err != nil || ok {
			return node{lines: lines, fewer: true}, err
		}
	}
	n := node{inner: true, fewer: fewer}
	for d := range nodes {
		if nodes[d].empty() {
			continue
		}
		e, err := u.store(&nodes[d])
		if err != nil {
			return node{}, err
		}
		e.Name = digitName(d)
		n.kids = append(n.kids, e)
	}
	return n, nil
}

// few collects the lines below nodes if they are fewer than mergeUnder; it stops reading as soon as they are not.
func (u *updater) few(nodes *[trieFanout]node, path []byte) ([]line, bool, error) {
	total := 0
	for d := range nodes {
		n := &nodes[d]
		// An inner node has mergeUnder lines or more, or it would be a leaf.
		if n.inner || n.ref.Mode == odb.ModeTree {
			return nil, false, nil
		}
		total += len(n.lines)
	}
	for d := range nodes {
		if total >= mergeUnder {
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
		// The reference stays: if the node is not merged after all, nothing has to be written.
		n.lines = lines
	}
	if total >= mergeUnder {
		return nil, false, nil
	}
	all := make([]line, 0, total)
	for d := range nodes {
		all = append(all, nodes[d].lines...)
	}
	slices.SortFunc(all, func(a, b line) int { return strings.Compare(a.Name, b.Name) })
	return all, true, nil
}

// store writes a node and gives its tree entry, without a name.
func (u *updater) store(n *node) (odb.TreeEntry, error) {
	switch {
	case n.ref.Mode != 0:
		return n.ref, nil
	case n.inner:
		data, err := odb.EncodeTree(n.kids)
		if err != nil {
			return odb.TreeEntry{}, fmt.Errorf("%s: %w", entriesName, err)
		}
		id, err := u.put(odb.Tree, data)
		return odb.TreeEntry{Mode: odb.ModeTree, ID: id}, err
	}
	data, err := joinLines(nil, n.lines)
	if err != nil {
		return odb.TreeEntry{}, err
	}
	id, err := u.put(odb.Blob, data)
	return odb.TreeEntry{Mode: odb.ModeFile, ID: id}, err
}

// joinLines appends the lines to b.
func joinLines(b []byte, lines []line) ([]byte, error) {
	size := len(b)
	for i := range lines {
		size += len(lines[i].raw) + 1
	}
	if size > maxMetaBlob {
		return nil, tooMuch("%d entries with %d MiB of metadata together", len(lines), size>>20)
	}
	b = slices.Grow(b, size-len(b))
	for i := range lines {
		b = append(b, lines[i].raw...)
		b = append(b, '\n')
	}
	return b, nil
}

// mergeLines applies changes to lines, both sorted by name; fewer says that a line went.
func mergeLines(lines []line, changes []*change) (merged []line, fewer bool) {
	merged = make([]line, 0, len(lines)+len(changes))
	for _, c := range changes {
		for len(lines) > 0 && lines[0].Name < c.Name {
			merged = append(merged, lines[0])
			lines = lines[1:]
		}
		had := len(lines) > 0 && lines[0].Name == c.Name
		if had {
			lines = lines[1:]
		}
		if c.raw != nil {
			merged = append(merged, c.line)
		} else if had {
			fewer = true
		}
	}
	return append(merged, lines...), fewer
}
