package backup

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"emberfs/backup/format"
	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

// owner is the owner of entries that a stock client made.
type owner struct{ uid, gid uint32 }

// Snapshot implements cold.Snapshot. It is immutable except for what it computes once, on first use.
type Snapshot struct {
	db    format.Store
	owner owner
	info  cold.CommitInfo

	entries  []odb.TreeEntry // the user's root directory: the commit's tree without .emberfs
	rootTree cold.ID         // the id of entries as a tree; that tree is not necessarily stored
	own      format.OwnDir
	root     cold.Entry
	valid    bool            // the root's metadata describes rootTree, so no stock client changed the commit
	problems format.Problems // problems found while opening; ReadDir of the root returns them

	movedOnce struct {
		sync.Mutex
		done  bool
		moves *moves
	}
}

var _ cold.Snapshot = (*Snapshot)(nil)

// MaxCommit is how many bytes a commit object may have; git has no limit.
const MaxCommit = 128 << 20

// openSnapshot reads a commit and its root.
func openSnapshot(db format.Store, id cold.ID, o owner) (*Snapshot, error) {
	s := &Snapshot{db: db, owner: o}
	commit, err := ReadCommit(db, id)
	if err != nil {
		return nil, err
	}
	s.info = CommitInfo(id, commit)
	all, err := format.ReadTree(db, commit.Tree, &s.problems)
	if err != nil {
		return nil, fmt.Errorf("commit %s: root tree: %w", id, err)
	}
	if s.own, err = format.LoadOwn(db, all, &s.problems); err != nil {
		return nil, fmt.Errorf("commit %s: %w", id, err)
	}
	s.entries, s.rootTree = all, commit.Tree
	for i, e := range all {
		if e.Name != format.OwnName {
			continue
		}
		s.entries = slices.Concat(all[:i], all[i+1:])
		data, err := odb.EncodeTree(s.entries)
		if err == nil {
			s.rootTree, err = odb.HashObject(odb.Tree, data)
		}
		if err != nil {
			return nil, fmt.Errorf("commit %s: root tree without %s: %w", id, format.OwnName, err)
		}
	}
	s.openRoot()
	return s, nil
}

// openRoot computes the root's own entry.
func (s *Snapshot) openRoot() {
	s.root = s.fresh("", cold.KindDir, 0o755)
	if s.own.Meta.IsZero() {
		s.root.ID = s.rootTree
		return
	}
	// Errors are ignored here; they are reported when the root is read.
	if m, err := format.LoadMetaDir(s.db, s.own.Meta, format.Ignored()); err == nil {
		h, _, _, err := m.ReadHeader(s.db)
		s.valid = err == nil && h.Tree == s.rootTree
		if err == nil && h.Root != nil {
			s.root = *h.Root
			if !s.valid {
				s.root.Mtime = s.committed()
			}
		}
	}
	s.root.ID, s.root.Meta = s.rootTree, s.own.Meta
}

// Info implements cold.Snapshot.
func (s *Snapshot) Info() cold.CommitInfo { return s.info }

// Root implements cold.Snapshot.
func (s *Snapshot) Root() cold.Entry { return s.root }

// committed returns the mtime that entries changed by a stock client get: the commit's.
func (s *Snapshot) committed() cold.Time {
	const first, last = -1 << 31, 1<<34 - 1<<31 - 1 // ext4's range; git allows any time, but ext4 has to store this one
	return cold.Time{Sec: min(max(s.info.Time.Unix(), first), last)}
}

// fresh returns an entry with default attributes, for something without metadata.
func (s *Snapshot) fresh(name string, kind cold.Kind, mode uint32) cold.Entry {
	return cold.Entry{Name: name, Kind: kind, Mode: mode, UID: s.owner.uid, GID: s.owner.gid, Mtime: s.committed()}
}

// tree reads a directory of the user's tree. The root's tree without .emberfs need not be stored; it is taken from the
// commit's.
func (s *Snapshot) tree(id cold.ID, p *format.Problems) ([]odb.TreeEntry, error) {
	if id == s.rootTree {
		return s.entries, nil
	}
	return format.ReadTree(s.db, id, p)
}

// dirData is what the repository says about one directory, before tree and metadata are compared.
type dirData struct {
	tree  []odb.TreeEntry
	meta  format.MetaDir
	head  format.Header
	lines []format.Line
	// valid says that the metadata describes exactly this tree.
	valid bool
}

// load reads a directory's tree and metadata. Only an unreadable tree is an error; unreadable metadata is a problem.
func (s *Snapshot) load(ctx context.Context, dir cold.DirID, p *format.Problems) (dirData, error) {
	var d dirData
	if err := ctx.Err(); err != nil {
		return d, err
	}
	var err error
	if d.tree, err = s.tree(dir.Tree, p); err != nil {
		return d, fmt.Errorf("read directory %s: %w", dir.Tree, err)
	}
	if dir.Meta.IsZero() {
		return d, nil
	}
	if d.meta, err = format.LoadMetaDir(s.db, dir.Meta, p); err != nil {
		p.Add(err)
		return d, nil
	}
	var rest []byte
	var nodes []odb.TreeEntry
	if d.head, rest, nodes, err = d.meta.ReadHeader(s.db); err != nil {
		p.Add(fmt.Errorf("metadata directory %s: %w", dir.Meta, err))
	}
	d.valid = err == nil && d.head.Tree == dir.Tree
	sc, err := format.ReadLines(ctx, s.db, rest, nodes, p)
	if ctx.Err() != nil {
		return d, ctx.Err()
	}
	if err != nil {
		p.Add(fmt.Errorf("metadata directory %s: %w", dir.Meta, err))
	}
	d.lines = sc.Lines
	return d, nil
}

// ReadDir implements cold.Snapshot.
func (s *Snapshot) ReadDir(ctx context.Context, dir cold.DirID) (cold.Listing, error) {
	return s.read(ctx, dir, false)
}

// ReadNames implements cold.Snapshot.
func (s *Snapshot) ReadNames(ctx context.Context, dir cold.DirID) (cold.Listing, error) {
	return s.read(ctx, dir, true)
}

// Sizes implements cold.Snapshot.
func (s *Snapshot) Sizes(ctx context.Context, dir cold.DirID, names cold.Listing) (cold.Listing, error) {
	for i := range names.Entries {
		e := &names.Entries[i]
		if e.Kind != cold.KindFile {
			continue
		}
		if kind, size, err := s.db.Stat(e.ID); err == nil && (kind != odb.Blob || size != e.Size) {
			return s.ReadDir(ctx, dir) // a file in chunks, or a lie
		}
	}
	return names, ctx.Err()
}

func (s *Snapshot) read(ctx context.Context, dir cold.DirID, names bool) (cold.Listing, error) {
	var p format.Problems
	d, err := s.load(ctx, dir, &p)
	if err != nil {
		return cold.Listing{}, err
	}
	if dir == s.root.Dir() {
		for _, err := range s.problems.List {
			p.Add(err)
		}
		if _, err := s.readOpened(); err != nil {
			p.Add(err)
		}
	}
	m := merger{ctx: ctx, s: s, dir: dir, d: &d, p: &p, names: names}
	entries, err := m.merge()
	if err != nil {
		return cold.Listing{}, err
	}
	return cold.Listing{Entries: entries, Reconciled: !d.valid || m.mended, Problems: p.List}, nil
}

// Valid implements cold.Snapshot. It reads only the header of the directory's metadata, because the ids in there cover
// everything below.
func (s *Snapshot) Valid(ctx context.Context, dir cold.DirID) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	if dir == s.root.Dir() {
		return s.valid, nil
	}
	if dir.Meta.IsZero() {
		return false, nil
	}
	m, err := format.LoadMetaDir(s.db, dir.Meta, format.Ignored())
	if err != nil {
		return false, err
	}
	h, _, _, err := m.ReadHeader(s.db)
	if err != nil {
		return false, fmt.Errorf("metadata directory %s: %w", dir.Meta, err)
	}
	return h.Tree == dir.Tree, nil
}

// LinkDirs implements cold.Snapshot. Directories that a stock client renamed appear under their new paths. Groups that
// are damaged are left out.
func (s *Snapshot) LinkDirs(ctx context.Context) (map[string][]string, error) {
	if s.own.Meta.IsZero() {
		return nil, nil
	}
	m, err := format.LoadMetaDir(s.db, s.own.Meta, format.Ignored())
	if err != nil || m.Links.Mode == 0 {
		return nil, err
	}
	data, err := s.db.Read(m.Links.ID, odb.Blob, format.MaxLinksBlob)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", format.LinksName, err)
	}
	links, _ := format.DecodeLinks(data)
	if s.valid {
		return links, nil
	}
	mv, err := s.moved(ctx)
	if err != nil {
		return nil, err
	}
	for _, dirs := range links {
		for i := range dirs {
			dirs[i] = mv.newPath(dirs[i])
		}
	}
	return links, nil
}

// ReadCommit reads a commit. The error is cold.ErrMissing or cold.ErrCorrupt if it is not there or damaged.
func ReadCommit(db format.Objects, id cold.ID) (odb.CommitData, error) {
	data, err := db.Read(id, odb.Commit, MaxCommit)
	if err != nil {
		return odb.CommitData{}, fmt.Errorf("commit %s: %w", id, err)
	}
	c, err := odb.DecodeCommit(data)
	if err != nil {
		return odb.CommitData{}, fmt.Errorf("commit %s: %w", id, err)
	}
	return c, nil
}

// CommitInfo returns what a commit says about itself.
func CommitInfo(id cold.ID, c odb.CommitData) cold.CommitInfo {
	info := cold.CommitInfo{ID: id, Tree: c.Tree, Time: c.Committer.When, Made: format.MadeAt(&c),
		Reason:  format.Trailer(c.Message, format.TrailerReason),
		Machine: format.Trailer(c.Message, format.TrailerMachine)}
	if len(c.Parents) > 0 {
		info.Parent, info.Merged = c.Parents[0], c.Parents[1:]
	}
	info.Subject, _, _ = strings.Cut(c.Message, "\n")
	info.Absorbed = absorbedOf(&c)
	if info.Reason == "" {
		return info // a stock client's, whatever its message says
	}
	info.Clean = format.CleanOf(c.Message)
	info.AtRisk = format.Number(c.Message, format.TrailerAtRisk)
	info.AtRiskBytes = format.Number(c.Message, format.TrailerAtRiskBytes)
	for _, path := range format.Trailers(c.Message, format.TrailerLacking, format.MaxLacking) {
		info.Lacking = append(info.Lacking, format.OneLine(path))
	}
	return info
}

// IsMissing reports whether an error says that an object is not there, as opposed to unreadable.
func IsMissing(err error) bool { return errors.Is(err, cold.ErrMissing) }

// after returns the later of two times.
func after(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// IsLost reports whether an error is about the object itself, as opposed to, say, a disk that fails.
func IsLost(err error) bool {
	return IsMissing(err) || errors.Is(err, cold.ErrCorrupt) || errors.Is(err, odb.ErrTooLarge) ||
		errors.Is(err, odb.ErrCollision)
}
