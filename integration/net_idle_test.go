//go:build slow

package integration

import (
	"testing"
	"time"

	"emberfs/integration/gitserver"
)

// TestNetIdle: while nothing changes nothing goes over the link but what keeps a connection alive, whatever is due.
func TestNetIdle(t *testing.T) {
	eachTransport(t, time.Minute, []transport{overSSH(), overHTTP()}, func(t *testing.T, s *gitserver.Server) {
		link := gitserver.NewLink(t, s.Addr(), 1)
		v := remoteVolume(t, "v", s, link.Port(), withOpts("backup_interval=1s,flush_interval=1s,push_min_interval=0"))
		v.mount()
		v.write("f", "x")
		v.sync()
		v.converges(s, "before") // what the interval has begun
		time.Sleep(2 * time.Second)
		to, from := link.Bytes()
		connections := link.Connections()
		time.Sleep(6 * time.Second)
		to2, from2 := link.Bytes()
		if up, down := to2-to, from2-from; up > 300 || down > 300 || link.Connections() != connections {
			t.Errorf("in 6 s %d bytes went, %d came, and %d connections were made", up, down,
				link.Connections()-connections)
		}
		v.umount()
	})
}
