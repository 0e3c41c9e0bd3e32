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

// EmberFS has a directory of its own in the root of a mount. It can be looked up but is not listed there (like .zfs and
// .snap), so that programs that copy or compare the mount do not find it.
const (
	ownName    = ".emberfs"
	rulesName  = "rules.yaml"
	statusName = "status.json"
	noticeName = "notice.json"
)

// Node ids (which are also inode numbers) from ownFirst on belong to that directory; those of tiers.Volume stay far
// below. When rules.yaml is removed and created again, it gets another id.
const (
	ownFirst   = ^uint64(0) - 1<<32
	ownDir     = ownFirst
	ownStatus  = ownFirst + 1
	ownNotice  = ownFirst + 2
	ownRules   = ownFirst + 16
	ownRulesUp = 1 << 30 // how many ids for rules.yaml there are
)

func isOwn(node uint64) bool { return node >= ownFirst }

// isOwnName reports whether a request is about the name .emberfs in the root.
func isOwnName(dir uint64, name string) bool { return dir == fuse.FUSE_ROOT_ID && name == ownName }

// ownFiles adds the directory .emberfs to a filesystem, with rules.yaml (the volume's own rules), status.json, and
// notice.json while the machine is about to go away. Requests about other nodes are passed on.
type ownFiles struct {
	*filesystem
	reports  map[uint64]func() []byte // what return the contents of status.json and notice.json
	uid, gid uint32
	born     time.Time

	applying sync.Mutex // held while the volume's rules change, so that the file closed last wins; taken before mu

	mu struct {
		sync.Mutex
		handles map[uint64]*ownHandle
		next    uint64    // the next handle
		seq     uint64    // counts opens and changes
		round   uint64    // how often rules.yaml was removed
		made    bool      // rules.yaml was created here; otherwise it exists only if the volume has rules of its own
		seen    []byte    // the text of the rules at the last look
		changed time.Time // when the text was last found to have changed
		named   time.Time // when rules.yaml was created or removed

		removed   []byte // the text that the last unlink removed
		removedBy uint32 // the thread that did so
	}
}

var _ fuse.RawFileSystem = (*ownFiles)(nil)

// newOwnFiles wraps f. status returns the content of status.json, and notice that of notice.json, or nil while there is
// no such file. Where status is nil that file is empty, and where notice is nil the other one is never there.
func newOwnFiles(f *filesystem, status, notice func() []byte) *ownFiles {
	none := func() []byte { return nil }
	if status == nil {
		status = none
	}
	if notice == nil {
		notice = none
	}
	o := &ownFiles{filesystem: f, reports: map[uint64]func() []byte{ownStatus: status, ownNotice: notice},
		uid: uint32(os.Geteuid()), gid: uint32(os.Getegid()), born: time.Now()}
	o.mu.handles = make(map[uint64]*ownHandle)
	o.mu.seen, o.mu.changed, o.mu.named = f.vol.RulesText(), o.born, o.born
	return o
}

// isReport reports whether a node can only be read: status.json or notice.json.
func isReport(node uint64) bool { return node == ownStatus || node == ownNotice }

// report returns the content of status.json or notice.json, and whether the file exists.
func (o *ownFiles) report(node uint64) ([]byte, bool) {
	data := o.reports[node]()
	return data, data != nil || node == ownStatus
}

// rulesNode returns the id of the current rules.yaml, and whether it exists. text is that of the volume's rules. o.mu
// must be held.
func (o *ownFiles) rulesNode(text []byte) (uint64, bool) {
	return ownRules + o.mu.round%ownRulesUp, o.mu.made || len(text) > 0
}

// look returns the volume's rules, and notes if they have changed by other means than rules.yaml.
func (o *ownFiles) look() []byte {
	text := o.vol.RulesText()
	o.mu.Lock()
	defer o.mu.Unlock()
	if string(text) != string(o.mu.seen) {
		o.mu.seen, o.mu.changed = text, time.Now()
	}
	return text
}

// ownAttr returns the attributes of a node. h is the open file that the request names, if any.
func (o *ownFiles) ownAttr(node uint64, h *ownHandle) (tiers.Attr, error) {
	a := tiers.Attr{Ino: node, Mode: syscall.S_IFREG | 0o644, Nlink: 1, UID: o.uid, GID: o.gid, Blksize: 4096}
	var at time.Time
	switch node {
	case ownDir:
		a.Mode, a.Nlink = syscall.S_IFDIR|0o755, 2
		o.mu.Lock()
		at = o.mu.named
		o.mu.Unlock()
	case ownStatus, ownNotice:
		a.Mode = syscall.S_IFREG | 0o444
		at = time.Now()
		if h == nil {
			h = o.newest(node, false)
		}
		if h != nil {
			a.Size, at = uint64(len(h.data)), h.opened
		} else {
			data, there := o.report(node)
			if !there {
				return a, syscall.ESTALE
			}
			a.Size = uint64(len(data))
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
		// The kernel sends fstat(2) without a handle. The best answer is the file that was written last and is not in
		// effect yet.
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

// ownEntry fills in the reply to a lookup. The kernel may not cache it, because the files change on their own.
func (o *ownFiles) ownEntry(node uint64, out *fuse.EntryOut) fuse.Status {
	a, err := o.ownAttr(node, nil)
	if err != nil {
		return o.status("lookup", node, err)
	}
	*out = fuse.EntryOut{NodeId: node, Generation: 1}
	fillAttr(&out.Attr, &a)
	return fuse.OK
}

// find returns the node of a name in .emberfs, or ENOENT.
func (o *ownFiles) find(name string) (uint64, syscall.Errno) {
	switch name {
	case statusName:
		return ownStatus, 0
	case noticeName:
		if _, there := o.report(ownNotice); there {
			return ownNotice, 0
		}
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

// Forget implements fuse.RawFileSystem. The nodes of .emberfs always exist, so their lookups are not counted.
func (o *ownFiles) Forget(node, nlookup uint64) {
	if !isOwn(node) {
		o.filesystem.Forget(node, nlookup)
	}
}

// refuseName refuses requests that create a name: in .emberfs nothing but rules.yaml can be created, and in the root
// the name .emberfs is taken.
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

// Rename implements fuse.RawFileSystem. Into or out of .emberfs it fails with EXDEV, as between file systems, so that
// mv(1) copies.
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

// Unlink implements fuse.RawFileSystem. Removing rules.yaml leaves the volume without rules of its own.
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
	if isReport(node) {
		return fuse.EPERM
	}
	text := o.look()
	if o.vol.Status().RulesStatus.Withheld > 0 {
		text = nil // do not remember them: putting them back would count as consent
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
