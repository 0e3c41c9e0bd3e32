package tiers

import (
	"context"
	"math"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
)

// Fallocate is fallocate(2) with all the modes that warm's file system knows.
func (h *Handle) Fallocate(ctx context.Context, mode uint32, off, length int64) error {
	switch {
	case mode&(unix.FALLOC_FL_COLLAPSE_RANGE|unix.FALLOC_FL_INSERT_RANGE) != 0:
		h.v.keepAhead(h.n, off, math.MaxInt64)
	case mode&^unix.FALLOC_FL_KEEP_SIZE != 0:
		h.v.keepAhead(h.n, off, off+length)
	}
	if err := h.v.pace(ctx, h.lane, 0); err != nil { // what is allocated is no content yet
		return err
	}
	err := h.fallocate(mode, off, length)
	for r := (again{}); err != nil && r.try(ctx, h.v, h.n, &err); {
		err = h.fallocate(mode, off, length)
	}
	if err == nil && mode&(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_COLLAPSE_RANGE) == 0 {
		h.v.grew(length)
	}
	if err == nil {
		err = h.synced(ctx)
	}
	return err
}

func (h *Handle) fallocate(mode uint32, off, length int64) error {
	v, n := h.v, h.n
	forbidden := uint32(cold.FlagImmutable)
	if mode&^unix.FALLOC_FL_KEEP_SIZE != 0 {
		forbidden |= cold.FlagAppend
	}
	if err := v.may(n, forbidden); err != nil {
		return err
	}
	v.begin()
	defer v.end()
	if err := v.touchContent(n); err != nil {
		return err
	}
	v.wroteHeld(n, false)
	n.io.Lock()
	defer n.io.Unlock()
	// suid and sgid: the kernel sends a SETATTR for them first.
	n.writeSeq.Add(1)
	if mode&(unix.FALLOC_FL_COLLAPSE_RANGE|unix.FALLOC_FL_INSERT_RANGE) != 0 {
		n.written.Load().addFrom(off)
		n.preserved.Load().keepFrom(off)
	} else {
		n.written.Load().add(off, off+length)
		n.preserved.Load().keep(off, off+length)
	}
	var err error
	if v.areaOf != nil {
		err = fallocateArea(h.fd, mode, off, length)
	} else {
		err = unix.Fallocate(h.fd, mode, off, length)
	}
	if err != nil {
		return err
	}
	v.hot.newVersion(n)
	return nil
}

// copyMax bounds one CopyFileRange, so that a commit's boundary never waits long.
const copyMax = 16 << 20

// CopyFileRange copies up to length bytes within the volume in warm, by reflink where its file system can. Short counts
// are allowed. EXDEV where only one of the two is of class memory: the kernel then copies by reading and writing.
func (v *Volume) CopyFileRange(ctx context.Context, in *Handle, offIn int64, out *Handle, offOut int64, length int64,
	killPriv bool) (int, error) {
	if in.v != out.v {
		return 0, unix.EXDEV
	}
	if err := v.pace(ctx, out.lane, min(length, copyMax)); err != nil {
		return 0, err
	}
	v.keepAhead(out.n, offOut, offOut+min(length, copyMax))
	m, err := v.copyRange(ctx, in, offIn, out, offOut, length, killPriv)
	for r := (again{}); err != nil && r.try(ctx, v, out.n, &err); {
		m, err = v.copyRange(ctx, in, offIn, out, offOut, length, killPriv)
	}
	if err == nil {
		err = out.synced(ctx)
	}
	if err != nil {
		return 0, err
	}
	return m, nil
}

func (v *Volume) copyRange(ctx context.Context, in *Handle, offIn int64, out *Handle, offOut int64, length int64,
	killPriv bool) (int, error) {
	if in.n.stub.Load() && in.n != out.n {
		// Warm's file is a hole, so the bytes are read from cold. If they come back to warm meanwhile, they are the
		// same.
		buf := make([]byte, min(length, 1<<20))
		m, err := in.Read(ctx, buf, offIn)
		if m > 0 {
			m, err = out.write(buf[:m], offOut, killPriv)
		}
		return m, err
	}
	if err := v.may(out.n, cold.FlagImmutable); err != nil {
		return 0, err
	}
	v.begin()
	defer v.end()
	if err := v.touchContent(out.n); err != nil {
		return 0, err
	}
	v.wroteHeld(out.n, killPriv)
	// Two inodes' content locks in one order, so that two copies in opposite directions do not block each other.
	switch {
	case in.n == out.n:
		out.n.io.Lock()
		defer out.n.io.Unlock()
	case in.n.id < out.n.id:
		in.n.io.RLock()
		defer in.n.io.RUnlock()
		out.n.io.Lock()
		defer out.n.io.Unlock()
	default:
		out.n.io.Lock()
		defer out.n.io.Unlock()
		in.n.io.RLock()
		defer in.n.io.RUnlock()
	}
	if in.n.stub.Load() {
		return 0, errStub // it was being released while it was opened
	}
	if killPriv {
		if err := v.killPriv(out.n, out.fd); err != nil {
			return 0, err
		}
	}
	out.n.writeSeq.Add(1)
	out.n.written.Load().add(offOut, offOut+min(length, copyMax))
	out.n.preserved.Load().keep(offOut, offOut+min(length, copyMax))
	m, err := unix.CopyFileRange(in.fd, &offIn, out.fd, &offOut, int(min(length, copyMax)), 0)
	v.hot.newVersion(out.n)
	out.wrote(int64(max(m, 0)))
	if err != nil {
		return 0, err
	}
	return m, nil
}

// areaMaxSize is how long a file of an area may be, in bytes: as on ext4, so that it can be moved out. A tmpfs has no
// bound.
const areaMaxSize = 1<<44 - 4<<10

// fallocateArea is fallocate(2) for a tmpfs. A tmpfs does not know FALLOC_FL_ZERO_RANGE, which is replaced by punching
// a hole and then allocating it. If there is no room for that, the range reads as zeros already.
func fallocateArea(fd int, mode uint32, off, length int64) error {
	if off > areaMaxSize-length {
		return unix.EFBIG
	}
	err := unix.Fallocate(fd, mode, off, length)
	if err != unix.EOPNOTSUPP || mode&^unix.FALLOC_FL_KEEP_SIZE != unix.FALLOC_FL_ZERO_RANGE {
		return err
	}
	if err := unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, length); err != nil {
		return err
	}
	return unix.Fallocate(fd, mode&unix.FALLOC_FL_KEEP_SIZE, off, length)
}
