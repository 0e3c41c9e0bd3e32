package tiers

import (
	"context"
	"time"

	"emberfs/tiers/cold"
)

// Progress says how far the backup under way is, and what would be lost now.
type Progress struct {
	Since  time.Time   // when the commit under way began; zero: there is none
	Files  int64       // that it has taken so far
	Of     int64       // how many there are to take, as far as is known; 0: not known
	AtRisk cold.AtRisk // what no commit has, or the remote not
}

// Progress is cheap, unlike Status, and safe for concurrent use.
func (v *Volume) Progress() Progress {
	p := Progress{AtRisk: v.risk.now()}
	c := v.underWay.Load()
	if c == nil {
		return p
	}
	p.Since, p.Of = c.begun, c.expected
	c.mu.Lock()
	p.Files = c.files
	c.mu.Unlock()
	if p.Files > p.Of { // in a directory that no commit has yet changes are not counted by name
		p.Of = 0
	}
	return p
}

// Alive does what a program's look at the root needs, and what a change of anything needs first, and returns when that
// is done; what the answer is does not matter. Where the volume hangs, or the disk of warm does, it does not return. It
// is safe for concurrent use, but must not run while the volume is closed.
func (v *Volume) Alive() {
	v.beginOwn() // a commit's boundary that does not end keeps all changes waiting
	v.end()
	_, _ = v.Getattr(context.Background(), v.root, nil)
}
