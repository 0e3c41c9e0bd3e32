package backup

import (
	"fmt"
	"slices"

	"emberfs/backup/format"
	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

// dirBuild is a directory that is being built. After seal it is ready to be written.
type dirBuild struct {
	id    cold.DirID
	tree  []odb.TreeEntry // the user's git tree
	meta  format.MetaDir
	head  format.Header
	leaf  []format.Line   // the metadata lines, if they fit into one blob (inner is false)
	nodes []odb.TreeEntry // the nodes of the trie otherwise (inner is true)
	inner bool

	treeData []byte
	objects  []object // the metadata objects that depend on the header, in the order of writing
	known    map[cold.ID]struct{}

	linksData []byte // the root's link groups, encoded; nil: none
}

type object struct {
	id   cold.ID
	kind odb.Type
	data []byte
}

// seal computes the directory's ids and the objects to write. They are not written yet, because for the root directory
// the link groups are still to come.
func (d *dirBuild) seal() error {
	var err error
	if d.treeData, err = odb.EncodeTree(d.tree); err != nil {
		return err
	}
	if len(d.treeData) > format.MaxTreeBlob-1024 { // room for .emberfs, which the root of a commit contains too
		return format.TooMuch("a directory of %d entries", len(d.tree))
	}
	if d.id.Tree, err = odb.HashObject(odb.Tree, d.treeData); err != nil {
		return err
	}
	d.head.Tree = d.id.Tree
	return d.sealMeta()
}

// setLinks adds the hard-link groups that span directories to the root's metadata.
func (d *dirBuild) setLinks(links map[string][]string) error {
	d.meta.Links, d.linksData = odb.TreeEntry{}, nil
	if len(links) > 0 {
		data, err := format.EncodeLinks(links)
		if err != nil {
			return err
		}
		if len(data) > format.MaxLinksBlob {
			return &cold.TooMuchError{Links: true, Err: fmt.Errorf("%d files with names in several directories",
				len(links))}
		}
		d.linksData = data
	}
	return d.sealMeta()
}

// sealMeta makes the metadata objects from header, lines and subdirectories.
func (d *dirBuild) sealMeta() error {
	d.objects = nil
	add := func(kind odb.Type, data []byte) (cold.ID, error) {
		id, err := odb.HashObject(kind, data)
		d.objects = append(d.objects, object{id, kind, data})
		return id, err
	}
	head := format.EncodeHeader(d.head)
	if len(head) > format.MaxLine {
		return &cold.TooMuchError{Names: []string{""},
			Err: fmt.Errorf("metadata of more than %d MiB", format.MaxLine>>20)}
	}
	entries := odb.TreeEntry{Mode: odb.ModeFile, Name: format.EntriesName}
	var err error
	if d.inner {
		if entries.ID, err = add(odb.Blob, head); err != nil {
			return err
		}
		nodes := append(slices.Clip(d.nodes), odb.TreeEntry{Mode: odb.ModeFile, Name: format.HeaderName,
			ID: entries.ID})
		if head, err = odb.EncodeTree(nodes); err != nil {
			return err
		}
		entries.Mode = odb.ModeTree
		entries.ID, err = add(odb.Tree, head)
	} else {
		if head, err = format.JoinLines(head, d.leaf); err != nil {
			return err
		}
		entries.ID, err = add(odb.Blob, head)
	}
	if err != nil {
		return err
	}
	d.meta.Entries = entries
	all := make([]odb.TreeEntry, 0, len(d.meta.Subs)+2)
	all = append(all, entries)
	if d.linksData != nil {
		id, err := add(odb.Blob, d.linksData)
		if err != nil {
			return err
		}
		d.meta.Links = odb.TreeEntry{Mode: odb.ModeFile, Name: format.LinksName, ID: id}
	}
	if d.meta.Links.Mode != 0 {
		all = append(all, d.meta.Links)
	}
	for stored, id := range d.meta.Subs {
		all = append(all, odb.TreeEntry{Mode: odb.ModeTree, Name: stored, ID: id})
	}
	data, err := odb.EncodeTree(all)
	if err != nil {
		return err
	}
	if len(data) > format.MaxTreeBlob {
		return format.TooMuch("a directory of %d directories", len(d.meta.Subs))
	}
	d.id.Meta, err = add(odb.Tree, data)
	return err
}
