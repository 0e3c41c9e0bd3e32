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

// Options says what CheckWarm compares.
type Options struct {
	State string // the state directory
	Info  StateInfo
	// Commits are what warm's records may be of: the commit it was last in step with, and the branch's tip. The first
	// is what changed files are told by. May be empty.
	Commits []cold.Snapshot
	// Live: a daemon works there. Findings are looked at twice.
	Live bool
	// Same compares a file's content with an id; nil: contents are not read.
	Same func(ctx context.Context, id cold.ID, c cold.Content) (bool, error)
	// Lacks says what cold has not of something that is there only; nil: nobody asks.
	Lacks    func(ctx context.Context, n cold.Need) ([]cold.Lost, error)
	Progress func(files, done, total int64) // of what Same compares, in allocated bytes; may be nil
}

// Report is what CheckWarm found.
type Report struct {
	Findings []cold.Finding
	// Untrue are directories and files whose records say "clean" although they are not; DropRecords takes them.
	Untrue []string
	// Lost is what is in cold only and not whole there.
	Lost []cold.Need
	// AtRisk is what no commit has; Seconds by the inodes' change times, which unlike mtimes nobody sets.
	AtRisk   cold.AtRisk
	Doubtful int64 // files whose records are hints only, and that look unchanged
}

// Check compares warm with a commit by its records, sizes and times, and with Same by the bytes of clean files. It
// changes nothing. A directory that is marked clean must be what the commit says; what is not marked clean is at risk
// where it differs.
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
	if err != nil { // which is a finding of its own
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

// warmWalk is one walk over warm beside the commits' listings.
type warmWalk struct {
	ctx    context.Context
	o      Options
	out    *Report
	inodes map[uint64]struct{} // files with several names, whose bytes count once
	oldest int64
	rules  *rules.Set
	marks  []seenMark // clean marks that are believed, from the outermost to the innermost directory
	files  int64
	done   int64
	total  int64
	held   *heldback.Table
}

// maxWarmFindings bounds what is listed; the rest is counted.
const maxWarmFindings = 1000

// untrue reports a clean mark over something else. mark is the directory or file whose record is to go.
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

// record reads a record; ok says that it is believed, seen that there is one of this version.
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

// listings reads the directory from each commit that has it, each distinct one once.
func (w *warmWalk) listings(ids []cold.DirID) []listing {
	var out []listing
	for i, id := range ids {
		if id == (cold.DirID{}) || slices.ContainsFunc(out, func(l listing) bool { return l.id == id }) {
			continue
		}
		l, err := w.o.Commits[i].ReadDir(w.ctx, id)
		if err != nil {
			continue // the check of the repository says what is wrong with it
		}
		by := make(map[string]*cold.Entry, len(l.Entries))
		for k := range l.Entries {
			by[l.Entries[k].Name] = &l.Entries[k]
		}
		out = append(out, listing{id, by})
	}
	return out
}

// dir compares a directory. ids are what the commits have there, zero where one has none; clean says that a directory
// above is marked clean, and so everything below it.
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
			// The listing is the same whichever commit reads it.
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

// vanished looks for names that the commit has and warm has not.
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

// attrsDiffer compares what a commit keeps of an inode beside its content.
func (w *warmWalk) attrsDiffer(fd int, name string, st *unix.Statx_t, e *cold.Entry, mtime bool) bool {
	now := warm.EntryOf(name, st)
	var err error
	if now.Xattrs, err = warm.ByName(fd, name).All(); err != nil {
		return false
	}
	if h, err := heldback.Holding(w.held, heldback.KeyOf(st)); err == nil {
		h.Fill(&now)
	}
	if now.Mode != e.Mode || now.UID != e.UID || now.GID != e.GID || now.Rdev != e.Rdev || now.Flags != e.Flags ||
		mtime && now.Mtime != e.Mtime {
		return true
	}
	if e.Kind == cold.KindSymlink {
		to, err := warm.ReadlinkAt(fd, name)
		return err == nil && string(to) != e.Target
	}
	return !slices.EqualFunc(now.Xattrs, e.Xattrs, func(a, b cold.Xattr) bool {
		return a.Name == b.Name && string(a.Value) == string(b.Value)
	})
}

// file compares a regular file by its record and its stat data, and by its bytes where that is asked for.
func (w *warmWalk) file(fd int, at, name, mark string, st *unix.Statx_t, e *cold.Entry, dirty bool) error {
	self := warm.ByName(fd, name)
	rec, ok, seen := w.record(self, false)
	if rec.IsStub() && rec.Size == int64(st.Size) {
		return w.stub(fd, at, name, st, rec, e, dirty)
	}
	if rec.IsStub() { // void: the file was being emptied
		rec, ok = warm.Record{}, false
	}
	fits := rec.Has(warm.FlagClean) && rec.Size == int64(st.Size) && rec.Mtime == warm.TimeOf(st.Mtime)
	var id cold.ID // what the file is said to be; zero: changed
	switch {
	case ok && fits:
		id = rec.ID
	case ok && rec.Has(warm.FlagClean) && !dirty:
		if w.marked() && w.stillDiffers(fd, name, self, st, rec) {
			w.untrue(at, mark, fmt.Sprintf("is %d bytes of %s under a clean mark, its record says %d bytes of %s",
				st.Size, cold.ClockText(warm.TimeOf(st.Mtime)), rec.Size, cold.ClockText(rec.Mtime)))
		}
		return nil
	case seen && fits && e != nil && rec.ID == e.ID:
		id = e.ID
		w.out.Doubtful++
	case !dirty && e != nil, !seen && e != nil && e.Size == int64(st.Size) && e.Mtime == warm.TimeOf(st.Mtime):
		// No record of its own: a volume without records, or one whose disk was full.
		if e.Size != int64(st.Size) || e.Mtime != warm.TimeOf(st.Mtime) {
			if w.marked() && w.stillDiffers(fd, name, self, st, rec) {
				w.untrue(at, mark, fmt.Sprintf("is %d bytes of %s under a clean mark, the commit says %d bytes of %s",
					st.Size, cold.ClockText(warm.TimeOf(st.Mtime)), e.Size, cold.ClockText(e.Mtime)))
			}
			return nil
		}
		id = e.ID
	}
	if !dirty && e != nil && !id.IsZero() && id != e.ID {
		if !w.marked() {
			return nil
		}
		w.untrue(at, at, fmt.Sprintf("its record names object %s under a clean mark, the commit has %s", id, e.ID))
		return nil
	}
	if dirty {
		switch {
		case e == nil || e.Kind != cold.KindFile || id != e.ID:
			w.risk(st, int64(st.Size))
		case w.attrsDiffer(fd, name, st, e, true):
			w.risk(st, 0)
		}
	}
	if w.o.Same == nil || id.IsZero() {
		return nil
	}
	return w.content(fd, at, name, st, rec, ok && fits, dirty, id)
}

// content compares a file's bytes with the id that its record names.
func (w *warmWalk) content(fd int, at, name string, st *unix.Statx_t, rec warm.Record, marked, dirty bool,
	id cold.ID) error {
	f, err := warm.OpenQuiet(fd, name, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open warm/%s: %w", at, err)
	}
	defer warm.CloseFD(f)
	same, err := w.o.Same(w.ctx, id, warm.NewContent(f, int64(st.Size)))
	w.files++
	if w.done += int64(st.Blocks) * 512; w.o.Progress != nil {
		w.o.Progress(w.files, min(w.done, w.total), w.total)
	}
	switch {
	case same, errors.Is(err, cold.ErrSizeChanged), errors.Is(err, unix.ENOENT):
		return nil
	case err != nil && w.ctx.Err() != nil:
		return w.ctx.Err()
	case err != nil:
		return fmt.Errorf("read warm/%s: %w", at, err)
	case !marked && dirty:
		w.risk(st, int64(st.Size)) // only a hint said otherwise; the next mount compares it too
		return nil
	}
	if !w.stillDiffers(fd, name, warm.ByName(fd, name), st, rec) {
		return nil
	}
	w.untrue(at, at, fmt.Sprintf("its bytes are not those of object %s, although its record says so", id))
	return nil
}
