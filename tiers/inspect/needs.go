package inspect

import (
	"fmt"
	"path"
	"slices"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/warm"
)

// stub compares a stub, whose record fits the file, with the commit. Its bytes are safe, its name and attributes need
// not be.
func (w *warmWalk) stub(fd int, at, name string, st *unix.Statx_t, rec warm.Record, e *cold.Entry, dirty bool) error {
	self := warm.ByName(fd, name)
	shown := *st // warm's own times move when bytes go
	shown.Mtime = unix.StatxTimestamp{Sec: rec.Mtime.Sec, Nsec: rec.Mtime.Nsec}
	if rec.Has(warm.FlagCtime) {
		shown.Ctime = unix.StatxTimestamp{Sec: rec.Ctime.Sec, Nsec: rec.Ctime.Nsec}
	}
	other := e == nil || e.Kind != cold.KindFile || e.ID != rec.ID
	switch {
	case !dirty && e != nil && other:
		if w.marked() && w.stands(self, rec) {
			w.untrue(at, at, fmt.Sprintf("its record names object %s under a clean mark, the commit has %s", rec.ID,
				e.ID))
		}
	case dirty && (other || w.attrsDiffer(fd, name, &shown, e, true)):
		w.risk(&shown, 0)
	}
	return w.lacks(self, rec, cold.Need{Path: at, ID: rec.ID, Size: rec.Size})
}

// lazyDir looks at a directory whose children are in cold only. ids are what the commits have there; clean says that a
// directory above is marked clean.
func (w *warmWalk) lazyDir(self warm.XattrTarget, at string, ids []cold.DirID, rec warm.Record, clean bool) error {
	is := cold.DirID{Tree: rec.ID, Meta: rec.Meta}
	there := slices.ContainsFunc(ids, func(id cold.DirID) bool { return id != (cold.DirID{}) })
	if clean && there && !slices.Contains(ids, is) && w.marked() && w.stands(self, rec) {
		w.untrue(at, at, fmt.Sprintf("is not listed yet and stands for tree %s under a clean mark, which the commit "+
			"does not have there", is.Tree))
	}
	return w.lacks(self, rec, cold.Need{Path: at, Dir: true, ID: is.Tree, Meta: is.Meta})
}

// otherLazy says that a directory that is not listed yet stands for another than the commit has under its name.
func (w *warmWalk) otherLazy(fd int, name string, base *cold.Entry) bool {
	rec, _, _ := w.record(warm.ByName(fd, name), true)
	return rec.Has(warm.FlagLazy) && (cold.DirID{Tree: rec.ID, Meta: rec.Meta}) != base.Dir()
}

// lacks reports what cold has not of something that is there only.
func (w *warmWalk) lacks(self warm.XattrTarget, rec warm.Record, n cold.Need) error {
	if w.o.Lacks == nil {
		return nil
	}
	lost, err := w.o.Lacks(w.ctx, n)
	if err != nil {
		return fmt.Errorf("look in cold for warm/%s: %w", n.Path, err)
	}
	if len(lost) == 0 || !w.stands(self, rec) {
		return nil
	}
	w.out.Lost = append(w.out.Lost, n)
	what := "its bytes are in cold only, which has not all of them"
	if n.Dir {
		what = "is not listed yet, and cold has not all of it"
	}
	for _, l := range lost {
		if len(w.out.Findings) >= maxWarmFindings {
			break
		}
		p := path.Join(n.Path, l.Path)
		w.out.Findings = append(w.out.Findings,
			cold.Finding{Severity: cold.Damaged, What: fmt.Sprintf("%s: %v", what, l.Err), Path: cold.NameOf(p),
				Where:  path.Join("warm", p),
				Object: l.Object.String(),
				Do: "emberfs check --repair tries to get it from the remote and from warm; " +
					"else put it back from another clone"})
	}
	return nil
}

// ColdOnly counts what a state directory's warm has only records of: stubs, and directories that are not listed yet.
func ColdOnly(state string) (files, dirs int64, err error) {
	fd, err := openWarmDir(state)
	if err != nil {
		return 0, 0, err
	}
	defer warm.CloseFD(fd)
	var use warm.Use
	warm.CountTree(fd, &use, 0)
	return use.Stubs, use.Lazy, nil
}
