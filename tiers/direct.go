package tiers

import (
	"errors"
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"emberfs/tiers/warm"
)

// Files under an ignore rule with `io: passthrough` are read and written by the kernel itself, in warm, without the
// daemon: it sees their opens, closes and changes of attributes, and no write. An inode is open in one way at a time,
// as the kernel demands: whoever comes second gets the way that the first one has.

// Backing lets the kernel read and write files of warm itself; fs implements it by FUSE passthrough. Safe for
// concurrent use.
type Backing interface {
	// Register gives the kernel an open file of warm. Until Unregister the id stands for it in answers to opens of its
	// inode, and each of them then opens warm's file anew with the program's own flags.
	Register(fd int) (id int32, err error)
	Unregister(id int32)
}

// direct is what a volume knows of files that the kernel reads and writes itself.
type direct struct {
	backing atomic.Pointer[Backing] // nil: not possible
	// shared: in this boot the kernel was let at files of warm, so that programs may have some open that no handle here
	// stands for: their mappings outlive close, and all that they have outlives the daemon.
	shared    atomic.Bool
	inherited bool         // by an earlier daemon already
	files     atomic.Int64 // inodes that are open that way now
	lingering lingering

	mu  mutex[leaf]
	why error // why it is not possible; nil: it is, or nobody tried
}

// DirectStatus says whether `io: passthrough` of rules is in effect.
type DirectStatus struct {
	Available bool   `json:"available"`
	Why       string `json:"why,omitempty"` // not
	Files     int64  `json:"files"`         // that the kernel reads and writes itself now
}

// SetBacking tells the volume how the kernel is let at files of warm, before programs come in. It tries whether that
// works here; the error says why not, and then all goes through the daemon.
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
		err = unix.Fchown(rw, 1, 1) // leases on others' files need a capability of their own
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

// shareWarm notes durably, before it happens, that the kernel may be let at files of warm, where rules want that.
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

// directNote is what status says where rules want what is not possible.
func (v *Volume) directNote() string {
	if s := v.directStatus(); !s.Available && s.Why != "" && v.Rules().HasPassthrough() {
		return "io: passthrough is not available, its files go through the daemon: " + s.Why
	}
	return ""
}

// IO is the way that the kernel is to take, and for IODirect the id that Backing gave.
func (h *Handle) IO() (IO, int32) { return h.io, h.backing }

// Untracked says that n's bytes, size and times may change without the daemon's knowledge, so that nobody may keep
// them.
func (n *Inode) Untracked() bool { return n.untracked.Load() }

// chooseIO decides the way of a new handle: the one that its inode is open in, else what the rules want. made: the file
// is new. n.mu is held.
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

// chosen makes h one of those that the kernel serves itself. n.mu is held.
func (v *Volume) chosen(h *Handle, made bool) {
	h.io, h.backing = IODirect, h.n.mu.backing
	if writable(h.flags) {
		v.markUnseen(h.n, made)
		if !v.ignoredInode(h.n) {
			return
		}
		// A commit that took the file before the rules came does not record it as clean.
		e := v.epoch.Load()
		h.n.epoch.Store(e)
		h.n.contentEpoch.Store(e)
	}
}

// closeIO is the end of h's way. n.mu is held.
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

// mayDirect says whether the kernel may be let at n's file: the rules want it, all of it is in warm, and nothing that
// is shown of it or needed by a commit under way would be lost. n.mu is held.
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
	// It was ignored at the boundary as it is now: neither the rules changed since, nor it, nor a directory above it.
	return m.rules == v.book.changes.Load() && !v.book.rewalk.Load() && m.preimage(n) == nil
}
