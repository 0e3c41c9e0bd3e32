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
	// absorbedPrefix begins the names of live branches that main has absorbed here and the remote may still have:
	// refs/emberfs/absorbed/BRANCH/EPOCH. They keep what was pushed of them readable until it is deleted there.
	absorbedPrefix = "refs/emberfs/absorbed/"
	// maxAbsorbed bounds what the trailer names; more machines than that do not share one epoch.
	maxAbsorbed = 16
)

func (c *Cold) absorbedRef(epoch string) string { return absorbedPrefix + c.o.Branch + "/" + epoch }

// absorbing lists what a commit to main has to name when it absorbs the live branch: its tip, and the commits at which
// another machine took over. Each of those machines may come back with one of them as its last.
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
		id = commit.Parents[0] // position has found it to lead to main
	}
	return list, nil
}

// absorbedOf reads the trailer; one with a wrong word is none.
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

// retire removes a live branch that main has absorbed. With a remote it goes on under a hidden name until Push has
// deleted it there. What fails is done by the next settle: a live branch that does not follow main's tip means nothing
// to anybody.
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

// settle retires what a kill left of live branches that main has absorbed, and reports those that it has not: somebody
// moved main without them. They stay.
func (c *Cold) settle(ctx context.Context) error {
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

// absorbedUnseen says whether a live commit went into newer by way of live commits that were never here. Whoever pushes
// to main has all that the live branch has there, so what was ever seen there is in the commit that absorbed the
// branch.
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

// absorbedBeyond says whether older is on the live branch that tip was on, and newer's main absorbed a later state of
// that.
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
