package fs

import (
	"bytes"
	"errors"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"emberfs/tiers/rules"
)

// This file has the open files of .emberfs. Each has a copy of the content of its own, from the open on. What is
// written to rules.yaml comes into effect as a whole when the descriptor is closed or synced.

// pending says what changes of a handle are not in effect yet.
type pending int

const (
	nothing pending = iota
	// The file was truncated. A shell then closes a duplicate of the descriptor before it writes, which must not put an
	// empty file into effect.
	emptied
	written
)

// ownHandle is an open file of .emberfs. ownFiles.mu guards what changes.
type ownHandle struct {
	node   uint64
	opened time.Time

	data     []byte
	pending  pending
	seq      uint64 // value of ownFiles.mu.seq when it was opened or changed last
	refused  error  // why data is not a valid list of rules; nil again when data changes
	replaces []byte // the rules that the same thread removed just before it created this file, as mv(1) does
}

// ownFlags are the FOPEN flags of these files: the kernel caches no pages, and sends a FLUSH for each close(2).
const ownFlags = fuse.FOPEN_DIRECT_IO

// putOwn registers h as an open file and returns its number.
func (o *ownFiles) putOwn(h *ownHandle) uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.mu.seq++
	h.seq, h.opened = o.mu.seq, time.Now()
	o.mu.next++
	o.mu.handles[o.mu.next] = h
	return o.mu.next
}

// handle returns the open file of a request about node, or nil if there is none.
func (o *ownFiles) handle(node, fh uint64) *ownHandle {
	o.mu.Lock()
	defer o.mu.Unlock()
	if h := o.mu.handles[fh]; h != nil && h.node == node {
		return h
	}
	return nil
}

// newest returns the open file of node that was opened or changed last; if changed is true, only among those with
// changes that are not in effect yet.
func (o *ownFiles) newest(node uint64, changed bool) *ownHandle {
	o.mu.Lock()
	defer o.mu.Unlock()
	var best *ownHandle
	for _, h := range o.mu.handles {
		if h.node == node && (best == nil || h.seq > best.seq) && (!changed || h.pending != nothing) {
			best = h
		}
	}
	return best
}

func (o *ownFiles) Create(cancel <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	if st, no := refuseName(in.NodeId, name); no && (!isOwn(in.NodeId) || name != rulesName) {
		return st
	} else if !no {
		return o.filesystem.Create(cancel, in, name, out)
	}
	o.applying.Lock()
	defer o.applying.Unlock()
	text := o.look()
	h := &ownHandle{data: bytes.Clone(text)}
	o.mu.Lock()
	node, there := o.rulesNode(text)
	switch {
	case there && in.Flags&unix.O_EXCL != 0:
		o.mu.Unlock()
		return fuse.Status(syscall.EEXIST)
	case there && in.Flags&unix.O_TRUNC != 0:
		h.data, h.pending = nil, emptied
	case !there:
		o.mu.made, o.mu.named = true, time.Now()
		o.mu.changed = o.mu.named
		if o.mu.removedBy == in.Pid {
			h.replaces = o.mu.removed
		}
		o.mu.removed, o.mu.removedBy = nil, 0
	}
	o.mu.Unlock()
	h.node = node
	out.Fh, out.OpenFlags = o.putOwn(h), ownFlags
	return o.ownEntry(node, &out.EntryOut)
}

func (o *ownFiles) Open(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if !isOwn(in.NodeId) {
		return o.filesystem.Open(cancel, in, out)
	}
	h := &ownHandle{node: in.NodeId}
	if isReport(in.NodeId) {
		if in.Flags&unix.O_ACCMODE != unix.O_RDONLY || in.Flags&unix.O_TRUNC != 0 {
			return fuse.EACCES
		}
		var there bool
		if h.data, there = o.report(in.NodeId); !there {
			return fuse.Status(syscall.ESTALE)
		}
	} else {
		text := o.look()
		o.mu.Lock()
		node, there := o.rulesNode(text)
		o.mu.Unlock()
		if node != in.NodeId || !there {
			return fuse.Status(syscall.ESTALE) // removed meanwhile; ESTALE makes the kernel look the name up again
		}
		if in.Flags&unix.O_TRUNC != 0 {
			h.pending = emptied
		} else {
			h.data = bytes.Clone(text)
		}
	}
	out.Fh, out.OpenFlags = o.putOwn(h), ownFlags
	return fuse.OK
}

func (o *ownFiles) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	if !isOwn(in.NodeId) {
		return o.filesystem.Read(cancel, in, buf)
	}
	h := o.handle(in.NodeId, in.Fh)
	if h == nil {
		return nil, fuse.EBADF
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	n := 0
	if in.Offset < uint64(len(h.data)) {
		n = copy(buf, h.data[in.Offset:])
	}
	return filled{buf: buf[:n]}, fuse.OK
}

func (o *ownFiles) Write(cancel <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	return o.Writev(cancel, in, [][]byte{data})
}

func (o *ownFiles) Writev(cancel <-chan struct{}, in *fuse.WriteIn, data [][]byte) (uint32, fuse.Status) {
	if !isOwn(in.NodeId) {
		return o.filesystem.Writev(cancel, in, data)
	}
	h := o.handle(in.NodeId, in.Fh)
	if h == nil || isReport(h.node) {
		return 0, fuse.EBADF
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	at := in.Offset
	if in.Flags&unix.O_APPEND != 0 && in.WriteFlags&fuse.WRITE_CACHE == 0 {
		at = uint64(len(h.data)) // the kernel may go by the size of another handle
	}
	all := bytes.Join(data, nil)
	if at > rules.MaxBytes || uint64(len(all)) > rules.MaxBytes-at {
		return 0, fuse.Status(syscall.EFBIG)
	}
	h.resize(max(uint64(len(h.data)), at+uint64(len(all))))
	copy(h.data[at:], all)
	o.touched(h, written)
	return uint32(len(all)), fuse.OK
}

// resize truncates the data or extends it with zeros. ownFiles.mu must be held.
func (h *ownHandle) resize(size uint64) {
	if n := uint64(len(h.data)); size > n {
		h.data = append(h.data, make([]byte, size-n)...)
	}
	h.data = h.data[:size:size]
}

// touched notes a change of h. o.mu must be held.
func (o *ownFiles) touched(h *ownHandle, p pending) {
	o.mu.seq++
	h.seq, h.pending, h.refused = o.mu.seq, max(h.pending, p), nil
}

// truncate implements ftruncate(2) or, without an open file, truncate(2), which comes into effect at once.
func (o *ownFiles) truncate(node uint64, h *ownHandle, size uint64) error {
	switch {
	case isReport(node):
		return syscall.EACCES
	case size > rules.MaxBytes:
		return syscall.EFBIG
	case h != nil:
		o.mu.Lock()
		defer o.mu.Unlock()
		p := written
		if size == 0 {
			p = emptied
		}
		h.resize(size)
		o.touched(h, p)
		return nil
	}
	h = &ownHandle{node: node, data: bytes.Clone(o.look()), pending: written}
	h.resize(size)
	return o.takeEffect(h, written)
}

// takeEffect puts the content of a handle into effect, if what is pending is at least least. If the content is not a
// valid list of rules, it returns EINVAL, now and at later calls until the content changes.
func (o *ownFiles) takeEffect(h *ownHandle, least pending) error {
	o.applying.Lock()
	defer o.applying.Unlock()
	volText := o.look()
	o.mu.Lock()
	node, _ := o.rulesNode(volText)
	if h.pending < least || h.node != node { // a removed file does not matter any more
		defer o.mu.Unlock()
		return h.refused
	}
	text, seq, replaces := bytes.Clone(h.data), h.seq, h.replaces
	o.mu.Unlock()

	if len(replaces) > 0 {
		// The new text is refused. Put back what the file was to replace, as if the text had been written in place.
		if _, bad := rules.Parse(text); bad != nil {
			if err := o.vol.SetRulesText(replaces); err != nil {
				o.log.WithError(err).Warn("the rules before the refused ones are gone")
			}
		}
	}
	err := o.vol.SetRulesText(text)
	o.mu.Lock()
	defer o.mu.Unlock()
	bad := errors.Is(err, syscall.EINVAL)
	if bad || err == nil {
		h.replaces = nil
		if h.seq == seq {
			h.pending = nothing
		}
	}
	if bad && h.seq == seq {
		h.refused = err
	}
	if err == nil {
		o.mu.seen, o.mu.changed = text, time.Now()
	}
	return err
}

func (o *ownFiles) Flush(cancel <-chan struct{}, in *fuse.FlushIn) fuse.Status {
	if !isOwn(in.NodeId) {
		return o.filesystem.Flush(cancel, in)
	}
	h := o.handle(in.NodeId, in.Fh)
	if h == nil {
		return fuse.OK
	}
	return o.status("flush", in.NodeId, o.takeEffect(h, written))
}

func (o *ownFiles) Fsync(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	if !isOwn(in.NodeId) {
		return o.filesystem.Fsync(cancel, in)
	}
	h := o.handle(in.NodeId, in.Fh)
	if h == nil {
		return fuse.EBADF
	}
	return o.status("fsync", in.NodeId, o.takeEffect(h, emptied))
}

// Release implements fuse.RawFileSystem. A file that was only emptied comes into effect here, since nothing more will
// be written to it.
func (o *ownFiles) Release(cancel <-chan struct{}, in *fuse.ReleaseIn) {
	if !isOwn(in.NodeId) {
		o.filesystem.Release(cancel, in)
		return
	}
	h := o.handle(in.NodeId, in.Fh)
	if h == nil {
		return
	}
	if err := o.takeEffect(h, emptied); err != nil && !errors.Is(err, syscall.EINVAL) {
		o.log.WithError(err).Warn("new rules cannot be stored: those before stay")
	}
	o.mu.Lock()
	delete(o.mu.handles, in.Fh)
	o.mu.Unlock()
}

// releaseAll handles the files that the kernel did not release. Written but not closed, a file's content may be
// incomplete, so it is dropped.
func (o *ownFiles) releaseAll() {
	o.mu.Lock()
	left := o.mu.handles
	o.mu.handles = make(map[uint64]*ownHandle)
	o.mu.Unlock()
	for _, h := range left {
		if h.pending == emptied {
			if err := o.takeEffect(h, emptied); err != nil {
				o.log.WithError(err).Warn("new rules cannot be stored: those before stay")
			}
		}
	}
	o.filesystem.releaseAll()
}

func (o *ownFiles) Fallocate(cancel <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	if isOwn(in.NodeId) {
		return fuse.ENOTSUP
	}
	return o.filesystem.Fallocate(cancel, in)
}

// Lseek implements fuse.RawFileSystem. These files have no holes.
func (o *ownFiles) Lseek(cancel <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	if !isOwn(in.NodeId) {
		return o.filesystem.Lseek(cancel, in, out)
	}
	h := o.handle(in.NodeId, in.Fh)
	if h == nil {
		return fuse.EBADF
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	size := uint64(len(h.data))
	if in.Offset >= size {
		return fuse.Status(syscall.ENXIO)
	}
	out.Offset = in.Offset
	if in.Whence == unix.SEEK_HOLE {
		out.Offset = size
	}
	return fuse.OK
}

// CopyFileRange returns EXDEV for files of .emberfs, so that the kernel copies by reads and writes.
func (o *ownFiles) CopyFileRange(cancel <-chan struct{}, in *fuse.CopyFileRangeIn) (uint32, fuse.Status) {
	if isOwn(in.NodeId) || isOwn(in.NodeIdOut) {
		return 0, fuse.EXDEV
	}
	return o.filesystem.CopyFileRange(cancel, in)
}
