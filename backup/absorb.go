package backup

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"emberfs/backup/odb"
	"emberfs/tiers"
)

const (
	// absorbedPrefix begins the names of live branches that main has absorbed here and the remote may still have:
	// refs/emberfs/absorbed/BRANCH/EPOCH. They keep what was pushed of them readable until it is deleted there.
	absorbedPrefix = "refs/emberfs/absorbed/"
	// maxAbsorbed bounds what the trailer names; more machines than that do not share one epoch.
	maxAbsorbed = 16
)

func (c *Cold) absorbedRef(epoch string) string { return absorbedPrefix + c.o.Branch + "/" + epoch }

// absorbing lists what a commit to main has to name when it absorbs the live branch: its tip, and the commits at which another
// machine took over. Each of those machines may come back with one of them as its last.
func (c *Cold) absorbing(ctx context.Context, p position) (list []tiers.ID, err error) {
	machine := ""
	for id := p.live; id != p.main && len(list) < maxAbsorbed; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		commit, err := readCommit(c.db, id)
		if err != nil {
			return nil, err
		}
		if m := trailer(commit.Message, trailerMachine); len(list) == 0 || m != machine {
			list, machine = append(list, id), m
		}
		id = commit.Parents[0] // position has found it to lead to main
	}
	return list, nil
}

// absorbedOf reads the trailer; one with a wrong word is none.
func absorbedOf(commit *odb.CommitData) []tiers.ID {
	words := strings.Fields(trailer(commit.Message, trailerAbsorbs))
	if len(words) > maxAbsorbed {
		return nil
	}
	var list []tiers.ID
	for _, w := range words {
		id, err := tiers.ParseID(w)
		if err != nil {
			return nil
		}
		list = append(list, id)
	}
	return list
}

// retire removes a live branch that main has absorbed. With a remote it goes on under a hidden name until Push has deleted it there.
// What fails is done by the next settle: a live branch that does not follow main's tip means nothing to anybody.
func (c *Cold) retire(ref string, tip tiers.ID) {
	err := func() error {
		if c.remote != nil {
			hidden := c.absorbedRef(strings.TrimPrefix(ref, c.liveRef("")))
			old, err := c.readRef(hidden)
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

// settle retires what a kill left of live branches that main has absorbed, and reports those that it has not: somebody moved main
// without them. They stay.
func (c *Cold) settle(ctx context.Context) error {
	p, err := c.position(ctx)
	if err != nil || p.main.IsZero() {
		return err
	}
	list, err := c.epochs(livePrefix)
	if err != nil {
		return err
	}
	for epoch, tip := range list {
		ref := c.liveRef(epoch)
		if ref == p.ref {
			continue
		}
		commit, err := readCommit(c.db, tip)
		var in bool
		if err == nil {
			in, err = c.follows(ctx, p.main, tip, commit.Committer.When.Add(-clockSkew))
		}
		switch {
		case isLost(err):
			c.note(ref, fmt.Errorf("%s is ignored: %w; remove it", ref, err))
		case err != nil:
			return err
		case in:
			c.retire(ref, tip)
		default:
			c.note(ref, fmt.Errorf("%s has commits that %s has not and does not follow its tip, so it is ignored: merge what is wanted of it, then remove it",
				ref, c.o.Branch))
		}
	}
	return nil
}
