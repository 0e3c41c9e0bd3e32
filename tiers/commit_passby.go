package tiers

import (
	"emberfs/tiers/cold"
	"emberfs/tiers/warm"
)

// passBy decides what a commit does with a name that the rules ignore. With keep, what the last commit has of it stays
// in the next one, because it may be the only copy; and it is brought back to warm in the background. n is nil where
// pre says all that it was at the boundary.
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
