package backup

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"emberfs/backup/format"
	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

const (
	// absorbedPrefix begins the references refs/emberfs/absorbed/BRANCH/EPOCH. Each holds the tip of a live branch that
	// main has absorbed here but that the remote may still have. It keeps the pushed commits of that branch readable
	// until the remote's branch is deleted.
	absorbedPrefix = "refs/emberfs/absorbed/"
	// maxAbsorbed is how many commits the trailer Emberfs-Absorbs names at most; more machines than that will not share
	// one epoch.
	maxAbsorbed = 16
)

func (c *Cold) absorbedRef(epoch string) string { return absorbedPrefix + c.o.Branch + "/" + epoch }

// absorbing returns the commits that a commit to main must name when it absorbs the live branch: the branch's tip, and
// the commits at which another machine took over. Each of those machines may come back with one of them as its newest
// commit.
func (c *Cold) absorbing(ctx context.Context, p Position) (list []cold.ID, err error) {
	machine := ""
	for id := p.Live; id != p.Main && len(list) < maxAbsorbed; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		commit, err := ReadCommit(c.db, id)
		if err != nil {
			return nil, err
		}
		if m := format.Trailer(commit.Message, format.TrailerMachine); len(list) == 0 || m != machine {
			list, machine = append(list, id), m
		}
		id = commit.Parents[0] // there is a parent: Position has checked that the branch leads to main
	}
	return list, nil
}

// absorbedOf reads the trailer Emberfs-Absorbs. If any word of it is invalid, the whole trailer is ignored.
func absorbedOf(commit *odb.CommitData) []cold.ID {
	words := strings.Fields(format.Trailer(commit.Message, format.TrailerAbsorbs))
	if len(words) > maxAbsorbed {
		return nil
	}
	var list []cold.ID
	for _, w := range words {
		id, err := cold.ParseID(w)
		if err != nil {
			return nil
		}
		list = append(list, id)
	}
	return list
}

// retire removes a live branch that main has absorbed. If there is a remote, its tip is kept in a hidden reference
// until Push has deleted the branch there. A failure is only logged, and the next retireAbsorbed tries again: a live
// branch that does not descend from main's tip is ignored by everybody.
func (c *Cold) retire(ref string, tip cold.ID) {
	err := func() error {
		if c.remote != nil {
			hidden := c.absorbedRef(strings.TrimPrefix(ref, c.liveRef("")))
			old, err := c.ReadRef(hidden)
			if err == nil && old != tip {
				err = c.db.UpdateRef(hidden, old, tip)
			}
			if err != nil {
				return err
			}
		}
		return c.db.DeleteRef(ref, tip)
	}()
	if err != nil && !errors.Is(err, odb.ErrNoRef) {
		c.log.WithError(err).Warn("a live branch that the last commit has absorbed stays until the next start")
	}
}

// takeEffect retires live branches that main has absorbed but that are still here, because a kill came first. Others
// that do not descend from main's tip are reported, and stay: somebody moved main without them.
func (c *Cold) retireAbsorbed(ctx context.Context) error {
	p, err := c.Position(ctx)
	if err != nil || p.Main.IsZero() {
		return err
	}
	list, err := c.epochs(livePrefix)
	if err != nil {
		return err
	}
	fetched, err := c.ReadRef(c.fetchedRef())
	if err != nil {
		return err
	}
	for epoch, tip := range list {
		ref := c.liveRef(epoch)
		if ref == p.Ref || tip == fetched { // a Fetch was cut before it moved main there
			continue
		}
		commit, err := ReadCommit(c.db, tip)
		var in bool
		if err == nil {
			in, err = c.follows(ctx, p.Main, tip, commit.Committer.When.Add(-ClockSkew))
		}
		if err == nil && !in {
			in, err = c.absorbedUnseen(ctx, p.Main, tip)
		}
		switch {
		case IsLost(err):
			c.note(ref, fmt.Errorf("%s is ignored: %w; remove it", ref, err))
		case err != nil:
			return err
		case in:
			c.retire(ref, tip)
		default:
			c.note(ref, fmt.Errorf("%s has commits that %s has not and does not follow its tip, so it is ignored: "+
				"merge what is wanted of it, then remove it",
				ref, c.o.Branch))
		}
	}
	return nil
}

// Follows implements cold.Cold.
func (c *Cold) Follows(ctx context.Context, newer, older cold.ID) (bool, error) {
	ok, err := c.follows(ctx, newer, older, time.Time{})
	if !ok && err == nil {
		ok, err = c.absorbedUnseen(ctx, newer, older)
	}
	return ok, err
}

// absorbedUnseen reports whether the live commit older went into newer by way of live commits that were never in this
// repository. Whoever pushes to main first makes sure to have all of the remote's live branch, so everything that was
// once seen there is contained in the commit that absorbed the branch.
func (c *Cold) absorbedUnseen(ctx context.Context, newer, older cold.ID) (bool, error) {
	shared, err := c.ReadRef(c.sharedRef())
	if err != nil {
		return false, err
	}
	absorbed, err := c.epochs(absorbedPrefix)
	if err != nil {
		return false, err
	}
	tips := slices.Collect(maps.Values(absorbed))
	if !shared.IsZero() {
		tips = append(tips, shared)
	}
	for _, tip := range tips {
		if ok, err := c.absorbedBeyond(ctx, newer, older, tip); ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

// absorbedBeyond reports whether older is on the live branch that tip was on and the main of newer absorbed a later
// state of that branch.
func (c *Cold) absorbedBeyond(ctx context.Context, newer, older, tip cold.ID) (bool, error) {
	place := make(map[cold.ID]int) // among the first parents of tip
	for at := tip; len(place) < maxLive; {
		place[at] = len(place)
		commit, err := ReadCommit(c.db, at)
		if IsLost(err) || err == nil && len(commit.Parents) == 0 {
			break
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return false, err
		}
		at = commit.Parents[0]
	}
	n, ok := place[older]
	if !ok {
		return false, nil
	}
	for range MaxHistory {
		commit, err := ReadCommit(c.db, newer)
		if err == nil {
			err = ctx.Err()
		}
		if err != nil || len(commit.Parents) == 0 {
			return false, err
		}
		newer = commit.Parents[0]
		if began, ok := place[newer]; ok {
			return n < began && len(absorbedOf(&commit)) > 0, nil
		}
	}
	return false, nil
}
