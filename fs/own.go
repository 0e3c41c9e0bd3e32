package fs

import (
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"emberfs/tiers"
	"emberfs/tiers/cold"
)

// The directory of EmberFS' own at the root of a mount. It is found by name and not listed there (as .zfs and .snap are
// not), so that programs that copy or compare a mount do not meet it.
const (
	ownName    = ".emberfs"
	rulesName  = "rules.yaml"
	statusName = "status.json"
)

// Node ids, which are also inode numbers, from ownFirst on are of that directory; those of tiers.Volume stay far below.
// A rules.yaml that was removed keeps its id, the next one has another.
const (
	ownFirst   = ^uint64(0) - 1<<32
	ownDir     = ownFirst
	ownStatus  = ownFirst + 1
	ownRules   = ownFirst + 16
	ownRulesUp = 1 << 30 // how many ids for rules.yaml there are
)

func isOwn(node uint64) bool { return node >= ownFirst }

// isOwnName says whether a request is about the name .emberfs in the root.
func isOwnName(dir uint64, name string) bool { return dir == fuse.FUSE_ROOT_ID && name == ownName }

// ownFiles puts the directory .emberfs over a filesystem: rules.yaml, the volume's own rules, and status.json. What is
// about other nodes goes through.
type ownFiles struct {
	*filesystem
	report   func() []byte // what status.json holds
	uid, gid uint32
	born     time.Time

	applying sync.Mutex // over changes of the volume's rules, so that the last one closed wins; before mu

	mu struct {
		sync.Mutex
		handles map[uint64]*ownHandle
		next    uint64    // the next handle
		seq     uint64    // counts opens and changes
		round   uint64    // how often rules.yaml was removed
		made    bool      // rules.yaml was created here; else it is there while the volume has rules of its own
		seen    []byte    // its text at the last look,
		changed time.Time // and when that turned out to be new
		named   time.Time // when rules.yaml was created or removed

		removed   []byte // the text that the last unlink took away,
		removedBy uint32 // and the thread that did it
	}
}

var _ fuse.RawFileSystem = (*ownFiles)(nil)

// newOwnFiles wraps f. report makes what status.json holds; nil: nothing.
func newOwnFiles(f *filesystem, report func() []byte) *ownFiles {
	if report == nil {
		report = func() []byte { return nil }
	}
	o := &ownFiles{filesystem: f, report: report, uid: uint32(os.Geteuid()), gid: uint32(os.Getegid()),
		born: time.Now()}
	o.mu.handles = make(map[uint64]*ownHandle)
	o.mu.seen, o.mu.changed, o.mu.named = f.vol.RulesText(), o.born, o.born
	return o
}

// rulesNode is the id of the present rules.yaml, and whether there is one. mu is held; text is the volume's.
func (o *ownFiles) rulesNode(text []byte) (uint64, bool) {
	return ownRules + o.mu.round%ownRulesUp, o.mu.made || len(text) > 0
}

// look reads the volume's rules and notes when they changed behind our back.
func (o *ownFiles) look() []byte {
	text := o.vol.RulesText()
	o.mu.Lock()
	defer o.mu.Unlock()
	if string(text) != string(o.mu.seen) {
		o.mu.seen, o.mu.changed = text, time.Now()
	}
	return text
}

// ownAttr describes a node; h, where the request has it, is an open file.
func (o *ownFiles) ownAttr(node uint64, h *ownHandle) (tiers.Attr, error) {
	a := tiers.Attr{Ino: node, Mode: syscall.S_IFREG | 0o644, Nlink: 1, UID: o.uid, GID: o.gid, Blksize: 4096}
	var at time.Time
	switch node {
	case ownDir:
		a.Mode, a.Nlink = syscall.S_IFDIR|0o755, 2
		o.mu.Lock()
		at = o.mu.named
		o.mu.Unlock()
	case ownStatus:
		a.Mode = syscall.S_IFREG | 0o444
		at = time.Now()
		if h == nil {
			h = o.newest(node, false)
		}
		if h != nil {
			a.Size, at = uint64(len(h.data)), h.opened
		} else {
			a.Size = uint64(len(o.report()))
		}
	default:
		text := o.look()
		o.mu.Lock()
		now, there := o.rulesNode(text)
		if node != now || !there {
			a.Nlink = 0
		}
		at = o.mu.changed
		o.mu.Unlock()
		// fstat(2) comes without its handle: what was written last, and is not in effect yet, is the best answer.
		if h == nil {
			h = o.newest(node, a.Nlink > 0)
		}
		switch {
		case h != nil:
			o.mu.Lock()
			a.Size = uint64(len(h.data))
			o.mu.Unlock()
		case a.Nlink == 0:
			return a, syscall.ESTALE
		default:
			a.Size = uint64(len(text))
		}
	}
	a.Blocks = (a.Size + 511) / 512
	a.Atime = cold.Time{Sec: at.Unix(), Nsec: uint32(at.Nanosecond())}
	a.Mtime, a.Ctime = a.Atime, a.Atime
	return a, nil
}

// ownEntry answers a lookup. The kernel asks again each time: the files change without its doing.
func (o *ownFiles) ownEntry(node uint64, out *fuse.EntryOut) fuse.Status {
	a, err := o.ownAttr(node, nil)
	if err != nil {
		return o.status("lookup", node, err)
	}
	*out = fuse.EntryOut{NodeId: node, Generation: 1}
	fillAttr(&out.Attr, &a)
	return fuse.OK
}

// find looks a name in .emberfs up; ENOENT.
func (o *ownFiles) find(name string) (uint64, syscall.Errno) {
	switch name {
	case statusName:
		return ownStatus, 0
	case rulesName:
		text := o.look()
		o.mu.Lock()
		defer o.mu.Unlock()
		if node, there := o.rulesNode(text); there {
			return node, 0
		}
	}
	return 0, syscall.ENOENT
}

func (o *ownFiles) Lookup(cancel <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	if isOwnName(h.NodeId, name) {
		return o.ownEntry(ownDir, out)
	}
	if !isOwn(h.NodeId) {
		return o.filesystem.Lookup(cancel, h, name, out)
	}
	node, errno := o.find(name)
	if errno != 0 {
		return fuse.Status(errno)
	}
	return o.ownEntry(node, out)
}

// Forget: these nodes need no counting, they are always there.
func (o *ownFiles) Forget(node, nlookup uint64) {
	if !isOwn(node) {
		o.filesystem.Forget(node, nlookup)
	}
}

// refuseName is the answer to whatever makes a name: nothing but rules.yaml can be created in .emberfs, and its own
// name is taken.
func refuseName(dir uint64, name string) (fuse.Status, bool) {
	switch {
	case isOwn(dir):
		return fuse.EPERM, true
	case isOwnName(dir, name):
		return fuse.Status(syscall.EEXIST), true
	}
	return fuse.OK, false
}

func (o *ownFiles) Mknod(cancel <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	if st, no := refuseName(in.NodeId, name); no {
		return st
	}
	return o.filesystem.Mknod(cancel, in, name, out)
}

func (o *ownFiles) Mkdir(cancel <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	if st, no := refuseName(in.NodeId, name); no {
		return st
	}
	return o.filesystem.Mkdir(cancel, in, name, out)
}

func (o *ownFiles) Symlink(cancel <-chan struct{}, h *fuse.InHeader, target, name string,
	out *fuse.EntryOut) fuse.Status {
	if st, no := refuseName(h.NodeId, name); no {
		return st
	}
	return o.filesystem.Symlink(cancel, h, target, name, out)
}

func (o *ownFiles) Link(cancel <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	if st, no := refuseName(in.NodeId, name); no {
		return st
	}
	if isOwn(in.Oldnodeid) {
		return fuse.EPERM
	}
	return o.filesystem.Link(cancel, in, name, out)
}

func (o *ownFiles) Tmpfile(cancel <-chan struct{}, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	if isOwn(in.NodeId) {
		return fuse.EPERM
	}
	return o.filesystem.Tmpfile(cancel, in, out)
}

func (o *ownFiles) Rmdir(cancel <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	switch {
	case isOwnName(h.NodeId, name):
		return fuse.Status(syscall.EBUSY)
	case isOwn(h.NodeId):
		return fuse.ENOTDIR
	}
	return o.filesystem.Rmdir(cancel, h, name)
}

// Rename across the border is EXDEV, as between file systems, so that mv(1) copies.
func (o *ownFiles) Rename(cancel <-chan struct{}, in *fuse.RenameIn, name, newname string) fuse.Status {
	switch from, to := isOwn(in.NodeId), isOwn(in.Newdir); {
	case from && to:
		return fuse.EPERM
	case from || to:
		return fuse.EXDEV
	case isOwnName(in.NodeId, name) || isOwnName(in.Newdir, newname):
		return fuse.Status(syscall.EBUSY)
	}
	return o.filesystem.Rename(cancel, in, name, newname)
}

// Unlink of rules.yaml leaves the volume without rules of its own.
func (o *ownFiles) Unlink(cancel <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	if isOwnName(h.NodeId, name) {
		return fuse.EISDIR
	}
	if !isOwn(h.NodeId) {
		return o.filesystem.Unlink(cancel, h, name)
	}
	o.applying.Lock()
	defer o.applying.Unlock()
	node, errno := o.find(name)
	if errno != 0 {
		return fuse.Status(errno)
	}
	if node == ownStatus {
		return fuse.EPERM
	}
	text := o.look()
	if o.vol.Status().RulesStatus.Withheld > 0 {
		text = nil // putting them back would look like consent
	}
	if err := o.vol.SetRulesText(nil); err != nil {
		return o.status("unlink", node, err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.mu.round++
	o.mu.made, o.mu.removed, o.mu.removedBy = false, text, h.Pid
	o.mu.seen, o.mu.named = nil, time.Now()
	o.mu.changed = o.mu.named
	return fuse.OK
}
