//go:build slow

package integration

import (
	"fmt"
	"regexp"
	"testing"
	"time"

	"emberfs/integration/gitserver"
)

// TestNetUmountLinkDown: the unmount of a volume whose link is down ends in time, with exit 3 and what is not at the
// server; the next start pushes it without being asked.
func TestNetUmountLinkDown(t *testing.T) {
	eachTransport(t, 3*time.Minute, both(), func(t *testing.T, s *gitserver.Server) {
		link := gitserver.NewLink(t, s.Addr(), 1)
		v := remoteVolume(t, "v", s, link.Port()).mount()
		v.write("f", "one")
		v.sync()
		link.Set(gitserver.Down)
		files := map[string]string{}
		for i := range 3 {
			name := fmt.Sprint("late", i)
			files[name] = string(noise(1000, name))
			v.write(name, files[name])
		}
		r := v.emberfs("umount", v.mnt, "--deadline", "5s")
		if r.code != 3 || r.took > 20*time.Second {
			t.Errorf("umount with the link down: want exit 3 soon\n%v", r)
		}
		// The top of the tree may count as a fourth file; 3,000 bytes are 2.9 KiB.
		if !regexp.MustCompile(`\b[34] files`).MatchString(r.stdout) ||
			!regexp.MustCompile(`\b(3000|3,000|2\.9 ?Ki?B|3\.0 ?k?B)`).MatchString(r.stdout) {
			t.Errorf("umount with the link down does not say how many files and bytes\n%v", r)
		}
		v.waitGone()
		if here, there := v.remoteTips(s); here == there || here == "" {
			t.Errorf("after the unmount the volume is at %q and the server at %q", here, there)
		}
		link.Set(gitserver.Pass)
		v.mount()
		v.converges(s, "after the next start")
		v.remoteSound(s, files)
		v.umount()
	})
}

// TestNetDownMeanwhile: while the link is down nobody who works in the mount notices, and commits go on. The server has
// them soon after the link is up, without anybody asking.
func TestNetDownMeanwhile(t *testing.T) {
	eachTransport(t, 4*time.Minute, both(), func(t *testing.T, s *gitserver.Server) {
		link := gitserver.NewLink(t, s.Addr(), 1)
		v := remoteVolume(t, "v", s, link.Port(), withOpts("backup_interval=1s")).mount()
		v.write("f", "one")
		v.sync()
		link.Set(gitserver.Down)
		files := map[string]string{}
		for i := range 5 {
			name := fmt.Sprint("f", i)
			begin := time.Now()
			v.write(name, name)
			files[name] = name
			if took := time.Since(begin); took > 2*time.Second {
				t.Errorf("a write took %v while the link is down", took)
			}
			before := tipOf(v.cold(), "main")
			if !waitFor(commitsWithin, func() bool { return tipOf(v.cold(), "main") != before }) {
				t.Errorf("no commit in %v while the link is down", commitsWithin)
			}
		}
		if here, there := v.remoteTips(s); here == there {
			t.Errorf("the link is down, and the server has %s", there)
		}
		link.Set(gitserver.Pass)
		v.converges(s, "after the link is up")
		v.remoteSound(s, files)
		v.umount()
	})
}
