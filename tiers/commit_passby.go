package tiers

import (
	"emberfs/tiers/cold"
	"emberfs/tiers/warm"
)

// passBy says what a commit does with a name that the rules ignore: keep says that what the last commit has of it, if
// anything, stays in the next one, since it may be the only copy. n is nil where what it was at the boundary is known
// by pre alone.
func (c *capture) passBy(m *dirMark, name string, n *Inode, pre *preimage) (keep bool) {
	v := c.v
	switch warm.KindOf(pre.attr.Mode) {
	case cold.KindDir:
		if n != nil && v.settledNow(n) {
			return false
		}
	case cold.KindFile:
		if n == nil {
			if !pre.rec.IsStub() && !pre.rec.Has(warm.FlagClean) {
				return false
			}
			break
		}
		n.mu.Lock()
		r := n.mu.rec
		n.mu.Unlock()
		if !r.IsStub() && (!r.Has(warm.FlagClean) || v.leaveCold(c.ctx, n) == nil) {
			return false
		}
	default:
		return false
	}
	if n != nil {
		v.settleSoon(n)
	}
	m.keep, m.redo = true, append(m.redo, name)
	return true
}
