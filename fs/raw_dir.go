package fs

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"emberfs/tiers/warm"
)

// This file has the operations on open directories.

func (f *filesystem) OpenDir(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	ctx := newRequest(cancel, &in.InHeader)
	defer ctx.end()
	n, err := f.node(in.NodeId)
	if err != nil {
		return f.status("opendir", in.NodeId, err)
	}
	if err := f.quota.take(in.Uid); err != nil {
		return f.status("opendir", in.NodeId, err)
	}
	d, err := n.Volume().OpenDir(ctx, n)
	if err != nil {
		f.quota.give(in.Uid)
		return f.status("opendir", in.NodeId, err)
	}
	d.Opener = in.Uid
	fh, err := f.dirs.put(d)
	if err != nil {
		f.quota.give(in.Uid)
		d.Close()
		return f.status("opendir", in.NodeId, err)
	}
	out.Fh = fh
	out.OpenFlags = f.policy.dirFlags(d.Cache())
	return fuse.OK
}

func (f *filesystem) ReleaseDir(in *fuse.ReleaseIn) {
	if d := f.dirs.take(in.Fh); d != nil {
		d.Close()
		f.quota.give(d.Opener)
	}
}

// FsyncDir is not interrupted by signals, like Fsync.
func (f *filesystem) FsyncDir(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	ctx := newRequest(cancel, &in.InHeader)
	defer ctx.end()
	d, err := f.dir(in.Fh)
	if err == nil {
		err = d.Fsync(ctx, in.FsyncFlags&fsyncData != 0)
	}
	return f.status("fsyncdir", in.NodeId, err)
}

func (f *filesystem) ReadDir(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	ctx := newRequest(cancel, &in.InHeader)
	defer ctx.end()
	d, err := f.dir(in.Fh)
	if err == nil {
		err = d.ReadDir(ctx, in.Offset, func(e warm.Dirent) bool {
			return isOwnName(in.NodeId, e.Name) ||
				out.AddDirEntry(fuse.DirEntry{Name: e.Name, Ino: e.Ino, Mode: e.Mode, Off: e.Off})
		})
	}
	return f.status("readdir", in.NodeId, err)
}

// child is a directory entry in the reply whose attributes are still missing.
type child struct {
	name string
	out  *fuse.EntryOut
}

// plus is scratch space for one READDIRPLUS.
type plus struct{ children []child }

// ReadDirPlus first collects the entries that fit into the reply, and looks them up afterwards. The kernel counts every
// lookup, so there must be none for an entry that does not go out; and none is made under a lock of the directory
// stream.
func (f *filesystem) ReadDirPlus(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	ctx := newRequest(cancel, &in.InHeader)
	defer ctx.end()
	d, err := f.dir(in.Fh)
	if err != nil {
		return f.status("readdirplus", in.NodeId, err)
	}
	p, ok := f.plus.Get().(*plus)
	if !ok {
		p = new(plus)
	}
	defer func() {
		clear(p.children) // pooled memory must not hold names and request buffers alive
		p.children = p.children[:0]
		f.plus.Put(p)
	}()
	if in.Offset == 0 {
		unlisted := d.Lazy()
		d.Without = f.listers.begin(in.Pid, in.NodeId, unlisted)
		switch {
		case !unlisted:
		case d.Without >= 0:
			if err := d.List(ctx); err != nil {
				return f.status("readdirplus", in.NodeId, err)
			}
		default:
			d.Without = 0 // the caller wants attributes, which now cost no more than anywhere else
		}
	}
	err = d.ReadDir(ctx, in.Offset, func(e warm.Dirent) bool {
		if isOwnName(in.NodeId, e.Name) { // an entry from before EmberFS reserved the name
			return true
		}
		entry := out.AddDirLookupEntry(fuse.DirEntry{Name: e.Name, Ino: e.Ino, Mode: e.Mode, Off: e.Off})
		if entry == nil {
			return false
		}
		switch {
		case e.Name == "." || e.Name == "..": // the kernel wants no node for these
		case e.Lazy: // left to a LOOKUP, if one comes: find(1) only asks for directories
		case d.Without != 0 && e.Mode != syscall.S_IFDIR:
			if d.Without > 0 {
				d.Without--
			}
		default:
			p.children = append(p.children, child{e.Name, entry})
		}
		return true
	})
	if err != nil {
		return f.status("readdirplus", in.NodeId, err)
	}
	// They are looked up one after the other: waking a second thread would cost as much as its half of the work saves.
	dir := d.Inode()
	for _, c := range p.children {
		n, a, err := dir.Volume().Lookup(ctx, dir, c.name)
		if err != nil {
			continue // it is gone, or a LOOKUP will report why it fails; with node id 0 only the name goes out
		}
		f.fillEntry(c.out, n, &a)
	}
	return fuse.OK
}
