package tiers

import (
	"container/list"

	"golang.org/x/sys/unix"

	"emberfs/tiers/warm"
)

// dirFDs is a cache of open descriptors of directories, within a limit. A directory that left it is opened again
// through its parent.
type dirFDs struct {
	mu    mutex[leaf]
	lru   list.List // of *Inode; those with an open fd, oldest first
	elems map[*Inode]*list.Element
	max   int
}

// init sets the cache's size by the process's limit of descriptors.
func (c *dirFDs) init() {
	var lim unix.Rlimit
	limit := 1024
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &lim) == nil {
		limit = int(min(lim.Cur, 1<<16))
	}
	c.elems = map[*Inode]*list.Element{}
	c.max = max(64, min(limit/8, 4096))
}

// dirFD returns n's descriptor (O_PATH), pinned: it stays open until unpin. It returns ENOTDIR for what is no
// directory, and ESTALE for one that can not be reached any more.
func (v *Volume) dirFD(n *Inode) (int, error) {
	d := n.dir
	if d == nil {
		return -1, unix.ENOTDIR
	}
	if fd, ok := v.dirs.pin(d); ok {
		return fd, nil
	}
	v.ns.RLock()
	defer v.ns.RUnlock()
	return v.dirFDLocked(n)
}

// dirFDLocked is dirFD for holders of Volume.ns.
func (v *Volume) dirFDLocked(n *Inode) (int, error) {
	d := n.dir
	if fd, ok := v.dirs.pin(d); ok {
		return fd, nil
	}
	if n.parent == nil {
		if n.anon >= 0 {
			fd, err := unix.Open(warm.FDPath(n.anon), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
			if err != nil {
				return -1, err
			}
			return v.dirs.put(n, fd), nil
		}
		return -1, unix.ESTALE
	}
	pfd, err := v.dirFDLocked(n.parent)
	if err != nil {
		return -1, err
	}
	fd, err := warm.OpenAt(pfd, n.name, unix.O_PATH|unix.O_DIRECTORY, 0)
	v.unpin(n.parent)
	if err != nil {
		return -1, err
	}
	return v.dirs.put(n, fd), nil
}

// pin returns a directory's descriptor if it is open, and keeps it open until unpin.
func (c *dirFDs) pin(d *dirState) (fd int, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if d.fd < 0 {
		return -1, false
	}
	d.pins++
	d.hot = true
	return d.fd, true
}

func (v *Volume) unpin(n *Inode) {
	v.dirs.mu.Lock()
	n.dir.pins--
	v.dirs.mu.Unlock()
}

// put stores fd, just opened for n, and pins it. It returns the descriptor to use, which is another one where another
// goroutine was faster; fd is closed then.
func (c *dirFDs) put(n *Inode, fd int) int {
	var closing []int
	c.mu.Lock()
	d := n.dir
	d.pins++
	d.hot = true
	if d.fd >= 0 {
		closing = append(closing, fd)
	} else {
		d.fd = fd
		c.elems[n] = c.lru.PushBack(n)
		for tries := c.lru.Len(); c.lru.Len() > c.max && tries > 0; tries-- {
			e := c.lru.Front()
			old := e.Value.(*Inode)
			switch {
			case old.dir.pins > 0 || old.anonDir():
				c.lru.MoveToBack(e)
			case old.dir.hot:
				old.dir.hot = false
				c.lru.MoveToBack(e)
			default:
				closing = append(closing, old.dir.fd)
				old.dir.fd = -1
				c.lru.Remove(e)
				delete(c.elems, old)
			}
		}
	}
	fd = d.fd
	c.mu.Unlock()
	for _, f := range closing {
		unix.Close(f)
	}
	return fd
}

// anonDir says whether n's descriptor must stay open because n cannot be opened by name again. That is the root.
func (n *Inode) anonDir() bool { return n.isRoot() }

func (c *dirFDs) drop(n *Inode) {
	c.mu.Lock()
	fd := n.dir.fd
	n.dir.fd = -1
	if e := c.elems[n]; e != nil {
		c.lru.Remove(e)
		delete(c.elems, n)
	}
	c.mu.Unlock()
	if fd >= 0 {
		unix.Close(fd)
	}
}

// locate calls f with a way to reach n by a system call: its name in a pinned directory, or, where anon is true, a
// descriptor of its own and the name "". A directory is always reached by its descriptor. Anything else keeps its name
// while f runs, because Volume.ns is held for reading: renames and unlinks wait.
func (v *Volume) locate(n *Inode, f func(dirfd int, name string, anon bool) error) error {
	if n.dir != nil {
		fd, err := v.dirFD(n)
		if err != nil {
			return err
		}
		defer v.unpin(n)
		// Not ".", which would ask for search permission on the directory itself.
		return f(fd, "", true)
	}
	v.ns.RLock()
	defer v.ns.RUnlock()
	if n.parent == nil {
		if n.anon < 0 {
			return unix.ESTALE
		}
		return f(n.anon, "", true)
	}
	pfd, err := v.dirFDLocked(n.parent)
	if err != nil {
		return err
	}
	defer v.unpin(n.parent)
	return f(pfd, n.name, false)
}

// target returns what xattr calls need to reach what locate found.
func target(dirfd int, name string, anon bool) warm.XattrTarget {
	if anon {
		return warm.ByFD(dirfd)
	}
	return warm.ByName(dirfd, name)
}

// openNode opens n itself with flags; O_PATH is allowed.
func (v *Volume) openNode(n *Inode, flags int) (fd int, err error) {
	err = v.locate(n, func(dirfd int, name string, anon bool) error {
		if anon {
			fd, err = unix.Open(warm.FDPath(dirfd), flags|unix.O_CLOEXEC, 0)
		} else {
			fd, err = warm.OpenAt(dirfd, name, flags, 0)
		}
		return err
	})
	if err != nil {
		return -1, err
	}
	return fd, nil
}

// statNode fills st with warm's stat of n.
func (v *Volume) statNode(n *Inode, st *unix.Statx_t) error {
	return v.locate(n, func(dirfd int, name string, anon bool) error {
		return warm.StatAt(dirfd, name, st) // with anon the name is "", which is dirfd itself
	})
}

// warmRead returns a readable descriptor of warm for syncfs, or -1 where it cannot be opened. It is opened once.
func (v *Volume) warmRead() int {
	v.points.mu.Lock()
	defer v.points.mu.Unlock()
	if v.points.readFD == 0 {
		fd, err := warm.OpenAt(v.warmFD, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			return -1
		}
		v.points.readFD = fd
	}
	return v.points.readFD
}
