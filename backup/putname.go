package backup

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"emberfs/backup/format"
	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

// This file decides under which name an entry stands in git's tree, which may depend on what the base commit has.

// treeEntry returns what git's tree has for an entry. Its Mode is 0 if that is nothing.
func (b *dirBase) treeEntry(e *cold.Entry) odb.TreeEntry {
	t := odb.TreeEntry{Name: b.storedFor(e)}
	switch {
	case e.Kind == cold.KindOther:
		t.Mode, t.ID = e.Other.Mode, e.ID
	case format.InGit(e):
		t.Mode, t.ID = format.GitModeOf(e, b.chunkOf(e)), e.ID
	}
	return t
}

// named turns entries of KindOther into ordinary files if their only fault was their name, and they have been renamed.
func (t *tx) named(put []cold.Entry) []cold.Entry {
	cloned := false
	for i := range put {
		e := &put[i]
		if e.Kind != cold.KindOther || e.Name == e.Other.Stored || format.StandsIn(e.Name, e.Other.Stored) ||
			kindOf(e.Other.Mode) != cold.KindFile {
			continue
		}
		kind, size, err := t.c.db.Stat(e.ID)
		if err != nil || kind != odb.Blob {
			continue
		}
		if !cloned {
			put, cloned = slices.Clone(put), true
		}
		now := time.Now()
		mode := uint32(0o644)
		if e.Other.Mode == odb.ModeExec {
			mode = 0o755
		}
		put[i] = cold.Entry{Name: e.Name, Kind: cold.KindFile, Mode: mode, UID: t.c.o.UID, GID: t.c.o.GID, ID: e.ID,
			Size:  size,
			Mtime: cold.Time{Sec: now.Unix(), Nsec: uint32(now.Nanosecond())}}
	}
	return put
}

// storedFor returns the name of an entry in git's tree.
func (b *dirBase) storedFor(e *cold.Entry) string {
	stored := format.EncodeName(e.Name)
	if e.Kind == cold.KindOther {
		was := e.Other.Stored
		if e.Name == was || format.StandsIn(e.Name, was) && !b.moved[was] {
			return was
		}
		return stored // it was renamed
	}
	if stored == e.Name || !format.PlainForbidden(e.Name) {
		return stored
	}
	// A name that a stock client stored unescaped, like .gitattributes or .gitmodules, stays so, because stock clients
	// read such files. But not if it is of another kind now: servers refuse, for example, a .gitmodules that is a
	// symlink.
	if t, ok := b.inClear(e.Name); ok && kindOf(t.Mode) == e.Kind {
		return e.Name
	}
	return stored
}

// inClear returns the base's entry that has, unescaped, a name that EmberFS would escape. If the base has the escaped
// name too, that one counts, and inClear returns false.
func (b *dirBase) inClear(name string) (t odb.TreeEntry, ok bool) {
	escaped := format.EncodeName(name)
	for i := range b.tree {
		switch b.tree[i].Name {
		case escaped:
			return odb.TreeEntry{}, false
		case name:
			t, ok = b.tree[i], true
		}
	}
	return t, ok
}

// clear notes in trees that everything that the base shows under this name is removed.
func (b *dirBase) clear(trees map[string]odb.TreeEntry, name string) {
	stored := format.EncodeName(name)
	if !b.hidden[stored] {
		trees[stored] = odb.TreeEntry{Name: stored}
	}
	if stored != name {
		if t, ok := b.inClear(name); ok {
			trees[t.Name] = odb.TreeEntry{Name: t.Name}
		}
	}
	if !format.MayStandIn(name) {
		return
	}
	for i := range b.tree {
		if t := b.tree[i].Name; t != name && format.StandsIn(name, t) {
			trees[t] = odb.TreeEntry{Name: t}
		}
	}
}

// findHidden fills in b.hidden and b.moved.
//
// hidden are the stored names of entries that no directory can hold and whose name in git another entry could claim: a
// name in hashed form without a metadata line.
//
// moved are the stored names that such entries must give up, because another entry is stored under that name now, or
// because, with that other entry gone, they would be taken for it. This includes unescaped names beside their escaped
// form.
func (t *tx) findHidden(ctx context.Context, b *dirBase, full bool, put []cold.Entry, del []string) error {
	b.hidden, b.moved = map[string]bool{}, map[string]bool{}
	names := make(map[string]bool, len(put))
	for i := range put {
		e := &put[i]
		names[e.Name] = true
		if e.Kind == cold.KindOther && isHash(e.Other.Stored) {
			b.hidden[e.Other.Stored] = true
		}
	}
	if b.valid {
		if err := t.findHashes(ctx, b); err != nil {
			return err
		}
	}
	for i := range put {
		if e := &put[i]; e.Kind != cold.KindOther {
			if stored := format.EncodeName(e.Name); b.hidden[stored] {
				b.moved[stored] = true
			}
		} else if was := e.Other.Stored; full && e.Name != was && format.PlainForbidden(was) && !names[was] {
			b.moved[was] = true // it would be taken for the entry that is gone
		}
	}
	for _, name := range del {
		if format.PlainForbidden(name) && !names[name] && hasTree(b.tree, name) &&
			hasTree(b.tree, format.EncodeName(name)) {
			b.moved[name] = true
		}
	}
	return nil
}

// findHashes adds to b.hidden the names in hashed form that have no metadata line.
func (t *tx) findHashes(ctx context.Context, b *dirBase) error {
	hashes := map[string]bool{}
	for i := range b.tree {
		if isHash(b.tree[i].Name) {
			hashes[b.tree[i].Name] = true
		}
	}
	if len(hashes) == 0 {
		return nil
	}
	var p format.Problems
	old, err := format.ReadLines(ctx, t.c.db, b.rest, b.nodes, &p)
	if err != nil {
		return err
	}
	for i := range old.Lines {
		if name := old.Lines[i].Name; format.Forbidden(name) {
			delete(hashes, format.EncodeName(name))
		}
	}
	maps.Copy(b.hidden, hashes)
	return nil
}

func isHash(stored string) bool {
	if !strings.HasPrefix(stored, format.HashPrefix) {
		return false
	}
	_, err := format.DecodeName(stored)
	return format.IsHashedName(err)
}

func hasTree(tree []odb.TreeEntry, name string) bool {
	return slices.ContainsFunc(tree, func(t odb.TreeEntry) bool { return t.Name == name })
}

// moveOthers gives entries of the base a stand-in name if another entry needs their stored name.
func (b *dirBase) moveOthers(trees map[string]odb.TreeEntry) {
	for i := range b.tree {
		t := b.tree[i]
		if !b.moved[t.Name] {
			continue
		}
		if _, ok := trees[t.Name]; !ok {
			trees[t.Name] = odb.TreeEntry{Name: t.Name}
		}
		if to := format.EncodeName(format.StandIn(t.Name, 0)); trees[to].Mode == 0 {
			trees[to] = odb.TreeEntry{Name: to, Mode: t.Mode, ID: t.ID}
		}
	}
}

// twice returns a *cold.TooMuchError if several entries would have the same name in git's tree. The error names all but
// the first of them, so that only those stay out of the commit.
func (b *dirBase) twice(put []cold.Entry) error {
	seen := make(map[string]string, len(put))
	var names []string
	for i := range put {
		e := &put[i]
		if e.Kind != cold.KindOther && !format.InGit(e) {
			continue
		}
		stored := b.storedFor(e)
		if _, ok := seen[stored]; ok {
			names = append(names, e.Name)
		}
		seen[stored] = e.Name
	}
	if names == nil {
		return nil
	}
	return &cold.TooMuchError{Names: names, Err: fmt.Errorf("git has one name for it and for %q",
		seen[b.storedFor(byName(put, names[0]))])}
}

func byName(put []cold.Entry, name string) *cold.Entry {
	return &put[slices.IndexFunc(put, func(e cold.Entry) bool { return e.Name == name })]
}
