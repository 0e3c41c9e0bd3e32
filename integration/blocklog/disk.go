package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

const (
	kindWrite = 1
	kindFlush = 2
	kindMark  = 3
)

// disk is the image and the log of what happens to it. Its lock makes the order of the log the order of the image: a
// flush stands behind all that was answered before it came.
type disk struct {
	mu    sync.Mutex
	image *os.File
	log   *os.File
	size  int64
}

func openDisk(image, log string) (*disk, error) {
	f, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	l, err := os.OpenFile(log, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	return &disk{image: f, log: l, size: fi.Size()}, nil
}

func (d *disk) close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	err := d.log.Close()
	if ierr := d.image.Close(); err == nil {
		err = ierr
	}
	return err
}

// note appends an entry; d.mu is held. It ends up in the page cache: this machine's power is not cut.
func (d *disk) note(kind uint32, off int64, data []byte) error {
	b := make([]byte, 16, 16+len(data))
	binary.LittleEndian.PutUint32(b, kind)
	binary.LittleEndian.PutUint32(b[4:], uint32(len(data)))
	binary.LittleEndian.PutUint64(b[8:], uint64(off))
	_, err := d.log.Write(append(b, data...))
	return err
}

func (d *disk) write(data []byte, off int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if off < 0 || off+int64(len(data)) > d.size {
		return fmt.Errorf("write of %d bytes at %d: %w", len(data), off, syscall.ENOSPC)
	}
	if err := d.note(kindWrite, off, data); err != nil {
		return err
	}
	_, err := d.image.WriteAt(data, off)
	return err
}

func (d *disk) add(kind uint32, data []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.note(kind, 0, data)
}

// root is the directory with the two files.
type root struct {
	fs.Inode
	disk *disk
}

func (r *root) OnAdd(ctx context.Context) {
	r.AddChild("disk", r.NewPersistentInode(ctx, &diskFile{disk: r.disk}, fs.StableAttr{Ino: 2}), false)
	r.AddChild("mark", r.NewPersistentInode(ctx, &markFile{disk: r.disk}, fs.StableAttr{Ino: 3}), false)
}

// diskFile is the device's file. Without the kernel's cache between (FOPEN_DIRECT_IO) each write of the loop device is
// here before the device says that it is done.
type diskFile struct {
	fs.Inode
	disk *disk
}

// markFile takes marks: each write is one.
type markFile struct {
	fs.Inode
	disk *disk
}

var (
	_ fs.NodeOnAdder   = (*root)(nil)
	_ fs.NodeOpener    = (*diskFile)(nil)
	_ fs.NodeGetattrer = (*diskFile)(nil)
	_ fs.NodeSetattrer = (*diskFile)(nil)
	_ fs.NodeReader    = (*diskFile)(nil)
	_ fs.NodeWriter    = (*diskFile)(nil)
	_ fs.NodeFsyncer   = (*diskFile)(nil)
	_ fs.NodeAllocater = (*diskFile)(nil)
	_ fs.NodeOpener    = (*markFile)(nil)
	_ fs.NodeGetattrer = (*markFile)(nil)
	_ fs.NodeWriter    = (*markFile)(nil)
)

func (f *diskFile) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_DIRECT_IO | fuse.FOPEN_NOFLUSH, 0
}

func (f *diskFile) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode, out.Size, out.Nlink = syscall.S_IFREG|0o600, uint64(f.disk.size), 1
	return 0
}

// Setattr lets the kernel set times; the size stays.
func (f *diskFile) Setattr(ctx context.Context, h fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if size, ok := in.GetSize(); ok && int64(size) != f.disk.size {
		return syscall.EPERM
	}
	return f.Getattr(ctx, h, out)
}

func (f *diskFile) Read(_ context.Context, _ fs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	n, err := f.disk.image.ReadAt(dest, off)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, complain(err)
	}
	return fuse.ReadResultData(dest[:n]), 0
}

func (f *diskFile) Write(_ context.Context, _ fs.FileHandle, data []byte, off int64) (uint32, syscall.Errno) {
	if err := f.disk.write(data, off); err != nil {
		return 0, complain(err)
	}
	return uint32(len(data)), 0
}

func (f *diskFile) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	return complain(f.disk.add(kindFlush, nil))
}

// Allocate refuses: the device then has no discard and no write-zeroes, and zeros are written as what they are.
func (f *diskFile) Allocate(context.Context, fs.FileHandle, uint64, uint64, uint32) syscall.Errno {
	return syscall.EOPNOTSUPP
}

func (f *markFile) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_DIRECT_IO | fuse.FOPEN_NOFLUSH, 0
}

func (f *markFile) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode, out.Nlink = syscall.S_IFREG|0o600, 1
	return 0
}

func (f *markFile) Write(_ context.Context, _ fs.FileHandle, data []byte, _ int64) (uint32, syscall.Errno) {
	if err := f.disk.add(kindMark, data); err != nil {
		return 0, complain(err)
	}
	return uint32(len(data)), 0
}

// complain says what went wrong: for the device it is an I/O error.
func complain(err error) syscall.Errno {
	if err == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, "blocklog:", err)
	return syscall.EIO
}
