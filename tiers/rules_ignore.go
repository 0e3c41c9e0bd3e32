package tiers

import (
	"emberfs/tiers/cold"
	"path"
)

// ignored says whether the rules keep a slash path out of commits; dir says whether it is a directory.
func (v *Volume) ignored(path string, dir bool) bool {
	s := v.Rules()
	return s.HasIgnore() && s.Decide(path, dir).Ignored()
}

// ignoredName is ignored for a name in a directory.
func (v *Volume) ignoredName(d *Inode, name string, dir bool) bool {
	return v.Rules().HasIgnore() && v.ignored(path.Join(v.pathOf(d), name), dir)
}

// ignoredInode is ignored for an inode where it stands now.
func (v *Volume) ignoredInode(n *Inode) bool {
	return v.Rules().HasIgnore() && v.ignored(v.pathOf(n), n.kind == cold.KindDir)
}

// settling has the inodes that the rules ignore and that may still have bytes in cold only.
type settling struct {
	mu    mutex[leaf]
	queue []*Inode // each with a reference
	wake  chan struct{}
	done  map[uint64]uint64 // directories that are wholly in warm: inode number -> generation
	rules uint64            // ruleBook.changes for which done holds
}

// settleSoon queues n, which the rules ignore, to be settled with all below it, so that commits need not have it any
// more.
func (v *Volume) settleSoon(n *Inode) {
	v.ref(n)
	s := &v.settling
	s.mu.Lock()
	s.queue = append(s.queue, n)
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *settling) next() *Inode {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 {
		return nil
	}
	n := s.queue[0]
	s.queue = s.queue[1:]
	return n
}

// note remembers that n, a directory, is wholly in warm. changes is ruleBook.changes from before that was found out.
func (s *settling) note(n *Inode, changes uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rules != changes || s.done == nil {
		s.rules, s.done = changes, map[uint64]uint64{}
	}
	s.done[n.ino] = n.gen
}

// settledNow says whether n was settled since the rules last changed.
func (v *Volume) settledNow(n *Inode) bool {
	s := &v.settling
	s.mu.Lock()
	defer s.mu.Unlock()
	gen, ok := s.done[n.ino]
	return ok && gen == n.gen && s.rules == v.book.changes.Load()
}
