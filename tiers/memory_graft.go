package tiers

import (
	"context"
	"errors"
	"fmt"
	"path"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/warm"
)

// graftKey is the name in the area of the directory that stands in place of warm's with this inode number and
// generation.
const graftKey = "%x-%x"

// memoryRoot says whether a directory at this path is the root of a directory of class memory by the rules: it is of
// that class, and the one above is not.
func (v *Volume) memoryRoot(at string) bool {
	if at == "" || !v.memoryDir(at) {
		return false
	}
	up := path.Dir(at)
	return up == "." || !v.memoryDir(up)
}

// graftAt returns the graft in place of warm's directory with this inode number and generation, or nil.
func (m *memory) graftAt(ino, gen uint64) *graft {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if g := m.mu.grafts[ino]; g != nil && g.gen == gen {
		return g
	}
	return nil
}

// grafted says whether n's contents are in the area.
func (v *Volume) grafted(n *Inode) bool { return n.dir != nil && v.memory.graftAt(n.ino, n.gen) != nil }

// crosses says whether n would cross the border of a directory of class memory by moving to (newdir, newname).
func (v *Volume) crosses(n, newdir *Inode, newname string) bool {
	return n.dir != nil && (v.grafted(n) || v.memoryRoot(path.Join(v.pathOf(newdir), newname)))
}

// prepare prepares a directory for a name that is to be made in it: it lists the directory, and returns an error if no
// name may be made there. Nothing is locked; never between begin and end.
func (v *Volume) prepare(ctx context.Context, dir *Inode) error {
	if err := v.may(dir, cold.FlagImmutable); err != nil {
		return err
	}
	if err := v.listWithRoom(ctx, dir); err != nil {
		return err
	}
	return v.bar(ctx, dir)
}

// bar keeps names from being made on disk in a directory of class memory. The kernel may know warm's directory from
// before it became one; bar then returns ESTALE, so that the kernel looks the directory up anew. It returns EOPNOTSUPP
// if there is no area.
func (v *Volume) bar(ctx context.Context, dir *Inode) error {
	if !v.memory.on.Load() || dir.dir == nil {
		return nil
	}
	g, err := v.graftOf(ctx, dir)
	if err != nil {
		if errors.Is(err, errNoMemory) {
			return unix.EOPNOTSUPP
		}
		return err
	}
	if g == nil {
		return nil
	}
	v.invalidateName(dir)
	return unix.ESTALE
}

// invalidateName makes the kernel look n up anew.
func (v *Volume) invalidateName(n *Inode) {
	inval := v.inval.Load()
	v.ns.RLock()
	parent, name := n.parent, n.name
	v.ns.RUnlock()
	if inval != nil && parent != nil {
		(*inval).InvalEntry(parent.id, name)
	}
}

// enter returns, with one reference, the directory of the area that stands in place of n; nil where n is an ordinary
// directory.
func (v *Volume) enter(ctx context.Context, n *Inode) (*Inode, Attr, error) {
	g, err := v.graftOf(ctx, n)
	if g == nil || err != nil {
		return nil, Attr{}, err
	}
	area := v.area.Load()
	if area == nil {
		return nil, Attr{}, errNoMemory
	}
	inside, a, err := area.lookupAt(ctx, area.root, area.warmFD, g.key)
	if err != nil {
		return nil, Attr{}, fmt.Errorf("memory directory of inode %d: %w", n.ino, err)
	}
	inside.host.Store(n)
	a.Ino = inside.shownIno()
	return inside, a, nil
}

// enterNew is enter for the directory n that was just made at (dir, name). If that fails, the directory is removed
// again. enterNew takes over the reference on n.
func (v *Volume) enterNew(ctx context.Context, dir *Inode, name string, n *Inode, a Attr) (*Inode, Attr, error) {
	inside, ia, err := v.enter(ctx, n)
	switch {
	case err != nil && !errors.Is(err, errNoMemory):
		v.unref(n, 1)
		return nil, Attr{}, errors.Join(err, v.removeName(context.WithoutCancel(ctx), dir, name, unix.AT_REMOVEDIR))
	case inside == nil: // an ordinary directory; or there is no area, so it stays empty, but the next machine has it
		return n, a, nil
	}
	v.unref(n, 1)
	return inside, ia, nil
}

// graftOf returns the graft in place of n, and makes it if the rules want one and nothing is in the way. It returns nil
// if n is an ordinary directory, and errNoMemory if there is no area. Nothing is locked.
func (v *Volume) graftOf(ctx context.Context, n *Inode) (*graft, error) {
	m := &v.memory
	seq := m.seq.Load()
	if n.dir.ordinary.Load() == seq {
		return nil, nil
	}
	g := m.graftAt(n.ino, n.gen)
	if g != nil && v.judged(g, seq) {
		return g, nil
	}
	root := v.memoryRoot(v.pathOf(n))
	if g == nil && !root {
		n.dir.ordinary.Store(seq)
		m.noteStay(n.ino, "")
		return nil, nil
	}
	if err := v.listWithRoom(ctx, n); err != nil {
		return nil, err
	}
	m.making.Lock()
	defer m.making.Unlock()
	area := v.area.Load()
	empty, err := v.emptyDir(n)
	if err != nil {
		return nil, err
	}
	if g = m.graftAt(n.ino, n.gen); g != nil {
		return v.review(ctx, area, g, n, root && empty, seq)
	}
	if !empty {
		v.stays(n, "is to be of class memory but holds entries on disk: it stays there until it is empty")
		return nil, nil
	}
	if area == nil {
		return nil, errNoMemory
	}
	return v.newGraft(ctx, area, n, seq)
}

// judged says whether g has its host, and was compared with the rules of seq.
func (v *Volume) judged(g *graft, seq uint64) bool {
	v.memory.mu.RLock()
	defer v.memory.mu.RUnlock()
	return g.host != nil && g.seq == seq
}

// stays notes, for status and the log, that the directory n of warm is not what the rules want, and why.
func (v *Volume) stays(n *Inode, why string) {
	if note := v.pathOf(n) + " " + why; v.memory.noteStay(n.ino, note) {
		v.log.Warn(note)
	}
}

// noteStay keeps a note about a directory for status, or drops it where note is "". It says whether the note is new.
func (m *memory) noteStay(ino uint64, note string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	old := m.mu.stays[ino]
	if note == "" {
		delete(m.mu.stays, ino)
		return false
	}
	if m.mu.stays == nil {
		m.mu.stays = map[uint64]string{}
	}
	m.mu.stays[ino] = note
	return old != note
}

// review decides whether the graft g in place of n stays. right says that the rules want it and that n is empty in
// warm. Otherwise an empty graft is removed, and review returns nil; one that holds entries stays, and a note says so.
// memory.making is held.
func (v *Volume) review(ctx context.Context, area *Volume, g *graft, n *Inode, right bool, seq uint64) (*graft, error) {
	if area == nil {
		return nil, errNoMemory
	}
	if !right {
		err := area.Rmdir(ctx, area.root, g.key)
		if err == nil || errors.Is(err, unix.ENOENT) {
			v.dropGraft(n.ino)
			return nil, nil // n is judged anew at the next look
		}
		if !errors.Is(err, unix.ENOTEMPTY) {
			return nil, fmt.Errorf("memory directory of inode %d: %w", n.ino, err)
		}
		v.stays(n, "is not to be of class memory, or hides entries on disk, but holds entries: it stays in memory "+
			"until it is empty")
	} else {
		v.memory.noteStay(n.ino, "")
	}
	v.setHost(g, n, seq)
	return g, nil
}

// setHost notes that n is the host of g, for which it takes a reference, and that g was compared with the rules of seq.
func (v *Volume) setHost(g *graft, n *Inode, seq uint64) {
	m := &v.memory
	m.mu.Lock()
	fresh := g.host == nil
	if fresh {
		g.host = n
	}
	g.seq = seq
	m.mu.Unlock()
	if fresh {
		v.ref(n)
	}
}

// dropGraft forgets the graft of warm's directory ino.
func (v *Volume) dropGraft(ino uint64) {
	m := &v.memory
	m.mu.Lock()
	g := m.mu.grafts[ino]
	delete(m.mu.grafts, ino)
	m.mu.Unlock()
	if g != nil && g.host != nil {
		v.unref(g.host, 1)
	}
}

// emptyDir says whether warm's directory n, which is listed already, is empty.
func (v *Volume) emptyDir(n *Inode) (bool, error) {
	fd, err := v.dirFD(n)
	if err != nil {
		return false, err
	}
	defer v.unpin(n)
	list, err := warm.ListNames(fd)
	return len(list) == 0, err
}

// newGraft makes the directory in the area that stands in place of n, with n's attributes. memory.making is held. A
// kill leaves a directory of another name, which the next start removes.
func (v *Volume) newGraft(ctx context.Context, area *Volume, n *Inode, seq uint64) (*graft, error) {
	g := &graft{gen: n.gen, key: fmt.Sprintf(graftKey, n.ino, n.gen)}
	temp := warm.TempPrefix + g.key
	err := func() error {
		if err := unix.Mkdirat(area.warmFD, temp, 0o700); err != nil {
			return err
		}
		fd, err := warm.OpenAt(area.warmFD, temp, unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := v.copyAttrs(context.Background(), n, fd); err != nil {
			return err
		}
		return unix.Renameat(area.warmFD, temp, area.warmFD, g.key)
	}()
	if err != nil {
		_ = unix.Unlinkat(area.warmFD, temp, unix.AT_REMOVEDIR)
		return nil, fmt.Errorf("make the memory directory of inode %d: %w", n.ino, err)
	}
	v.setHost(g, n, seq)
	m := &v.memory
	m.mu.Lock()
	if m.mu.grafts == nil {
		m.mu.grafts = map[uint64]*graft{}
	}
	m.mu.grafts[n.ino] = g
	m.mu.Unlock()
	m.noteStay(n.ino, "")
	return g, nil
}

// copyAttrs gives the directory behind fd what stat and getxattr show of n.
func (v *Volume) copyAttrs(ctx context.Context, n *Inode, fd int) error {
	a, err := v.Getattr(ctx, n, nil)
	if err != nil {
		return err
	}
	hostFD, err := v.dirFD(n)
	if err != nil {
		return err
	}
	xattrs, err := warm.ByFD(hostFD).All()
	v.unpin(n)
	if err != nil {
		return err
	}
	if v.mayChown {
		if err := unix.Fchownat(fd, "", int(a.UID), int(a.GID), unix.AT_EMPTY_PATH); err != nil {
			return err
		}
	}
	for _, x := range xattrs {
		// A tmpfs has no user.* before Linux 6.6, and security.* may be somebody else's business there.
		if err := warm.ByFD(fd).Set(x.Name, x.Value, 0); err != nil &&
			(isACL(x.Name) || !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EPERM)) {
			return err
		}
	}
	if err := unix.Chmod(warm.FDPath(fd), a.Mode&07777); err != nil {
		return err
	}
	return warm.Utimens(fd, []unix.Timespec{{Nsec: unix.UTIME_OMIT}, a.Mtime.Timespec()})
}

// rmdirMemory removes the directory at (dir, name) if its contents are in the area. It is removed from the area first,
// which fails with ENOTEMPTY if it has any. done is false if it is an ordinary directory.
func (v *Volume) rmdirMemory(ctx context.Context, dir *Inode, name string) (done bool, err error) {
	if err := checkName(name); err != nil {
		return true, err
	}
	dirfd, err := v.dirFD(dir)
	if err != nil {
		return true, err
	}
	defer v.unpin(dir)
	var st unix.Statx_t
	if err := warm.StatAt(dirfd, name, &st); err != nil {
		return false, nil // the removal itself reports the error
	}
	m := &v.memory
	m.making.Lock()
	defer m.making.Unlock()
	g, area := m.graftAt(st.Ino, warm.GenOf(&st)), v.area.Load()
	if g == nil || area == nil {
		m.noteStay(st.Ino, "")
		return false, nil
	}
	fd, err := warm.OpenAt(dirfd, name, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return true, err
	}
	list, err := warm.ListNames(fd)
	unix.Close(fd)
	if err != nil {
		return true, err
	}
	if len(list) > 0 {
		return true, unix.ENOTEMPTY
	}
	if err := area.Rmdir(ctx, area.root, g.key); err != nil && !errors.Is(err, unix.ENOENT) {
		return true, err
	}
	v.dropGraft(st.Ino)
	m.noteStay(st.Ino, "")
	return true, v.removeName(ctx, dir, name, unix.AT_REMOVEDIR) // if that fails, an empty directory stays
}

// mirror sets the mode and owner that were just set of a memory directory on host, warm's directory in whose place it
// stands, so that commits, and the next machine, have them.
func (v *Volume) mirror(ctx context.Context, host *Inode, in *SetAttr) {
	if in.Mode == nil && in.UID == nil && in.GID == nil {
		return
	}
	_, err := v.Setattr(context.WithoutCancel(ctx), host, nil, &SetAttr{Mode: in.Mode, UID: in.UID, GID: in.GID})
	v.mirrored(host, err)
}

func (v *Volume) mirrored(host *Inode, err error) {
	if err != nil && err != unix.ESTALE { // it was removed, and somebody has it open
		v.log.WithError(err).WithField("inode", host.ino).Warn(
			"the next machine will not know the attributes of a memory directory")
	}
}
