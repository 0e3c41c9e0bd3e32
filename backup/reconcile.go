package backup

import (
	"cmp"
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

// merger merges a directory's tree with its metadata by the rules of FORMAT.md section 3. If the metadata describes the
// tree (d.valid), there is nothing to merge, and any difference that it finds is damage, which becomes a problem.
type merger struct {
	ctx    context.Context
	s      *Snapshot
	dir    cold.DirID
	d      *dirData
	p      *format.Problems
	mended bool
	names  bool // as for ReadNames: sizes in metadata that was written for the same object are not checked

	byStored map[string]int // index into d.tree
	looked   struct {       // results of look, about trees that may be files in chunks
		id   cold.ID           // the last tree that was a file in chunks
		c    *format.ChunkTree // its content; only the last one is kept, because all would take too much memory
		errs map[cold.ID]error
	}
	out []cold.Entry
}

func (m *merger) merge() ([]cold.Entry, error) {
	m.byStored = make(map[string]int, len(m.d.tree))
	for i := range m.d.tree {
		m.byStored[m.d.tree[i].Name] = i
	}
	m.out = make([]cold.Entry, 0, max(len(m.d.tree), len(m.d.lines)))
	taken := make([]bool, len(m.d.tree))
	for i := range m.d.lines {
		l := &m.d.lines[i]
		if at, ok := m.find(l.Name); ok {
			taken[at] = true
			if err := m.both(l, &m.d.tree[at]); err != nil {
				return nil, err
			}
		} else {
			m.lineOnly(l)
		}
	}
	for i := range m.d.tree {
		if taken[i] {
			continue
		}
		if err := m.ctx.Err(); err != nil {
			return nil, err
		}
		if err := m.treeOnly(&m.d.tree[i]); err != nil {
			return nil, err
		}
	}
	byName := func(a, b cold.Entry) int { return strings.Compare(a.Name, b.Name) }
	if !slices.IsSortedFunc(m.out, byName) {
		slices.SortFunc(m.out, byName)
	}
	m.checkLinks()
	return m.out, nil
}

// find returns the index of a name's entry in the tree: under its stored form, or unescaped as a stock client may have
// stored it.
func (m *merger) find(name string) (int, bool) {
	stored := format.EncodeName(name)
	at, ok := m.byStored[stored]
	if !ok && stored != name && format.PlainForbidden(name) {
		at, ok = m.byStored[name]
	}
	return at, ok
}

// lie reports something that the metadata says wrongly; the directory then counts as mended.
func (m *merger) lie(name, format string, a ...any) {
	m.mended = true
	m.p.Add(fmt.Errorf("entry %q: %w", name, fmt.Errorf(format, a...)))
}

var errSubmodule = errors.New("it is a submodule")

// other appends an entry that no directory can hold, as one of KindOther, which commits carry over.
func (m *merger) other(t *odb.TreeEntry, why error) {
	name, err := format.DecodeName(t.Name)
	switch {
	case err == nil:
	case format.PlainForbidden(t.Name) && !m.has(format.EncodeName(t.Name)):
		name = t.Name
	default:
		for try := range format.StandInTries {
			if name = format.StandIn(t.Name, try); !m.taken(name) {
				break
			}
		}
	}
	m.out = append(m.out, cold.Entry{Name: name, Kind: cold.KindOther, ID: t.ID,
		Other: &cold.Other{Stored: t.Name, Mode: t.Mode, Why: why.Error()}})
}

func kindOf(mode uint32) cold.Kind {
	switch mode {
	case odb.ModeFile, odb.ModeExec:
		return cold.KindFile
	case odb.ModeTree:
		return cold.KindDir
	case odb.ModeSymlink:
		return cold.KindSymlink
	}
	return 0
}

// lineOnly handles a metadata line whose name is not in the tree.
func (m *merger) lineOnly(l *format.Line) {
	if format.InGit(&l.Entry) {
		if m.d.valid {
			m.lie(l.Name, "%w: is in the metadata alone", cold.ErrCorrupt)
		}
		return
	}
	e := l.Entry
	if e.Kind == cold.KindDir {
		e.Meta = m.d.meta.Subs[format.EncodeName(e.Name)]
	}
	m.out = append(m.out, e)
}

// both handles a name that has a metadata line and a tree entry.
func (m *merger) both(l *format.Line, t *odb.TreeEntry) error {
	kind, c := m.kind(l.Name, l, t)
	if kind != l.Kind {
		if m.d.valid {
			m.lie(l.Name, "%w: a %s in the metadata, mode %o in the tree", cold.ErrCorrupt, l.Kind, t.Mode)
		}
		return m.fresh(l.Name, t, kind, c)
	}
	e := l.Entry
	if m.d.valid && (l.ID != t.ID || l.GitMode != t.Mode) {
		m.lie(l.Name, "%w: object %s of mode %o in the metadata, %s of mode %o in the tree",
			cold.ErrCorrupt, l.ID, l.GitMode, t.ID, t.Mode)
	}
	if l.ID != t.ID {
		e.ID = t.ID
		e.Mtime = m.s.committed()
		e.Holes = 0
		if e.Kind != cold.KindDir {
			// As after write(2): whoever changed the content must not thereby get the file's privileges.
			e.Mode &^= 0o6000
			e.Xattrs = slices.DeleteFunc(slices.Clone(e.Xattrs), func(x cold.Xattr) bool {
				return strings.HasPrefix(x.Name, "security.")
			})
			e.Link = ""
		}
	}
	was := l.GitMode
	if l.Kind == cold.KindFile && was == odb.ModeTree {
		was = format.BlobMode(&l.Entry) // a tree has no executable bit
	}
	if kindOf(t.Mode) == cold.KindFile && was != t.Mode {
		if t.Mode == odb.ModeExec {
			e.Mode |= e.Mode & 0o444 >> 2
		} else {
			e.Mode &^= 0o111
		}
	}
	if c != nil || kind == cold.KindFile && t.Mode == odb.ModeTree {
		return m.chunked(&e, l, l.ID == t.ID, c, t)
	}
	return m.content(&e, l.ID == t.ID, t)
}

// content completes e from the object and appends it. known says that the metadata line was written for this object.
func (m *merger) content(e *cold.Entry, known bool, t *odb.TreeEntry) error {
	switch e.Kind {
	case cold.KindDir:
		e.Meta = m.d.meta.Subs[t.Name]
		if e.Meta.IsZero() {
			// If a stock client stored the name unescaped, the metadata is still under the escaped name.
			e.Meta = m.d.meta.Subs[format.EncodeName(e.Name)]
		}
	case cold.KindFile:
		if m.names && known {
			break
		}
		kind, size, err := m.s.db.Stat(e.ID)
		switch {
		case err == nil && kind != odb.Blob:
			m.other(t, fmt.Errorf("%w: object %s is a %s, not a blob", cold.ErrCorrupt, e.ID, kind))
			return nil
		case err == nil && known && size != e.Size:
			m.lie(e.Name, "%w: size %d in the metadata, %d in git", cold.ErrCorrupt, e.Size, size)
			e.Size = size
		case err == nil:
			e.Size = size
		case known:
			// The line has the size. Opening the file will report what is wrong with the object.
		default:
			m.other(t, err)
			return nil
		}
	case cold.KindSymlink:
		if known {
			// If the line's target has the object's hash, the object need not be read.
			if id, err := odb.HashObject(odb.Blob, []byte(e.Target)); err == nil && id == e.ID {
				break
			}
			m.lie(e.Name, "%w: target %q in the metadata is not that in git", cold.ErrCorrupt, e.Target)
		}
		target, err := m.s.db.Read(e.ID, odb.Blob, format.MaxTarget)
		if err == nil {
			e.Target, e.Size = string(target), int64(len(target))
			err = format.CheckEntry(e)
		}
		if err != nil {
			m.other(t, err)
			return nil
		}
	}
	m.out = append(m.out, *e)
	return nil
}

// treeOnly handles a tree entry that has no metadata line.
func (m *merger) treeOnly(t *odb.TreeEntry) error {
	name, err := format.DecodeName(t.Name)
	if err != nil && format.PlainForbidden(t.Name) {
		if name, err = t.Name, nil; m.has(format.EncodeName(name)) {
			err = errors.New("is there in its escaped form too, which counts")
		}
	}
	if err != nil {
		m.other(t, err)
		return nil
	}
	kind, c := m.kind(name, nil, t)
	before := len(m.out)
	if err := m.fresh(name, t, kind, c); err != nil {
		return err
	}
	if m.d.valid && (len(m.out) == before || m.out[len(m.out)-1].Kind != cold.KindOther) {
		m.lie(name, "%w: is in the tree, but not in the metadata", cold.ErrCorrupt)
	}
	return nil
}

// fresh handles a tree entry that has no metadata line, or none of the same kind.
func (m *merger) fresh(name string, t *odb.TreeEntry, kind cold.Kind, c *format.ChunkTree) error {
	mode := uint32(0o644)
	switch {
	case kind == 0:
		m.other(t, errSubmodule)
		return nil
	case kind == cold.KindSymlink:
		mode = 0o777
	case kind == cold.KindDir || t.Mode == odb.ModeExec:
		mode = 0o755
	}
	e := m.s.fresh(name, kind, mode)
	e.ID = t.ID
	if kind == cold.KindDir && m.d.meta.Subs[t.Name].IsZero() {
		mv, err := m.s.moved(m.ctx)
		if err != nil {
			return err
		}
		if from, ok := mv.into(m.dir, t.Name); ok {
			from.Name = name
			m.out = append(m.out, from)
			return nil
		}
		if mv.cut {
			m.p.Add(fmt.Errorf("%q: %w", name, errMovesCut))
		}
	}
	if c != nil {
		return m.chunked(&e, nil, false, c, t)
	}
	return m.content(&e, false, t)
}

// taken reports whether the directory has an entry with this name.
func (m *merger) taken(name string) bool {
	if m.has(format.EncodeName(name)) || format.PlainForbidden(name) && m.has(name) {
		return true
	}
	return slices.ContainsFunc(m.d.lines, func(l format.Line) bool { return l.Name == name })
}

func (m *merger) has(stored string) bool {
	_, ok := m.byStored[stored]
	return ok
}

// linked is what all names of one file must have in common.
type linked struct {
	kind cold.Kind
	id   cold.ID
	rdev uint64
}

// checkLinks splits hard-link groups whose members are not the same file. The largest set of equal members keeps the
// group.
func (m *merger) checkLinks() {
	groups := make(map[string]map[linked][]*cold.Entry)
	for i := range m.out {
		e := &m.out[i]
		if e.Link == "" {
			continue
		}
		if groups[e.Link] == nil {
			groups[e.Link] = make(map[linked][]*cold.Entry)
		}
		what := linked{e.Kind, e.ID, e.Rdev}
		groups[e.Link][what] = append(groups[e.Link][what], e)
	}
	for name, parts := range groups {
		if len(parts) == 1 {
			continue
		}
		sorted := slices.SortedFunc(maps.Values(parts), func(a, b []*cold.Entry) int {
			return cmp.Or(cmp.Compare(len(b), len(a)), strings.Compare(a[0].Name, b[0].Name))
		})
		for i, part := range sorted[1:] {
			m.lie(part[0].Name, "%w: is in link group %q with %q, which is another file", cold.ErrCorrupt, name,
				sorted[0][0].Name)
			for _, e := range part {
				e.Link = ""
				if len(part) > 1 && len(name) < format.MaxLink-8 {
					e.Link = fmt.Sprintf("%s~%d", name, i+1)
				}
			}
		}
	}
}
