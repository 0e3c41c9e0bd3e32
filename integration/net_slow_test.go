//go:build slow

package integration

import (
	"strings"
	"testing"
	"time"

	"emberfs/integration/gitserver"
)

// TestNetSlowLink: a push that takes longer than a link may be silent, but goes on all the time, comes to its
// end.
func TestNetSlowLink(t *testing.T) {
	t.Parallel()
	eachTransport(t, 4*time.Minute, both(), func(t *testing.T, s *gitserver.Server) {
		const size, rate = 9 << 20, 250 << 10 // it takes 37 s; a link may be silent for 30
		link := gitserver.NewLink(t, s.Addr(), 1)
		v := remoteVolume(t, "v", s, link.Port()).mount()
		v.write("f", "one")
		v.sync()
		link.Limit(rate)
		v.write("big", string(noise(size, "big")))
		begin := time.Now()
		r := v.syncs(0, "over a slow link")
		if took := time.Since(begin); r.code == 0 && took < 31*time.Second {
			t.Errorf("the link was not slow: it took %v", took)
		}
		if !strings.Contains(r.stderr, "push: ") || !strings.Contains(r.stderr, "object") {
			t.Errorf("sync does not say how far the push is: %q", r.stderr)
		}
		link.Limit(0)
		v.umount()
		v.remoteSound(s, nil)
	})
}
