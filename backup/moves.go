package backup

import (
	"context"
	"fmt"
	"path"
	"slices"

	"emberfs/backup/format"
	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

// maxMoveDirs is how many directories are read at most, at some 100 bytes of memory each, to find those that a stock
// client renamed. Renamed directories beyond that count as new ones, and a problem says so.
const maxMoveDirs = 2_000_000

// place is a name in a directory of a snapshot.
type place struct {
	dir    cold.DirID
	stored string
}

// moves says which directories without metadata were renamed by a stock client: those whose tree id is that of a
// directory that vanished.
type moves struct {
	entries map[place]cold.Entry // what each new place inherits: entry and metadata from under the old name
	paths   map[string]string    // from old path to new path
	cut     bool                 // the search was cut off by a limit, so there may be more
}

// errMovesCut is the problem reported for a directory that counts as new, but might be a renamed one.
var errMovesCut = fmt.Errorf("more than %d directories were changed by a stock client: if this one was renamed, its "+
	"owners, times and all else that git does not keep are lost", maxMoveDirs)

// into returns the entry that a renamed directory inherits.
func (m *moves) into(dir cold.DirID, stored string) (cold.Entry, bool) {
	e, ok := m.entries[place{dir, stored}]
	return e, ok
}

// newPath returns the present path of what was at p, if p or a directory above it was renamed, and p otherwise.
func (m *moves) newPath(p string) string {
	for head := p; head != "" && head != "."; head = path.Dir(head) {
		if to, ok := m.paths[head]; ok {
			return to + p[len(head):]
		}
	}
	return p
}

// moved finds the renamed directories. The result is kept. The cost depends on how much the stock client changed.
func (s *Snapshot) moved(ctx context.Context) (*moves, error) {
	s.movedOnce.Lock()
	defer s.movedOnce.Unlock()
	if s.movedOnce.done {
		return s.movedOnce.moves, nil
	}
	w := mover{ctx: ctx, s: s, seen: make(map[cold.DirID]struct{}), gone: make(map[cold.ID][]vanished)}
	m := &moves{entries: make(map[place]cold.Entry), paths: make(map[string]string)}
	if !s.valid && !s.own.Meta.IsZero() {
		w.changed("", s.root.Dir(), 0)
		if len(w.gone) > 0 {
			clear(w.seen)
			w.claim("", s.root.Dir(), 0)
			w.assign(m)
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.cut = w.cut
	s.movedOnce.done, s.movedOnce.moves = true, m
	return m, nil
}

// vanished is a directory that has metadata but is not in the tree under its path any more.
type vanished struct {
	path  string
	entry cold.Entry
	used  bool
}

// claimant is a directory without metadata whose tree id is that of a vanished directory.
type claimant struct {
	place
	path string
	id   cold.ID
}

type mover struct {
	ctx context.Context
	s   *Snapshot
	// Directories seen in the current pass. Equal ones are visited once, or a few hostile trees could keep it busy.
	seen   map[cold.DirID]struct{}
	gone   map[cold.ID][]vanished
	claims []claimant
	cut    bool // the walk left out directories because of a limit
}

// more reports whether a directory is still to be visited.
func (w *mover) more(dir cold.DirID, depth int) bool {
	if _, ok := w.seen[dir]; ok || w.ctx.Err() != nil {
		return false
	}
	if len(w.seen) >= maxMoveDirs || cold.TooDeepToWalk("", depth) != nil {
		w.cut = true
		return false
	}
	w.seen[dir] = struct{}{}
	return true
}

// changed looks for vanished directories below dir, which still exists.
func (w *mover) changed(at string, dir cold.DirID, depth int) {
	if !w.more(dir, depth) {
		return
	}
	d, err := w.s.load(w.ctx, dir, format.Ignored())
	if err != nil || d.valid {
		return
	}
	trees := make(map[string]cold.ID)
	for i := range d.tree {
		if d.tree[i].Mode == odb.ModeTree {
			trees[d.tree[i].Name] = d.tree[i].ID
		}
	}
	for i := range d.lines {
		l := &d.lines[i]
		if l.Kind != cold.KindDir || !format.InGit(&l.Entry) {
			continue
		}
		stored := format.EncodeName(l.Name)
		below := path.Join(at, l.Name)
		now, there := trees[stored]
		switch {
		case !there:
			w.vanish(below, &l.Entry, d.meta.Subs[stored], depth+1)
		case now != l.ID:
			w.changed(below, cold.DirID{Tree: now, Meta: d.meta.Subs[stored]}, depth+1)
		}
	}
}

// vanish notes a vanished directory, and those below it.
func (w *mover) vanish(at string, e *cold.Entry, meta cold.ID, depth int) {
	entry := *e
	entry.Meta = meta
	w.gone[e.ID] = append(w.gone[e.ID], vanished{path: at, entry: entry})
	if meta.IsZero() || !w.more(entry.Dir(), depth) {
		return
	}
	m, err := format.LoadMetaDir(w.s.db, meta, format.Ignored())
	if err != nil || len(m.Subs) == 0 {
		return
	}
	_, rest, nodes, err := m.ReadHeader(w.s.db)
	if err != nil {
		return
	}
	lines, err := format.ReadLines(w.ctx, w.s.db, rest, nodes, format.Ignored())
	if err != nil {
		return
	}
	for i := range lines.Lines {
		if l := &lines.Lines[i]; l.Kind == cold.KindDir && format.InGit(&l.Entry) {
			w.vanish(path.Join(at, l.Name), &l.Entry, m.Subs[format.EncodeName(l.Name)], depth+1)
		}
	}
}

// claim looks for directories without metadata that have the tree id of a vanished one.
func (w *mover) claim(at string, dir cold.DirID, depth int) {
	if !w.more(dir, depth) {
		return
	}
	d, err := w.s.load(w.ctx, dir, format.Ignored())
	if err != nil || d.valid {
		return
	}
	lines := make(map[string]*format.Line)
	for i := range d.lines {
		if d.lines[i].GitMode == odb.ModeTree { // includes files in chunks: there is nothing to look for in them
			lines[format.EncodeName(d.lines[i].Name)] = &d.lines[i]
		}
	}
	for i := range d.tree {
		t := &d.tree[i]
		name, err := format.DecodeName(t.Name)
		if t.Mode != odb.ModeTree || err != nil {
			continue
		}
		below, meta := path.Join(at, name), d.meta.Subs[t.Name]
		l, known := lines[t.Name]
		switch {
		case known && l.ID == t.ID:
		case !known && meta.IsZero() && len(w.gone[t.ID]) > 0:
			w.claims = append(w.claims, claimant{place{dir, t.Name}, below, t.ID})
		default:
			w.claim(below, cold.DirID{Tree: t.ID, Meta: meta}, depth+1)
		}
	}
}

// assign gives each vanished directory to one claimant: first to one of the same name, otherwise to the first one of
// the walk. If there are copies of it, the others get nothing, since otherwise hard links would span the copies.
func (w *mover) assign(m *moves) {
	for _, sameName := range []bool{true, false} {
		for _, c := range w.claims {
			if _, has := m.entries[c.place]; has {
				continue
			}
			gone := w.gone[c.id]
			at := slices.IndexFunc(gone, func(v vanished) bool {
				return !v.used && (!sameName || path.Base(v.path) == path.Base(c.path))
			})
			if at < 0 {
				continue
			}
			gone[at].used = true
			m.entries[c.place] = gone[at].entry
			m.paths[gone[at].path] = c.path
		}
	}
}
