package log

import (
	"bytes"
	"cmp"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"time"

	"emberfs/backup"
	"emberfs/backup/format"
	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

// Reader reads the history of a repository. It is safe for concurrent use.
type Reader struct{ *backup.Cold }

// Of returns a Reader for the history of c.
func Of(c *backup.Cold) *Reader { return &Reader{c} }

// Commit is what a commit says about itself, for people who look at history.
type Commit struct {
	cold.CommitInfo           // Parent is the first of Parents
	Parents         []cold.ID // empty if history begins here, perhaps because the repository is shallow
	Author          string
	Email           string
	Ours            bool  // made by EmberFS, so that the figures below are in trailers
	Files, Bytes    int64 // how much the commit took
}

func commitOf(id cold.ID, c *odb.CommitData) Commit {
	out := Commit{CommitInfo: backup.CommitInfo(id, *c), Parents: c.Parents, Author: c.Author.Name,
		Email: c.Author.Email}
	out.Ours = out.Reason != ""
	if out.Ours {
		out.Files, out.Bytes = format.Number(c.Message, format.TrailerFiles), format.Number(c.Message,
			format.TrailerBytes)
	}
	return out
}

// Commit reads one commit.
func (c *Reader) Commit(id cold.ID) (Commit, error) {
	data, err := backup.ReadCommit(c.DB(), id)
	if err != nil {
		return Commit{}, err
	}
	return commitOf(id, &data), nil
}

// Log yields the commits that the tips reach, newest first, including all parents of merges. With paths (slash paths,
// as for a restore) it yields only those that changed one of them, or something below, compared to all of their
// parents, in content or metadata. It reads no further than the caller iterates. What cannot be read is skipped; the
// errors come last, joined.
func (c *Reader) Log(ctx context.Context, tips []cold.ID, paths []string) iter.Seq2[Commit, error] {
	return func(yield func(Commit, error) bool) {
		w, err := c.newWalk()
		if err != nil {
			yield(Commit{}, err)
			return
		}
		for _, id := range tips {
			w.push(id, cold.ID{})
		}
		live, err := c.LiveCommits(ctx)
		if err != nil { // list as much as possible of a damaged history
			c.Logger().WithError(err).Debug("live commits are not told apart")
		}
		want := cold.CleanPaths(paths)
		for {
			s, err := w.next(ctx)
			if err != nil {
				yield(Commit{}, err)
				return
			}
			if s == nil {
				break
			}
			show, err := c.changed(ctx, s, want, w)
			if err != nil {
				w.errs = append(w.errs, fmt.Errorf("commit %s: %w", s.id, err))
				continue
			}
			out := commitOf(s.id, &s.data)
			out.Live = live[s.id]
			if show && !yield(out, nil) {
				return
			}
		}
		if err := errors.Join(w.errs...); err != nil {
			yield(Commit{}, err)
		}
	}
}

// step is a commit met by a walk.
type step struct {
	id   cold.ID
	data odb.CommitData // without parents that a shallow repository leaves out
	seq  int            // order of discovery, for commits with equal times
}

// walk goes through history by date, from its tips.
type walk struct {
	c       *Reader
	queue   stepQueue
	ties    []*step           // commits of the same second, in the order to return them, before those in the queue
	seen    map[cold.ID]*step // commits read but not returned yet; nil for those returned or unreadable
	shallow map[cold.ID]struct{}
	errs    []error
}

func (c *Reader) newWalk() (*walk, error) {
	shallow, err := readShallow(c.DB().Dir())
	return &walk{c: c, seen: make(map[cold.ID]*step), shallow: shallow}, err
}

// readShallow returns the commits at which the history of a shallow repository is cut off.
func readShallow(dir string) (map[cold.ID]struct{}, error) {
	data, err := os.ReadFile(filepath.Join(dir, "shallow"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read where history was cut off: %w", err)
	}
	cut := make(map[cold.ID]struct{})
	for line := range bytes.Lines(data) {
		id, err := cold.ParseID(string(bytes.TrimSpace(line)))
		if err != nil {
			return nil, fmt.Errorf("%s: %w: %w", filepath.Join(dir, "shallow"), cold.ErrCorrupt, err)
		}
		cut[id] = struct{}{}
	}
	return cut, nil
}

// push adds a commit unless the walk has seen it. child is for the message if it cannot be read; zero if id is a tip.
func (w *walk) push(id, child cold.ID) {
	if _, ok := w.seen[id]; ok {
		return
	}
	w.seen[id] = nil
	data, err := backup.ReadCommit(w.c.DB(), id)
	if err != nil {
		if !child.IsZero() {
			err = fmt.Errorf("history before %s: %w", child, err)
		}
		w.errs = append(w.errs, err)
		return
	}
	if _, cut := w.shallow[id]; cut {
		data.Parents = nil
	}
	s := &step{id: id, data: data, seq: len(w.seen)}
	w.seen[id] = s
	heap.Push(&w.queue, s)
}

// next returns the newest commit that is left, after adding its parents, and nil at the end.
func (w *walk) next(ctx context.Context) (*step, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if len(w.seen) > backup.MaxHistory {
		return nil, fmt.Errorf("history: more than %d commits", backup.MaxHistory)
	}
	if len(w.ties) == 0 {
		w.untie()
	}
	var s *step
	switch {
	case len(w.ties) > 0:
		s, w.ties = w.ties[0], w.ties[1:]
	case len(w.queue) > 0:
		s = heap.Pop(&w.queue).(*step)
	default:
		return nil, nil
	}
	w.seen[s.id] = nil
	for _, p := range s.data.Parents {
		w.push(p, s.id)
	}
	return s, nil
}

// untie takes commits of the same second off the queue and orders them, children first, since dates do not tell.
func (w *walk) untie() {
	first := func(i int) bool { return i < len(w.queue) && w.queue[i].at().Equal(w.queue[0].at()) }
	if !first(1) && !first(2) {
		return
	}
	when := w.queue[0].at()
	children := make(map[*step]int) // of those of this second
	var work []*step
	for _, s := range w.queue {
		if s.at().Equal(when) {
			children[s] = 0
			work = append(work, s)
		}
	}
	each := func(s *step, visit func(*step)) {
		for _, id := range s.data.Parents {
			w.push(id, s.id)
			if p := w.seen[id]; p != nil && p.at().Equal(when) {
				visit(p)
			}
		}
	}
	for len(work) > 0 {
		s := work[0]
		work = work[1:]
		each(s, func(p *step) {
			if _, ok := children[p]; !ok {
				work = append(work, p)
			}
			children[p]++
		})
	}
	w.queue = slices.DeleteFunc(w.queue, func(s *step) bool { _, ok := children[s]; return ok })
	heap.Init(&w.queue)
	var ready stepQueue
	for s, n := range children {
		if n == 0 {
			heap.Push(&ready, s)
		}
	}
	for len(ready) > 0 {
		s := heap.Pop(&ready).(*step)
		w.ties = append(w.ties, s)
		each(s, func(p *step) {
			if children[p]--; children[p] == 0 {
				heap.Push(&ready, p)
			}
		})
	}
}

func (s *step) at() time.Time { return s.data.Committer.When }

// stepQueue is a heap of commits, newest first.
type stepQueue []*step

func (q stepQueue) Len() int      { return len(q) }
func (q stepQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q stepQueue) Less(i, j int) bool {
	a, b := q[i], q[j]
	return cmp.Or(b.at().Compare(a.at()), cmp.Compare(a.seq, b.seq)) < 0
}
func (q *stepQueue) Push(x any) { *q = append(*q, x.(*step)) }
func (q *stepQueue) Pop() any {
	old := *q
	s := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	return s
}

// changed reports whether a commit changed one of the paths compared to all of its parents. Without paths every commit
// did.
func (c *Reader) changed(ctx context.Context, s *step, paths []string, w *walk) (bool, error) {
	if len(paths) == 0 {
		return true, nil
	}
	parents := []*odb.CommitData{nil}
	if len(s.data.Parents) > 0 {
		parents = parents[:0]
	}
	for _, id := range s.data.Parents {
		if p := w.seen[id]; p != nil { // usually so, because parents are older and come later
			parents = append(parents, &p.data)
			continue
		}
		data, err := backup.ReadCommit(c.DB(), id)
		if err != nil {
			return false, err
		}
		parents = append(parents, &data)
	}
	for i, p := range parents {
		differs := false
		for _, path := range paths {
			how, err := c.comparePath(&s.data, p, path)
			if err != nil {
				return false, fmt.Errorf("%s: %w", path, err)
			}
			if how == unclear {
				// Stock clients do not update metadata, so only the reconciled listings tell.
				if how, err = c.compareMerged(ctx, s.id, s.data.Parents[i], path); err != nil {
					return false, fmt.Errorf("%s: %w", path, err)
				}
			}
			if how == differ {
				differs = true
				break
			}
		}
		if !differs {
			return false, nil
		}
	}
	return true, nil
}
