package tiers

import (
	"context"
	"fmt"
	"math"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/warm"
)

// Inode is the file that h has open; h holds a reference on it.
func (h *Handle) Inode() *Inode { return h.n }

// Flags are the open flags as the program gave them.
func (h *Handle) Flags() uint32 { return h.flags }

// warmFlags returns the flags for warm's descriptor. The daemon reads and writes at offsets and in pieces of its own,
// so O_APPEND and O_DIRECT stay with the kernel. O_SYNC and O_DSYNC are left to synced.
func warmFlags(flags uint32) int {
	return int(flags & (unix.O_ACCMODE | unix.O_NOATIME))
}

// synced makes a change durable that was made through a handle with O_SYNC or O_DSYNC. Not between begin and end: a
// commit's boundary does not wait for the disk.
func (h *Handle) synced(ctx context.Context) error {
	if h.flags&unix.O_DSYNC == 0 { // O_SYNC includes this bit
		return nil
	}
	return h.Fsync(ctx, h.flags&unix.O_SYNC != unix.O_SYNC)
}

// Open opens a file. O_TRUNC is done here; killPriv then clears suid and sgid. Other flags than the access mode,
// O_TRUNC, O_SYNC and O_DSYNC are the kernel's business.
func (v *Volume) Open(ctx context.Context, n *Inode, flags uint32, killPriv bool) (*Handle, error) {
	if n.kind == cold.KindDir {
		return nil, unix.EISDIR
	}
	if n.kind != cold.KindFile {
		return nil, unix.ENXIO // pipes, sockets and devices never reach a file system
	}
	if err := v.errStandsIn(n); err != nil {
		return nil, err
	}
	if err := v.mayOpen(n, flags); err != nil {
		return nil, err
	}
	v.lookUntracked(n)
	trunc := flags&unix.O_TRUNC != 0
	if !writable(flags) && !trunc {
		fd, noatime, err := v.openHandle(n, flags)
		if err != nil {
			return nil, err
		}
		v.noteOpened(n)
		return v.newHandle(n, fd, flags, noatime, false), nil
	}
	n.opens.Add(1) // so that n is not released meanwhile
	defer n.opens.Add(-1)
	if trunc {
		v.keepAhead(n, 0, math.MaxInt64)
	}
	h, err := v.openWriting(n, flags, killPriv)
	for r := (again{}); r.try(ctx, v, n, &err); {
		h, err = v.openWriting(n, flags, killPriv)
	}
	return h, err
}

func (v *Volume) openWriting(n *Inode, flags uint32, killPriv bool) (*Handle, error) {
	v.begin()
	defer v.end()
	if err := v.touchOwn(n, touchQuiet); err != nil { // nothing is at risk before the first write
		return nil, err
	}
	fd, noatime, err := v.openHandle(n, flags)
	if err != nil {
		return nil, err
	}
	if flags&unix.O_TRUNC != 0 {
		err := v.truncateVia(n, fd, flags, killPriv)
		if err != nil {
			unix.Close(fd)
			return nil, err
		}
	}
	return v.newHandle(n, fd, flags, noatime, false), nil
}

// truncateVia empties a file that is being opened; O_RDONLY|O_TRUNC truncates too, through a descriptor that can.
func (v *Volume) truncateVia(n *Inode, fd int, flags uint32, killPriv bool) error {
	if writable(flags) {
		return v.truncate(n, fd, 0, killPriv)
	}
	w, err := v.openNode(n, unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer unix.Close(w)
	return v.truncate(n, w, 0, killPriv)
}

// newHandle returns a handle for fd, and counts it among n's writers if it is open for writing; it is then called
// between begin and end. made says that the file is new.
func (v *Volume) newHandle(n *Inode, fd int, flags uint32, noatime, made bool) *Handle {
	v.ref(n)
	n.opens.Add(1)
	n.touchUse(v)
	h := &Handle{v: v, n: n, fd: fd, flags: flags, noatime: noatime}
	n.mu.Lock()
	if writable(flags) {
		n.mu.writers++
		if n.mu.writers == 1 {
			v.writers.Store(n, struct{}{})
		}
	}
	v.chooseIO(h, made)
	n.mu.Unlock()
	if writable(flags) {
		h.lane = v.laneOf(n)
	}
	return h
}

// Release closes the handle.
func (h *Handle) Release() {
	n := h.n
	if writable(h.flags) {
		h.v.noteUntracked(n)
		h.v.finished(n)
	}
	n.mu.Lock()
	h.v.closeIO(h)
	if writable(h.flags) {
		n.mu.writers--
	}
	switch {
	case n.untracked.Load() && n.mu.direct == 0:
		h.v.linger(n)
	case n.mu.writers == 0 && !n.untracked.Load():
		h.v.writers.Delete(n)
	}
	n.mu.Unlock()
	unix.Close(h.fd)
	h.n.touchUse(h.v)
	h.n.opens.Add(-1)
	h.v.unref(h.n, 1)
}

// Pace waits, before a program writes so many bytes through the handle, where writers outrun the backup. It is no part
// of Write: pages that the kernel writes back do not wait, since that would hold up what it reads ahead. The error is
// ctx's.
func (h *Handle) Pace(ctx context.Context, bytes int) error {
	return h.v.pace(ctx, h.lane, int64(bytes))
}

// Write writes at off to warm and hot. killPriv says that the file loses suid and sgid.
func (h *Handle) Write(ctx context.Context, p []byte, off int64, killPriv bool) (int, error) {
	m, err := h.write(p, off, killPriv)
	for r := (again{}); err != nil && r.try(ctx, h.v, h.n, &err); {
		m, err = h.write(p, off, killPriv)
	}
	if m > 0 {
		h.v.grew(int64(m))
		if err := h.synced(ctx); err != nil {
			return 0, err
		}
	}
	return m, err
}

func (h *Handle) write(p []byte, off int64, killPriv bool) (int, error) {
	v, n := h.v, h.n
	if err := v.may(n, cold.FlagImmutable); err != nil {
		return 0, err
	}
	v.begin()
	defer v.end()
	if err := v.touchContent(n); err != nil {
		return 0, err
	}
	v.wroteHeld(n, killPriv)
	n.io.Lock()
	defer n.io.Unlock()
	if killPriv {
		if err := v.killPriv(n, h.fd); err != nil {
			return 0, err
		}
	}
	size := off // for whole pages of a file with nothing cached its length does not matter
	if v.hot != nil && (n.hotHint.Load() || off == 0 || off%hotPage != 0 || len(p)%hotPage != 0) {
		// Not fstat: a file system with multigrain timestamps (Linux 6.13) takes a new ctime at the first write after
		// each stat, and then every fsync needs a journal commit.
		var err error
		if size, err = unix.Seek(h.fd, 0, unix.SEEK_END); err != nil {
			return 0, err
		}
	}
	if v.areaOf != nil {
		if off >= areaMaxSize {
			return 0, unix.EFBIG
		}
		p = p[:min(int64(len(p)), areaMaxSize-off)]
	}
	n.writeSeq.Add(1)
	n.written.Load().add(off, off+int64(len(p)))
	n.preserved.Load().keep(off, off+int64(len(p)))
	m, err := warm.PwriteFull(h.fd, p, off)
	h.wrote(int64(m))
	if m > 0 && v.hot != nil && !n.untracked.Load() {
		v.hot.update(n, p[:m], off, size)
	}
	if m == 0 && err != nil {
		return 0, err
	}
	return m, nil // a short write is reported as such; the next call gets the error
}

// wrote counts n more bytes that no commit has.
func (h *Handle) wrote(n int64) {
	if h.lane >= 0 {
		h.v.risk.lanes[h.lane].bytes.Add(n)
	}
}

// killPriv clears suid, and sgid where the group may execute, as write(2) by an unprivileged process does.
func (v *Volume) killPriv(n *Inode, fd int) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	mode := n.mu.mode
	clean := mode &^ unix.S_ISUID
	if mode&unix.S_IXGRP != 0 {
		clean &^= unix.S_ISGID
	}
	if clean == mode || n.kind != cold.KindFile {
		return nil
	}
	if err := unix.Fchmod(fd, clean&07777); err != nil {
		return err
	}
	n.mu.mode = clean
	v.AttrChanged(n)
	return nil
}

// truncate sets a file's length through a writable descriptor. A stub that is cut to nothing does not get its bytes
// back first. Between begin and end.
func (v *Volume) truncate(n *Inode, fd int, size int64, killPriv bool) error {
	n.touchUse(v)
	if size == 0 {
		if done, err := v.emptied(n, fd, killPriv); done || err != nil {
			return err
		}
	}
	if err := v.touchContent(n); err != nil {
		return err
	}
	v.wroteHeld(n, killPriv)
	n.io.Lock()
	defer n.io.Unlock()
	if killPriv {
		if err := v.killPriv(n, fd); err != nil {
			return err
		}
	}
	n.writeSeq.Add(1)
	n.written.Load().addFrom(size)
	n.preserved.Load().keepFrom(size)
	if err := unix.Ftruncate(fd, size); err != nil {
		return err
	}
	v.hot.newVersion(n)
	return nil
}

// Fsync makes the file durable. The first call after the file turned dirty, or got or lost a name, also makes the marks
// durable that say so: by a full fsync where the file system journals attributes, and by syncfs on btrfs, which would
// otherwise bring back the old name of a renamed file beside the new one. Where a rule asks for it, Fsync returns only
// when the remote has a commit with the file.
func (h *Handle) Fsync(ctx context.Context, datasync bool) error {
	n := h.n
	n.mu.Lock()
	seen := n.mu.marks
	marks := n.mu.marksSynced != seen && h.v.records
	n.mu.Unlock()
	var err error
	switch {
	case marks && h.v.fsType == unix.BTRFS_SUPER_MAGIC:
		if err = unix.Fsync(h.fd); err == nil { // its own writeback errors first
			err = unix.Syncfs(h.fd)
		}
	case marks || !datasync:
		err = unix.Fsync(h.fd)
	default:
		err = unix.Fdatasync(h.fd)
	}
	if err != nil {
		return fmt.Errorf("fsync inode %d: %w", n.ino, err)
	}
	if marks {
		n.mu.Lock()
		n.mu.marksSynced = seen
		n.mu.Unlock()
	}
	if err := h.v.held.Sync(); err != nil {
		return err
	}
	h.v.noteUntracked(n)
	return h.v.fsynced(ctx, n)
}
