package tiers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"emberfs/tiers/tmpfs"
	"emberfs/tiers/warm"
)

// memory is a volume's memory class: directories whose contents lie on a private tmpfs instead of warm.
//
// Such a directory is a graft: warm holds an ordinary empty directory in its place, so that the parent's listing, the
// commits and the next machine have it; a lookup of it leads into the area, another Volume over a directory of the
// tmpfs that is named after warm's directory. So a graft follows when a directory above it is renamed, as a mount
// would. What a directory is, it stays while it has entries, whatever the rules say meanwhile.
type memory struct {
	on  atomic.Bool   // there are rules for it, or grafts of an earlier run: else nobody looks further
	seq atomic.Uint64 // from 1; rises when paths or rules may have changed: then directories are judged anew
	// mayswap says that the area's tmpfs may be swapped out, since the kernel has none that may not.
	mayswap atomic.Bool

	// making is held while grafts or the area come and go. Taken with nothing else held; Volume.barrier and what comes
	// after it in the lock order may be taken under it.
	making mutex[lockMaking]
	tmpfs  *tmpfs.FS       // making; the area's tmpfs
	run    context.Context // making; of the background work, nil before it runs
	ended  bool            // making; there will be no area any more

	mu struct { // a leaf
		rwMutex[leaf]
		grafts map[uint64]*graft // by the inode number of warm's directory
		stays  map[uint64]string // notes about directories that are not what the rules want because of what they hold
		why    error             // why there is no area; nil: there is one, or none is asked for
	}
}

// graft is a directory of warm whose contents are in the area.
type graft struct {
	gen  uint64
	key  string // name in the area
	host *Inode // warm's directory, with a reference; nil until it was looked up
	seq  uint64 // memory.seq when the graft was last compared with the rules
}

// errNoMemory says that a directory is of class memory, and there is nowhere to keep its contents. They never go to the
// disk instead.
var errNoMemory = fmt.Errorf("the memory class is not available: %w", unix.EOPNOTSUPP)

// errUnmounted says that the mount, and with it the memory class, has ended.
var errUnmounted = errors.New("the volume is not mounted any more")

// openMemory takes over what an earlier daemon of this volume left in memory, or makes room for what the rules want
// there. If that fails, the volume works without it, and status says why.
func (v *Volume) openMemory() {
	m := &v.memory
	m.seq.Store(1)
	left, err := tmpfs.MountedAt(filepath.Join(v.cfg.State, tmpfs.MemoryName))
	if err == nil && left || v.memoryRules() {
		m.on.Store(true)
		m.making.Lock()
		defer m.making.Unlock()
		v.openArea()
	}
}

// memoryRulesChanged is called after the rules changed, which memoryDir goes by. It makes the area if it is needed now.
func (v *Volume) memoryRulesChanged() {
	m := &v.memory
	m.making.Lock()
	defer m.making.Unlock()
	m.seq.Add(1)
	if v.memoryRules() && v.area.Load() == nil && !m.ended {
		v.openArea()
	}
	m.on.Store(v.memoryRules() || v.area.Load() != nil)
}

func (v *Volume) memoryClassLimit() int64 {
	if v.cfg.MemoryClassLimit > 0 {
		return v.cfg.MemoryClassLimit
	}
	return DefaultMemoryClass
}

// openArea makes the area; memory.making is held.
func (v *Volume) openArea() {
	m := &v.memory
	a, t, err := v.newArea()
	m.mu.Lock()
	m.mu.why = err
	m.mu.Unlock()
	if err != nil {
		v.log.WithError(err).Warn("directories of class memory are not available: nothing can be made in them")
		return
	}
	m.tmpfs = t
	m.mayswap.Store(t.Swap)
	v.area.Store(a)
	if i := v.inval.Load(); i != nil {
		a.inval.Store(i)
	}
	if m.run != nil {
		v.wg.Go(func() { a.pruneLoop(m.run) })
	}
	if t.Adopted {
		v.log.WithField("directories", len(m.mu.grafts)).Info("took over the memory class of a daemon that was killed")
	}
}

func (v *Volume) newArea() (*Volume, *tmpfs.FS, error) {
	limit := v.memoryClassLimit()
	t, err := tmpfs.Open(v.cfg.State, v.state.Machine, limit)
	if err != nil {
		return nil, nil, err
	}
	fail := func(err error) (*Volume, *tmpfs.FS, error) { return nil, nil, errors.Join(err, t.Close(t.Adopted)) }
	if t.Adopted {
		if err := t.Resize(limit); err != nil {
			v.log.WithError(err).Warn("memory_class_limit stays as the last daemon had it")
		}
	}
	a := &Volume{
		basis: basis{areaOf: v, cfg: Config{State: v.cfg.State}, log: v.log, openedAt: time.Now()},
		nodes: nodes{warmFD: t.Tree, uid: v.uid, gid: v.gid, mayChown: v.mayChown, fsType: unix.TMPFS_MAGIC},
	}
	var st unix.Statx_t
	if err := warm.StatAt(t.Tree, "", &st); err != nil {
		return fail(err)
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(t.Tree, &fs); err != nil {
		return fail(err)
	}
	a.warmMount = st.Mnt_id
	a.noatime, a.relatime = fs.Flags&unix.ST_NOATIME != 0, fs.Flags&unix.ST_RELATIME != 0
	a.SetAtime(v.atimeMode())
	a.flagged.Store(t.Adopted)
	a.dirs.init()
	a.table.init(maxInodes(v.cfg.MemoryLimit) / 4)
	a.table.next = areaBit
	a.epoch.Store(1)
	a.points.verified.Store(true)
	if err := a.openRoot(); err != nil {
		return fail(err)
	}
	names, err := warm.ListNames(t.Tree)
	if err != nil {
		return fail(err)
	}
	grafts := map[uint64]*graft{}
	for _, d := range names {
		var ino uint64
		g := &graft{key: d.Name}
		if n, err := fmt.Sscanf(d.Name, graftKey, &ino, &g.gen); n != 2 || err != nil {
			_ = warm.RemoveTree(t.Tree, d.Name) // it was being made when the daemon was killed
			continue
		}
		grafts[ino] = g
	}
	v.memory.mu.Lock()
	v.memory.mu.grafts, v.memory.mu.stays = grafts, map[uint64]string{}
	v.memory.mu.Unlock()
	return a, t, nil
}

// startMemory begins the area's background work.
func (v *Volume) startMemory(ctx context.Context) {
	m := &v.memory
	m.making.Lock()
	defer m.making.Unlock()
	m.run = ctx
	if a := v.area.Load(); a != nil {
		v.wg.Go(func() { a.pruneLoop(ctx) })
	}
}

// EndMemory throws away what directories of class memory hold; Close does so too. It is called when the mount is gone,
// before the last backup: the memory would otherwise be kept during the backup, and for the next mount if the daemon is
// killed meanwhile. If the mount failed, so that the volume was never started, what an earlier daemon left stays.
func (v *Volume) EndMemory() error {
	m := &v.memory
	m.making.Lock()
	defer m.making.Unlock()
	m.ended = true
	a := v.area.Swap(nil)
	if a == nil {
		return nil
	}
	m.mu.Lock()
	m.mu.why = errUnmounted
	m.mu.Unlock()
	a.closed.Store(true)
	err := m.tmpfs.Close(m.tmpfs.Adopted && !v.started.Load())
	a.table.mu.RLock()
	inodes := slices.Collect(maps.Values(a.table.byID))
	a.table.mu.RUnlock()
	for _, n := range inodes {
		if n.dir != nil {
			a.dirs.drop(n)
		}
	}
	return err
}

// memoryStatus counts what the area holds, or says why there is no area.
func (v *Volume) memoryStatus() MemoryStatus {
	m := &v.memory
	s := MemoryStatus{Limit: v.memoryClassLimit()}
	m.mu.RLock()
	why := m.mu.why
	s.Directories = len(m.mu.grafts)
	m.mu.RUnlock()
	a := v.area.Load()
	switch {
	case why != nil:
		s.Why = why.Error()
		return s
	case a == nil:
		s.Why = "no rule asks for it"
		return s
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(a.warmFD, &fs); err != nil {
		s.Why = err.Error()
		return s
	}
	s.Available = true
	const own, ownPages = 3, 1 // the tmpfs's root, the tree and the owner's name, which takes a page
	s.Files = max(0, int64(fs.Files-fs.Ffree)-own-int64(s.Directories))
	s.Bytes = max(0, int64(fs.Blocks-fs.Bfree)-ownPages) * fs.Bsize
	s.Limit = int64(fs.Blocks) * fs.Bsize
	s.Swap = m.mayswap.Load()
	return s
}

// notesMost bounds how many directories the notes of a status name.
const notesMost = 10

// memoryNotes says which directories are not what the rules want them to be.
func (v *Volume) memoryNotes() []string {
	m := &v.memory
	m.mu.RLock()
	why, stays := m.mu.why, slices.Sorted(maps.Values(m.mu.stays))
	m.mu.RUnlock()
	var notes []string
	if why != nil {
		notes = append(notes, "directories of class memory are not available: "+why.Error())
	}
	if extra := len(stays) - notesMost; extra > 0 {
		stays = append(stays[:notesMost], fmt.Sprintf("and %d more directories that stay what they were", extra))
	}
	return append(notes, stays...)
}
