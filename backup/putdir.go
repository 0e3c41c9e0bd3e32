package backup

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"emberfs/backup/format"
	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

// PutDir implements cold.Tx. If full is false and the metadata of base is damaged, it fails with cold.ErrCorrupt or
// cold.ErrMissing, so that what the metadata said is not forgotten. If full is true such a directory is written anew.
func (t *tx) PutDir(ctx context.Context, base cold.DirID, full bool, root *cold.Root, put []cold.Entry, del []string) (
	cold.DirID, error) {
	if err := t.alive(); err != nil {
		return cold.DirID{}, err
	}
	if err := t.flush(); err != nil {
		return cold.DirID{}, err
	}
	put = t.named(put)
	var own *cold.Entry
	if root != nil {
		e := root.Entry
		e.Name, e.Kind = "", cold.KindDir
		if err := format.CheckAttrs(&e); err != nil {
			return cold.DirID{}, fmt.Errorf("store root directory: %w", err)
		}
		own = &e
	}
	d, err := t.buildDir(ctx, base, full, own, put, del)
	if err == nil && root != nil {
		err = d.setLinks(root.Links)
	}
	if err != nil {
		return cold.DirID{}, fmt.Errorf("store directory: %w", err)
	}
	t.pending = d
	return d.id, nil
}

func (t *tx) buildDir(ctx context.Context, base cold.DirID, full bool, root *cold.Entry, put []cold.Entry,
	del []string) (*dirBuild, error) {
	b := t.loadBase(base)
	b.head.Root = root
	lines, err := t.newLines(b, put)
	if err != nil {
		return nil, err
	}
	switch {
	case full || base == (cold.DirID{}):
	case t.base == nil:
		return nil, errors.New("there is no base commit to extend")
	case b.valid:
		return t.extend(ctx, b, put, lines, del)
	case !b.sound && !base.Meta.IsZero():
		return nil, b.err
	default:
		if put, lines, err = t.joinListing(ctx, b, base, put, del); err != nil {
			return nil, err
		}
	}
	return t.replace(ctx, b, put, lines)
}

// newLines encodes the entries as metadata lines, sorted by name.
func (t *tx) newLines(b *dirBase, put []cold.Entry) ([]format.Line, error) {
	if err := t.findChunks(b, put); err != nil {
		return nil, err
	}
	var tooLong []string
	lines := make([]format.Line, 0, len(put))
	for i := range put {
		if err := format.CheckEntry(&put[i]); err != nil {
			return nil, fmt.Errorf("entry %q: %w", put[i].Name, err)
		}
		if put[i].Kind == cold.KindOther {
			continue
		}
		l := format.EncodeLine(&put[i], b.chunkOf(&put[i]))
		if len(l.Raw) > format.MaxLine {
			tooLong = append(tooLong, put[i].Name)
		}
		lines = append(lines, l)
	}
	if tooLong != nil {
		return nil, &cold.TooMuchError{Names: tooLong,
			Err: fmt.Errorf("metadata of more than %d MiB", format.MaxLine>>20)}
	}
	slices.SortFunc(lines, func(a, b format.Line) int { return strings.Compare(a.Name, b.Name) })
	for i := 1; i < len(lines); i++ {
		if lines[i].Name == lines[i-1].Name {
			return nil, fmt.Errorf("entry %q: comes twice", lines[i].Name)
		}
	}
	return lines, nil
}

// findChunks finds out which of the files are chunk trees and fills in b.chunks. An entry does not say so itself, and
// the content may have been stored by an earlier transaction, for example if only the file's mode changed.
func (t *tx) findChunks(b *dirBase, put []cold.Entry) error {
	modes := make(map[cold.ID]uint32)
	for i := range put {
		if put[i].Kind == cold.KindFile {
			modes[put[i].ID] = 0
		}
	}
	for i := range b.tree {
		if _, ok := modes[b.tree[i].ID]; ok && b.tree[i].Mode != odb.ModeGitlink {
			modes[b.tree[i].ID] = b.tree[i].Mode
		}
	}
	b.chunks = make(map[cold.ID]int64)
	for i := range put {
		e := &put[i]
		mode, todo := modes[e.ID]
		if e.Kind != cold.KindFile || !todo || e.ID.IsZero() {
			continue
		}
		delete(modes, e.ID)
		chunk, err := t.chunkSizeIn(e.ID, mode)
		if e.Lost && IsMissing(err) {
			chunk, err = 0, t.lostForm(e)
		}
		if err != nil {
			return fmt.Errorf("entry %q: %w", e.Name, err)
		}
		if chunk != 0 {
			b.chunks[e.ID] = chunk
		}
	}
	return nil
}

// lostForm returns an error for a file whose content is missing, so that it alone stays out of the commit, unless the
// file is too small to be in chunks: then it certainly was one blob.
func (t *tx) lostForm(e *cold.Entry) error {
	if e.Size < format.MinChunk {
		return nil
	}
	return &cold.TooMuchError{Names: []string{e.Name},
		Err: fmt.Errorf("its content, object %s, is missing from the repository: %w", e.ID, cold.ErrMissing)}
}

// chunkOf returns the chunk size of an entry that is put, or 0 if it is not a file in chunks.
func (b *dirBase) chunkOf(e *cold.Entry) int64 {
	if e.Kind != cold.KindFile {
		return 0
	}
	return b.chunks[e.ID]
}

// joinListing returns all entries of the new directory, and their lines, if the base has to be reconciled first: what
// put has, and the entries of the base that are neither in put nor in del.
func (t *tx) joinListing(ctx context.Context, b *dirBase, base cold.DirID, put []cold.Entry, del []string) (
	[]cold.Entry, []format.Line, error) {
	l, err := t.base.ReadDir(ctx, base)
	if err != nil {
		return nil, nil, err
	}
	gone := make(map[string]bool, len(put)+len(del))
	for _, name := range del {
		gone[name] = true
	}
	for i := range put {
		gone[put[i].Name] = true
	}
	all := slices.Clone(put)
	for i := range l.Entries {
		if !gone[l.Entries[i].Name] {
			all = append(all, l.Entries[i])
		}
	}
	lines, err := t.newLines(b, all)
	return all, lines, err
}

// extend builds the directory that results from base b with put added and del removed. It reads and writes only the
// shards that change.
func (t *tx) extend(ctx context.Context, b *dirBase, put []cold.Entry, lines []format.Line, del []string) (*dirBuild,
	error) {
	if err := t.findHidden(ctx, b, false, put, del); err != nil {
		return nil, err
	}
	if err := b.twice(put); err != nil {
		return nil, err
	}
	changes := make([]*format.Change, 0, len(lines)+len(del))
	trees := make(map[string]odb.TreeEntry, len(lines)+len(del))
	subs := maps.Clone(b.meta.Subs)
	gone := slices.Clone(del)
	for i := range put {
		if put[i].Kind == cold.KindOther { // if there was another entry of this name, its metadata goes
			gone = append(gone, put[i].Name)
		}
	}
	for _, name := range slices.Compact(slices.Sorted(slices.Values(gone))) {
		delete(subs, format.EncodeName(name))
		changes = append(changes, &format.Change{Line: format.Line{Entry: cold.Entry{Name: name}}})
	}
	for _, name := range gone {
		b.clear(trees, name)
	}
	for i := range put {
		b.clear(trees, put[i].Name)
	}
	for i := range lines {
		changes = append(changes, &format.Change{Line: lines[i]})
	}
	// A name that is in both put and del is put: the sort is stable, so the removal comes first and is dropped here.
	slices.SortStableFunc(changes, func(a, b *format.Change) int { return strings.Compare(a.Name, b.Name) })
	for i := len(changes) - 1; i > 0; i-- {
		if changes[i].Name == changes[i-1].Name {
			changes = slices.Delete(changes, i-1, i)
		}
	}
	for i := range put {
		e := &put[i]
		te := b.treeEntry(e)
		trees[te.Name] = te
		delete(subs, format.EncodeName(e.Name))
		if e.Kind == cold.KindDir && !e.Meta.IsZero() {
			subs[format.EncodeName(e.Name)] = e.Meta
		}
	}
	b.moveOthers(trees)
	if err := t.checkObjects(b, put, trees, subs); err != nil {
		return nil, err
	}
	d := &dirBuild{head: b.head, known: b.known, meta: format.MetaDir{Subs: subs, Links: b.meta.Links}}
	var changed bool
	if d.tree, changed = format.UpdateTree(b.tree, trees); !changed {
		d.tree = b.tree
	}
	if err := t.updateLines(ctx, d, b, changes); err != nil {
		return nil, err
	}
	return d, d.seal()
}

// replace builds the directory with exactly these entries; b only says what need not be stored again.
func (t *tx) replace(ctx context.Context, b *dirBase, put []cold.Entry, lines []format.Line) (*dirBuild, error) {
	if err := t.findHidden(ctx, b, true, put, nil); err != nil {
		return nil, err
	}
	if err := b.twice(put); err != nil {
		return nil, err
	}
	d := &dirBuild{head: b.head, known: b.known, meta: format.MetaDir{Subs: make(map[string]cold.ID),
		Links: b.meta.Links}}
	trees := make(map[string]odb.TreeEntry, len(put))
	for i := range put {
		e := &put[i]
		if te := b.treeEntry(e); te.Mode != 0 {
			d.tree = append(d.tree, te)
			trees[te.Name] = te
		}
		if e.Kind == cold.KindDir && !e.Meta.IsZero() {
			d.meta.Subs[format.EncodeName(e.Name)] = e.Meta
		}
	}
	if err := t.checkObjects(b, put, trees, d.meta.Subs); err != nil {
		return nil, err
	}
	slices.SortFunc(d.tree, format.CompareTree)
	// Only what differs from the base goes into the trie. That is as good as building it anew, because equal entries
	// give an equal trie, whatever its history.
	changes, ok := t.difference(ctx, b, lines)
	if !ok {
		b = &dirBase{}
		changes = make([]*format.Change, len(lines))
		for i := range lines {
			changes[i] = &format.Change{Line: lines[i]}
		}
	}
	if err := t.updateLines(ctx, d, b, changes); err != nil {
		return nil, err
	}
	return d, d.seal()
}

// difference returns the changes that turn the lines of b into lines. It returns false if the metadata of b cannot be
// extended.
func (t *tx) difference(ctx context.Context, b *dirBase, lines []format.Line) ([]*format.Change, bool) {
	if !b.sound {
		return nil, false
	}
	var p format.Problems
	old, err := format.ReadLines(ctx, t.c.db, b.rest, b.nodes, &p)
	if err != nil || len(p.List) > 0 || old.Disorder {
		return nil, false
	}
	var changes []*format.Change
	have := old.Lines
	gone := func(l *format.Line) {
		changes = append(changes, &format.Change{Line: format.Line{Entry: cold.Entry{Name: l.Name}}})
	}
	for i := range lines {
		for len(have) > 0 && have[0].Name < lines[i].Name {
			gone(&have[0])
			have = have[1:]
		}
		if len(have) > 0 && have[0].Name == lines[i].Name {
			same := string(have[0].Raw) == string(lines[i].Raw)
			have = have[1:]
			if same {
				continue
			}
		}
		changes = append(changes, &format.Change{Line: lines[i]})
	}
	for i := range have {
		gone(&have[i])
	}
	return changes, true
}

// updateLines applies changes to the lines of b. If the result is a trie, it stores the trie's nodes.
func (t *tx) updateLines(ctx context.Context, d *dirBuild, b *dirBase, changes []*format.Change) error {
	u := format.Updater{Ctx: ctx, DB: t.c.db, Put: func(kind odb.Type, data []byte) (odb.ID, error) {
		return t.putNew(kind, data, b.known)
	}}
	var n format.Node
	var err error
	switch {
	case b.nodes != nil && len(changes) == 0:
		d.inner, d.nodes = true, b.nodes
		return nil
	case b.nodes != nil:
		n, err = u.UpdateNode(b.nodes, nil, changes)
	default:
		var lines []format.Line
		if lines, err = format.StrictLines(ctx, b.rest, nil); err == nil {
			n, err = u.UpdateLeaf(lines, nil, changes)
		}
	}
	d.leaf, d.nodes, d.inner = n.Lines, n.Kids, n.Inner
	return err
}

// checkObjects stores the targets of symlinks and makes sure that all other objects that the directory names exist. If
// one is missing it fails now, while the caller can still store the file again, rather than make a commit that lacks an
// object.
func (t *tx) checkObjects(b *dirBase, put []cold.Entry, trees map[string]odb.TreeEntry, subs map[string]cold.ID) error {
	have := make(map[string]struct{}, len(trees))
	for i := range b.tree {
		e := &b.tree[i]
		if n, ok := trees[e.Name]; ok && n == *e {
			have[e.Name] = struct{}{}
		}
	}
	for i := range put {
		e := &put[i]
		if _, ok := have[b.storedFor(e)]; ok && (e.Kind != cold.KindSymlink || t.c.db.Has(e.ID)) {
			continue
		}
		switch {
		case !format.InGit(e):
		case e.Kind == cold.KindSymlink:
			id, err := t.w.Put(odb.Blob, []byte(e.Target))
			if err != nil {
				return err
			}
			if id != e.ID {
				return fmt.Errorf("entry %q: object %s is not that of its target", e.Name, e.ID)
			}
		case !e.Lost && !t.has(e.ID):
			return fmt.Errorf("entry %q: object %s: %w", e.Name, e.ID, cold.ErrMissing)
		}
	}
	for stored, id := range subs {
		if b.meta.Subs[stored] != id && !t.has(id) {
			return fmt.Errorf("entry %q: metadata %s: %w", stored, id, cold.ErrMissing)
		}
	}
	return nil
}
