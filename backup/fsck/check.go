package fsck

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"emberfs/backup"
	"emberfs/backup/format"
	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

// Options say what a Checker checks. The zero value checks any bare repository.
type Options struct {
	// Volume says that the repository is the cold.git of a state directory, so its configuration, HEAD and branch must
	// be as EmberFS makes them.
	Volume bool
	// Owned says that the caller holds the volume's lock, so no other EmberFS process uses the repository meanwhile.
	Owned  bool
	Branch string  // the default is the branch that HEAD names
	Head   cold.ID // the commit that warm was last in step with; zero: none
	Origin cold.ID // the commit that warm was last restored from; zero: none
	Source string  // the remote; "" if there is none

	Deep     bool                             // hash every object of every pack, and walk the whole history
	Progress func(objects, done, total int64) // progress of Deep's hashing, in objects and in bytes on disk; may be nil
	Found    func(cold.Finding)               // is called with each finding

	UID, GID uint32
}

// Checker looks for damage in a repository. Only Repair changes anything. A Checker must be used by one goroutine at a
// time, except for Same.
type Checker struct {
	*backup.Cold
	o      Options
	faults []odb.Fault

	tip *backup.Snapshot // the newest commit; nil if there is none, or it cannot be read
	// The tip of the live branch if there is one that follows main, else of main; zero if these references make no
	// sense.
	tipID    cold.ID
	mainID   cold.ID // value of main
	tracked  cold.ID // the newest commit that the remote is known to have
	mainSeen cold.ID // where the remote's main is known to have been
	broken   []brokenRef
	lost     []lostObject
	lostSeen map[cold.ID]bool
	bad      []odb.BadObject
	hopeless map[cold.ID]bool // objects that are damaged and have no good copy
	stale    []odb.StaleFile
	walked   *odb.Marks // the objects that Check went through; nil before
	lacking  map[cold.Need][]cold.Lost
}

// brokenRef is a reference that cannot be read or that points to a missing object.
type brokenRef struct {
	name string
	id   cold.ID // zero if it cannot be read
	why  string
}

// lostObject is an object that something needs but that is missing or damaged.
type lostObject struct {
	id     cold.ID
	kind   odb.Type
	path   string // path in stored names below the commit's root; "" for a commit or its root tree
	commit cold.ID
}

// maxLost is how many lost objects are remembered, maxLostFindings how many of them become findings.
const (
	maxLost         = 1_000_000
	maxLostFindings = 1000
)

// Open opens the repository at dir. If it cannot be checked at all, the error is odb.ErrNotRepository or
// odb.ErrUnsupported.
func Open(dir string, o Options) (*Checker, error) {
	c := &Checker{o: o, lostSeen: map[cold.ID]bool{}, hopeless: map[cold.ID]bool{},
		lacking: map[cold.Need][]cold.Lost{}}
	db, faults, err := odb.OpenDamaged(dir, odb.Options{DeltaCache: 64 << 20})
	if err != nil {
		return nil, fmt.Errorf("check repository: %w", err)
	}
	if o.Branch == "" {
		o.Branch = strings.TrimPrefix(db.HeadTarget(), "refs/heads/")
	}
	if c.Cold, err = backup.Over(db, backup.Options{Branch: o.Branch, UID: o.UID, GID: o.GID}); err != nil {
		return nil, errors.Join(fmt.Errorf("check repository %s: %w", dir, err), db.Close())
	}
	c.faults = faults
	return c, nil
}

// Close closes the repository.
func (c *Checker) Close() error {
	if c.walked != nil {
		c.walked.Close()
		c.walked = nil
	}
	return c.Cold.Close()
}

// Tip returns the newest commit, on main or the live branch, or nil if there is none or it cannot be read.
func (c *Checker) Tip() cold.Snapshot {
	if c.tip == nil {
		return nil
	}
	return c.tip
}

// TipID returns the value of the live branch if one follows main, else of main; zero if these references make no sense.
func (c *Checker) TipID() cold.ID { return c.tipID }

// TipVolume returns the volume's id in the newest commit, or "".
func (c *Checker) TipVolume() string {
	if c.tip == nil {
		return ""
	}
	return c.tip.Own().Volume.Volume
}

// Pushed returns the newest commit that the remote is known to have, or zero.
func (c *Checker) Pushed() cold.ID { return c.tracked }

func (c *Checker) found(f cold.Finding) {
	if c.o.Found != nil {
		c.o.Found(f)
	}
}

const doRepair = "emberfs check --repair"

// Check checks everything and calls Options.Found for each finding. Damage is a finding; an error means that the check
// could not be made. format.ErrNewerFormat says that the volume was written by a newer version.
func (c *Checker) Check(ctx context.Context) error {
	if err := c.files(ctx); err != nil {
		return err
	}
	if c.o.Deep {
		if err := c.objects(ctx); err != nil {
			return err
		}
	}
	states, err := c.refs()
	if err != nil {
		return err
	}
	if err := c.openTip(ctx); err != nil {
		return err
	}
	w, err := c.newWalk(ctx)
	if err != nil {
		return err
	}
	c.walked = w.marks
	if err := w.history(states); err != nil {
		return err
	}
	if c.tip != nil {
		if err := c.metadata(ctx); err != nil {
			return err
		}
	}
	return c.position(ctx)
}

// files checks the repository's files, without reading objects.
func (c *Checker) files(ctx context.Context) error {
	for _, f := range c.faults {
		do := "restore the file from another clone"
		if c.o.Volume {
			do = doRepair + " makes it anew"
		}
		c.found(cold.Finding{Severity: cold.Damaged, What: f.Err.Error(), Where: f.Path, Do: do})
	}
	if c.o.Volume {
		for _, s := range c.DB().MissingSettings() {
			c.found(cold.Finding{Severity: cold.Risk, What: "the configuration has not " + s +
				": a stock git may repack behind the daemon's back",
				Where: "config", Do: doRepair + " sets it, as does the next mount"})
		}
		if t := c.DB().HeadTarget(); t != "" && t != c.MainRef() {
			c.found(cold.Finding{Severity: cold.Risk, What: fmt.Sprintf("names %s, the volume's branch is %s", t,
				c.MainRef()), Where: "HEAD",
				Do: doRepair + " sets it, as does the next mount"})
		}
	}
	var err error
	if c.stale, err = c.DB().Stale(c.o.Owned); err != nil {
		return fmt.Errorf("look for stale files: %w", err)
	}
	for _, f := range c.stale {
		c.found(cold.Finding{Severity: cold.Note, What: "a " + f.What + " of a process that is gone",
			Where: c.rel(f.Path),
			Do:    doRepair + " removes it, as does the next mount"})
	}
	locks, err := c.DB().ForeignLocks()
	if err != nil {
		return fmt.Errorf("look for locks: %w", err)
	}
	for _, l := range locks {
		c.found(cold.Finding{Severity: cold.Risk,
			What: "a lock of another program; while it is there nothing can be committed", Where: c.rel(l),
			Do: "remove it if no git works here"})
	}
	aside, err := c.DB().Aside()
	if err != nil {
		return fmt.Errorf("look for what was put aside: %w", err)
	}
	for _, p := range aside {
		c.found(cold.Finding{Severity: cold.Note, What: "was damaged and put aside; what could be read of it was saved",
			Where: p, Do: "remove it when nothing is missing"})
	}
	packs, err := c.DB().CheckPacks(ctx)
	if err != nil {
		return err
	}
	for _, f := range packs {
		c.packFault(f)
	}
	c.faults = append(c.faults, packs...)
	empty, err := c.DB().EmptyLoose()
	if err != nil || c.o.Deep {
		return err // Deep hashes them with the others
	}
	return c.judge(ctx, empty)
}

func (c *Checker) rel(p string) string {
	if r, err := filepath.Rel(c.DB().Dir(), p); err == nil {
		return r
	}
	return p
}

func (c *Checker) packFault(f odb.Fault) {
	out := cold.Finding{Severity: cold.Damaged, Where: f.Path + ".pack", What: f.Err.Error()}
	switch {
	case f.Kind == odb.FaultIndex:
		out.Where = f.Path + ".idx"
		out.What = "the pack is whole, its index is not: " + f.Err.Error()
		out.Do = doRepair + " makes a new index"
	case f.Kind == odb.FaultLostPack && f.Lost == 0:
		out.Severity = cold.Note
		out.What = "an index without its pack; all its objects are elsewhere"
		out.Do = doRepair + " puts it aside"
	case f.Kind == odb.FaultLostPack:
		out.What = fmt.Sprintf("the pack is gone, %d of its objects are nowhere else", f.Lost)
		out.Do = "put the pack back, or let " + doRepair + " fetch what the remote and warm have"
	default:
		out.Do = doRepair + " saves what can be read of it and fetches what the remote and warm have"
	}
	c.found(out)
}

// objects hashes every object.
func (c *Checker) objects(ctx context.Context) error {
	var bad []odb.BadObject
	dropped := 0
	err := c.DB().VerifyAll(ctx, func(b odb.BadObject) {
		if len(bad) < maxLost {
			bad = append(bad, b)
		} else {
			dropped++
		}
	}, c.o.Progress)
	if err != nil {
		return fmt.Errorf("verify objects: %w", err)
	}
	if dropped > 0 {
		c.found(cold.Finding{Severity: cold.Damaged, What: fmt.Sprintf("%d more damaged objects, not listed", dropped),
			Do: "clone the remote anew"})
	}
	return c.judge(ctx, bad)
}

// judge reports damaged copies of objects, and finds out which of the objects have no good copy.
func (c *Checker) judge(ctx context.Context, bad []odb.BadObject) error {
	for n, b := range bad {
		if err := ctx.Err(); err != nil {
			return err
		}
		c.bad = append(c.bad, b)
		f := cold.Finding{Severity: cold.Damaged, Where: b.Path, What: b.Err.Error(), Do: doRepair +
			" writes what can be read of it anew"}
		if !b.ID.IsZero() {
			f.Object = b.ID.String()
			switch err := c.DB().Verify(b.ID); {
			case err == nil:
				f.What += "; another copy is good"
			case errors.Is(err, cold.ErrCorrupt) || errors.Is(err, cold.ErrMissing) ||
				errors.Is(err, odb.ErrCollision) || errors.Is(err, odb.ErrTooLarge):
				c.hopeless[b.ID] = true
				f.Do = doRepair + " tries to get it from the remote and from warm"
			default:
				return err
			}
		}
		if n < maxLostFindings {
			c.found(f)
		}
	}
	if n := len(bad) - maxLostFindings; n > 0 {
		c.found(cold.Finding{Severity: cold.Damaged, What: fmt.Sprintf("%d more damaged objects", n), Do: doRepair})
	}
	return nil
}

// refs checks HEAD and all references, and returns those that can be read.
func (c *Checker) refs() ([]odb.RefState, error) {
	states, err := c.DB().RefStates()
	if err != nil {
		return nil, err
	}
	var good []odb.RefState
	broken := func(s odb.RefState, id cold.ID, why string) {
		c.broken = append(c.broken, brokenRef{s.Name, id, why})
		do := "git update-ref moves it"
		switch {
		case s.Name == "packed-refs":
			do = doRepair + " takes out what makes no sense"
		case c.IsRemoteNote(s.Name):
			do = doRepair + " forgets it; the next push finds out anew"
		case s.Name == c.MainRef() && c.o.Volume:
			do = doRepair + " sets it to the newest commit that is whole"
		}
		c.found(cold.Finding{Severity: cold.Damaged, Where: s.Name, What: why, Do: do})
	}
	there := false
	for _, s := range states {
		there = there || s.Name == c.MainRef()
		if s.Err != nil {
			if s.Name != "HEAD" { // HEAD was checked with the files
				broken(s, cold.ID{}, s.Err.Error())
			}
			continue
		}
		if s.Name == c.MainRef() {
			c.mainID, c.tipID = s.ID, s.ID
		}
		if s.Name == c.TrackingRef() {
			c.mainSeen, c.tracked = s.ID, s.ID
		}
		if s.Target != "" {
			continue
		}
		t, _, err := c.DB().Stat(s.ID)
		switch {
		case err != nil && strings.HasPrefix(s.Name, "refs/heads/"), errors.Is(err, cold.ErrMissing):
			why := err.Error()
			if backup.IsMissing(err) {
				why = fmt.Sprintf("points to %s, which is missing", s.ID)
			}
			broken(s, s.ID, why)
		case err != nil:
			broken(s, s.ID, err.Error())
		case t != odb.Commit && strings.HasPrefix(s.Name, "refs/heads/"):
			broken(s, s.ID, fmt.Sprintf("points to %s, which is a %s, not a commit", s.ID, t))
		default:
			good = append(good, s)
		}
	}
	if !there && c.o.Volume && !c.o.Head.IsZero() {
		broken(odb.RefState{Name: c.MainRef()}, cold.ID{}, "the branch has no reference, though warm is of commit "+
			c.o.Head.String())
	}
	return good, nil
}

// openTip opens the newest commit. If it is damaged, the walk over the objects reports that.
func (c *Checker) openTip(ctx context.Context) error {
	if c.tipID.IsZero() {
		return nil
	}
	p, err := c.Cold.Position(ctx)
	switch {
	case backup.IsLost(err): // main's commit is damaged, which is reported elsewhere
	case err != nil:
		return err
	case p.Main == c.mainID && !p.Live.IsZero():
		c.tipID = p.Live
	}
	if p.Taken != nil {
		c.found(cold.Finding{Severity: cold.Risk, What: p.Taken.Error(), Where: p.Ref,
			Do: "look at it with git log, then move or remove it"})
	}
	if c.tracked, err = c.Cold.Tracked(ctx); err != nil && !backup.IsLost(err) {
		return err
	}
	s, err := c.At(c.tipID)
	if errors.Is(err, format.ErrNewerFormat) {
		return err
	}
	if err == nil {
		c.tip = s
	}
	return nil
}
