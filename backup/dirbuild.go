package backup

import (
	"fmt"
	"slices"

	"emberfs/backup/odb"
	"emberfs/tiers"
)

// dirBuild is a directory in the making, and after seal one that is ready to be written.
type dirBuild struct {
	id    tiers.DirID
	tree  []odb.TreeEntry // the user's
	meta  metaDir
	head  header
	leaf  []line          // the lines, where they fit into one blob,
	nodes []odb.TreeEntry // or the nodes of the trie
	inner bool

	treeData []byte
	objects  []object // metadata that depends on the header, in the order of writing
	known    map[tiers.ID]struct{}

	linksData []byte // the root's link groups; nil: none
}

type object struct {
	id   tiers.ID
	kind odb.Type
	data []byte
}

// seal works out the ids, and the objects to write once it is known that the directory is not the root.
func (d *dirBuild) seal() error {
	var err error
	if d.treeData, err = odb.EncodeTree(d.tree); err != nil {
		return err
	}
	if len(d.treeData) > maxTreeBlob-1024 { // a commit's root has .emberfs besides
		return fmt.Errorf("directory of %d entries: a tree of %d bytes, more than %d", len(d.tree), len(d.treeData), maxTreeBlob)
	}
	if d.id.Tree, err = odb.HashObject(odb.Tree, d.treeData); err != nil {
		return err
	}
	d.head.tree = d.id.Tree
	return d.sealMeta()
}

// setLinks gives the root's metadata the hard-link groups that span directories.
func (d *dirBuild) setLinks(links map[string][]string) error {
	d.meta.links, d.linksData = odb.TreeEntry{}, nil
	if len(links) > 0 {
		data, err := encodeLinks(links)
		if err != nil {
			return err
		}
		if len(data) > maxLinksBlob {
			return fmt.Errorf("%s: %d bytes, more than %d", linksName, len(data), maxLinksBlob)
		}
		d.linksData = data
	}
	return d.sealMeta()
}

// sealMeta makes the metadata's objects from header, lines and subdirectories.
func (d *dirBuild) sealMeta() error {
	d.objects = nil
	add := func(kind odb.Type, data []byte) (tiers.ID, error) {
		id, err := odb.HashObject(kind, data)
		d.objects = append(d.objects, object{id, kind, data})
		return id, err
	}
	head := encodeHeader(d.head)
	entries := odb.TreeEntry{Mode: odb.ModeFile, Name: entriesName}
	var err error
	if d.inner {
		if entries.ID, err = add(odb.Blob, head); err != nil {
			return err
		}
		nodes := append(slices.Clip(d.nodes), odb.TreeEntry{Mode: odb.ModeFile, Name: headerName, ID: entries.ID})
		if head, err = odb.EncodeTree(nodes); err != nil {
			return err
		}
		entries.Mode = odb.ModeTree
		entries.ID, err = add(odb.Tree, head)
	} else {
		if head, err = joinLines(head, d.leaf); err != nil {
			return err
		}
		entries.ID, err = add(odb.Blob, head)
	}
	if err != nil {
		return err
	}
	d.meta.entries = entries
	all := make([]odb.TreeEntry, 0, len(d.meta.subs)+2)
	all = append(all, entries)
	if d.linksData != nil {
		id, err := add(odb.Blob, d.linksData)
		if err != nil {
			return err
		}
		d.meta.links = odb.TreeEntry{Mode: odb.ModeFile, Name: linksName, ID: id}
	}
	if d.meta.links.Mode != 0 {
		all = append(all, d.meta.links)
	}
	for stored, id := range d.meta.subs {
		all = append(all, odb.TreeEntry{Mode: odb.ModeTree, Name: stored, ID: id})
	}
	data, err := odb.EncodeTree(all)
	if err != nil {
		return err
	}
	if len(data) > maxTreeBlob {
		return fmt.Errorf("metadata of %d directories: a tree of %d bytes, more than %d", len(d.meta.subs), len(data), maxTreeBlob)
	}
	d.id.Meta, err = add(odb.Tree, data)
	return err
}
