package tiers

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/warm"
)

// again decides whether a change that failed is tried once more: a stub's bytes come back first, and where warm is
// full, room is made first. Nothing is locked. An error of its own replaces *err.
type again struct {
	tries int
	room  bool
}

func (a *again) try(ctx context.Context, v *Volume, n *Inode, err *error) bool {
	switch {
	case *err == nil:
		return false
	case *err == errBack:
		if e := v.awaitBack(ctx, n); e != nil {
			*err = e
			return false
		}
		return true
	case *err == errStub:
		const most = 100 // each time somebody released the file anew between two looks
		if a.tries++; a.tries > most {
			*err = unix.EAGAIN
			return false
		}
		if e := v.errand(ctx, n, func(ctx context.Context) error { return v.recall(ctx, n) }); e != nil {
			*err = e
			return false
		}
		return true
	case !a.room && (errors.Is(*err, unix.ENOSPC) || errors.Is(*err, unix.EDQUOT)):
		a.room = true
		return v.makeRoom(ctx)
	}
	return false
}

// Reasons why a file stays in warm although it should leave: it is not safe.
const (
	KeptUncommitted = "not committed"
	KeptUnpushed    = "not pushed"
)

// Reasons why a file stays in warm.
const (
	keptOpen     = "open"
	keptChanged  = "changed"
	keptYoung    = "in use lately"
	keptUnpushed = KeptUnpushed
	keptLinks    = "has several names, of which one may be ignored"
	keptCaps     = "has file capabilities"
	keptMissing  = "not whole in cold"
	keptFailed   = "failed"
	keptDoubtful = "being compared after an unclean stop"
)

// release makes n a stub: first the record says so, then the bytes go. It returns how many bytes warm held of it, or in
// kept why the file stays. unused says whether n was not used lately; remoteHas says whether the remote, asked in this
// round, has all that was committed. Nothing is locked.
func (v *Volume) release(ctx context.Context, n *Inode, unused func() bool, remoteHas func() bool) (bytes int64,
	kept string, err error) {
	n.mu.Lock()
	r := n.mu.rec
	n.mu.Unlock()
	switch {
	case r.IsStub():
		return 0, "", nil
	case !r.Has(warm.FlagClean):
		return 0, keptChanged, nil
	case n.opens.Load() > 0:
		return 0, keptOpen, nil
	case v.unpushed() || !remoteHas(): // looked at again below; without this, each tick would ask cold in vain
		return 0, keptUnpushed, nil
	}
	if err := v.cold.Holds(ctx, r.ID, r.Size); err != nil { // before anything is locked: it reads the repository
		return 0, keptMissing, fmt.Errorf("cold has not all of a file that was committed: %w", err)
	}
	// A commit that comes after this look either has these same bytes, or makes the record another one.
	if v.unpushed() {
		return 0, keptUnpushed, nil
	}
	n.back.Lock()
	defer n.back.Unlock()
	fd, err := v.openNode(n, unix.O_WRONLY|unix.O_NONBLOCK)
	if err != nil {
		return 0, "", err
	}
	defer unix.Close(fd)
	n.io.Lock()
	defer n.io.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	var st unix.Statx_t
	if err := warm.StatAt(fd, "", &st); err != nil {
		return 0, "", err
	}
	now := n.mu.rec
	switch {
	case !now.Has(warm.FlagClean) || now.ID != r.ID || now.Size != int64(st.Size) ||
		now.Mtime != warm.TimeOf(st.Mtime) || n.mu.writers > 0:
		return 0, keptChanged, nil
	case n.opens.Load() > 0:
		return 0, keptOpen, nil
	case !unused():
		return 0, keptYoung, nil
	case now.IsStub() || st.Blocks == 0 || st.Size == 0:
		return 0, "", nil
	case n.untracked.Load() || !v.unused(fd): // its pages would turn to zeros under a mapping
		return 0, keptOpen, nil
	case capsOf(fd):
		return 0, keptCaps, nil
	case !warm.FitsRecord(now.Mtime):
		return 0, keptFailed, nil
	case st.Nlink > 1 && v.Rules().HasIgnore(): // another of its names may be ignored, and be the one that stays
		return 0, keptLinks, nil
	}
	a := n.attrLocked(&st)
	now.Flags |= warm.FlagStub | warm.FlagCtime | warm.FlagBlocks
	now.Ctime, now.Blocks = a.Ctime, a.Blocks
	if err := v.step("release.record"); err != nil {
		return 0, keptFailed, err
	}
	if err := v.storeRecord(n, now); err != nil {
		return 0, keptFailed, err // no room for a longer record: the file stays
	}
	n.stub.Store(true)
	n.writeSeq.Add(1) // who reads warm's file at this moment does not take the hole for its bytes
	n.coldReads.Store(0)
	if err := v.punch(n, fd); err != nil {
		return 0, keptFailed, err
	}
	v.moved.released.Add(1)
	v.warmBytes.Add(-int64(st.Blocks) * 512)
	return int64(st.Blocks) * 512, "", nil
}

func capsOf(fd int) bool {
	_, err := unix.Fgetxattr(fd, warm.CapsAttr, nil)
	return err == nil
}

// punch removes the bytes of a stub from warm, and gives warm's file the mtime that programs see, for people who look
// at warm itself. n.mu is held.
func (v *Volume) punch(n *Inode, fd int) error {
	if err := v.step("release.punch"); err != nil {
		return err
	}
	const grain = 64 << 10 // the last block as a whole
	length := (n.mu.rec.Size + grain - 1) &^ (grain - 1)
	if err := unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, length); err != nil {
		return fmt.Errorf("free the blocks of inode %d: %w", n.ino, err)
	}
	if err := v.step("release.time"); err != nil {
		return err
	}
	return warm.Utimens(fd, []unix.Timespec{{Nsec: unix.UTIME_OMIT}, n.mu.rec.Mtime.Timespec()})
}

// recall brings a stub's bytes back to warm and makes them durable; then it is a file like any other. If somebody else
// is bringing them back, recall waits for that. Nothing is locked.
func (v *Volume) recall(ctx context.Context, n *Inode) error {
	room := again{}
	for {
		err := func() error {
			n.back.Lock()
			defer n.back.Unlock()
			b, err := v.fetchRecalled(ctx, n)
			if err != nil || b == nil {
				return err
			}
			defer b.close()
			if err := unix.Fsync(b.fd); err != nil {
				return fmt.Errorf("bring back inode %d: %w", n.ino, err)
			}
			return v.endStub(b)
		}()
		if err == nil || err == errStub || !room.try(ctx, v, n, &err) {
			return err
		}
	}
}

// recalled is a stub whose bytes are in warm again, but not durable yet. Inode.back is held for it.
type recalled struct {
	n     *Inode
	fd    int
	bytes int64
}

func (b *recalled) close() { unix.Close(b.fd) }

// fetchRecalled writes a stub's bytes into warm. It returns nil if n is no stub. n stays a stub for everybody until
// endStub. n.back is held.
func (v *Volume) fetchRecalled(ctx context.Context, n *Inode) (_ *recalled, err error) {
	n.mu.Lock()
	v.pinCtime(n) // a kill may have come between a change of attributes and this
	r := n.mu.rec
	n.mu.Unlock()
	if !r.IsStub() {
		return nil, nil
	}
	fd, err := v.openNode(n, unix.O_WRONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, r.Size)
			unix.Close(fd)
		}
	}()
	if err := v.step("return.write"); err != nil {
		return nil, err
	}
	blob, err := v.cold.Open(ctx, r.ID, r.Size)
	if err != nil {
		return nil, v.coldFailed(n, r.ID, err)
	}
	defer blob.Close()
	size, err := warm.WriteSparse(ctx, fd, blob)
	if err == nil && size != r.Size {
		err = fmt.Errorf("object %s: %w: %d bytes, the file has %d", r.ID, cold.ErrCorrupt, size, r.Size)
	}
	if err != nil {
		return nil, v.coldFailed(n, r.ID, err)
	}
	if err := v.step("return.durable"); err != nil {
		return nil, err
	}
	return &recalled{n: n, fd: fd, bytes: size}, nil
}

// endStub makes a file of a stub whose bytes are durable in warm. n.back is held.
func (v *Volume) endStub(b *recalled) error {
	n := b.n
	n.io.Lock()
	defer n.io.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	r := n.mu.rec
	if !r.IsStub() {
		return nil
	}
	var st unix.Statx_t
	if err := warm.StatAt(b.fd, "", &st); err != nil {
		return err
	}
	a := n.attrLocked(&st)
	if err := warm.Utimens(b.fd, []unix.Timespec{{Nsec: unix.UTIME_OMIT}, r.Mtime.Timespec()}); err != nil {
		return fmt.Errorf("bring back inode %d: %w", n.ino, err)
	}
	r.Flags = r.Flags&^warm.FlagStub | warm.FlagCtime | warm.FlagBlocks
	r.Ctime, r.Blocks = a.Ctime, a.Blocks
	if err := v.step("return.record"); err != nil {
		return err
	}
	if err := v.storeRecord(n, r); err != nil {
		return err
	}
	n.stub.Store(false)
	n.touchUse(v)
	v.moved.returned.Add(1)
	v.warmBytes.Add(int64(a.Blocks) * 512)
	return nil
}

// emptied gives up a stub's bytes because the file is cut to nothing. Warm's file is cut first, then the record
// changes: a stub's mark that a crash leaves is void, because its size is not the file's. done is false if n is no
// stub. emptied returns errBack while the bytes are being moved. Between begin and end.
func (v *Volume) emptied(n *Inode, fd int, killPriv bool) (done bool, err error) {
	if !n.stub.Load() {
		return false, nil
	}
	if !n.back.TryLock() { // the bytes are being moved, which may take long, and a commit's boundary waits for us
		return false, errBack
	}
	defer n.back.Unlock()
	if err := v.touchOwn(n, touchBytes); err != nil {
		return false, err
	}
	v.wroteHeld(n, killPriv)
	n.io.Lock()
	defer n.io.Unlock()
	if !n.stub.Load() {
		return false, nil
	}
	if killPriv {
		if err := v.killPriv(n, fd); err != nil {
			return false, err
		}
	}
	n.writeSeq.Add(1)
	n.written.Load().addFrom(0)
	n.mu.Lock()
	defer n.mu.Unlock()
	v.keepPast(n)
	if err := unix.Ftruncate(fd, 0); err != nil {
		return false, err
	}
	old := n.mu.rec
	n.stub.Store(false)
	v.hot.newVersion(n)
	n.mu.rec = voidStub(&old) // what is on disk is void as long as the file is empty
	if err := v.storeOrRemove(n, warm.Record{Flags: old.Flags & warm.FlagGroup, Group: old.Group,
		ID: old.ID}); err != nil {
		return false, err
	}
	n.mu.captured, n.mu.ungranted = cold.ID{}, true
	n.mu.marks++
	e := v.epoch.Load()
	n.epoch.Store(e)
	n.contentEpoch.Store(e)
	return true, nil
}

// rescue brings back the bytes of an open stub that is about to lose its last name: nothing would name them any more.
// What cannot be brought back is still read from cold.
func (v *Volume) rescue(ctx context.Context, dir *Inode, name string) {
	if !v.tiered() {
		return
	}
	dirfd, err := v.dirFD(dir)
	if err != nil {
		return
	}
	defer v.unpin(dir)
	var st unix.Statx_t
	if warm.StatAt(dirfd, name, &st) != nil || st.Nlink > 1 || warm.KindOf(uint32(st.Mode)) != cold.KindFile {
		return
	}
	n := v.peekRef(&st)
	if n == nil {
		return
	}
	defer v.unref(n, 1)
	if !n.stub.Load() || n.opens.Load() == 0 {
		return
	}
	if err := v.errand(ctx, n, func(ctx context.Context) error { return v.recall(ctx, n) }); err != nil {
		v.log.WithError(err).WithField("name", name).Warn(
			"an open file loses its name while its bytes are in cold only")
	}
}

// markWarm gives warm's root the mark, durably, before anything leaves warm; then volume.json may say so.
func (v *Volume) markWarm() error {
	if err := warm.ByFD(v.warmFD).Set(warm.MarkAttr, []byte(v.state.Machine), 0); err != nil {
		return fmt.Errorf("mark the warm directory: %w", err)
	}
	fd, err := warm.OpenAt(v.warmFD, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return fmt.Errorf("mark the warm directory: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.Fsync(fd); err != nil {
		return fmt.Errorf("mark the warm directory: %w", err)
	}
	return nil
}

// ErrNoTiering says that files of this volume do not leave warm.
var ErrNoTiering = errors.New("files do not leave warm in this volume")

// checkTiering returns nil if files may become stubs here. Otherwise it returns ErrNoTiering with the reason.
func (v *Volume) checkTiering() error {
	switch {
	case !v.records:
		return fmt.Errorf("%w: warm takes no trusted.* attributes (CAP_SYS_ADMIN is missing)", ErrNoTiering)
	case !v.cfg.Tiering:
		return fmt.Errorf("%w: tiering is off", ErrNoTiering)
	}
	return nil
}
