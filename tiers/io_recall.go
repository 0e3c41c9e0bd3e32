package tiers

import (
	"cmp"
	"context"
	"emberfs/tiers/cold"
	"emberfs/tiers/warm"
	"errors"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// readAgain is the number of handles through which a stub is read before it comes back by itself.
	readAgain = 3
	// recallMost and recallBytes bound how many files, and bytes, come back with one sync.
	recallMost  = 64
	recallBytes = 32 << 20
	// recallSize is the size in bytes above which a stub comes back only when it is written.
	recallSize = 256 << 20
	// recallGather is how long recallLoop waits for more files once it has one.
	recallGather = 50 * time.Millisecond
)

// recallSoon asks recallLoop to bring back a stub that is read again and again. n.io may be held.
func (v *Volume) recallSoon(n *Inode) {
	n.mu.Lock()
	size := n.mu.rec.Size
	n.mu.Unlock()
	if size > recallSize || !v.warmHasRoom(size) {
		return
	}
	v.ref(n)
	select {
	case v.recalls <- n:
	default: // enough to do: the next read asks again
		v.unref(n, 1)
	}
}

// warmHasRoom says whether so many bytes can come back to warm without pushing others out at once.
func (v *Volume) warmHasRoom(bytes int64) bool {
	limit := v.cfg.WarmLimit
	return (limit <= 0 || v.warmBytes.Load()+bytes < limit-limit/limitSlack) && v.lacking() <= 0
}

// recallLoop brings back what recallSoon asked for, many files to one sync.
func (v *Volume) recallLoop(ctx context.Context) {
	defer func() {
		for {
			select {
			case n := <-v.recalls:
				v.unref(n, 1)
			default:
				return
			}
		}
	}()
	for {
		var batch []*Inode
		var bytes int64
		gather := (<-chan time.Time)(nil)
	collect:
		for len(batch) < recallMost && bytes < recallBytes {
			select {
			case <-ctx.Done():
				break collect
			case n := <-v.recalls:
				if slices.Contains(batch, n) {
					v.unref(n, 1)
					continue
				}
				batch = append(batch, n)
				n.mu.Lock()
				bytes += n.mu.rec.Size
				n.mu.Unlock()
				if gather == nil {
					gather = time.After(recallGather)
				}
			case <-gather:
				break collect
			}
		}
		if ctx.Err() == nil {
			v.recallBatch(ctx, batch)
		}
		for _, n := range batch {
			v.unref(n, 1)
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// recallBatch brings stubs back with few syncs, while no program waits for cold. Whoever writes one meanwhile waits
// until it is back. Nothing is locked.
func (v *Volume) recallBatch(ctx context.Context, batch []*Inode) {
	// Several Inode.back are locked in the order of ids, although nobody else holds several.
	slices.SortFunc(batch, func(a, b *Inode) int { return cmp.Compare(a.id, b.id) })
	// batch may have a file twice, by several names.
	for rest := slices.Compact(slices.Clone(batch)); len(rest) > 0 && v.yield(ctx); {
		rest = v.recallSome(ctx, rest)
	}
}

// recallSome brings back the stubs of rest until a program waits for cold, but at least one, with one sync. It returns
// those that are left.
func (v *Volume) recallSome(ctx context.Context, rest []*Inode) []*Inode {
	var back []*recalled
	for len(rest) > 0 && (len(back) == 0 || v.moved.foreground.Load() == 0) && ctx.Err() == nil {
		n := rest[0]
		rest = rest[1:]
		n.back.Lock()
		b, err := v.fetchRecalled(ctx, n)
		if err != nil && ctx.Err() == nil {
			v.log.WithError(err).WithField("path", v.pathOf(n)).Debug("a file did not come back to warm")
		}
		if b == nil {
			n.back.Unlock()
			continue
		}
		back = append(back, b)
	}
	if len(back) == 0 {
		return rest
	}
	err := unix.Syncfs(v.warmRead())
	for _, b := range back {
		if err == nil {
			if e := v.endStub(b); e != nil {
				v.log.WithError(e).WithField("path", v.pathOf(b.n)).Warn("a file did not come back to warm")
			}
		}
		b.close()
		b.n.back.Unlock()
	}
	if err != nil {
		v.log.WithError(err).Warn("files did not come back to warm")
	}
	return rest
}

// yield waits while programs wait for cold, but not much longer than 200 ms. It returns false when ctx ends.
func (v *Volume) yield(ctx context.Context) bool {
	for range 100 {
		if v.moved.foreground.Load() == 0 {
			break
		}
		if !sleep(ctx, 2*time.Millisecond) {
			return false
		}
	}
	return ctx.Err() == nil
}

// leaveCold makes a file independent of cold: its bytes come back to warm, and its record no longer says that cold has
// them. Nothing is locked.
func (v *Volume) leaveCold(ctx context.Context, n *Inode) error {
	if n.kind != cold.KindFile {
		return nil
	}
	n.opens.Add(1) // so that n is not released meanwhile
	defer n.opens.Add(-1)
	for try := range 3 {
		if n.stub.Load() {
			v.recallBatch(ctx, []*Inode{n})
		}
		v.begin()
		n.mu.Lock()
		r := n.mu.rec
		var err error
		stub := r.IsStub()
		if !stub && r.Has(warm.FlagClean) {
			err = v.storeOrRemove(n, warm.Record{Flags: r.Flags & warm.FlagGroup, Group: r.Group})
			n.mu.captured, n.mu.ungranted = cold.ID{}, true
			n.mu.marks++
		}
		n.mu.Unlock()
		v.end()
		if err != nil || !stub {
			return err
		}
		if try == 2 || ctx.Err() != nil {
			break
		}
	}
	return errors.Join(errors.New("its bytes did not come back from cold (the log says why)"), ctx.Err())
}
