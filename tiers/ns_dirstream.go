package tiers

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/warm"
)

// OpenDir opens a directory stream on n.
func (v *Volume) OpenDir(ctx context.Context, n *Inode) (*DirHandle, error) {
	if n.kind != cold.KindDir {
		return nil, unix.ENOTDIR
	}
	fd, noatime, err := warm.Quietly(unix.O_RDONLY|unix.O_DIRECTORY, func(flags int) (int, error) {
		return v.openNode(n, flags)
	})
	if err != nil {
		return nil, err
	}
	d := &DirHandle{v: v, n: n, fd: fd, noatime: noatime}
	if err := d.ready(ctx); err != nil {
		unix.Close(fd)
		return nil, err
	}
	v.ref(n)
	return d, nil
}

// Inode is the directory that d reads.
func (d *DirHandle) Inode() *Inode { return d.n }

// ReadDir calls emit for each entry from off on ("." and ".." included) until emit returns false or the directory ends.
// An entry that emit refused comes again at the next call. Cookies are warm's own, so they stay good while entries come
// and go, and those of Lazy entries stay good as long as the inode is known.
func (d *DirHandle) ReadDir(ctx context.Context, off uint64, emit func(warm.Dirent) bool) error {
	if done, err := d.browse(ctx, off, emit); done || err != nil {
		return err
	}
	if off != d.pos {
		if _, err := unix.Seek(d.fd, int64(off), unix.SEEK_SET); err != nil {
			return fmt.Errorf("seek in directory %d: %w", d.n.ino, err)
		}
		d.buf, d.pos = nil, off
	}
	for {
		for len(d.buf) > 0 {
			e, length := warm.ParseDirent(d.buf)
			if d.v.areaOf != nil {
				e.Ino = d.shownIno(&e)
			}
			if !emit(e) {
				return nil
			}
			d.buf, d.pos = d.buf[length:], e.Off
		}
		if d.room == nil {
			d.room = make([]byte, warm.DirentBuf)
		}
		n, err := d.getdents()
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			if err == unix.ENOENT {
				return nil // a removed directory has no entries
			}
			return fmt.Errorf("read directory %d: %w", d.n.ino, err)
		}
		if n == 0 {
			return nil
		}
		d.buf = d.room[:n]
	}
}

// shownIno is the inode number that stat shows for an entry of a directory of class memory.
func (d *DirHandle) shownIno(e *warm.Dirent) uint64 {
	switch e.Name {
	case ".":
		return d.n.shownIno()
	case "..":
		n := d.n
		if host := n.host.Load(); host != nil {
			n = host
		}
		n.vol.ns.RLock()
		defer n.vol.ns.RUnlock()
		if n.parent != nil {
			return n.parent.shownIno()
		}
	}
	return d.v.shownIno(e.Ino)
}

// Fsync makes the directory durable. On btrfs that takes a syncfs: without it, a crash would bring back the old names
// of what was renamed into the directory. Where a rule asks for it, Fsync returns only when the remote has a commit
// with what was changed in the directory.
func (d *DirHandle) Fsync(ctx context.Context, datasync bool) error {
	if err := d.fsync(datasync); err != nil {
		return err
	}
	return d.v.fsyncedDir(ctx, d.n)
}

func (d *DirHandle) fsync(datasync bool) error {
	if d.v.fsType == unix.BTRFS_SUPER_MAGIC {
		return unix.Syncfs(d.fd)
	}
	if datasync {
		return unix.Fdatasync(d.fd)
	}
	return unix.Fsync(d.fd)
}

// Close ends the stream.
func (d *DirHandle) Close() {
	unix.Close(d.fd)
	d.stopBrowsing()
	d.v.unref(d.n, 1)
}
