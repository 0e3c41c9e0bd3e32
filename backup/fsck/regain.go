package fsck

import (
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"emberfs/backup"
	"emberfs/backup/format"
	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

// regain writes a pack with those lost objects that can be had again, and returns their number.
func (r *repairer) regain() (n int, err error) {
	w, err := r.db.NewWriter()
	if err != nil {
		return 0, err
	}
	g := &regainer{r: r, w: w, wanted: map[cold.ID]bool{}}
	for _, l := range r.now.lost {
		g.wanted[l.id] = true
	}
	err = g.known()
	if err == nil && r.remote != nil {
		for _, l := range r.now.lost {
			if err = g.fromRemote(l.id); err != nil {
				break
			}
		}
	}
	if err == nil && r.o.WarmFiles != nil {
		err = g.fromWarm()
	}
	if n = w.Len(); err != nil || n == 0 {
		return 0, errors.Join(err, w.Abort())
	}
	if err := w.Publish(); err != nil {
		return 0, err
	}
	return n, w.Release() // references reach the objects already
}

type regainer struct {
	r      *repairer
	w      *odb.Writer
	wanted map[cold.ID]bool
}

// needs reports whether an object is still to be found.
func (g *regainer) needs(id cold.ID) bool { return g.wanted[id] && !g.w.Has(id) }

// known stores those lost objects that are the same in every commit of the volume.
func (g *regainer) known() error {
	bodies := [][]byte{[]byte(format.Attributes)}
	if g.r.now.tip != nil && g.r.now.tip.Own().Found {
		if b, err := format.EncodeVolume(g.r.now.tip.Own().Volume.Volume); err == nil {
			bodies = append(bodies, b)
		}
	}
	for _, b := range bodies {
		id, err := odb.HashObject(odb.Blob, b)
		if err == nil && g.needs(id) {
			_, err = g.w.Put(odb.Blob, b)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// fromRemote copies an object from the remote, and what that object needs and is not here.
func (g *regainer) fromRemote(top cold.ID) error {
	stack := []cold.ID{top}
	for len(stack) > 0 {
		if err := g.r.ctx.Err(); err != nil {
			return err
		}
		id := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if g.w.Has(id) || !g.wanted[id] && g.r.db.Has(id) {
			continue
		}
		more, err := g.copyObject(id)
		switch {
		case err == nil:
			stack = append(stack, more...)
		case errors.Is(err, cold.ErrMissing), errors.Is(err, cold.ErrCorrupt), errors.Is(err, odb.ErrTooLarge):
			// The remote does not have it either.
		default:
			return fmt.Errorf("read object %s from the remote: %w", id, err)
		}
	}
	return nil
}

// copyObject copies one object from the remote, and returns the objects that it points to.
func (g *regainer) copyObject(id cold.ID) ([]cold.ID, error) {
	t, _, err := g.r.remote.Stat(id)
	if err != nil {
		return nil, err
	}
	if t == odb.Blob {
		b, err := g.r.remote.Stream(id)
		if err != nil {
			return nil, err
		}
		_, err = g.w.PutStreamContext(g.r.ctx, b.Size(), b, func(got cold.ID) bool { return got != id })
		return nil, errors.Join(err, b.Close())
	}
	data, err := g.r.remote.Read(id, t, format.MaxTreeBlob)
	if err != nil {
		return nil, err
	}
	if _, err := g.w.Put(t, data); err != nil {
		return nil, err
	}
	var needs []cold.ID
	switch t {
	case odb.Commit:
		c, err := odb.DecodeCommit(data)
		if err == nil {
			needs = append(c.Parents, c.Tree)
		}
	case odb.Tree:
		entries, err := odb.DecodeTree(data)
		for _, e := range entries {
			if err == nil && e.Mode != odb.ModeGitlink {
				needs = append(needs, e.ID)
			}
		}
	case odb.Tag:
		if to, err := tagged(data); err == nil {
			needs = append(needs, to)
		}
	}
	return needs, nil
}

// fromWarm stores files of warm whose bytes hash to a wanted id: files whose record names it, or that are where the
// commit has it, and the chunks of big files.
func (g *regainer) fromWarm() error {
	paths := map[string]bool{}
	chunks := map[string][]lostObject{} // wanted chunks by the file's path
	for _, l := range g.r.now.lost {
		if l.kind != odb.Blob || !g.needs(l.id) {
			continue
		}
		paths[truePath(l.path)] = true
		if dir, name := path.Split(l.path); len(name) == format.ChunkName && strings.Trim(name, "0123456789") == "" {
			file := truePath(strings.TrimSuffix(dir, "/"))
			chunks[file] = append(chunks[file], l)
			paths[file] = true
		}
	}
	if len(paths) == 0 {
		return nil
	}
	pick := func(p string, id cold.ID) bool { return paths[p] || g.needs(id) }
	return g.r.o.WarmFiles(g.r.ctx, pick, func(p string, f cold.Content) error {
		if err := g.chunks(f, chunks[p]); err != nil {
			return fmt.Errorf("read warm/%s: %w", p, err)
		}
		if len(chunks[p]) > 0 {
			return nil
		}
		_, err := g.w.PutStreamContext(g.r.ctx, f.Size(), &contentReader{ctx: g.r.ctx, c: f}, func(id cold.ID) bool {
			return !g.wanted[id]
		})
		if errors.Is(err, cold.ErrSizeChanged) {
			err = nil
		}
		if err != nil {
			return fmt.Errorf("read warm/%s: %w", p, err)
		}
		return nil
	})
}

// chunks stores the pieces of a file that are wanted.
func (g *regainer) chunks(f cold.Content, want []lostObject) error {
	for _, l := range want {
		tree, ok := g.treeAt(l.commit, path.Dir(l.path))
		if !ok || !g.needs(l.id) {
			continue
		}
		c, err := format.LoadChunks(g.r.db, tree)
		if err != nil {
			continue // it is not a tree of chunks, or damaged itself
		}
		var n int64
		if _, err := fmt.Sscanf(path.Base(l.path), "%d", &n); err != nil {
			continue
		}
		data := make([]byte, c.Length(n))
		if k, err := f.ReadAt(data, n*c.Chunk); k < len(data) || err != nil && !errors.Is(err, io.EOF) {
			continue
		}
		if id, err := odb.HashObject(odb.Blob, data); err != nil || id != l.id {
			continue
		}
		if _, err := g.w.Put(odb.Blob, data); err != nil {
			return err
		}
	}
	return nil
}

// treeAt returns the tree at a path of stored names in a commit.
func (g *regainer) treeAt(commit cold.ID, at string) (cold.ID, bool) {
	c, err := backup.ReadCommit(g.r.db, commit)
	if err != nil {
		return cold.ID{}, false
	}
	id := c.Tree
	for name := range strings.SplitSeq(at, "/") {
		entries, err := format.ReadTree(g.r.db, id, format.Ignored())
		i := slices.IndexFunc(entries, func(e odb.TreeEntry) bool { return e.Name == name && e.Mode == odb.ModeTree })
		if err != nil || i < 0 {
			return cold.ID{}, false
		}
		id = entries[i].ID
	}
	return id, true
}
