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
	// readAgain is the number of opens with reads after which a stub comes back by itself.
	readAgain = 3
	// recallMost and returnBytes bound what comes back with one sync.
	recallMost  = 64
	recallBytes = 32 << 20
	// recallSize is the size of a file over which it comes back only when it is written.
	recallSize = 256 << 20
	// recallGather is how long more is waited for once something is to come back.
	recallGather = 50 * time.Millisecond
)

// recallSoon has a stub that is read again and again come back in the background.
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

// warmHasRoom says whether bringing bytes back would not push others out at once.
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

// recallBatch brings stubs back with one sync for all, while no program waits for cold. Who writes one meanwhile waits
// for it.
func (v *Volume) recallBatch(ctx context.Context, batch []*Inode) {
	// In one order, although only this holds several.
	slices.SortFunc(batch, func(a, b *Inode) int { return cmp.Compare(a.id, b.id) })
	// A file may be there by several names.
	for rest := slices.Compact(slices.Clone(batch)); len(rest) > 0 && v.yield(ctx); {
		rest = v.recallSome(ctx, rest)
	}
}

// recallSome is recallBatch for as many of rest, one at least, as come before a program waits for cold; it gives the
// others back.
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

// yield waits while programs wait for cold, but not for ever; false when ctx ends.
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

// leaveCold makes a file forget cold: its bytes come back, and its record says nothing any more.
func (v *Volume) leaveCold(ctx context.Context, n *Inode) error {
	if n.kind != cold.KindFile {
		return nil
	}
	n.opens.Add(1) // it does not leave meanwhile
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
