package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"emberfs/backup/format"
	"emberfs/backup/wire"
	"emberfs/tiers/cold"
)

// A live branch is stray if main neither leads to it nor has absorbed it: its machine was lost, and then somebody, most
// likely with a stock client, moved main. Nothing in it is ignored. What main has not changed since is taken into a
// commit to main, which absorbs the branch. If both changed the same thing, main's version stays, and the branch is
// also kept under refs/heads/emberfs-side/; status and receipts mention it until somebody has removed it on the remote.

const (
	// sidePrefix begins the names refs/heads/emberfs-side/BRANCH/MACHINE-TIME of branches with versions that main did
	// not take.
	sidePrefix = "refs/heads/emberfs-side/"
	// maxStrays is how many stray branches are looked at in one fetch.
	maxStrays = 16
)

// stray is a stray live branch.
type stray struct {
	ref, epoch string
	tip        cold.ID
	base       cold.ID            // the commit of main at which it began
	refs       map[string]cold.ID // the remote's references
	conflicts  []string           // paths that both changed, so main's version stays
}

// adopt merges the remote's stray live branches into main, if our main is where the remote's is. A failure is noted and
// tried again at the next fetch; a mount must not fail because of it.
func (c *Cold) adopt(ctx context.Context, b *brought) error {
	c.noteSides(b.refs)
	p, err := c.Position(ctx)
	if err != nil || p.Main.IsZero() || p.Main != b.main {
		return err
	}
	prefix := c.liveRef("")
	looked, over := 0, 0
	for _, ref := range slices.Sorted(maps.Keys(b.refs)) {
		epoch, ok := strings.CutPrefix(ref, prefix)
		if !ok || !epochName.MatchString(epoch) || ref == p.Ref {
			continue
		}
		if looked >= maxStrays {
			over++
			continue
		}
		looked++
		err := c.adoptOne(ctx, stray{ref: ref, epoch: epoch, tip: b.refs[ref], refs: b.refs})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			err = fmt.Errorf("%s of %s has work that %s has not, and cannot be taken: %w", ref, c.o.Source, c.o.Branch,
				err)
		}
		c.note(ref, err)
	}
	var unseen error
	if over > 0 {
		unseen = fmt.Errorf("%s has %d more live branches than are looked at in one go: they may have work that %s "+
			"has not", c.o.Source, over, c.o.Branch)
	}
	c.note(prefix, unseen)
	return nil
}

// adoptOne merges one live branch if it is stray.
func (c *Cold) adoptOne(ctx context.Context, s stray) error {
	p, err := c.Position(ctx)
	if err != nil {
		return err
	}
	if c.db.Has(s.tip) {
		if in, err := c.Follows(ctx, p.Newest(), s.tip); in || err != nil {
			return err
		}
	}
	have, err := c.recent(p.Newest(), p.Main)
	if err != nil {
		return err
	}
	tip, release, err := c.remote.Fetch(ctx, c.db, s.ref, have)
	if err != nil {
		return err
	}
	defer c.releaseFetched(release)
	s.tip = tip
	if in, err := c.Follows(ctx, p.Newest(), tip); in || err != nil {
		return err
	}
	if s.base, err = c.forkOf(ctx, p.Main, tip); err != nil {
		return err
	}
	// This reference keeps the commits from a git gc. And once main, with this branch absorbed, is pushed, it makes
	// Push delete the branch on the remote.
	hidden := c.absorbedRef(s.epoch)
	if err := c.setRef(hidden, tip); err != nil {
		return err
	}
	commit, err := c.mergeStray(ctx, &s)
	if err != nil {
		return errors.Join(err, c.setRef(hidden, cold.ID{}))
	}
	c.log.WithField("commit", commit.String()).Warnf("%s of a machine that was lost is taken into %s", s.ref,
		c.o.Branch)
	return nil
}

// forkOf returns the commit of main at which a live branch began.
func (c *Cold) forkOf(ctx context.Context, main, tip cold.ID) (cold.ID, error) {
	ours := make(map[cold.ID]bool)
	queue := []cold.ID{main}
	for len(queue) > 0 && len(ours) < MaxHistory {
		id := queue[0]
		queue = queue[1:]
		if ours[id] {
			continue
		}
		if err := ctx.Err(); err != nil {
			return cold.ID{}, err
		}
		ours[id] = true
		if commit, err := ReadCommit(c.db, id); err == nil { // a shallow history ends somewhere
			queue = append(queue, commit.Parents...)
		}
	}
	at := tip
	for range maxLive {
		if ours[at] {
			return at, nil
		}
		commit, err := ReadCommit(c.db, at)
		if err != nil {
			return cold.ID{}, err
		}
		if len(commit.Parents) != 1 {
			break
		}
		at = commit.Parents[0]
	}
	return cold.ID{}, fmt.Errorf("it does not begin at a commit of %s", c.o.Branch)
}

// mergeStray commits to main what the branch changed and main did not.
func (c *Cold) mergeStray(ctx context.Context, s *stray) (commit cold.ID, err error) {
	from, err := c.At(s.base)
	if err != nil {
		return commit, err
	}
	theirs, err := c.At(s.tip)
	if err != nil {
		return commit, err
	}
	opened, err := c.Begin(ctx)
	if err != nil {
		return commit, err
	}
	defer opened.Abort()
	t := opened.(*tx)
	t.adopts = s.tip
	ours := t.Base()
	m := strayMerge{ctx: ctx, tx: t, ours: ours, base: from, theirs: theirs, s: s}
	root, err := m.root()
	if err != nil {
		return commit, err
	}
	// This comes before the commit: once main is pushed with it the live branch is deleted on the remote, and then what
	// main did not take would be nowhere else.
	if err := c.setAside(ctx, s); err != nil {
		return commit, err
	}
	return t.Commit(ctx, cold.CommitOptions{Reason: "absorb", Machine: c.o.MachineID, Files: m.taken, Root: root,
		When: time.Now()})
}

// strayMerge is a three-way merge of a volume, entry by entry: what theirs changed since base is taken if ours is still
// as in base.
type strayMerge struct {
	ctx                context.Context
	tx                 cold.Tx
	ours, base, theirs cold.Snapshot
	s                  *stray
	taken              int64
}

func (m *strayMerge) root() (cold.DirID, error) {
	a, b, l := m.ours.Root(), m.base.Root(), m.theirs.Root()
	e := mergedAttrs(&a, &b, &l)
	put, del, err := m.entries("", &a, &b, &l, 0)
	if err != nil {
		return cold.DirID{}, err
	}
	links, err := m.ours.LinkDirs(m.ctx)
	if err != nil {
		return cold.DirID{}, err
	}
	more, err := m.theirs.LinkDirs(m.ctx)
	if err != nil {
		return cold.DirID{}, err
	}
	all := maps.Clone(more)
	if all == nil {
		all = map[string][]string{}
	}
	maps.Copy(all, links)
	return m.tx.PutDir(m.ctx, a.Dir(), false, &cold.Root{Entry: e, Links: all}, put, del)
}

// mergedAttrs returns ours with the attributes of theirs, if those of ours are still as in base, and ours otherwise.
func mergedAttrs(ours, base, theirs *cold.Entry) cold.Entry {
	plain := func(e *cold.Entry) cold.Entry {
		p := *e
		p.ID, p.Meta = cold.ID{}, cold.ID{}
		return p
	}
	e := *ours
	if reflect.DeepEqual(plain(ours), plain(base)) {
		e = *theirs
		e.ID, e.Meta = ours.ID, ours.Meta
	}
	return e
}

// list returns a directory's entries by name. If dir is nil or not a directory there are none.
func (m *strayMerge) list(s cold.Snapshot, dir *cold.Entry) (map[string]*cold.Entry, error) {
	out := map[string]*cold.Entry{}
	if dir == nil || dir.Kind != cold.KindDir {
		return out, nil
	}
	l, err := s.ReadDir(m.ctx, dir.Dir())
	if err != nil {
		return nil, err
	}
	for i := range l.Entries {
		out[l.Entries[i].Name] = &l.Entries[i]
	}
	return out, nil
}

func sameEntry(a, b *cold.Entry) bool {
	return a == nil && b == nil || a != nil && b != nil && reflect.DeepEqual(*a, *b)
}

// entries merges the contents of three directories, and returns the changes to make in ours.
func (m *strayMerge) entries(at string, ours, base, theirs *cold.Entry, depth int) (put []cold.Entry, del []string,
	err error) {
	if err := m.ctx.Err(); err != nil {
		return nil, nil, err
	}
	if err := cold.TooDeepToWalk(at, depth); err != nil {
		return nil, nil, err
	}
	a, err := m.list(m.ours, ours)
	if err != nil {
		return nil, nil, err
	}
	b, err := m.list(m.base, base)
	if err != nil {
		return nil, nil, err
	}
	l, err := m.list(m.theirs, theirs)
	if err != nil {
		return nil, nil, err
	}
	names := maps.Clone(b)
	maps.Copy(names, l)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		was, now, here := b[name], l[name], a[name]
		path := strings.TrimPrefix(at+"/"+name, "/")
		dirs := here != nil && now != nil && here.Kind == cold.KindDir && now.Kind == cold.KindDir
		switch {
		case sameEntry(was, now) || sameEntry(here, now):
		case sameEntry(here, was) && now == nil:
			del = append(del, name)
			m.taken++
		case sameEntry(here, was):
			put = append(put, *now)
			m.taken++
		case dirs && (was == nil || was.Kind == cold.KindDir):
			p, d, err := m.entries(path, here, was, now, depth+1)
			if err != nil {
				return nil, nil, err
			}
			e := *here
			if was != nil {
				e = mergedAttrs(here, was, now)
			}
			if len(p) > 0 || len(d) > 0 {
				id, err := m.tx.PutDir(m.ctx, here.Dir(), false, nil, p, d)
				if err != nil {
					return nil, nil, err
				}
				e.ID, e.Meta = id.Tree, id.Meta
			}
			if !reflect.DeepEqual(e, *here) {
				put = append(put, e)
			}
		default:
			m.s.conflicts = append(m.s.conflicts, path)
		}
	}
	return put, del, nil
}

// setAside makes a branch under sidePrefix of the stray branch, if main did not take everything, and pushes it. It can
// be repeated: an earlier run may have died after it.
func (c *Cold) setAside(ctx context.Context, s *stray) error {
	if len(s.conflicts) == 0 {
		return nil
	}
	commit, err := ReadCommit(c.db, s.tip)
	if err != nil {
		return err
	}
	machine := format.Trailer(commit.Message, format.TrailerMachine)
	if machine == "" {
		machine = "unknown"
	}
	ref := sidePrefix + c.o.Branch + "/" + machine + "-" + commit.Committer.When.UTC().Format("20060102T150405Z")
	if err := c.setRef(ref, s.tip); err != nil {
		return err
	}
	if s.refs[ref] != s.tip {
		err = c.remote.Send(ctx, wire.Just([]wire.Update{{Ref: ref, New: s.tip}}, func(w io.Writer) error {
			return c.writePack(ctx, w, nil)
		}))
		if err != nil {
			return fmt.Errorf("push %s: %w", ref, err)
		}
	}
	shown := s.conflicts
	if len(shown) > 5 {
		shown = append(slices.Clone(shown[:5]), fmt.Sprintf("and %d more", len(s.conflicts)-5))
	}
	c.log.Warnf("%s was changed on both sides: %s has the version of the machine that was lost: %q", c.o.Branch, ref,
		shown)
	c.noteSide(ref)
	return nil
}

// noteSides records, for Aside, the branches of the remote that somebody has to look at.
func (c *Cold) noteSides(refs map[string]cold.ID) {
	c.mu.Lock()
	c.mu.sides = nil
	c.mu.Unlock()
	for _, ref := range slices.Sorted(maps.Keys(refs)) {
		if strings.HasPrefix(ref, sidePrefix+c.o.Branch+"/") {
			c.noteSide(ref)
		}
	}
}

func (c *Cold) noteSide(ref string) {
	name := strings.TrimPrefix(ref, "refs/heads/")
	text := fmt.Sprintf("conflict: branch %s of %s has versions of files that %s has not: take what is wanted of it "+
		"(emberfs diff, emberfs restore --commit), then remove it there", name, c.o.Source, c.o.Branch)
	c.mu.Lock()
	defer c.mu.Unlock()
	if !slices.Contains(c.mu.sides, text) {
		c.mu.sides = append(c.mu.sides, text)
	}
}

// Aside implements cold.Cold.
func (c *Cold) Aside() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.mu.sides)
}
