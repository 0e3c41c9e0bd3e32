package backup

import (
	"emberfs/backup/odb"
	"emberfs/tiers"
)

// This file: under which name an entry that is put stands in git's tree, where the base commit has a say in it.

// treeEntry is what git keeps of an entry; Mode 0: nothing.
func (b *dirBase) treeEntry(e *tiers.Entry) odb.TreeEntry {
	t := odb.TreeEntry{Name: b.storedFor(e)}
	switch {
	case e.Kind == tiers.KindOther:
		t.Mode, t.ID = e.Other.Mode, e.ID
	case inGit(e):
		t.Mode, t.ID = gitModeOf(e, b.chunkOf(e)), e.ID
	}
	return t
}

// storedFor is the name of an entry in git's tree.
func (b *dirBase) storedFor(e *tiers.Entry) string {
	stored := EncodeName(e.Name)
	if e.Kind == tiers.KindOther {
		if was := e.Other.Stored; e.Name == standIn(was) || e.Name == was {
			return was
		}
		return stored // it has a new name
	}
	if stored == e.Name || !plainForbidden(e.Name) {
		return stored
	}
	// What a stock client committed in the clear goes on so, for stock clients read it: .gitattributes, .gitmodules. But not as
	// something else by that name: servers refuse a .gitmodules that is a symlink.
	if t, ok := b.inClear(e.Name); ok && kindOf(t.Mode) == e.Kind {
		return e.Name
	}
	return stored
}

// inClear is what the base has in the clear under a name that we escape, unless it has the escaped one too, which then counts.
func (b *dirBase) inClear(name string) (t odb.TreeEntry, ok bool) {
	escaped := EncodeName(name)
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

// clear notes in trees that what the base shows under a name goes.
func (b *dirBase) clear(trees map[string]odb.TreeEntry, name string) {
	stored := EncodeName(name)
	trees[stored] = odb.TreeEntry{Name: stored}
	if stored != name {
		if t, ok := b.inClear(name); ok {
			trees[t.Name] = odb.TreeEntry{Name: t.Name}
		}
	}
	if !mayStandIn(name) {
		return
	}
	for i := range b.tree {
		if t := b.tree[i].Name; t != name && standIn(t) == name {
			trees[t] = odb.TreeEntry{Name: t}
		}
	}
}
