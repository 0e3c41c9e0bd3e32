package odb

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"emberfs/tiers/cold"
)

// gcGroup is the total size in bytes up to which GC replaces several packs by one new pack.
const gcGroup = 256 << 20

// gcTries is how often GC starts anew if a commit meanwhile took up again an object that was to go.
const gcTries = 3

// GC removes objects that are not reachable from references, HEAD, commits under Protect, reflogs and the like, packs
// with .keep, or objects younger than the grace period. A pack with such objects is replaced by one without them. If an
// object that must be reachable is missing or damaged, nothing is removed, and the error is cold.ErrMissing or
// cold.ErrCorrupt. After other errors the report says what had been removed before.
func (db *DB) GC(ctx context.Context, o cold.GCOptions) (cold.GCReport, error) {
	var report cold.GCReport
	for range gcTries {
		r, err := db.gc(ctx, o)
		report.Objects += r.Objects
		report.Bytes += r.Bytes
		report.Packs += r.Packs
		report.Kept, report.Busy = r.Kept, r.Busy
		if err != nil {
			return report, fmt.Errorf("gc %s: %w", db.dir, err)
		}
		if !r.Busy {
			break
		}
	}
	return report, nil
}

func (db *DB) gc(ctx context.Context, o cold.GCOptions) (report cold.GCReport, err error) {
	if db.readOnly && !o.DryRun {
		return report, ErrReadOnly
	}
	if o.Grace == 0 {
		o.Grace = cold.DefaultGrace
	}
	done, err := db.exclusive(ctx)
	if err != nil {
		return report, err
	}
	defer done()
	if err := db.Refresh(); err != nil {
		return report, err
	}
	l, err := db.acquire()
	if err != nil {
		return report, err
	}
	defer db.release(l)
	if err := db.step("gc.mark"); err != nil {
		return report, err
	}
	c := &collector{db: db, young: time.Now().Add(-max(o.Grace, 0)), dryRun: o.DryRun, report: &report}
	if c.m, err = db.newMarker(ctx, l, o.Progress); err != nil {
		return report, err
	}
	if err := c.mark(); err != nil {
		return report, fmt.Errorf("nothing was removed: %w", err)
	}
	if err := c.plan(); err != nil {
		return report, err
	}
	if o.DryRun {
		for _, d := range c.dead {
			report.Objects += d.objects
			report.Bytes += d.bytes
			report.Packs++
		}
	} else if err := c.sweep(); err != nil {
		return report, err
	}
	if err := c.sweepLoose(); err != nil {
		return report, err
	}
	report.Kept = int64(c.m.total()) - report.Objects
	return report, nil
}

// collector is one run of GC.
type collector struct {
	db     *DB
	m      *marker
	young  time.Time // objects and packs younger than this stay
	dryRun bool
	fixed  []bool // by pack: whether it stays as it is
	mtimes []time.Time
	dead   []deadPack
	report *cold.GCReport
}

// deadPack is a pack with objects to remove.
type deadPack struct {
	k       int
	objects int64
	bytes   int64
}

// mark marks everything that is reachable from the roots.
func (c *collector) mark() error {
	m := c.m
	r, err := c.roots()
	if err != nil {
		return err
	}
	if err := m.from(r.refs); err != nil {
		return err
	}
	// Git may have pruned part of what the other roots reach.
	m.lenient = true
	if err := m.from(r.logs); err != nil {
		return err
	}
	c.fixed, c.mtimes = make([]bool, len(m.packs)), make([]time.Time, len(m.packs))
	for k, p := range m.packs {
		promised, err := exists(p.base + ".promisor")
		if err != nil {
			return err
		}
		kept, err := exists(p.base + ".keep")
		if err != nil {
			return err
		}
		st, err := os.Stat(p.base + ".pack")
		switch {
		case errors.Is(err, fs.ErrNotExist): // git has removed it meanwhile
			c.fixed[k] = true
			continue
		case err != nil:
			return err
		}
		c.mtimes[k] = st.ModTime()
		// Promisor packs are the promisor's business; they may point to objects that are not here.
		c.fixed[k] = promised || kept || st.ModTime().After(c.young)
		if c.fixed[k] && !promised {
			if err := m.everything(k); err != nil {
				return err
			}
		}
		c.fixed[k] = c.fixed[k] || p.damaged.Load() // a damaged pack cannot be replaced
	}
	for i := range m.loose {
		if m.loose[i].mtime.After(c.young) {
			if err := m.from([]ID{m.loose[i].id}); err != nil {
				return err
			}
		}
	}
	m.lenient, m.sealed = false, true
	return allRead(m.packs)
}

func (c *collector) roots() (rootSet, error) {
	c.db.protected.mu.Lock()
	defer c.db.protected.mu.Unlock()
	return c.db.roots()
}

// plan finds the packs that have dead objects, and how many.
func (c *collector) plan() error {
	for k, p := range c.m.packs {
		if c.fixed[k] {
			continue
		}
		if err := c.m.ctx.Err(); err != nil {
			return err
		}
		d := deadPack{k: k}
		by := p.offsets()
		for j, i := range by {
			if c.m.live(k, int(i)) {
				continue
			}
			off, _ := p.idx.offset(int(i))
			end := p.size - hashSize
			if j+1 < len(by) {
				end, _ = p.idx.offset(int(by[j+1]))
			}
			d.objects++
			d.bytes += end - off + hashSize + 8 // plus its place in the index
		}
		if d.objects == int64(p.idx.count) && d.objects > 0 {
			d.bytes = p.size + int64(len(p.idx.data))
		}
		if d.objects > 0 {
			c.dead = append(c.dead, d)
		}
	}
	return nil
}

// sweep replaces the packs with dead objects, in groups of up to gcGroup bytes.
func (c *collector) sweep() error {
	for len(c.dead) > 0 {
		var src []*pack
		var group []deadPack
		var objects, bytes, size int64
		want := map[*pack]int{}
		for len(c.dead) > 0 && (len(src) == 0 || size+c.m.packs[c.dead[0].k].size <= gcGroup) {
			d := c.dead[0]
			c.dead = c.dead[1:]
			p := c.m.packs[d.k]
			src, group = append(src, p), append(group, d)
			want[p] = d.k
			objects += d.objects
			size += p.size
			bytes += p.size + int64(len(p.idx.data))
		}
		removed := false
		n, err := c.db.replace(c.m.ctx, src, func(p *pack, i int) bool { return c.m.live(want[p], i) }, nil,
			func() (ok bool, done func(), err error) {
				ok, done, err = c.agree(group)
				removed = ok
				return ok, done, err
			})
		if err != nil {
			return err
		}
		if !removed {
			c.report.Busy = true
			continue
		}
		c.report.Objects += objects
		c.report.Bytes += bytes - n
		c.report.Packs += len(src)
	}
	return nil
}

// agree checks for the last time whether anything that is to go has come into use. If it returns true, nothing can be
// protected until done is called.
func (c *collector) agree(group []deadPack) (ok bool, done func(), err error) {
	if err := c.db.step("gc.check"); err != nil {
		return false, nil, err
	}
	mu := &c.db.protected.mu
	mu.Lock()
	defer func() {
		if !ok {
			mu.Unlock()
		}
	}()
	r, err := c.db.roots()
	if err != nil {
		return false, nil, err
	}
	if err := c.m.from(r.refs); err != nil {
		return false, nil, err
	}
	if err := allRead(c.m.packs); err != nil { // objects in use may lie in any of them
		return false, nil, err
	}
	if c.m.late > 0 {
		return false, nil, nil
	}
	for _, d := range group {
		// git updates the pack's mtime when it relies on an object in the pack.
		st, err := os.Stat(c.m.packs[d.k].base + ".pack")
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, nil, err
		}
		if err == nil && !st.ModTime().Equal(c.mtimes[d.k]) {
			return false, nil, nil
		}
	}
	return true, mu.Unlock, nil
}

// sweepLoose removes the loose objects that are not reachable.
func (c *collector) sweepLoose() error {
	if !c.dryRun {
		ok, done, err := c.agree(nil)
		if err != nil {
			return err
		}
		if !ok {
			c.report.Busy = true
			return nil
		}
		defer done()
		if err := c.db.step("gc.remove-loose"); err != nil {
			return err
		}
	}
	for i, o := range c.m.loose {
		if o.mtime.After(c.young) || c.m.liveLoose(i) {
			continue
		}
		if !c.dryRun {
			if err := c.m.ctx.Err(); err != nil {
				return err
			}
			path := c.db.loosePath(o.id)
			st, err := os.Lstat(path)
			if errors.Is(err, fs.ErrNotExist) || err == nil && !st.ModTime().Equal(o.mtime) {
				continue // git removed it or relies on it
			}
			if err == nil {
				err = removeExisting(path)
			}
			if err != nil {
				return fmt.Errorf("remove a loose object: %w", err)
			}
		}
		c.report.Objects++
		c.report.Bytes += o.size
	}
	return nil
}
