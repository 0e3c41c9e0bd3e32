package backup

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"emberfs/backup/odb"
	"emberfs/backup/wire"
	"emberfs/tiers/cold"
)

// absorbed is a live branch that main, which is being pushed, has absorbed.
type absorbed struct {
	epoch string
	tip   cold.ID // that was absorbed
	asked bool    // the remote has it, and was asked to delete it
}

// remove adds to the updates the deletion of live branches on the remote that main has absorbed, and of carriers that
// nobody needs any more. What stays is ignored by everybody. A live branch that has moved on since belongs to somebody
// and stays.
func (p *outgoing) remove(refs map[string]cold.ID) error {
	if p.more {
		return nil // main is not yet there
	}
	c := p.c
	list, err := c.epochs(absorbedPrefix)
	if err != nil {
		return err
	}
	var old []wire.Update
	for _, epoch := range slices.Sorted(maps.Keys(list)) {
		tip, ref := list[epoch], c.liveRef(epoch)
		in, err := c.Follows(p.ctx, p.ours.Main, tip)
		if err != nil {
			return err
		}
		if !in {
			continue // it was absorbed by a commit that is newer than this push
		}
		at := refs[ref]
		asked := false
		if !at.IsZero() {
			if asked, err = p.mayRemove(ref, at, tip); err != nil {
				return err
			}
		}
		if asked {
			old = append(old, wire.Update{Ref: ref, Old: at})
		}
		p.gone = append(p.gone, absorbed{epoch, tip, asked})
	}
	carriers, err := p.oldCarriers(refs)
	if err != nil {
		return err
	}
	old = append(old, carriers...)
	c.mu.Lock()
	never := c.mu.undeleted
	c.mu.Unlock()
	switch {
	case len(old) == 0 || never || p.undeleted != nil:
	case !p.single:
		p.updates = append(p.updates, old...)
	case len(p.updates) > 0:
		p.more = true // the deletions come one by one
	default:
		p.updates, p.more = old[:1], len(old) > 1
	}
	return nil
}

// mayRemove reports whether main has absorbed all of a live branch of the remote.
func (p *outgoing) mayRemove(ref string, at, tip cold.ID) (bool, error) {
	known := at == tip
	if !known && p.c.db.Has(at) {
		var err error
		if known, err = p.c.follows(p.ctx, tip, at, time.Time{}); err != nil {
			return false, err
		}
	}
	if !known {
		p.c.log.Warnf("%s of the remote has moved on to %s and is left alone", ref, at)
	}
	return known, nil
}

// removed forgets the live branches that are not on the remote any more, or have to stay there.
func (p *outgoing) removed() error {
	c := p.c
	var refused *cold.RefusedError
	switch why := p.undeleted; {
	case errors.As(why, &refused):
		c.note("delete", fmt.Errorf("%s does not let live branches be deleted, they pile up below %s: %s", c.o.Source,
			livePrefix, refused.Reason))
		c.mu.Lock()
		c.mu.undeleted = true
		c.mu.Unlock()
	case errors.Is(why, cold.ErrDiverged):
		c.log.WithError(why).Warnf("a live branch of the remote has moved on and is left alone")
	case why != nil:
		c.log.WithError(why).Warn("absorbed live branches stay on the remote until the next push")
	}
	for _, a := range p.gone {
		if a.asked && p.undeleted != nil && refused == nil && !errors.Is(p.undeleted, cold.ErrDiverged) {
			continue
		}
		if err := c.db.DeleteRef(c.absorbedRef(a.epoch), a.tip); err != nil && !errors.Is(err, odb.ErrNoRef) {
			return err
		}
	}
	for _, ref := range p.parts {
		if err := c.setRef(ref, cold.ID{}); err != nil {
			return err
		}
	}
	return nil
}
