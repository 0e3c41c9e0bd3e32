package tiers

import (
	"context"
	"slices"
	"time"

	"emberfs/tiers/cold"
)

// inodeBytes is what one entry of the inode table costs on the heap, as measured: the Inode, its name and two map
// entries.
const inodeBytes = 450

// maxInodes returns how many inodes the table may hold under a memory limit in bytes: it may use a fifth of it.
func maxInodes(memoryLimit int64) int { return max(4096, int(memoryLimit/5/inodeBytes)) }

const (
	pruneBatch = 4096                  // inodes named in one request to the kernel
	pruneWait  = 20 * time.Millisecond // how long to wait for the kernel's answers, which are FORGETs
	// pruneRest is the pause after a round over the whole table that did not suffice. It doubles up to pruneRestMax.
	pruneRest = 500 * time.Millisecond
	// pruneRestMax bounds that pause: a table full of inodes in use (open files, working directories) is looked at
	// again after it.
	pruneRestMax = 30 * time.Second
)

// link appends n to the table's clock; table.mu is held.
func (t *table) link(n *Inode) {
	n.prev, n.next = t.clock.prev, &t.clock
	n.prev.next, n.next.prev = n, n
}

// unlink takes n off the clock; table.mu is held.
func (t *table) unlink(n *Inode) {
	if n.next == nil {
		return
	}
	n.prev.next, n.next.prev = n.next, n.prev
	n.prev, n.next = nil, nil
}

// crowded wakes the pruner when the table is over its limit; table.mu is held.
func (t *table) crowded() {
	if len(t.byID) > t.max {
		select {
		case t.wake <- struct{}{}:
		default:
		}
	}
}

// candidate is an inode that the kernel may forget, with its parent's node id and name for kernels that want names.
type candidate struct {
	n      *Inode
	id     uint64
	parent uint64
	name   string
}

// candidates moves the clock's hand over at most scan inodes and returns up to limit of them that were not used since
// it came by last. It leaves out directories with names that the next commit must look at, and big files with written
// parts: once forgotten, they would have to be read whole.
func (v *Volume) candidates(limit, scan int) []candidate {
	t := &v.table
	found := make([]candidate, 0, limit)
	t.mu.Lock()
	for ; scan > 0 && len(found) < limit; scan-- {
		n := t.clock.next
		if n == &t.clock {
			break
		}
		t.unlink(n)
		t.link(n)
		if n.used.Swap(false) || n.opens.Load() > 0 {
			continue
		}
		found = append(found, candidate{n: n, id: n.id})
	}
	t.mu.Unlock()
	return slices.DeleteFunc(found, func(c candidate) bool {
		return c.n.dir != nil && c.n.dir.busy() || c.n.written.Load().dirty()
	})
}

// busy says whether the directory has changed names that the next commit must look at.
func (d *dirState) busy() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.mu.changed) > 0
}

// pruneLoop keeps the inode table within its limit: it asks the kernel to forget the inodes that were not used for
// longest. Only the FORGETs that follow show what it did: open files, working directories, watches and mappings keep
// their inodes.
func (v *Volume) pruneLoop(ctx context.Context) {
	t := &v.table
	rest := pruneRest
	for {
		select {
		case <-t.wake:
		case <-ctx.Done():
			return
		}
		inval := v.inval.Load()
		if inval == nil {
			continue // not mounted yet
		}
		before := v.inodes()
		enough := v.prune(ctx, *inval, before)
		if enough {
			rest = pruneRest
			continue
		}
		if !sleep(ctx, rest) {
			return
		}
		if rest = min(2*rest, pruneRestMax); v.inodes() < before*3/4 {
			rest = pruneRest
		}
	}
}

// prune asks the kernel in batches until the table is well below its limit, for at most two turns of the clock: in the
// first one all inodes may turn out to be used. It says whether the table is within its limit now, or ctx has ended.
func (v *Volume) prune(ctx context.Context, inval Invalidator, before int) bool {
	t := &v.table
	target := t.max - t.max/8
	for scanned := 0; scanned < 2*before; {
		over := v.inodes() - target
		if over <= 0 {
			return true
		}
		const scan = 4 * pruneBatch
		c := v.candidates(min(over+over/4+1, pruneBatch), scan)
		scanned += scan
		if len(c) > 0 {
			v.askToForget(inval, c)
		}
		if !sleep(ctx, pruneWait) {
			return true
		}
	}
	return v.inodes() <= t.max
}

// askToForget asks the kernel to forget inodes: by number where it can, else by the names of what is no directory. To
// drop a directory's name would detach what is mounted below it, and lose working directories.
func (v *Volume) askToForget(inval Invalidator, c []candidate) {
	if inval.CanPrune() {
		ids := make([]uint64, len(c))
		for i := range c {
			ids[i] = c[i].id
		}
		inval.Prune(ids)
		return
	}
	v.ns.RLock()
	for i := range c {
		if n := c[i].n; n.kind != cold.KindDir && n.parent != nil {
			c[i].parent, c[i].name = n.parent.id, n.name
		}
	}
	v.ns.RUnlock()
	for i := range c {
		if c[i].parent != 0 {
			inval.InvalEntry(c[i].parent, c[i].name)
		}
	}
}

// inodes returns how many inodes the table has.
func (v *Volume) inodes() int {
	v.table.mu.RLock()
	defer v.table.mu.RUnlock()
	return len(v.table.byID)
}

// sleep waits for d. It returns false if ctx ends first.
func sleep(ctx context.Context, d time.Duration) bool { return sleepUnless(ctx, d, nil) }

// sleepUnless waits for d, or until wake delivers. It returns false if ctx ends first.
func sleepUnless(ctx context.Context, d time.Duration, wake <-chan struct{}) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-wake:
		return true
	case <-ctx.Done():
		return false
	}
}
