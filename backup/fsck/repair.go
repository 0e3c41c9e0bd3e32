package fsck

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"emberfs/backup"
	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

// RepairOptions configure Checker.Repair.
type RepairOptions struct {
	// Step is called with what is about to be done, and where. The function that it returns is called with the outcome.
	Step func(what, where string) (ended func(result string, err error))
	// WarmFiles calls f with the files in warm that pick selects, as inspect.WarmFiles does. Nil means that there is no
	// warm.
	WarmFiles func(ctx context.Context, pick func(path string, id cold.ID) bool,
		f func(path string, c cold.Content) error) error
	Needs []cold.Need // things of which warm has only records, and of which Lacks found something lost
}

// Repaired is what Checker.Repair leaves for its caller to do.
type Repaired struct {
	// Head is the commit that warm counts as belonging to from now on; zero means that it does not change.
	Head cold.ID
	// Lost are the paths of directories and files of the newest commit whose objects could not be had again. Their
	// records must be removed, so that the next commit stores what warm has.
	Lost []string
}

// repairer repairs what a Checker found.
type repairer struct {
	c      *Checker
	ctx    context.Context
	o      RepairOptions
	db     *odb.DB
	cold   *backup.Cold
	remote *odb.DB // nil if there is none that can be read
	now    *Checker
}

// Repair repairs what Check found, as far as that loses no byte. Each step is announced before it is done; if one
// fails, the others are done all the same. What is replaced is kept in the repository's directories emberfs_broken and
// objects/pack/emberfs_bad. The caller must hold the volume's lock, and should check again afterwards.
func (c *Checker) Repair(ctx context.Context, o RepairOptions) (out Repaired, err error) {
	r := &repairer{c: c, ctx: ctx, o: o}
	for _, f := range c.stale {
		r.step("remove a stale "+f.What, c.rel(f.Path), func() (string, error) { return "", f.Remove() })
	}
	if c.o.Volume && r.needsBase() {
		r.step("make the repository's directories, HEAD and configuration what they have to be", c.DB().Dir(),
			func() (string, error) {
				kept, err := odb.RepairBase(c.DB().Dir(), c.Branch())
				return keptText(kept...), err
			})
	}
	if r.db, err = odb.Open(c.DB().Dir(), odb.Options{DeltaCache: 64 << 20}); err != nil {
		return out, fmt.Errorf("repair: %w", err)
	}
	defer func() { err = errors.Join(err, r.db.Close()) }()
	r.cold = c.Cold.With(r.db)
	r.packs()
	r.openRemote()
	if r.remote != nil {
		defer func() { err = errors.Join(err, r.remote.Close()) }()
	}
	if err := r.objects(); err != nil {
		return out, err
	}
	if err := r.references(); err != nil {
		return out, err
	}
	r.damagedCopies()
	if out.Head, err = r.head(); err != nil {
		return out, err
	}
	out.Lost = r.lostPaths()
	return out, ctx.Err()
}

// step announces one thing, does it and reports the outcome.
func (r *repairer) step(what, where string, do func() (string, error)) bool {
	if r.ctx.Err() != nil {
		return false
	}
	ended := r.o.Step(what, where)
	result, err := do()
	ended(result, err)
	return err == nil
}

func keptText(kept ...string) string {
	kept = slices.DeleteFunc(kept, func(s string) bool { return s == "" })
	if len(kept) == 0 {
		return ""
	}
	return "what was there is in " + strings.Join(kept, ", ")
}

func (r *repairer) needsBase() bool {
	for _, f := range r.c.faults {
		if f.Kind == odb.FaultLayout || f.Kind == odb.FaultHead || f.Kind == odb.FaultConfig {
			return true
		}
	}
	return len(r.c.DB().MissingSettings()) > 0 || r.c.DB().HeadTarget() != r.c.MainRef()
}

// packs makes new indexes, and saves what can be read of damaged packs.
func (r *repairer) packs() {
	for _, f := range r.c.faults {
		name := path.Base(f.Path)
		switch {
		case f.Kind == odb.FaultIndex:
			r.step("make a new index", f.Path+".idx", func() (string, error) { return r.mend(name) })
		case f.Kind == odb.FaultPack:
			r.step("save what can be read of a damaged pack, and put it aside", f.Path+".pack", func() (string, error) {
				return r.mend(name)
			})
		case f.Kind == odb.FaultLostPack && f.Lost == 0:
			r.step("put an index without pack aside", f.Path+".idx", func() (string, error) {
				return "", r.db.SetAside(f.Path + ".idx")
			})
		}
	}
}

func (r *repairer) mend(name string) (string, error) {
	aside, saved, err := r.db.Mend(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "done when the repository was opened", nil
	}
	if err == nil && aside {
		return fmt.Sprintf("%s saved; the pack is in objects/pack/emberfs_bad", plural(saved, "object", "objects")), nil
	}
	return "", err
}

// openRemote opens the remote for reading, if it is a path.
func (r *repairer) openRemote() {
	src := strings.TrimPrefix(r.c.o.Source, "file://")
	if !filepath.IsAbs(src) {
		return
	}
	db, err := odb.OpenReadOnly(src, odb.Options{})
	if err != nil {
		r.step("look for objects in the remote", src, func() (string, error) { return "", err })
		return
	}
	r.remote = db
}

// look walks the repository as it is now and notes what is lost, without reporting it.
func (r *repairer) look() error {
	o := r.c.o
	o.Found, o.Progress = nil, nil
	r.now = &Checker{Cold: r.cold, o: o, lostSeen: map[cold.ID]bool{}, hopeless: map[cold.ID]bool{}}
	for id := range r.c.hopeless {
		if err := r.db.Verify(id); err != nil {
			r.now.hopeless[id] = true
		}
	}
	states, err := r.now.refs()
	if err != nil {
		return err
	}
	if err := r.now.openTip(r.ctx); err != nil {
		return err
	}
	w, err := r.now.newWalk(r.ctx)
	if err != nil {
		return err
	}
	defer w.marks.Close()
	if err := w.history(states); err != nil {
		return err
	}
	for _, n := range r.o.Needs {
		if err := w.need(n); err != nil {
			return err
		}
	}
	// A commit that a reference or warm needs may be lost too, and the walk only begins at commits that exist.
	for _, b := range r.now.broken {
		r.alsoLost(b.id)
	}
	r.alsoLost(o.Head)
	r.alsoLost(r.now.tracked)
	return nil
}

func (r *repairer) alsoLost(commit cold.ID) {
	if !commit.IsZero() && !r.now.lostSeen[commit] && !r.db.Has(commit) {
		r.now.lostSeen[commit] = true
		r.now.lost = append(r.now.lost, lostObject{id: commit, kind: odb.Commit})
	}
}

// maxRounds is how often the repository is walked anew; each round recovers at least one object.
const maxRounds = 1000

// objects recovers lost objects: known ones, and from the remote and from warm.
func (r *repairer) objects() error {
	for range maxRounds {
		if err := r.look(); err != nil {
			return err
		}
		if len(r.now.lost) == 0 || r.remote == nil && r.o.WarmFiles == nil {
			return nil
		}
		n := 0
		what := fmt.Sprintf("get %s again from the remote and from warm",
			plural(len(r.now.lost), "missing or damaged object", "missing or damaged objects"))
		r.step(what, r.db.Dir(), func() (string, error) {
			var err error
			n, err = r.regain()
			if err != nil {
				return "", err
			}
			return plural(n, "object", "objects") + " written", nil
		})
		if n == 0 {
			return r.ctx.Err()
		}
	}
	return nil
}

// references sets the branch to the newest complete commit if it points to none, and removes broken notes of what the
// remote has.
func (r *repairer) references() error {
	if err := r.look(); err != nil {
		return err
	}
	for _, b := range r.now.broken {
		switch {
		case b.name == "packed-refs":
			r.step("take out of packed-refs what makes no sense", b.name, func() (string, error) {
				kept, err := r.db.RepairPackedRefs()
				return keptText(kept), err
			})
		case r.c.IsRemoteNote(b.name):
			r.step("forget where the remote was last seen; the next push finds out anew", b.name,
				func() (string, error) {
					kept, err := r.db.ForgetRef(b.name)
					return keptText(kept), err
				})
		}
	}
	for _, b := range r.now.broken {
		if b.name != r.c.MainRef() || !r.c.o.Volume {
			continue
		}
		to, why, err := r.candidate(b)
		if err != nil {
			return err
		}
		if to.IsZero() {
			r.step("set the branch to a commit that is whole", b.name, func() (string, error) {
				return "", errors.New(why)
			})
			continue
		}
		r.step(fmt.Sprintf("set the branch to %s, %s", to, why), b.name, func() (string, error) {
			kept, err := r.db.ForgetRef(b.name)
			if err != nil {
				return "", err
			}
			old, err := r.cold.ReadRef(b.name) // the value in packed-refs
			if err == nil && old != to {
				err = r.db.UpdateRef(b.name, old, to)
			}
			return keptText(kept), err
		})
	}
	return r.look()
}

// candidate returns the newest complete commit among those that are known to have been the branch's: the one that warm
// was last in step with, the one where the remote was last seen, and the value in packed-refs. If two of them do not
// follow each other, none is chosen.
func (r *repairer) candidate(b brokenRef) (best cold.ID, why string, err error) {
	type known struct {
		id  cold.ID
		why string
	}
	head, where := r.c.o.Head, "which warm was last in step with"
	if began, err := r.cold.LiveBegan(r.ctx, head); err != nil {
		return best, "", err
	} else if !began.IsZero() { // it is a live commit, which is not part of main's history
		head, where = began, "at which the live branch began that warm was last in step with"
	}
	list := []known{{head, where}, {r.now.mainSeen, "which the remote has"}}
	states, err := r.db.RefStates()
	if err != nil {
		return best, "", err
	}
	for _, s := range states {
		if s.Name == b.name {
			list = append(list, known{s.Packed, "the older value in packed-refs"})
		}
	}
	why = "no commit is known that it could be set to"
	for _, k := range list {
		if k.id.IsZero() || k.id == best {
			continue
		}
		whole, err := r.whole(k.id)
		if err != nil {
			return cold.ID{}, "", err
		}
		if !whole {
			if best.IsZero() {
				why = fmt.Sprintf("commit %s, %s, is not whole either", k.id, k.why)
			}
			continue
		}
		if best.IsZero() {
			best, why = k.id, k.why
			continue
		}
		if _, follows, err := r.cold.NewCommits(r.ctx, best, k.id); err == nil && follows {
			continue // best is newer
		}
		if _, follows, err := r.cold.NewCommits(r.ctx, k.id, best); err == nil && follows {
			best, why = k.id, k.why
			continue
		}
		return cold.ID{}, fmt.Sprintf("%s and %s are both whole and do not follow each other: choose one and set it "+
			"by git update-ref", best, k.id), nil
	}
	return best, why, nil
}

// whole reports whether a commit and all that its tree needs exist.
func (r *repairer) whole(id cold.ID) (bool, error) {
	o := r.c.o
	o.Found, o.Progress, o.Deep = nil, nil, false
	c := &Checker{Cold: r.cold, o: o, tipID: id, lostSeen: map[cold.ID]bool{}, hopeless: r.now.hopeless}
	w, err := c.newWalk(r.ctx)
	if err != nil {
		return false, err
	}
	defer w.marks.Close()
	err = w.history(nil)
	return len(c.lost) == 0, err
}

// damagedCopies rewrites packs with damaged entries and sets damaged loose objects aside, if nothing needs those copies
// any more.
func (r *repairer) damagedCopies() {
	needed := map[cold.ID]bool{}
	for _, l := range r.now.lost {
		needed[l.id] = true
	}
	var order []string
	spare := map[string]bool{}
	for _, b := range r.c.bad {
		if _, seen := spare[b.Path]; !seen {
			order = append(order, b.Path)
			spare[b.Path] = true
		}
		if !b.ID.IsZero() && (needed[b.ID] || !r.c.o.Deep && r.db.Verify(b.ID) != nil) {
			spare[b.Path] = false // perhaps somebody can recover something from it
		}
	}
	for _, p := range order {
		switch name := path.Base(p); {
		case !spare[p]:
		case strings.HasPrefix(name, "pack-"):
			r.step("write a damaged pack anew without what is damaged, and put it aside", p+".pack",
				func() (string, error) { return r.mend(name) })
		default:
			r.step("put a damaged loose object aside", p, func() (string, error) {
				err := r.db.SetAside(p)
				if errors.Is(err, fs.ErrNotExist) {
					err = nil
				}
				return "", err
			})
		}
	}
}

// head returns the commit that warm should count as belonging to, if the one in volume.json is gone for good.
func (r *repairer) head() (cold.ID, error) {
	if r.c.o.Head.IsZero() || r.db.Has(r.c.o.Head) {
		return cold.ID{}, nil
	}
	p, err := r.cold.Position(r.ctx)
	if err != nil || p.Main.IsZero() || !r.db.Has(p.Newest()) {
		return cold.ID{}, nil
	}
	return p.Newest(), nil
}

// lostPaths returns the paths of what the newest commit lacks. For a directory's metadata that is the directory's.
func (r *repairer) lostPaths() []string {
	var out []string
	for _, l := range r.now.lost {
		if l.commit != r.now.tipID || l.kind == odb.Commit {
			continue // a next commit would not store it again
		}
		out = append(out, truePath(ofDir(l.path)))
	}
	slices.Sort(out)
	return slices.Compact(out)
}
