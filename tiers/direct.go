package tiers

import (
	"errors"
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"emberfs/tiers/warm"
)

// The kernel itself reads and writes files under an ignore rule with `io: passthrough`, in warm, without the daemon.
// The daemon sees their opens, closes and changes of attributes, and no write. An inode is open in one way at a time,
// because the kernel demands that: a later open gets the way of the first one.

// Backing lets the kernel read and write files of warm itself; fs implements it by FUSE passthrough. Safe for
// concurrent use.
type Backing interface {
	// Register gives the kernel an open file of warm. Until Unregister, answers to opens of its inode may carry the id;
	// for each of these opens the kernel opens warm's file anew with the program's own flags.
	Register(fd int) (id int32, err error)
	Unregister(id int32)
}

// direct is what a volume knows of files that the kernel reads and writes itself.
type direct struct {
	backing atomic.Pointer[Backing] // nil: passthrough is not possible
	// shared: in this boot the kernel was given files of warm, so programs may have some of them open without a handle
	// here: a mapping outlives its close, and everything outlives the daemon.
	shared    atomic.Bool
	inherited bool         // an earlier daemon of this boot did that already
	files     atomic.Int64 // inodes that are open that way now
	lingering lingering

	mu  mutex[leaf]
	why error // why passthrough is not possible; nil: it is, or nobody tried
}

// DirectStatus says whether `io: passthrough` of rules is in effect.
type DirectStatus struct {
	Available bool   `json:"available"`
	Why       string `json:"why,omitempty"` // why it is not available
	Files     int64  `json:"files"`         // how many files the kernel reads and writes itself now
}

// SetBacking sets how files of warm are given to the kernel. It is called before programs can open files. It tries
// whether that works here; the error says why not, and then everything goes through the daemon.
func (v *Volume) SetBacking(b Backing) error {
	err := v.tryBacking(b)
	v.direct.mu.Lock()
	v.direct.why = err
	v.direct.mu.Unlock()
	if err != nil {
		return err
	}
	v.direct.backing.Store(&b)
	v.book.mu.Lock()
	defer v.book.mu.Unlock()
	v.shareWarm()
	return nil
}

func (v *Volume) tryBacking(b Backing) error {
	if !v.records {
		return errors.New("warm takes no trusted.* attributes from this process")
	}
	rw, err := warm.OpenAt(v.warmFD, ".", unix.O_TMPFILE|unix.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("make a file without a name in warm: %w", err)
	}
	fd, err := unix.Open(warm.FDPath(rw), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == nil && v.mayChown {
		err = unix.Fchown(rw, 1, 1) // so as to try a lease on a file of another user, which needs a capability
	}
	unix.Close(rw)
	if err != nil {
		return fmt.Errorf("prepare a file in warm: %w", err)
	}
	defer unix.Close(fd)
	if err := lease(fd, unix.F_RDLCK); err != nil {
		return fmt.Errorf("who writes a file cannot be found out by a lease (CAP_LEASE, fs.leases-enable): %w", err)
	}
	id, err := b.Register(fd)
	if err != nil {
		return err
	}
	b.Unregister(id)
	return nil
}

// shareWarm notes durably that the kernel may be given files of warm, before that happens, if the rules want it.
// book.mu is held.
func (v *Volume) shareWarm() {
	d := &v.direct
	if d.shared.Load() && v.state.Direct == v.state.Boot || d.backing.Load() == nil || !v.Rules().HasPassthrough() {
		return
	}
	if err := v.state.Update(func(s *warm.StateFile) { s.Direct = s.Boot }); err != nil {
		v.log.WithError(err).Warn("cannot write volume.json: io: passthrough is not in effect")
		return
	}
	d.shared.Store(true)
}

func (v *Volume) directStatus() DirectStatus {
	d := &v.direct
	s := DirectStatus{Available: d.backing.Load() != nil, Files: d.files.Load()}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.why != nil {
		s.Why = d.why.Error()
	}
	return s
}

// directNote returns what status says where rules want passthrough and it is not possible; else "".
func (v *Volume) directNote() string {
	if s := v.directStatus(); !s.Available && s.Why != "" && v.Rules().HasPassthrough() {
		return "io: passthrough is not available, its files go through the daemon: " + s.Why
	}
	return ""
}

// IO returns how the kernel is to read and write the file, and for IODirect the id that Backing gave.
func (h *Handle) IO() (IO, int32) { return h.io, h.backing }

// Untracked says whether n's bytes, size and times may change without the daemon's knowledge. Then nobody may keep a
// copy of them.
func (n *Inode) Untracked() bool { return n.untracked.Load() }

// chooseIO decides how a new handle reads and writes: as its inode is open already, else as the rules want. made says
// that the file is new. n.mu is held.
func (v *Volume) chooseIO(h *Handle, made bool) {
	n := h.n
	if n.mu.cached == 0 && n.mu.direct == 0 && v.direct.shared.Load() && (n.untracked.Load() || v.mayDirect(n)) {
		if b := v.direct.backing.Load(); b != nil {
			id, err := (*b).Register(h.fd)
			if err == nil {
				n.mu.backing, n.mu.direct = id, 1
				v.direct.files.Add(1)
				v.chosen(h, made)
				return
			}
			v.log.WithError(err).WithField("inode", n.ino).Debug("a file goes through the daemon all the same")
		}
	}
	if n.mu.direct > 0 {
		n.mu.direct++
		v.chosen(h, made)
		return
	}
	n.mu.cached++
	if n.untracked.Load() {
		h.io = IOUncached
	}
}

// chosen makes h a handle that the kernel serves itself. n.mu is held.
func (v *Volume) chosen(h *Handle, made bool) {
	h.io, h.backing = IODirect, h.n.mu.backing
	if writable(h.flags) {
		v.markUnseen(h.n, made)
		if !v.ignoredInode(h.n) {
			return
		}
		// A commit that took the file before the rules ignored it must not record it as clean.
		e := v.epoch.Load()
		h.n.epoch.Store(e)
		h.n.contentEpoch.Store(e)
	}
}

// closeIO is the counterpart of chooseIO, for a handle that is closed. n.mu is held.
func (v *Volume) closeIO(h *Handle) {
	n := h.n
	if h.io != IODirect {
		n.mu.cached--
		return
	}
	if n.mu.direct--; n.mu.direct == 0 {
		if b := v.direct.backing.Load(); b != nil {
			(*b).Unregister(n.mu.backing)
		}
		n.mu.backing = 0
		v.direct.files.Add(-1)
	}
}

// mayDirect says whether n's file may be given to the kernel: the rules want it, all its bytes are in warm, its record
// holds nothing that stat shows, and a commit under way does not need it. n.mu is held.
func (v *Volume) mayDirect(n *Inode) bool {
	if n.stub.Load() || n.mu.rec.Flags&^warm.FlagGroup != 0 || n.preserved.Load() != nil ||
		!v.Rules().HasPassthrough() {
		return false
	}
	v.ns.RLock()
	named := n.parent != nil
	v.ns.RUnlock()
	if !named || !v.decide(n).Passthrough() {
		return false
	}
	m := v.boundary.Load()
	if m == nil || m.over.Load() || n.born.Load() == m.epoch {
		return true
	}
	// It was ignored at the boundary as it is now: since then neither the rules nor n have changed, nor has a directory
	// above it moved.
	return m.rules == v.book.changes.Load() && !v.book.rewalk.Load() && m.preimage(n) == nil
}
