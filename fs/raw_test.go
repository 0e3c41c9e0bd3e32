package fs

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"emberfs/tiers"
	"emberfs/tiers/cold"
)

// noCold is a cold tier without a commit; these tests make none.
type noCold struct{ cold.Cold }

func (noCold) VolumeID() string                              { return "test" }
func (noCold) Head(context.Context) (cold.Snapshot, error)   { return nil, nil }
func (noCold) Newest(context.Context) (cold.Snapshot, error) { return nil, nil }
func (noCold) HasRemote() bool                               { return false }
func (noCold) Pushed() cold.ID                               { return cold.ID{} }
func (noCold) Aside() []string                               { return nil }
func (noCold) Stats() cold.ColdStats                         { return cold.ColdStats{} }
func (noCold) Close() error                                  { return nil }

// rig drives a filesystem over a real volume as the kernel would, without a mount.
type rig struct {
	t testing.TB
	f *filesystem
}

func newRig(t testing.TB) *rig {
	t.Helper()
	log := logrus.New()
	log.SetOutput(t.Output())
	v, err := tiers.Open(t.Context(), tiers.Config{State: t.TempDir(), Cold: noCold{}, Log: log,
		MemoryLimit: 100 << 20})
	check(t, err)
	f := newFilesystem(v, policy{cache: true}, log)
	t.Cleanup(func() {
		f.releaseAll()
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	})
	return &rig{t, f}
}

func head(node uint64) fuse.InHeader { return fuse.InHeader{NodeId: node} }

func (r *rig) want(what string, got, want fuse.Status) {
	r.t.Helper()
	if got != want {
		r.t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func (r *rig) create(dir uint64, name string) (node, fh uint64) {
	r.t.Helper()
	var out fuse.CreateOut
	in := fuse.CreateIn{InHeader: head(dir), Flags: unix.O_RDWR, Mode: unix.S_IFREG | 0o644}
	r.want("create "+name, r.f.Create(nil, &in, name, &out), fuse.OK)
	if out.OpenFlags != r.f.policy.fileFlags(tiers.IOCached) || out.AttrValid != cacheSeconds ||
		out.EntryValid != cacheSeconds {
		r.t.Errorf("create %s answers %+v", name, out)
	}
	return out.NodeId, out.Fh
}

func (r *rig) mkdir(dir uint64, name string) uint64 {
	r.t.Helper()
	var out fuse.EntryOut
	r.want("mkdir "+name, r.f.Mkdir(nil, &fuse.MkdirIn{InHeader: head(dir), Mode: unix.S_IFDIR | 0o755}, name, &out),
		fuse.OK)
	return out.NodeId
}

func (r *rig) read(fh uint64, off uint64, size int) string {
	r.t.Helper()
	buf := make([]byte, size)
	res, st := r.f.Read(nil, &fuse.ReadIn{Fh: fh, Offset: off}, buf)
	r.want("read", st, fuse.OK)
	out := make([]byte, size)
	n, st := res.(interface {
		Readv([][]byte) (int, fuse.Status)
	}).Readv([][]byte{out[:size/2], out[size/2:]})
	r.want("readv", st, fuse.OK)
	if b, st := res.Bytes(nil); !st.Ok() || !bytes.Equal(b, out[:n]) || res.Size() != n {
		r.t.Errorf("the result's bytes differ: %q %q", b, out[:n])
	}
	return string(out[:n])
}

func TestRawFiles(t *testing.T) {
	r := newRig(t)
	f := r.f
	node, fh := r.create(fuse.FUSE_ROOT_ID, "file")

	n, st := f.Writev(nil, &fuse.WriteIn{Fh: fh}, [][]byte{[]byte("hello "), []byte("world")})
	if r.want("writev", st, fuse.OK); n != 11 {
		t.Errorf("writev takes %d bytes", n)
	}
	if got := r.read(fh, 0, 64); got != "hello world" {
		t.Errorf("read gives %q", got)
	}
	if got := r.read(fh, 6, 4); got != "worl" {
		t.Errorf("read gives %q", got)
	}
	if got := r.read(fh, 11, 4); got != "" {
		t.Errorf("read at the end gives %q", got)
	}
	r.want("fsync", f.Fsync(nil, &fuse.FsyncIn{Fh: fh}), fuse.OK)
	r.want("fallocate", f.Fallocate(nil, &fuse.FallocateIn{Fh: fh, Offset: 0, Length: 8192}), fuse.OK)
	var off fuse.LseekOut
	r.want("lseek", f.Lseek(nil, &fuse.LseekIn{Fh: fh, Whence: unix.SEEK_DATA}, &off), fuse.OK)

	_, to := r.create(fuse.FUSE_ROOT_ID, "copy")
	n, st = f.CopyFileRange(nil, &fuse.CopyFileRangeIn{FhIn: fh, FhOut: to, Len: 1 << 40})
	if r.want("copy_file_range", st, fuse.OK); n == 0 || !strings.HasPrefix(r.read(to, 0, 64), "hello world") {
		t.Errorf("copied %d bytes: %q", n, r.read(to, 0, 64))
	}

	var attr fuse.AttrOut
	get := fuse.GetAttrIn{InHeader: head(node), Flags_: fuse.FUSE_GETATTR_FH, Fh_: fh}
	r.want("getattr", f.GetAttr(nil, &get, &attr), fuse.OK)
	if attr.Size != 8192 || attr.Mode != unix.S_IFREG|0o644 || attr.AttrValid != cacheSeconds {
		t.Errorf("%+v", attr)
	}
	var sx fuse.StatxOut
	r.want("statx", f.Statx(nil, &fuse.StatxIn{InHeader: head(node)}, &sx), fuse.OK)
	if sx.Mask&unix.STATX_BASIC_STATS != unix.STATX_BASIC_STATS || sx.Size != 8192 || uint32(sx.Mode) != attr.Mode ||
		sx.Ino != attr.Ino {
		t.Errorf("%+v", sx)
	}

	set := fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{
		InHeader: head(node), Valid: fuse.FATTR_SIZE | fuse.FATTR_MODE | fuse.FATTR_MTIME | fuse.FATTR_FH, Fh: fh,
		Size: 5,
		Mode: unix.S_IFREG | 0o600, Mtime: ^uint64(0) - 99, Mtimensec: 7}}
	r.want("setattr", f.SetAttr(nil, &set, &attr), fuse.OK)
	if attr.Size != 5 || attr.Mode != unix.S_IFREG|0o600 || int64(attr.Mtime) != -100 || attr.Mtimensec != 7 {
		t.Errorf("%+v", attr)
	}
	f.Release(nil, &fuse.ReleaseIn{Fh: fh})
	r.want("read of a released handle", second(f.Read(nil, &fuse.ReadIn{Fh: fh}, make([]byte, 1))), fuse.EBADF)
	r.want("unlink", f.Unlink(nil, ptr(head(1)), "file"), fuse.OK)
	r.want("getattr of an unlinked file", f.GetAttr(nil, &fuse.GetAttrIn{InHeader: head(node)}, &attr), fuse.OK)
	f.Forget(node, 1)
	r.want("getattr of a forgotten node", f.GetAttr(nil, &fuse.GetAttrIn{InHeader: head(node)}, &attr),
		fuse.Status(syscall.ESTALE))
}

func second[T any](_ T, st fuse.Status) fuse.Status { return st }
func ptr[T any](x T) *T                             { return &x }

func TestRawNames(t *testing.T) {
	r := newRig(t)
	f := r.f
	dir := r.mkdir(1, "dir")
	var e fuse.EntryOut
	r.want("lookup of nothing", f.Lookup(nil, ptr(head(dir)), "none", &e), fuse.OK)
	if e.NodeId != 0 || e.EntryValid != cacheSeconds {
		t.Errorf("no negative entry: %+v", e)
	}
	file, fh := r.create(dir, "a")
	f.Release(nil, &fuse.ReleaseIn{Fh: fh})
	r.want("link", f.Link(nil, &fuse.LinkIn{InHeader: head(dir), Oldnodeid: file}, "b", &e), fuse.OK)
	if e.NodeId != file || e.Nlink != 2 {
		t.Errorf("link answers %+v", e)
	}
	r.want("symlink", f.Symlink(nil, ptr(head(dir)), "../target", "s", &e), fuse.OK)
	target, st := f.Readlink(nil, ptr(head(e.NodeId)))
	if r.want("readlink", st, fuse.OK); string(target) != "../target" {
		t.Errorf("readlink gives %q", target)
	}
	r.want("readlink of a file", second(f.Readlink(nil, ptr(head(file)))), fuse.EINVAL)
	r.want("mknod", f.Mknod(nil, &fuse.MknodIn{InHeader: head(dir), Mode: unix.S_IFIFO | 0o600}, "fifo", &e), fuse.OK)
	r.want("rename", f.Rename(nil, &fuse.RenameIn{InHeader: head(dir), Newdir: 1}, "a", "moved"), fuse.OK)
	r.want("rename, no replacing", f.Rename(nil,
		&fuse.RenameIn{InHeader: head(dir), Newdir: 1, Flags: unix.RENAME_NOREPLACE}, "b", "moved"),
		fuse.Status(syscall.EEXIST))
	r.want("rename of nothing", f.Rename(nil, &fuse.RenameIn{InHeader: head(dir), Newdir: 1}, "a", "x"), fuse.ENOENT)
	r.want("rmdir of a full one", f.Rmdir(nil, ptr(head(1)), "dir"), fuse.Status(syscall.ENOTEMPTY))
	r.want("unlink of a directory", f.Unlink(nil, ptr(head(1)), "dir"), fuse.EISDIR)
	r.want("ioctl", f.Ioctl(nil, nil, nil, nil, nil), fuse.Status(syscall.ENOTTY))
	var fsout fuse.StatfsOut
	if r.want("statfs", f.StatFs(nil, ptr(head(1)), &fsout), fuse.OK); fsout.NameLen != 255 || fsout.Blocks == 0 {
		t.Errorf("%+v", fsout)
	}
}

func TestRawXattrs(t *testing.T) {
	r := newRig(t)
	f := r.f
	node, _ := r.create(1, "file")
	value := []byte("value")
	set := func(name string) fuse.Status {
		return f.SetXAttr(nil, &fuse.SetXAttrIn{InHeader: head(node), Size: uint32(len(value))}, name, value)
	}
	r.want("set", set("user.x"), fuse.OK)
	buf := make([]byte, 64)
	for _, c := range []struct {
		what string
		dest []byte
		n    uint32
		st   fuse.Status
	}{{"size", nil, 5, fuse.OK}, {"fits", buf, 5, fuse.OK}, {"too small", buf[:4], 0, fuse.ERANGE}} {
		n, st := f.GetXAttr(nil, ptr(head(node)), "user.x", c.dest)
		if r.want(c.what, st, c.st); n != c.n {
			t.Errorf("%s: %d bytes", c.what, n)
		}
	}
	r.want("none", second(f.GetXAttr(nil, ptr(head(node)), "user.y", buf)), fuse.ENODATA)
	n, st := f.ListXAttr(nil, ptr(head(node)), buf)
	if r.want("list", st, fuse.OK); !slices.Contains(strings.Split(string(buf[:n]), "\x00"), "user.x") ||
		strings.Contains(string(buf[:n]), "emberfs") {
		t.Errorf("list gives %q", buf[:n])
	}
	size, st := f.ListXAttr(nil, ptr(head(node)), nil)
	if r.want("list's size", st, fuse.OK); size != n {
		t.Errorf("list's size is %d, want %d", size, n)
	}
	r.want("remove", f.RemoveXAttr(nil, ptr(head(node)), "user.x"), fuse.OK)
	r.want("remove again", f.RemoveXAttr(nil, ptr(head(node)), "user.x"), fuse.ENODATA)
}

// listing reads a directory the way the kernel does, in replies of size bytes.
func (r *rig) listing(dir uint64, size int, plus bool) (names []string, nodes []uint64) {
	r.t.Helper()
	var o fuse.OpenOut
	r.want("opendir", r.f.OpenDir(nil, &fuse.OpenIn{InHeader: head(dir)}, &o), fuse.OK)
	defer r.f.ReleaseDir(&fuse.ReleaseIn{Fh: o.Fh})
	for off := uint64(0); ; {
		in := fuse.ReadIn{InHeader: head(dir), Fh: o.Fh, Offset: off}
		l := fuse.NewDirEntryList(make([]byte, size), off)
		var es []fuse.DirEntry
		var outs []fuse.EntryOut
		var err error
		if plus {
			r.want("readdirplus", r.f.ReadDirPlus(nil, &in, l), fuse.OK)
			es, outs, err = fuse.ParseDirLookupEntries(l.Bytes())
		} else {
			r.want("readdir", r.f.ReadDir(nil, &in, l), fuse.OK)
			es, err = fuse.ParseDirEntries(l.Bytes())
		}
		check(r.t, err)
		if len(es) == 0 {
			return names, nodes
		}
		for i, e := range es {
			names, off = append(names, e.Name), e.Off
			if plus {
				nodes = append(nodes, outs[i].NodeId)
			}
		}
	}
}

func TestRawDirectories(t *testing.T) {
	r := newRig(t)
	dir := r.mkdir(1, "dir")
	want := []string{".", ".."}
	for i := range 700 {
		name := fmt.Sprintf("file %d", i)
		want = append(want, name)
		node, fh := r.create(dir, name)
		r.f.Release(nil, &fuse.ReleaseIn{Fh: fh})
		r.f.Forget(node, 1)
	}
	slices.Sort(want)
	for _, size := range []int{512, 4096, 1 << 20} {
		for _, plus := range []bool{false, true} {
			names, nodes := r.listing(dir, size, plus)
			for i, n := range nodes {
				if dots := names[i] == "." || names[i] == ".."; dots != (n == 0) {
					t.Errorf("%q has node %d", names[i], n)
				} else if n != 0 {
					r.f.Forget(n, 1) // the one lookup that the entry counted
					if r.f.vol.Inode(n) != nil {
						t.Errorf("%q counted more than one lookup", names[i])
					}
				}
			}
			slices.Sort(names)
			if !slices.Equal(names, want) {
				t.Errorf("%d bytes, plus %v: %d names, want %d", size, plus, len(names), len(want))
			}
		}
	}
	r.want("fsyncdir of no handle", r.f.FsyncDir(nil, &fuse.FsyncIn{Fh: 1 << 30}), fuse.EBADF)
}

// TestRawConcurrency runs many kinds of requests concurrently, for the race detector.
func TestRawConcurrency(t *testing.T) {
	r := newRig(t)
	dir := r.mkdir(1, "dir")
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 50 {
				name := fmt.Sprintf("%d-%d", w, i)
				node, fh := r.create(dir, name)
				if _, st := r.f.Write(nil, &fuse.WriteIn{Fh: fh}, []byte(name)); !st.Ok() {
					t.Error(st)
				}
				if got := r.read(fh, 0, 16); got != name {
					t.Errorf("%s reads as %q", name, got)
				}
				if i%10 == 0 {
					_, nodes := r.listing(dir, 1<<16, true)
					for _, n := range nodes {
						r.f.Forget(n, 1)
					}
				}
				r.f.Release(nil, &fuse.ReleaseIn{Fh: fh})
				r.want("unlink", r.f.Unlink(nil, ptr(head(dir)), name), fuse.OK)
				r.f.Forget(node, 1)
			}
		})
	}
	wg.Wait()
}
