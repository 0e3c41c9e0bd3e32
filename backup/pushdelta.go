package backup

import (
	"context"
	"fmt"
	"slices"
	"time"

	"emberfs/backup/format"
	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

// ClockSkew is how much older than its parent a commit may claim to be, because of wrong clocks.
const ClockSkew = 24 * time.Hour

// MaxHistory is how many commits at most are read to compare two branches.
const MaxHistory = 10_000_000

// NewCommits returns the commits that tip reaches and old does not, in the order of a breadth-first walk from tip.
// reached reports whether tip reaches old; if not, the list is everything that tip reaches. A zero old counts as
// reached.
func (c *Cold) NewCommits(ctx context.Context, tip, old cold.ID) (list []cold.ID, reached bool, err error) {
	reached = old.IsZero()
	if tip == old {
		return nil, true, nil
	}
	seen := map[cold.ID]struct{}{tip: {}}
	merges := false
	queue := []cold.ID{tip}
	for len(queue) > 0 {
		if err := ctx.Err(); err != nil {
			return nil, false, err
		}
		id := queue[0]
		queue = queue[1:]
		commit, err := ReadCommit(c.db, id)
		if err != nil {
			return nil, false, err
		}
		if list = append(list, id); len(list) > MaxHistory {
			return nil, false, fmt.Errorf("history of %s: more than %d commits", tip, MaxHistory)
		}
		merges = merges || len(commit.Parents) > 1
		for _, p := range commit.Parents {
			if p == old {
				reached = true
				continue
			}
			if _, ok := seen[p]; !ok {
				seen[p] = struct{}{}
				queue = append(queue, p)
			}
		}
	}
	if !reached || old.IsZero() || !merges { // without a merge the walk has ended at old
		return list, reached, nil
	}
	return c.without(ctx, list, old)
}

// without drops from list what old reaches too: beside a merge, the walk from tip gets past old to its ancestors.
func (c *Cold) without(ctx context.Context, list []cold.ID, old cold.ID) ([]cold.ID, bool, error) {
	in := make(map[cold.ID]bool, len(list))
	for _, id := range list {
		in[id] = true
	}
	queue := []cold.ID{old}
	seen := map[cold.ID]struct{}{old: {}}
	for len(queue) > 0 && len(in) > 0 {
		if err := ctx.Err(); err != nil {
			return nil, false, err
		}
		commit, err := ReadCommit(c.db, queue[0])
		if IsMissing(err) {
			break // a shallow history ends here
		}
		if err != nil {
			return nil, false, err
		}
		queue = queue[1:]
		for _, p := range commit.Parents {
			if _, ok := seen[p]; !ok {
				seen[p] = struct{}{}
				queue = append(queue, p)
				delete(in, p)
			}
		}
	}
	kept := list[:0]
	for _, id := range list {
		if in[id] {
			kept = append(kept, id)
		}
	}
	return kept, true, nil
}

// delta collects the objects of a push: what the new commits reach minus what the old tree reaches, found by comparing
// trees.
type delta struct {
	ctx  context.Context
	db   *odb.DB
	seen map[cold.ID]struct{}
	ids  []cold.ID
}

// commits adds what the commits in list reach and the tree of old does not.
func (d *delta) commits(list []cold.ID, old cold.ID) error {
	var oldTree cold.ID
	if !old.IsZero() && len(list) > 0 {
		commit, err := ReadCommit(d.db, old)
		if err != nil {
			return err
		}
		oldTree = commit.Tree
		d.seen[oldTree] = struct{}{}
	}
	for _, id := range list {
		commit, err := ReadCommit(d.db, id)
		if err != nil {
			return err
		}
		d.add(id)
		if err := d.tree(commit.Tree, oldTree); err != nil {
			return fmt.Errorf("commit %s: %w", id, err)
		}
	}
	return nil
}

// add adds an object and reports whether it is new.
func (d *delta) add(id cold.ID) bool {
	if _, ok := d.seen[id]; ok {
		return false
	}
	d.seen[id] = struct{}{}
	d.ids = append(d.ids, id)
	return true
}

// tree adds a tree and what it reaches, except what the tree old has at the same place. There is no limit to the depth
// of trees: what a commit contains has to be sent, whoever made it.
func (d *delta) tree(id, old cold.ID) error {
	type pair struct{ id, old cold.ID }
	for todo := []pair{{id, old}}; len(todo) > 0; {
		p := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if p.id == p.old || !d.add(p.id) {
			continue
		}
		if err := d.ctx.Err(); err != nil {
			return err
		}
		entries, err := format.ReadTree(d.db, p.id, format.Ignored())
		if IsMissing(err) {
			continue // see withoutLost
		}
		if err != nil {
			return fmt.Errorf("tree %s: %w", p.id, err)
		}
		var have []odb.TreeEntry
		if !p.old.IsZero() {
			// If the old tree cannot be read, everything below is sent: sending too much is never wrong.
			have, _ = format.ReadTree(d.db, p.old, format.Ignored())
		}
		there := make(map[string]odb.TreeEntry, len(have))
		for _, e := range have {
			there[e.Name] = e
		}
		for _, e := range entries {
			h := there[e.Name]
			switch {
			case e.Mode == odb.ModeGitlink || h.ID == e.ID:
			case e.Mode == odb.ModeTree:
				below := pair{id: e.ID}
				if h.Mode == odb.ModeTree {
					below.old = h.ID
				}
				todo = append(todo, below)
			default:
				d.add(e.ID)
			}
		}
	}
	return nil
}

// withoutLost removes from the list objects that are missing here but that the other side has as part of base, if at
// another place: moving a file whose content was lost must not make the push fail.
func (d *delta) withoutLost(base cold.ID) error {
	lost := map[cold.ID]bool{}
	for _, id := range d.ids {
		if !d.db.Has(id) {
			lost[id] = true
		}
	}
	if len(lost) == 0 || base.IsZero() {
		return nil // if some are missing, sending them fails
	}
	commit, err := ReadCommit(d.db, base)
	if err != nil {
		return err
	}
	there := map[cold.ID]bool{}
	seen := map[cold.ID]bool{}
	for todo := []cold.ID{commit.Tree}; len(todo) > 0; {
		id := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if seen[id] {
			continue
		}
		seen[id] = true
		if err := d.ctx.Err(); err != nil {
			return err
		}
		entries, err := format.ReadTree(d.db, id, format.Ignored())
		if err != nil {
			continue // what is below it cannot have been moved by a commit made here
		}
		for _, e := range entries {
			if there[e.ID] = lost[e.ID]; e.Mode == odb.ModeTree {
				todo = append(todo, e.ID)
			}
		}
	}
	d.ids = slices.DeleteFunc(d.ids, func(id cold.ID) bool { return there[id] })
	return nil
}
