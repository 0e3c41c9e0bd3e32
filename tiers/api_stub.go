package tiers

// Signatures that fs builds on. Bodies move to their own files as they are written.

import (
	"context"

	"golang.org/x/sys/unix"
)

// Attr is what stat shows of an inode.
type Attr struct {
	Ino      uint64
	Size     uint64
	Blocks   uint64 // of 512 bytes
	Atime    Time
	Mtime    Time
	Ctime    Time
	Btime    Time
	Mode     uint32 // with S_IFMT
	Nlink    uint32
	UID, GID uint32
	Rdev     uint32 // as the FUSE protocol wants it: new_encode_dev
	Blksize  uint32
}

// Caller is who made the request, and the umask where the request carries one.
type Caller struct {
	UID, GID, PID uint32
	Umask         uint32
}

// SetAttr lists what a setattr changes; nil or false fields stay.
type SetAttr struct {
	Mode               *uint32 // 07777
	UID, GID           *uint32
	Size               *uint64
	Atime, Mtime       *Time
	AtimeNow, MtimeNow bool
	KillPriv           bool // clear suid, and sgid where the group may execute
}

// Inode is a file, directory or other node that the kernel knows. It counts the kernel's lookups.
type Inode struct{}

func (n *Inode) ID() uint64  { panic("stub") } // the FUSE node id; never used twice in one process; the root is 1
func (n *Inode) Gen() uint64 { panic("stub") } // generation for NFS-like users, never zero
func (n *Inode) Kind() Kind  { panic("stub") }

// Handle is an open file. Safe for concurrent use.
type Handle struct{}

// DirHandle is an open directory stream; the caller serialises its use (the kernel does).
type DirHandle struct{}

// Dirent is one entry of a directory stream.
type Dirent struct {
	Name string
	Ino  uint64
	Mode uint32 // S_IFMT bits only
	Off  uint64 // where the stream goes on after this entry
}

// Errors are syscall.Errno (possibly wrapped) or the package's own; fs maps them.

func (v *Volume) Root() *Inode                                           { panic("stub") }
func (v *Volume) Inode(id uint64) *Inode                                 { panic("stub") } // nil: unknown
func (v *Volume) Lookup(dir *Inode, name string) (*Inode, Attr, error)   { panic("stub") } // one lookup more
func (v *Volume) Forget(n *Inode, nlookup uint64)                        { panic("stub") }
func (v *Volume) Getattr(n *Inode, h *Handle) (Attr, error)              { panic("stub") } // h may be nil
func (v *Volume) Setattr(n *Inode, h *Handle, in *SetAttr) (Attr, error) { panic("stub") }
func (v *Volume) Access(n *Inode, mask uint32, c Caller) error           { panic("stub") }

// Create makes and opens a file (flags without O_CREAT|O_EXCL still create: the kernel looked before); one lookup more.
func (v *Volume) Create(dir *Inode, name string, flags, mode uint32, c Caller) (*Inode, *Handle, Attr, error) {
	panic("stub")
}
func (v *Volume) Tmpfile(dir *Inode, flags, mode uint32, c Caller) (*Inode, *Handle, Attr, error) {
	panic("stub")
}

// Open honours O_ACCMODE and O_TRUNC (atomic O_TRUNC is negotiated); killPriv clears suid/sgid when it truncates.
func (v *Volume) Open(n *Inode, flags uint32, killPriv bool) (*Handle, error) { panic("stub") }
func (v *Volume) Mkdir(dir *Inode, name string, mode uint32, c Caller) (*Inode, Attr, error) {
	panic("stub")
}
func (v *Volume) Mknod(dir *Inode, name string, mode, rdev uint32, c Caller) (*Inode, Attr, error) {
	panic("stub")
}
func (v *Volume) Symlink(dir *Inode, name, target string, c Caller) (*Inode, Attr, error) {
	panic("stub")
}
func (v *Volume) Link(n, dir *Inode, name string) (Attr, error) { panic("stub") } // one lookup more on n
func (v *Volume) Readlink(n *Inode) ([]byte, error)             { panic("stub") }
func (v *Volume) Unlink(dir *Inode, name string) error          { panic("stub") }
func (v *Volume) Rmdir(dir *Inode, name string) error           { panic("stub") }
func (v *Volume) Rename(dir *Inode, name string, newdir *Inode, newname string, flags uint32) error {
	panic("stub")
}

// Getxattr fills buf and returns the value's length; ERANGE where buf is too short, and with len(buf)==0 only the length.
func (v *Volume) Getxattr(n *Inode, name string, buf []byte) (int, error) { panic("stub") }
func (v *Volume) Listxattr(n *Inode, buf []byte) (int, error)             { panic("stub") }
func (v *Volume) Setxattr(n *Inode, name string, value []byte, flags uint32, killSGID bool, c Caller) error {
	panic("stub")
}
func (v *Volume) Removexattr(n *Inode, name string) error { panic("stub") }
func (v *Volume) Statfs(n *Inode) (unix.Statfs_t, error)  { panic("stub") }

// CopyFileRange copies within the volume; short counts are allowed.
func (v *Volume) CopyFileRange(in *Handle, offIn int64, out *Handle, offOut int64, n int64, killPriv bool) (int, error) {
	panic("stub")
}

func (v *Volume) OpenDir(n *Inode) (*DirHandle, error) { panic("stub") }

// ReadDir calls emit for each entry from off on ("." and ".." included) until emit returns false or the directory ends. An entry
// that emit refused comes again at the next call.
func (d *DirHandle) ReadDir(off uint64, emit func(Dirent) bool) error { panic("stub") }
func (d *DirHandle) Inode() *Inode                                    { panic("stub") }
func (d *DirHandle) Fsync(datasync bool) error                        { panic("stub") }
func (d *DirHandle) Close()                                           { panic("stub") }

func (h *Handle) Inode() *Inode                                         { panic("stub") }
func (h *Handle) Flags() uint32                                         { panic("stub") } // as given to Open or Create
func (h *Handle) Read(p []byte, off int64) (int, error)                 { panic("stub") } // 0, nil at the end
func (h *Handle) Write(p []byte, off int64, killPriv bool) (int, error) { panic("stub") }
func (h *Handle) Fsync(datasync bool) error                             { panic("stub") }
func (h *Handle) Fallocate(mode uint32, off, n int64) error             { panic("stub") }
func (h *Handle) Seek(off int64, whence uint32) (int64, error)          { panic("stub") } // SEEK_DATA, SEEK_HOLE
func (h *Handle) Release()                                              { panic("stub") }

// Invalidator tells the kernel to forget; fs implements it over FUSE notifications. Calls queue, they never wait for the kernel.
type Invalidator interface {
	InvalEntry(dir uint64, name string)
	InvalInode(id uint64)
	Prune(ids []uint64)
}

// ErrReserved: the name or attribute belongs to EmberFS itself; EPERM for programs.

// ---- what cmd builds on ----

// Volume is the storage manager.
type Volume struct{}

// Open opens the state directory (which the caller has locked, see Lock), restores warm from cold where it has to.
func Open(ctx context.Context, c Config) (*Volume, error) { panic("stub") }

func (v *Volume) SetInvalidator(i Invalidator) { panic("stub") }

// Start runs the background work (verification, flush, backup interval) until Close.
func (v *Volume) Start() { panic("stub") }

// Sync commits what is dirty and pushes where there is a remote. The receipt is meaningful with an error too.
func (v *Volume) Sync(ctx context.Context, reason string) (*Receipt, error) { panic("stub") }

func (v *Volume) Status() Status { panic("stub") }

// Close stops the background work, makes warm durable and records the clean stop. The last Sync is the caller's.
func (v *Volume) Close() error { panic("stub") }
