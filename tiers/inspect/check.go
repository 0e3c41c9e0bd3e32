package inspect

import (
	"context"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/heldback"
	"emberfs/tiers/rules"
	"emberfs/tiers/warm"
)

// Options says what Check compares.
type Options struct {
	State string // the state directory
	Info  StateInfo
	// Commits are the commits that warm's records may refer to: the one that warm was last in step with, and the
	// branch's tip. Whether a file has changed is judged by the first one. It may be empty.
	Commits []cold.Snapshot
	// Live says that a daemon is using the volume. Findings are then checked twice.
	Live bool
	// Same compares a file's content with an id. If nil, contents are not read.
	Same func(ctx context.Context, id cold.ID, c cold.Content) (bool, error)
	// Lacks returns what cold lacks of something that is only there. If nil, that is not checked.
	Lacks    func(ctx context.Context, n cold.Need) ([]cold.Lost, error)
	Progress func(files, done, total int64) // progress of comparing by Same, in files and allocated bytes; may be nil
}

// Report is what Check found.
type Report struct {
	Findings []cold.Finding
	// Untrue are directories and files whose records say "clean" although they are not. They can be passed to
	// DropRecords.
	Untrue []string
	// Lost is what is only in cold, and not complete or not undamaged there.
	Lost []cold.Need
	// AtRisk is what no commit has. Its Seconds go by the inodes' change times, which, unlike mtimes, nobody can set.
	AtRisk   cold.AtRisk
	Doubtful int64 // number of files whose records are only hints but that look unchanged
}

// Check compares warm with a commit by records, sizes and times, and, if Same is set, by the bytes of clean files. It
// changes nothing. A directory that is marked clean must be what the commit says. What is not marked clean is at risk
// if it differs.
func Check(ctx context.Context, o Options) (*Report, error) {
	fd, err := openWarmDir(o.State)
	if errors.Is(err, unix.ENOENT) {
		if !o.Info.Head.IsZero() {
			return &Report{Findings: []cold.Finding{
				{Severity: cold.Damaged, What: "the warm directory is missing", Where: "warm",
					Do: "move the state directory away and mount the volume's repository in a new one"}}}, nil
		}
		return &Report{}, nil
	}
	if err != nil {
		return nil, err
	}
	defer warm.CloseFD(fd)
	st, err := warm.LoadState(o.State)
	if err != nil { // this is reported as a finding elsewhere
		st = &warm.State{}
	}
	if err := st.ProveWarm(fd); errors.Is(err, warm.ErrUnproven) {
		return &Report{Findings: []cold.Finding{{Severity: cold.Damaged, What: err.Error(), Where: "warm",
			Do: warm.UnprovenHelp}}}, nil
	} else if err != nil {
		return nil, err
	}
	set, err := rules.ReadEffective(o.State)
	if err != nil {
		return nil, err
	}
	t, _, err := heldback.OpenState(o.State, fd, nil)
	if err != nil {
		return &Report{Findings: []cold.Finding{{Severity: cold.Damaged, What: err.Error(), Where: heldback.FileName,
			Do: "mount the repository with a new state directory; what no commit has is in this one's warm directory " +
				"as plain files"}}}, nil
	}
	defer func() { _ = t.Close() }()
	w := &warmWalk{ctx: ctx, o: o, out: &Report{}, inodes: map[uint64]struct{}{}, rules: set, held: t}
	if o.Same != nil && o.Progress != nil {
		var use warm.Use
		warm.CountTree(fd, &use, 0)
		w.total = use.Bytes
	}
	var at []cold.DirID
	for _, s := range o.Commits {
		at = append(at, cold.RootDir(s))
	}
	if err := w.dir(fd, "", at, warm.ByFD(fd), false, 0); err != nil {
		return nil, err
	}
	w.heldBack()
	if w.oldest != 0 {
		w.out.AtRisk.Seconds = max(0, time.Since(time.Unix(w.oldest, 0)).Seconds())
	}
	return w.out, nil
}

func openWarmDir(state string) (int, error) {
	p := filepath.Join(state, "warm")
	fd, err := unix.Open(p, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", p, err)
	}
	return fd, nil
}

// warmWalk is one walk over warm, in parallel with the commits' listings.
type warmWalk struct {
	ctx    context.Context
	o      Options
	out    *Report
	inodes map[uint64]struct{} // files with several names that were counted at risk, so that their bytes count once
	oldest int64
	rules  *rules.Set
	marks  []seenMark // the clean marks above that are believed, the outermost first
	files  int64
	done   int64
	total  int64
	held   *heldback.Table
}

// maxWarmFindings is how many findings are listed; files beyond that are only in Report.Untrue.
const maxWarmFindings = 1000

// untrue reports a wrong clean mark. mark is the directory or file whose record has to be dropped.
func (w *warmWalk) untrue(at, mark, what string) {
	if len(w.out.Untrue) == 0 || w.out.Untrue[len(w.out.Untrue)-1] != mark {
		w.out.Untrue = append(w.out.Untrue, mark)
	}
	if len(w.out.Findings) >= maxWarmFindings {
		return
	}
	w.out.Findings = append(w.out.Findings, cold.Finding{Severity: cold.Damaged, What: what, Path: cold.NameOf(at),
		Where: path.Join("warm", at),
		Do:    "--repair lets it count as changed, so that the next commit takes what is here"})
}

// risk counts something that no commit has.
func (w *warmWalk) risk(st *unix.Statx_t, bytes int64) {
	if st.Nlink > 1 && warm.KindOf(uint32(st.Mode)) != cold.KindDir {
		if _, ok := w.inodes[st.Ino]; ok {
			bytes = 0
		}
		w.inodes[st.Ino] = struct{}{}
	}
	w.out.AtRisk.Files++
	w.out.AtRisk.Bytes += bytes
	if t := st.Ctime.Sec; w.oldest == 0 || t < w.oldest {
		w.oldest = t
	}
}

// record reads a record. ok says that it is believed, seen that there is one that this version can read.
func (w *warmWalk) record(at warm.XattrTarget, dir bool) (r warm.Record, ok, seen bool) {
	var buf [warm.RecordMax + 1]byte
	n, err := at.Get(warm.RecordAttr, buf[:])
	if err != nil {
		return warm.Record{}, false, false
	}
	if r, seen = warm.DecodeRecord(buf[:n]); !seen || r.Has(warm.FlagDir) != dir {
		return warm.Record{}, false, false
	}
	return r, r.Trust == w.o.Info.trust && w.o.Info.Trusted, true
}

// listing is a directory as a commit has it.
type listing struct {
	id cold.DirID
	by map[string]*cold.Entry
}

// listings reads the directory from each commit that has it; equal ones are read once.
func (w *warmWalk) listings(ids []cold.DirID) []listing {
	var out []listing
	for i, id := range ids {
		if id == (cold.DirID{}) || slices.ContainsFunc(out, func(l listing) bool { return l.id == id }) {
			continue
		}
		l, err := w.o.Commits[i].ReadDir(w.ctx, id)
		if err != nil {
			continue // the check of the repository reports what is wrong
		}
		by := make(map[string]*cold.Entry, len(l.Entries))
		for k := range l.Entries {
			by[l.Entries[k].Name] = &l.Entries[k]
		}
		out = append(out, listing{id, by})
	}
	return out
}

// dir compares a directory. ids are what the commits have there, zero for one that has none. clean says that a
// directory above is marked clean, and thus everything below it.
func (w *warmWalk) dir(fd int, at string, ids []cold.DirID, self warm.XattrTarget, clean bool, depth int) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	if err := cold.TooDeepToWalk(at, depth); err != nil {
		w.out.Findings = append(w.out.Findings, cold.Finding{Severity: cold.Damaged, What: "not looked at: " +
			err.Error(), Path: cold.NameOf(at), Where: path.Join("warm", at),
			Do: "no commit takes it: move the directory further up"})
		return nil
	}
	rec, ok, _ := w.record(self, true)
	if rec.Has(warm.FlagLazy) {
		return w.lazyDir(self, at, ids, rec, clean)
	}
	marked := ok && rec.Has(warm.FlagClean) && len(w.o.Commits) > 0
	if marked {
		stands := cold.DirID{Tree: rec.ID, Meta: rec.Meta}
		if !slices.Contains(ids, stands) {
			if w.confirmed(self, true, rec) {
				w.untrue(at, at, fmt.Sprintf("is marked clean as tree %s, which the commit does not have there",
					rec.ID))
			}
			marked, clean = false, false
		} else {
			// All commits would read the same listing.
			ids = slices.Repeat([]cold.DirID{stands}, len(w.o.Commits))
		}
	}
	names, err := warm.ListNames(fd)
	if errors.Is(err, unix.EACCES) && w.o.Live {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list warm/%s: %w", at, err)
	}
	slices.SortFunc(names, func(a, b warm.Dirent) int { return strings.Compare(a.Name, b.Name) })
	lists := w.listings(ids)
	if marked {
		w.marks = append(w.marks, seenMark{self, rec})
		defer func() { w.marks = w.marks[:len(w.marks)-1] }()
	}
	mark := at
	dirty := !(marked || clean)
	for _, d := range names {
		if w.rules.Decide(path.Join(at, d.Name), d.Mode == unix.S_IFDIR).Ignored() {
			continue
		}
		if err := w.entry(fd, path.Join(at, d.Name), d.Name, mark, lists, dirty, depth); err != nil {
			return err
		}
	}
	w.vanished(at, names, lists, dirty)
	return nil
}

// vanished looks for names that the commit has and warm lacks.
func (w *warmWalk) vanished(at string, names []warm.Dirent, lists []listing, dirty bool) {
	if len(lists) == 0 {
		return
	}
	for name := range lists[0].by {
		_, here := slices.BinarySearchFunc(names, name, func(d warm.Dirent, n string) int {
			return strings.Compare(d.Name, n)
		})
		switch {
		case here:
		case dirty:
			w.out.AtRisk.Files++ // a removal that no commit has
		case w.marked():
			w.untrue(path.Join(at, name), at, "is missing from warm under a clean mark: no commit would notice")
		}
	}
}

// heldBack lists what this machine could not make.
func (w *warmWalk) heldBack() {
	const most = 100
	list, more := w.held.List(most)
	if more > 0 {
		defer func() {
			w.out.Findings = append(w.out.Findings,
				cold.Finding{Severity: cold.Note, What: fmt.Sprintf("%sparts of %d more files", heldback.LeftOutHere,
					more)})
		}()
	}
	for _, it := range list {
		if it.Unknown() {
			it.Path = ""
		}
		w.out.Findings = append(w.out.Findings, cold.Finding{Severity: cold.Note, What: heldback.LeftOutHere +
			strings.Join(it.What, "; "), Path: cold.NameOf(it.Path), Where: path.Join("warm", it.Path),
			Do: "commits carry it over; a machine that can make it has it again"})
	}
}

// entry compares one name.
func (w *warmWalk) entry(fd int, at, name, mark string, lists []listing, dirty bool, depth int) error {
	var st unix.Statx_t
	if err := warm.StatAt(fd, name, &st); err != nil {
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		return fmt.Errorf("stat warm/%s: %w", at, err)
	}
	kind := warm.KindOf(uint32(st.Mode))
	h, err := heldback.Holding(w.held, heldback.KeyOf(&st))
	if err != nil {
		return err
	}
	standsIn := h != nil && h.Entry != nil
	if standsIn {
		kind = h.Entry.Kind
	}
	var base *cold.Entry
	ids := make([]cold.DirID, 0, len(lists))
	for _, l := range lists {
		e := l.by[name]
		if base == nil {
			base = e
		}
		var id cold.DirID
		if e != nil && e.Kind == cold.KindDir {
			id = e.Dir()
		}
		ids = append(ids, id)
	}
	for len(ids) < len(w.o.Commits) {
		ids = append(ids, cold.DirID{})
	}
	differs := len(lists) > 0 && (base == nil || base.Kind != kind)
	if differs && !dirty && !w.o.Live {
		w.untrue(at, mark, "is in warm under a clean mark, but not in the commit: no commit would take it")
	}
	switch {
	case standsIn:
		if dirty && (base == nil || base.Kind != kind || base.ID != h.Entry.ID) {
			w.risk(&st, 0)
		}
		return nil
	case kind == cold.KindDir:
		if dirty && (base == nil || base.Kind != kind || w.attrsDiffer(fd, name, &st, base, false) ||
			w.otherLazy(fd, name, base)) {
			w.risk(&st, 0)
		}
		sub, err := warm.OpenAt(fd, name, unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
				return nil
			}
			return fmt.Errorf("open warm/%s: %w", at, err)
		}
		defer warm.CloseFD(sub)
		return w.dir(sub, at, ids, warm.ByName(fd, name), !dirty, depth+1)
	case kind == cold.KindFile:
		if !differs || dirty {
			return w.file(fd, at, name, mark, &st, base, dirty)
		}
	default:
		if dirty && (base == nil || base.Kind != kind || w.attrsDiffer(fd, name, &st, base, true)) {
			w.risk(&st, 0)
		}
	}
	return nil
}
