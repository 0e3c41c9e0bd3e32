package inspect

import (
	"fmt"
	"path"
	"slices"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/warm"
)

// stub compares a stub, whose record matches the file, with the commit. Its bytes are safe in cold; its name and
// attributes may be at risk.
func (w *warmWalk) stub(fd int, at, name string, st *unix.Statx_t, rec warm.Record, e *cold.Entry, dirty bool) error {
	self := warm.ByName(fd, name)
	shown := *st // with the times of the record, because releasing the bytes changed warm's own
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

// lazyDir checks a lazy directory. ids are what the commits have there. clean says that a directory above is marked
// clean.
func (w *warmWalk) lazyDir(self warm.XattrTarget, at string, ids []cold.DirID, rec warm.Record, clean bool) error {
	is := cold.DirID{Tree: rec.ID, Meta: rec.Meta}
	there := slices.ContainsFunc(ids, func(id cold.DirID) bool { return id != (cold.DirID{}) })
	if clean && there && !slices.Contains(ids, is) && w.marked() && w.stands(self, rec) {
		w.untrue(at, at, fmt.Sprintf("is not listed yet and stands for tree %s under a clean mark, which the commit "+
			"does not have there", is.Tree))
	}
	return w.lacks(self, rec, cold.Need{Path: at, Dir: true, ID: is.Tree, Meta: is.Meta})
}

// otherLazy reports whether a lazy directory stands for another directory than the commit has under its name.
func (w *warmWalk) otherLazy(fd int, name string, base *cold.Entry) bool {
	rec, _, _ := w.record(warm.ByName(fd, name), true)
	return rec.Has(warm.FlagLazy) && (cold.DirID{Tree: rec.ID, Meta: rec.Meta}) != base.Dir()
}

// lacks adds findings for what cold lacks of something that is only there.
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

// ColdOnly returns how many stubs and lazy directories are in a state directory's warm.
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
