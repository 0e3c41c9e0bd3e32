package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"emberfs/backup/odb"
	"emberfs/backup/wire"
	"emberfs/tiers/cold"
)

// Push implements cold.Cold. If the remote's branches are behind ours, they are pushed from where they are, even if we
// thought them further: the last push may have failed. A branch that somebody deleted there is created again, since
// that loses nothing.
func (c *Cold) Push(ctx context.Context) error {
	if c.remote == nil {
		return nil
	}
	done, err := c.exclusive(ctx)
	if err == nil {
		defer done()
		err = c.push(ctx)
	}
	if err != nil {
		return fmt.Errorf("push branch %s: %w", c.o.Branch, err)
	}
	return nil
}

func (c *Cold) push(ctx context.Context) error {
	p := &outgoing{c: c, ctx: ctx, done: make(map[string]cold.ID)}
	if c.failedDeletions() >= deletionsMost {
		p.undeleted = errDeletions
	}
	for {
		err := c.remote.Send(ctx, p.plan)
		again := false
		switch {
		case err == nil:
			if !p.more {
				return p.sent()
			}
			again, err = p.step()
		case errors.Is(err, wire.ErrNotAtomic):
			again, p.single = !p.single, true
		case mayBeDeletion(err) && (p.moved || !errors.Is(err, cold.ErrDiverged)) && p.deletes() &&
			p.undeleted == nil:
			again, p.undeleted = true, err
		case errors.Is(err, cold.ErrDiverged) && len(p.updates) > 0 && !p.moved:
			// The references moved after they were listed: it may have been an earlier push of ours, whose answer was
			// lost while the remote was still at work with it. The next plan tells.
			again, p.moved = true, true
		case lacks(err) && !p.all:
			again, p.all = true, true
			c.log.WithError(err).Warn("the remote lacks objects of its own commits: everything is sent")
		}
		if !again {
			if p.deletes() && ctx.Err() == nil {
				c.noteDeletions(false)
			}
			return c.lasting(err)
		}
	}
}

// deletionsMost is how often a push with deletions may fail, for whatever reason, before one goes without.
const deletionsMost = 3

var errDeletions = errors.New("pushes that delete something have failed several times")

// failedDeletions is how many pushes with deletions have failed since the last push that did not.
func (c *Cold) failedDeletions() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.deletions
}

func (c *Cold) noteDeletions(good bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.deletions++; good {
		c.mu.deletions = 0
	}
}

// mayBeDeletion reports whether a push may have failed because of a deletion that went with it.
func mayBeDeletion(err error) bool {
	var refused *cold.RefusedError
	var busy *cold.BusyError
	// What has an error behind it is of the link, of an HTTP server or of ssh.
	return errors.As(err, &refused) && refused.Err == nil || errors.As(err, &busy) && busy.Err == nil ||
		errors.Is(err, cold.ErrDiverged)
}

// lacks reports whether the remote refused a push because it has not all that its commits reach.
func lacks(err error) bool {
	var refused *cold.RefusedError
	if !errors.As(err, &refused) {
		return false
	}
	// The texts of builtin/receive-pack.c, index-pack.c and unpack-objects.c.
	return slices.ContainsFunc([]string{"missing necessary objects", "did not receive expected object",
		"object of unexpected type"}, func(text string) bool { return strings.Contains(refused.Reason, text) })
}

// outgoing is one push, of one conversation or, where the remote cannot take all at once, of several.
type outgoing struct {
	c   *Cold
	ctx context.Context

	single    bool               // the remote moves one reference at a time
	all       bool               // what the remote's commits reach is sent too, since the remote may lack it
	moved     bool               // the remote's references moved in between, once
	undeleted error              // why a push with deletions failed; no more are tried then
	done      map[string]cold.ID // where references were moved to in earlier conversations

	// What the last plan was.
	ours    Position
	updates []wire.Update
	more    bool // another conversation has to follow
	fresh   bool // the remote had no branch
	gone    []absorbed
	parts   []string // our references to parts, which are not needed any more
}

// deletes reports whether the last plan had deletions.
func (p *outgoing) deletes() bool {
	return slices.ContainsFunc(p.updates, func(u wire.Update) bool { return u.New.IsZero() })
}

// step notes what a conversation that was not the last one has moved. A remote that does not show at the next one what
// it has acknowledged would keep us here for ever.
func (p *outgoing) step() (bool, error) {
	moved := false
	for _, u := range p.updates {
		if at, ok := p.done[u.Ref]; u.Old != u.New && (!ok || at != u.New) {
			p.done[u.Ref], moved = u.New, true
		}
	}
	if !moved {
		return false, fmt.Errorf("the remote acknowledges what it does not do: %s is not where it was moved to",
			p.updates[0].Ref)
	}
	return true, nil
}

// plan is the wire.Plan: everything that the remote lacks, and the deletion of what nobody needs any more.
func (p *outgoing) plan(refs map[string]cold.ID) ([]wire.Update, func(io.Writer) error, error) {
	c, ctx := p.c, p.ctx
	p.updates, p.gone, p.parts, p.more = nil, nil, nil, false
	c.heard()
	var err error
	if p.ours, err = c.Position(ctx); err != nil {
		return nil, nil, err
	}
	c.noteSides(refs)
	if p.ours.Main.IsZero() {
		return nil, nil, nil
	}
	p.fresh = refs[c.ref].IsZero() && !hasBranch(refs)
	if refs[c.ref].IsZero() {
		if err := c.remote.Broken(ctx, c.ref); err != nil {
			return nil, nil, err
		}
		if err := c.noteMissing(refs, p.ours.Main); err != nil {
			return nil, nil, err
		}
	}
	parts, err := c.planPush(ctx, p.ours, refs)
	if err != nil {
		return nil, nil, err
	}
	if p.single && len(parts) > 1 {
		if p.more = parts[0].Old != parts[0].New; p.more {
			parts = parts[:1]
		} else {
			parts = parts[1:]
		}
	}
	if p.all {
		for i := range parts {
			parts[i].base = cold.ID{}
		}
	}
	ids, err := p.cut(parts, refs)
	if err != nil {
		return nil, nil, err
	}
	if err := p.remove(refs); err != nil {
		return nil, nil, err
	}
	return p.updates, func(w io.Writer) error { return c.writePack(ctx, w, ids) }, nil
}

// objects lists what has to be sent for parts, besides what the remote has, by tree and in carriers.
func (c *Cold) objects(ctx context.Context, parts []part, has map[cold.ID]struct{}) ([]cold.ID, error) {
	d := delta{ctx: ctx, db: c.db, seen: make(map[cold.ID]struct{}, len(has))}
	for id := range has {
		d.seen[id] = struct{}{}
	}
	for _, p := range parts {
		if err := d.commits(p.commits, p.base); err != nil {
			return nil, err
		}
		if err := d.withoutLost(p.base); err != nil {
			return nil, err
		}
	}
	return d.ids, nil
}

// sent notes that the remote has everything.
func (p *outgoing) sent() error {
	c := p.c
	c.lasting(nil)
	c.noteDeletions(true)
	if p.ours.Main.IsZero() {
		return nil
	}
	if p.fresh {
		if err := c.remote.SetHead(p.ctx, c.ref); err != nil { // the branch is there all the same
			c.log.WithError(err).Warnf("a clone of %s checks out nothing: its HEAD names another branch", c.o.Source)
		}
	}
	c.note("branch", nil)
	if err := c.setTracking(p.ours.Main, p.ours.Live, cold.ID{}, p.ours.Live); err != nil {
		return err
	}
	return p.removed()
}

// hasBranch reports whether the remote has a branch other than EmberFS's own.
func hasBranch(refs map[string]cold.ID) bool { return len(branches(refs)) > 0 }

// part is one branch to push.
type part struct {
	wire.Update
	commits []cold.ID
	base    cold.ID // a commit that the remote has when this part is pushed; zero: none
	from    cold.ID // the commit after which commits begin; zero: they are all
}

// planPush finds out what the remote lacks and returns what to push, main first. It returns ErrDiverged if the remote
// has commits that we lack.
func (c *Cold) planPush(ctx context.Context, ours Position, refs map[string]cold.ID) (parts []part, err error) {
	theirs := refs[c.ref]
	main := part{Update: wire.Update{Ref: c.ref, Old: theirs, New: ours.Main}, base: theirs, from: theirs}
	if theirs != ours.Main {
		if !theirs.IsZero() && !c.db.Has(theirs) {
			return nil, cold.ErrDiverged
		}
		var ahead bool
		if main.commits, ahead, err = c.NewCommits(ctx, ours.Main, theirs); err != nil {
			return nil, err
		}
		if !ahead {
			return nil, cold.ErrDiverged
		}
	}
	seen, err := c.checkLive(ctx, ours, theirs, refs)
	if err != nil {
		return nil, err
	}
	if theirs != ours.Main && !seen.IsZero() {
		main.base = seen // what main absorbed need not be sent again
	}
	at := refs[ours.Ref]
	switch {
	case ours.Live.IsZero() || ours.Live == at:
	case at != (cold.ID{}) && c.isIgnored(ours.Ref, at):
		return nil, fmt.Errorf("%s of %s is taken by something else: remove it there", ours.Ref, c.o.Source)
	default:
		live := part{Update: wire.Update{Ref: ours.Ref, Old: at, New: ours.Live}, base: at}
		if at.IsZero() {
			live.base = ours.Main
		}
		live.from = live.base
		if live.commits, _, err = c.NewCommits(ctx, ours.Live, live.from); err != nil {
			return nil, err
		}
		// main is pushed too even if it is not to move, so that the remote checks that main is still there when the
		// live branch moves.
		return []part{main, live}, nil
	}
	if theirs == ours.Main {
		return nil, nil
	}
	return []part{main}, nil
}

// checkLive returns the tip of the live branch at the remote's main, and makes sure that our branches contain all of
// it: once the remote's main moves, nobody will look at that live branch any more.
func (c *Cold) checkLive(ctx context.Context, ours Position, main cold.ID, refs map[string]cold.ID) (at cold.ID,
	err error) {
	if main.IsZero() {
		return at, nil
	}
	ref, err := c.liveRefAt(main)
	if err != nil {
		return at, err
	}
	at = refs[ref]
	if at.IsZero() || at == main || c.isIgnored(ref, at) {
		return cold.ID{}, nil
	}
	known := false
	if c.db.Has(at) {
		if known, err = c.follows(ctx, ours.Newest(), at, time.Time{}); err != nil {
			return at, err
		}
	}
	if !known {
		return at, fmt.Errorf("%w: %s is at %s", cold.ErrDiverged, ref, at)
	}
	return at, nil
}

func (c *Cold) isIgnored(ref string, tip cold.ID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.ignored[ref] == tip
}

func (c *Cold) writePack(ctx context.Context, w io.Writer, ids []cold.ID) error {
	p, err := odb.NewPackStream(w, len(ids))
	if err != nil {
		return err
	}
	m := newMeter(c.o.Progress, "push")
	defer m.end()
	for i, id := range ids {
		m.at(int64(i), int64(len(ids)), p.Bytes())
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := c.db.CopyTo(p, id); err != nil {
			return fmt.Errorf("object %s: %w", id, err)
		}
	}
	return p.Close()
}

// lockedMost is how long a lock on the remote may stay before somebody has to look at it.
const lockedMost = 5 * time.Minute

// lasting returns the error of a push, nil for a success. A lock that stays becomes a refusal: its owner is dead.
func (c *Cold) lasting(err error) error {
	var busy *cold.BusyError
	c.mu.Lock()
	defer c.mu.Unlock()
	if !errors.As(err, &busy) || !busy.Locked {
		c.mu.locked = time.Time{}
		return err
	}
	if c.mu.locked.IsZero() {
		c.mu.locked = time.Now()
	}
	if time.Since(c.mu.locked) < c.lockedMost {
		return err
	}
	return fmt.Errorf("%w (%w)", &cold.RefusedError{
		Reason: fmt.Sprintf("a lock has been there since %s", c.mu.locked.Format(time.DateTime)),
		Advice: "if nothing is at work in that repository, remove the file *.lock that is named"}, err)
}
