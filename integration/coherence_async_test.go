//go:build slow

package integration

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// This file: libaio and io_uring by their system calls, as far as tests need them: io_submit(2), io_uring_enter(2).
// Several pieces are in flight at a time, and all are done when a call returns.

// piecesOf cuts a buffer into pieces of 8 KiB.
func piecesOf(p []byte) (out [][]byte) {
	const size = 8 << 10
	for len(p) > size {
		out, p = append(out, p[:size]), p[size:]
	}
	return append(out, p)
}

type iocb struct {
	data   uint64
	_      uint64 // key and flags
	opcode uint16
	_      uint16 // priority
	fd     uint32
	buf    uint64
	nbytes uint64
	offset int64
	_      [2]uint64
}

type ioEvent struct {
	data, obj uint64
	res, res2 int64
}

// libaio reads or writes p at off through fd.
func libaio(write bool, fd int, p []byte, off int64) error {
	parts := piecesOf(p)
	var ctx uintptr
	if _, _, errno := unix.Syscall(unix.SYS_IO_SETUP, uintptr(len(parts)), uintptr(unsafe.Pointer(&ctx)),
		0); errno != 0 {
		return errno
	}
	defer func() { _, _, _ = unix.Syscall(unix.SYS_IO_DESTROY, ctx, 0, 0) }()
	cbs, list := make([]iocb, len(parts)), make([]*iocb, len(parts))
	for i, part := range parts {
		cbs[i] = iocb{data: uint64(len(part)), fd: uint32(fd), buf: uint64(uintptr(unsafe.Pointer(&part[0]))),
			nbytes: uint64(len(part)), offset: off}
		if write {
			cbs[i].opcode = 1
		}
		list[i] = &cbs[i]
		off += int64(len(part))
	}
	for done := 0; done < len(list); {
		n, _, errno := unix.Syscall(unix.SYS_IO_SUBMIT, ctx, uintptr(len(list)-done),
			uintptr(unsafe.Pointer(&list[done])))
		if errno != 0 {
			return errno
		}
		done += int(n)
	}
	events := make([]ioEvent, len(parts))
	for got := 0; got < len(events); { // the runtime's own signals end the call early, with some of the events or none
		left := uintptr(len(events) - got)
		n, _, errno := unix.Syscall6(unix.SYS_IO_GETEVENTS, ctx, left, left, uintptr(unsafe.Pointer(&events[got])), 0,
			0)
		if errno != 0 && errno != unix.EINTR {
			return fmt.Errorf("after %d of %d events: %w", got, len(events), errno)
		}
		if errno == 0 {
			got += int(n)
		}
	}
	runtime.KeepAlive(p)
	runtime.KeepAlive(cbs)
	for _, e := range events {
		if e.res != int64(e.data) {
			return fmt.Errorf("%d of %d bytes: %w", e.res, e.data, unix.Errno(max(0, -e.res)))
		}
	}
	return nil
}

type uringParams struct {
	sqEntries, cqEntries, flags, cpu, idle, features, wq uint32
	_                                                    [3]uint32
	sq                                                   struct {
		head, tail, mask, entries, flags, dropped, array, _ uint32
		_                                                   uint64
	}
	cq struct {
		head, tail, mask, entries, overflow, cqes, flags, _ uint32
		_                                                   uint64
	}
}

type uringSQE struct {
	opcode, flags uint8
	ioprio        uint16
	fd            int32
	off, addr     uint64
	len, rwFlags  uint32
	data          uint64
	_             [3]uint64
}

type uringCQE struct {
	data  uint64
	res   int32
	flags uint32
}

// ioUring is libaio by io_uring.
func ioUring(write bool, fd int, p []byte, off int64) error {
	parts := piecesOf(p)
	var par uringParams
	ring, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, uintptr(len(parts)), uintptr(unsafe.Pointer(&par)), 0)
	if errno != 0 {
		return errno
	}
	defer unix.Close(int(ring))
	const offSQEs = 0x10000000
	size := max(par.sq.array+par.sqEntries*4, par.cq.cqes+par.cqEntries*16)
	rings, err := unix.Mmap(int(ring), 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Munmap(rings) }()
	room, err := unix.Mmap(int(ring), offSQEs, int(par.sqEntries)*64, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Munmap(room) }()
	word := func(off uint32) *uint32 { return (*uint32)(unsafe.Pointer(&rings[off])) }
	sqes := unsafe.Slice((*uringSQE)(unsafe.Pointer(&room[0])), par.sqEntries)
	for i, part := range parts {
		sqes[i] = uringSQE{opcode: 22, fd: int32(fd), off: uint64(off), addr: uint64(uintptr(unsafe.Pointer(&part[0]))),
			len: uint32(len(part)), data: uint64(len(part))}
		if write {
			sqes[i].opcode = 23
		}
		*word(par.sq.array + uint32(i)*4) = uint32(i)
		off += int64(len(part))
	}
	atomic.StoreUint32(word(par.sq.tail), uint32(len(parts)))
	const getEvents = 1
	for submitted, want := 0, uintptr(len(parts)); ; {
		n, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, ring, uintptr(len(parts)-submitted), want, getEvents, 0,
			0)
		if errno != 0 && errno != unix.EINTR {
			return errno
		}
		submitted += int(n)
		if atomic.LoadUint32(word(par.cq.tail))-*word(par.cq.head) >= uint32(len(parts)) {
			break
		}
	}
	runtime.KeepAlive(p)
	for i := range uint32(len(parts)) {
		e := (*uringCQE)(unsafe.Pointer(&rings[par.cq.cqes+(i&*word(par.cq.mask))*16]))
		if uint64(e.res) != e.data {
			return fmt.Errorf("%d of %d bytes: %w", e.res, e.data, unix.Errno(max(0, -e.res)))
		}
	}
	return nil
}
