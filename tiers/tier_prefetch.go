package tiers

import (
	"context"
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/rules"
	"emberfs/tiers/warm"
)

const (
	// prefetchBytes bounds how many bytes are brought back after a restore.
	prefetchBytes = 1 << 30
	// prefetchMost is the size in bytes above which a file is left until it is read.
	prefetchMost = 64 << 20
)

// recallAll lists every directory and brings back every stub: with tiering off nothing stays in cold only.
func (v *Volume) recallAll(ctx context.Context) {
	v.ref(v.root)
	defer v.unref(v.root, 1)
	r := &recaller{v: v, ctx: ctx}
	err := r.below(v.root)
	if err == nil && r.left > 0 {
		err = fmt.Errorf("%d files are still in cold only", r.left)
	}
	if err != nil && ctx.Err() == nil {
		v.points.setError("tier", err)
		v.log.WithError(err).Error("tiering is off, but files that left warm before could not be brought back")
	}
}

// find returns the inode at a slash path, with one reference. It may be in the area: the caller drops the reference by
// n.vol. Lazy directories on the way are browsed or listed, as for a program's lookup.
func (v *Volume) find(ctx context.Context, at string) (*Inode, error) {
	n := v.root
	v.ref(n)
	for rest := strings.Trim(path.Clean("/"+at), "/"); rest != ""; {
		var name string
		name, rest, _ = strings.Cut(rest, "/")
		if n.kind != cold.KindDir {
			n.vol.unref(n, 1)
			return nil, unix.ENOTDIR
		}
		next, _, err := n.vol.Lookup(ctx, n, name)
		n.vol.unref(n, 1)
		if err != nil {
			return nil, err
		}
		n = next
	}
	return n, nil
}

// prefetch brings back, after a restore, what the last session opened first, in its order. It is in no hurry: what
// programs read comes first.
func (v *Volume) prefetch(ctx context.Context) {
	s, err := v.origin(ctx)
	if err != nil {
		return
	}
	paths, err := s.Opened(ctx)
	if err != nil {
		v.log.WithError(err).Warn("what the last session opened first cannot be read")
		return
	}
	paths = v.urgentFirst(ctx, paths)
	var batch []*Inode
	var bytes, all int64
	flush := func() {
		v.recallBatch(ctx, batch)
		for _, n := range batch {
			v.unref(n, 1)
		}
		batch, bytes = batch[:0], 0
	}
	for _, p := range paths {
		if !v.yield(ctx) || all > prefetchBytes {
			break
		}
		n, err := v.find(ctx, p)
		if err != nil {
			continue // it is not there any more
		}
		n.mu.Lock()
		size := n.mu.rec.Size
		n.mu.Unlock()
		if !n.stub.Load() || size > prefetchMost || !v.warmHasRoom(bytes+size) {
			n.vol.unref(n, 1)
			continue
		}
		batch = append(batch, n)
		bytes += size
		all += size
		if len(batch) >= recallMost || bytes >= recallBytes {
			flush()
		}
	}
	flush()
	if ctx.Err() == nil && len(paths) > 0 {
		v.log.WithField("files", len(paths)).WithField("bytes", all).Debug(
			"brought back what the last session opened first")
	}
}

// urgentFirst puts critical files in front: those that lie where a rule without wildcards says, then those among paths.
func (v *Volume) urgentFirst(ctx context.Context, paths []string) []string {
	set := v.Rules()
	if !set.HasCritical() {
		return paths
	}
	var first, rest []string
	seen := map[string]bool{}
	add := func(p string) {
		if !seen[p] {
			seen[p] = true
			first = append(first, p)
		}
	}
	for _, at := range set.CriticalPlaces() {
		v.filesBelow(ctx, at, 0, func(p string) bool {
			if set.Decide(p, false).Class() == rules.Critical {
				add(p)
			}
			return len(first) < openedMax
		})
	}
	for _, p := range paths {
		if set.Decide(p, false).Class() == rules.Critical {
			add(p)
		} else if !seen[p] {
			rest = append(rest, p)
		}
	}
	return append(first, rest...)
}

// filesBelow calls more for each regular file at and below a path, and lists lazy directories for that. It stops, and
// returns false, when more returns false, or ctx ends.
func (v *Volume) filesBelow(ctx context.Context, at string, depth int, more func(string) bool) bool {
	if ctx.Err() != nil || !v.yield(ctx) {
		return false
	}
	if cold.TooDeepToWalk(at, depth) != nil {
		return true // it comes when it is read
	}
	n, err := v.find(ctx, at)
	if err != nil {
		return true // nothing there
	}
	defer v.unref(n, 1)
	if n.kind == cold.KindFile {
		return more(at)
	}
	if n.dir == nil || v.list(ctx, n) != nil {
		return true
	}
	goOn := true
	_ = v.eachEntry(ctx, n, func(_ int, d *warm.Dirent) error { // what cannot be listed comes when it is read
		if p := path.Join(at, d.Name); d.Mode == unix.S_IFREG {
			goOn = more(p)
		} else {
			goOn = v.filesBelow(ctx, p, depth+1, more)
		}
		if !goOn {
			return context.Canceled
		}
		return nil
	})
	return goOn
}
