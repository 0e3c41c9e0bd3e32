package tiers

import (
	"context"
	"fmt"
	"path"
	"time"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/heldback"
	"emberfs/tiers/warm"
)

// FileStatus says where one file is and whether it is safe.
type FileStatus struct {
	Path    string   `json:"path"`
	Kind    string   `json:"kind"`
	Size    int64    `json:"size"`
	Tiers   []string `json:"tiers"`              // of hot, warm, cold; or memory alone
	Class   string   `json:"class"`              // what the rules say of it: critical, session, memory, or ignored
	Clean   bool     `json:"clean"`              // as the last commit has it, all below it included
	Object  string   `json:"object"`             // its id in cold; "" unless cold has these bytes
	Commit  string   `json:"commit"`             // the last commit, where that has it as it is now; else ""
	Pushed  bool     `json:"pushed"`             // that commit is on the remote; false without one
	LeftOut []string `json:"left_out,omitempty"` // what the commit has of it and this machine cannot make
	// Safe says that the file would survive the loss of machine and disk; without a remote, the loss of warm.
	Safe bool      `json:"safe"`
	Why  string    `json:"why"`  // why it is not safe; "" if it is
	Open int       `json:"open"` // handles
	Used time.Time `json:"used"` // last open, read or write in this session; zero: none
}

// FileStatus looks at one file or directory by its slash path from the root; ENOENT, wrapped, where there is none.
// Looking at a file does not count as using it.
func (v *Volume) FileStatus(ctx context.Context, at string) (FileStatus, error) {
	if err := ctx.Err(); err != nil {
		return FileStatus{}, err
	}
	n, err := v.find(ctx, at)
	if err != nil {
		return FileStatus{}, fmt.Errorf("%s: %w", at, err)
	}
	defer n.vol.unref(n, 1)
	if n.vol != v {
		return v.memoryFileStatus(ctx, n, at)
	}
	a, err := v.Getattr(ctx, n, nil)
	if err != nil {
		return FileStatus{}, fmt.Errorf("%s: %w", at, err)
	}
	s := FileStatus{Path: v.pathOf(n), Kind: n.kind.String(), Tiers: []string{}, Open: int(n.opens.Load())}
	s.Class = classWord(v.Rules().Decide(s.Path, n.kind == cold.KindDir))
	if t := n.lastUse.Load(); t != 0 {
		s.Used = v.openedAt.Add(time.Duration(t-1) * useTick)
	}
	dirty := v.changedName(n)
	if dirty && v.laneOf(n) == laneCritical && !captured(n).IsZero() {
		dirty = v.critical.awaited(v, n) // the live branch may have it
	}
	n.mu.Lock()
	r, stored := n.mu.rec, n.mu.captured
	n.mu.Unlock()
	h, err := heldback.Holding(v.held, n.heldKey())
	if err != nil {
		return FileStatus{}, err
	}
	if h != nil {
		s.LeftOut = h.What
	}
	switch n.kind {
	case cold.KindFile:
		s.Size = int64(a.Size)
		if v.hot.holds(n) {
			s.Tiers = append(s.Tiers, "hot")
		}
		if !r.IsStub() {
			s.Tiers = append(s.Tiers, "warm")
		}
		same := r.Has(warm.FlagClean) && r.Size == int64(a.Size) && r.Mtime == a.Mtime
		if same || !stored.IsZero() {
			s.Tiers = append(s.Tiers, "cold")
			if s.Object = r.ID.String(); !same {
				s.Object = stored.String()
			}
		}
		s.Clean = s.Object != "" && !dirty
	case cold.KindDir:
		if !n.dir.lazy.Load() {
			s.Tiers = append(s.Tiers, "warm")
		}
		if s.Clean = r.Has(warm.FlagClean); s.Clean {
			s.Object = r.ID.String()
			s.Tiers = append(s.Tiers, "cold")
		}
	default:
		if n.kind == cold.KindSymlink {
			s.Size = int64(a.Size)
		}
		s.Tiers = append(s.Tiers, "warm")
		if s.Clean = !dirty; s.Clean {
			s.Tiers = append(s.Tiers, "cold")
		}
	}
	v.safety(&s, n)
	return s, nil
}

// captured returns the content that the last commit has of a file which no record calls clean, since it is open for
// writing. It is zero if the file was changed since, or nothing is known.
func captured(n *Inode) cold.ID {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.mu.captured
}

// safety sets in s whether the last commit and the remote have the file as it is, and if it is not safe, why.
func (v *Volume) safety(s *FileStatus, n *Inode) {
	c := v.lastCommit()
	switch {
	case c == nil:
		s.Clean = false
		s.Why = "no commit yet"
		return
	case s.Class == "ignored":
		s.Clean = false
		s.Why = "the rules ignore it: no commit has it"
		return
	case !s.Clean && n.kind == cold.KindDir:
		s.Why = "something in it may have changed since the last commit"
		return
	case !s.Clean:
		s.Why = "changed since the last commit"
		return
	case !v.points.verified.Load():
		s.Why = "after an unclean stop what is here is still being compared with the last commit"
		return
	}
	s.Commit = c.ID
	if v.cold.HasRemote() {
		if s.Pushed = !v.unpushed(); !s.Pushed {
			s.Why = "the last commit is not on the remote yet"
			return
		}
	}
	s.Safe = true
}

// changedName says whether n's name was touched since the last commit, as far as is known without a walk.
func (v *Volume) changedName(n *Inode) bool {
	if n == v.root {
		return !v.rootClean()
	}
	v.ns.RLock()
	parent, name := n.parent, n.name
	v.ns.RUnlock()
	if parent == nil {
		return true
	}
	parent.mu.Lock()
	clean := parent.mu.rec.Has(warm.FlagClean)
	parent.mu.Unlock()
	if clean {
		return false
	}
	d := parent.dir
	d.mu.Lock()
	t, ok := d.mu.changed[name]
	tracking := d.mu.tracking
	d.mu.Unlock()
	if tracking {
		return ok && t.risk
	}
	// The directory does not track its names, so what is known of the inode decides.
	var st unix.Statx_t
	return v.statNode(n, &st) != nil || n.epoch.Load() >= v.epoch.Load() || n.contentEpoch.Load() >= v.epoch.Load()
}

// memoryFileStatus is FileStatus of n, which is in the area; at is its path in the volume.
func (v *Volume) memoryFileStatus(ctx context.Context, n *Inode, at string) (FileStatus, error) {
	a, err := n.vol.Getattr(ctx, n, nil)
	if err != nil {
		return FileStatus{}, fmt.Errorf("%s: %w", at, err)
	}
	s := FileStatus{Path: path.Clean("/" + at)[1:], Kind: n.kind.String(), Class: "memory", Tiers: []string{"memory"},
		Open: int(n.opens.Load()),
		Why:  "directories of class memory are never backed up"}
	if n.kind == cold.KindFile || n.kind == cold.KindSymlink {
		s.Size = int64(a.Size)
	}
	if t := n.lastUse.Load(); t != 0 {
		s.Used = n.vol.openedAt.Add(time.Duration(t-1) * useTick)
	}
	return s, nil
}
