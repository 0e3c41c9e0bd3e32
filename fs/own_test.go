package fs

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

const (
	goodRules = "- match: a/\n  class: critical\n"
	moreRules = "- match: b/\n  class: critical\n"
	badRules  = "- match: a/\n  class: crytical\n"
)

// ownRig drives the directory .emberfs as the kernel would.
type ownRig struct {
	*rig
	o      *ownFiles
	notice []byte // the content of notice.json; nil: there is none
}

func newOwnRig(t testing.TB) *ownRig {
	r := newRig(t)
	var reports atomic.Int32
	out := &ownRig{rig: r}
	out.o = newOwnFiles(r.f, func() []byte { return fmt.Appendf(nil, "report %d", reports.Add(1)) },
		func() []byte { return out.notice })
	return out
}

func (r *ownRig) lookup(dir uint64, name string) (node uint64, st fuse.Status) {
	r.t.Helper()
	var e fuse.EntryOut
	st = r.o.Lookup(nil, ptr(head(dir)), name, &e)
	if st.Ok() && isOwn(e.NodeId) && (e.EntryValid != 0 || e.AttrValid != 0) {
		r.t.Errorf("%s stays with the kernel: %+v", name, e)
	}
	return e.NodeId, st
}

func (r *ownRig) open(flags uint32) (node, fh uint64) {
	r.t.Helper()
	node, st := r.lookup(ownDir, rulesName)
	r.want("lookup", st, fuse.OK)
	var out fuse.OpenOut
	r.want("open", r.o.Open(nil, &fuse.OpenIn{InHeader: head(node), Flags: flags}, &out), fuse.OK)
	if out.OpenFlags != fuse.FOPEN_DIRECT_IO {
		r.t.Errorf("open flags %#x", out.OpenFlags)
	}
	return node, out.Fh
}

func (r *ownRig) createRules(pid uint32) (node, fh uint64) {
	r.t.Helper()
	var out fuse.CreateOut
	in := fuse.CreateIn{InHeader: head(ownDir), Flags: unix.O_WRONLY | unix.O_EXCL, Mode: unix.S_IFREG | 0o600}
	in.Pid = pid
	r.want("create", r.o.Create(nil, &in, rulesName, &out), fuse.OK)
	return out.NodeId, out.Fh
}

func (r *ownRig) write(node, fh, off uint64, text string, flags uint32) fuse.Status {
	n, st := r.o.Write(nil, &fuse.WriteIn{InHeader: head(node), Fh: fh, Offset: off, Flags: flags}, []byte(text))
	if st.Ok() && int(n) != len(text) {
		r.t.Errorf("%d of %d bytes are taken", n, len(text))
	}
	return st
}

func (r *ownRig) flush(node, fh uint64) fuse.Status {
	return r.o.Flush(nil, &fuse.FlushIn{InHeader: head(node), Fh: fh})
}

func (r *ownRig) release(node, fh uint64) {
	r.o.Release(nil, &fuse.ReleaseIn{InHeader: head(node), Fh: fh})
}

func (r *ownRig) content(node, fh uint64) string {
	r.t.Helper()
	res, st := r.o.Read(nil, &fuse.ReadIn{InHeader: head(node), Fh: fh}, make([]byte, 1<<17))
	r.want("read", st, fuse.OK)
	b, _ := res.Bytes(nil)
	return string(b)
}

func (r *ownRig) rules(want string) {
	r.t.Helper()
	if got := string(r.o.vol.RulesText()); got != want {
		r.t.Errorf("the volume's rules are %q, want %q", got, want)
	}
}

func (r *ownRig) size(node uint64) uint64 {
	r.t.Helper()
	var out fuse.AttrOut
	r.want("getattr", r.o.GetAttr(nil, &fuse.GetAttrIn{InHeader: head(node)}, &out), fuse.OK)
	return out.Size
}

func (r *ownRig) list() []string {
	r.t.Helper()
	var names []string
	for _, plus := range []bool{false, true} {
		l := fuse.NewDirEntryList(make([]byte, 4096), 0)
		in := fuse.ReadIn{InHeader: head(ownDir)}
		read, parse := r.o.ReadDir, fuse.ParseDirEntries
		if plus {
			read, parse = r.o.ReadDirPlus, func(b []byte) ([]fuse.DirEntry, error) {
				es, outs, err := fuse.ParseDirLookupEntries(b)
				for i, e := range es {
					if dots := strings.HasPrefix(e.Name, "."); dots != (outs[i].NodeId == 0) {
						r.t.Errorf("%s has node %d", e.Name, outs[i].NodeId)
					}
				}
				return es, err
			}
		}
		r.want("readdir", read(nil, &in, l), fuse.OK)
		es, err := parse(l.Bytes())
		check(r.t, err)
		var got []string
		for _, e := range es {
			got = append(got, e.Name)
		}
		if plus && !slices.Equal(got, names) {
			r.t.Errorf("with attributes %q, without %q", got, names)
		}
		names = got
	}
	return names
}

func TestOwnDirectory(t *testing.T) {
	r := newOwnRig(t)
	dir, st := r.lookup(fuse.FUSE_ROOT_ID, ownName)
	if r.want("lookup", st, fuse.OK); dir != ownDir {
		t.Fatalf("node %d", dir)
	}
	if got := r.list(); !slices.Equal(got, []string{".", "..", statusName}) {
		t.Errorf("without rules it lists %q", got)
	}
	node, fh := r.createRules(7)
	r.release(node, fh)
	if got := r.list(); !slices.Equal(got, []string{".", "..", statusName, rulesName}) {
		t.Errorf("with rules it lists %q", got)
	}
	empty := func(plus bool) {
		t.Helper()
		names, _ := r.listing(fuse.FUSE_ROOT_ID, 4096, plus)
		slices.Sort(names) // ext4 lists ".." first by one hash seed in two
		if !slices.Equal(names, []string{".", ".."}) {
			t.Errorf("the root lists %q", names)
		}
	}
	empty(true)
	// What an older volume has of that name is hidden.
	if _, _, err := r.f.vol.Mkdir(context.Background(), r.f.vol.Inode(1), ownName, 0o755,
		caller(ptr(head(1)), 0)); err != nil {
		t.Fatal(err)
	}
	for _, plus := range []bool{false, true} {
		empty(plus)
	}

	sub := r.mkdir(1, "sub")
	var e fuse.EntryOut
	var c fuse.CreateOut
	exists, busy := fuse.Status(syscall.EEXIST), fuse.Status(syscall.EBUSY)
	for _, at := range []struct {
		dir  uint64
		name string
		want fuse.Status
	}{{ownDir, "x", fuse.EPERM}, {1, ownName, exists}} {
		r.want("create", r.o.Create(nil, &fuse.CreateIn{InHeader: head(at.dir)}, at.name, &c), at.want)
		r.want("mkdir", r.o.Mkdir(nil, &fuse.MkdirIn{InHeader: head(at.dir)}, at.name, &e), at.want)
		r.want("mknod", r.o.Mknod(nil, &fuse.MknodIn{InHeader: head(at.dir)}, at.name, &e), at.want)
		r.want("symlink", r.o.Symlink(nil, ptr(head(at.dir)), "to", at.name, &e), at.want)
		r.want("link", r.o.Link(nil, &fuse.LinkIn{InHeader: head(at.dir), Oldnodeid: sub}, at.name, &e), at.want)
	}
	r.want("link of rules.yaml", r.o.Link(nil, &fuse.LinkIn{InHeader: head(sub), Oldnodeid: node}, "x", &e), fuse.EPERM)
	r.want("tmpfile", r.o.Tmpfile(nil, &fuse.CreateIn{InHeader: head(ownDir)}, &c), fuse.EPERM)
	r.want("rmdir", r.o.Rmdir(nil, ptr(head(1)), ownName), busy)
	r.want("unlink of status.json", r.o.Unlink(nil, ptr(head(ownDir)), statusName), fuse.EPERM)
	rename := func(from uint64, name string, to uint64, newname string) fuse.Status {
		return r.o.Rename(nil, &fuse.RenameIn{InHeader: head(from), Newdir: to}, name, newname)
	}
	r.want("rename inside", rename(ownDir, rulesName, ownDir, "x"), fuse.EPERM)
	r.want("rename into", rename(1, "sub", ownDir, rulesName), fuse.EXDEV)
	r.want("rename out of", rename(ownDir, rulesName, 1, "x"), fuse.EXDEV)
	r.want("rename of it", rename(1, ownName, 1, "x"), busy)
	r.want("rename over it", rename(1, "sub", 1, ownName), busy)
	r.want("rename of a user's file", rename(1, "sub", 1, "moved"), fuse.OK)
	r.want(".emberfs elsewhere", r.o.Mkdir(nil, &fuse.MkdirIn{InHeader: head(sub), Mode: 0o755}, ownName, &e), fuse.OK)
}

func TestOwnAttributes(t *testing.T) {
	r := newOwnRig(t)
	node, fh := r.createRules(7)
	set := func(node uint64, in fuse.SetAttrInCommon) fuse.Status {
		in.NodeId = node
		return r.o.SetAttr(nil, &fuse.SetAttrIn{SetAttrInCommon: in}, new(fuse.AttrOut))
	}
	r.want("chmod", set(node, fuse.SetAttrInCommon{Valid: fuse.FATTR_MODE, Mode: 0o600}), fuse.EPERM)
	r.want("chmod to the same", set(node, fuse.SetAttrInCommon{Valid: fuse.FATTR_MODE, Mode: 0o644}), fuse.OK)
	r.want("chown", set(ownDir, fuse.SetAttrInCommon{Valid: fuse.FATTR_UID, Owner: fuse.Owner{Uid: r.o.uid + 1}}),
		fuse.EPERM)
	r.want("utimes", set(node, fuse.SetAttrInCommon{Valid: fuse.FATTR_MTIME | fuse.FATTR_ATIME_NOW, Mtime: 1}), fuse.OK)
	r.want("an empty setattr", set(node, fuse.SetAttrInCommon{}), fuse.OK)
	r.want("truncate of status.json", set(ownStatus, fuse.SetAttrInCommon{Valid: fuse.FATTR_SIZE}), fuse.EACCES)
	r.want("open of status.json for writing", r.o.Open(nil, &fuse.OpenIn{InHeader: head(ownStatus), Flags: unix.O_RDWR},
		new(fuse.OpenOut)), fuse.EACCES)
	r.want("access", r.o.Access(nil, &fuse.AccessIn{InHeader: head(node), Mask: unix.R_OK | unix.W_OK}), fuse.OK)
	r.want("access for execution", r.o.Access(nil, &fuse.AccessIn{InHeader: head(node), Mask: unix.X_OK}), fuse.EACCES)
	r.want("getxattr", second(r.o.GetXAttr(nil, ptr(head(node)), "user.x", nil)), fuse.ENODATA)
	r.want("setxattr", r.o.SetXAttr(nil, &fuse.SetXAttrIn{InHeader: head(node)}, "user.x", nil), fuse.ENOTSUP)
	r.want("removexattr", r.o.RemoveXAttr(nil, ptr(head(node)), "user.x"), fuse.ENODATA)
	if n, st := r.o.ListXAttr(nil, ptr(head(node)), nil); !st.Ok() || n != 0 {
		t.Errorf("listxattr: %d %v", n, st)
	}
	r.want("statfs", r.o.StatFs(nil, ptr(head(ownDir)), new(fuse.StatfsOut)), fuse.OK)
	r.want("readlink", second(r.o.Readlink(nil, ptr(head(node)))), fuse.EINVAL)
	r.want("fallocate", r.o.Fallocate(nil, &fuse.FallocateIn{InHeader: head(node), Fh: fh, Length: 1}), fuse.ENOTSUP)
	r.want("copy_file_range", second(r.o.CopyFileRange(nil, &fuse.CopyFileRangeIn{InHeader: head(2), NodeIdOut: node})),
		fuse.EXDEV)
	r.want("opendir", r.o.OpenDir(nil, &fuse.OpenIn{InHeader: head(ownDir)}, new(fuse.OpenOut)), fuse.OK)
	r.want("fsyncdir", r.o.FsyncDir(nil, &fuse.FsyncIn{InHeader: head(ownDir)}), fuse.OK)
	var sx fuse.StatxOut
	r.want("statx", r.o.Statx(nil, &fuse.StatxIn{InHeader: head(ownStatus)}, &sx), fuse.OK)
	if sx.Mode != unix.S_IFREG|0o444 || sx.Size == 0 || sx.Ino != ownStatus {
		t.Errorf("%+v", sx)
	}

	var out fuse.OpenOut
	r.want("open of status.json", r.o.Open(nil, &fuse.OpenIn{InHeader: head(ownStatus)}, &out), fuse.OK)
	one := r.content(ownStatus, out.Fh)
	if two := r.content(ownStatus, out.Fh); !strings.HasPrefix(one, "report ") || two != one ||
		r.size(ownStatus) != uint64(len(one)) {
		t.Errorf("one handle reads %q, then %q", one, two)
	}
	var off fuse.LseekOut
	r.want("hole", r.o.Lseek(nil, &fuse.LseekIn{InHeader: head(ownStatus), Fh: out.Fh, Whence: unix.SEEK_HOLE}, &off),
		fuse.OK)
	if off.Offset != uint64(len(one)) {
		t.Errorf("the first hole is at %d", off.Offset)
	}
	r.want("data behind the end", r.o.Lseek(nil, &fuse.LseekIn{InHeader: head(ownStatus), Fh: out.Fh, Offset: 99,
		Whence: unix.SEEK_DATA}, &off), fuse.Status(syscall.ENXIO))
}

// TestOwnNotice: notice.json is there while there is a notice, and who has it open reads on.
func TestOwnNotice(t *testing.T) {
	r := newOwnRig(t)
	if _, st := r.lookup(ownDir, noticeName); st != fuse.ENOENT {
		t.Errorf("without a notice: %v", st)
	}
	r.want("create", r.o.Create(nil, &fuse.CreateIn{InHeader: head(ownDir)}, noticeName, new(fuse.CreateOut)),
		fuse.EPERM)
	r.notice = []byte(`{"what":"x"}`)
	node, st := r.lookup(ownDir, noticeName)
	if r.want("lookup", st, fuse.OK); node != ownNotice {
		t.Fatalf("node %d", node)
	}
	if got := r.list(); !slices.Equal(got, []string{".", "..", statusName, noticeName}) {
		t.Errorf("with a notice it lists %q", got)
	}
	if got := r.size(node); got != uint64(len(r.notice)) {
		t.Errorf("its size is %d", got)
	}
	r.want("unlink", r.o.Unlink(nil, ptr(head(ownDir)), noticeName), fuse.EPERM)
	r.want("access", r.o.Access(nil, &fuse.AccessIn{InHeader: head(node), Mask: unix.W_OK}), fuse.EACCES)
	for _, flags := range []uint32{unix.O_RDWR, unix.O_TRUNC} {
		r.want("open for writing", r.o.Open(nil, &fuse.OpenIn{InHeader: head(node), Flags: flags}, new(fuse.OpenOut)),
			fuse.EACCES)
	}
	r.want("truncate", r.o.SetAttr(nil, &fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{InHeader: head(node),
		Valid: fuse.FATTR_SIZE}}, new(fuse.AttrOut)), fuse.EACCES)
	var out fuse.OpenOut
	r.want("open", r.o.Open(nil, &fuse.OpenIn{InHeader: head(node)}, &out), fuse.OK)
	r.notice = nil
	stale := fuse.Status(syscall.ESTALE)
	r.want("open of one that is gone", r.o.Open(nil, &fuse.OpenIn{InHeader: head(node)}, new(fuse.OpenOut)), stale)
	if got := r.content(node, out.Fh); got != `{"what":"x"}` {
		t.Errorf("who has it open reads %q", got)
	}
	r.want("write", second(r.o.Write(nil, &fuse.WriteIn{InHeader: head(node), Fh: out.Fh}, []byte("y"))), fuse.EBADF)
	r.release(node, out.Fh)
	r.want("getattr", r.o.GetAttr(nil, &fuse.GetAttrIn{InHeader: head(node)}, new(fuse.AttrOut)), stale)
	if _, st := r.lookup(ownDir, noticeName); st != fuse.ENOENT {
		t.Errorf("without a notice again: %v", st)
	}
	if got := r.list(); !slices.Equal(got, []string{".", "..", statusName}) {
		t.Errorf("without a notice again it lists %q", got)
	}
}
