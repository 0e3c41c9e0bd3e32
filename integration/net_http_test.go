//go:build slow

package integration

import (
	"fmt"
	"net/http"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"emberfs/integration/effort"
	"emberfs/integration/gitserver"
)

// TestNetBodyLimit: nginx as it is takes no request over 1 MiB. That is said, with the status that it answers; the
// volume goes on.
func TestNetBodyLimit(t *testing.T) {
	t.Parallel()
	deadline(t, 2*time.Minute)
	s := gitserver.HTTP(t, serverDir(t), gitserver.HTTPOptions{})
	v := remoteVolume(t, "v", s.Server, 0).mount()
	v.write("f", "one")
	v.sync()
	before := tipOf(s.Repo, "main")
	v.write("big", string(noise(3<<20, "big")))
	if r := v.syncs(3, "of more than the server takes"); r.took > 15*time.Second {
		t.Errorf("a push of more than the server takes fails after %v", r.took)
	}
	v.says("413", "after a push of more than the server takes")
	v.write("g", "two")
	wantFile(t, v.at("g"), "two", "meanwhile g holds")
	if there := tipOf(s.Repo, "main"); there != before {
		t.Errorf("the server is at %s, before it was at %s", there, before)
	}
	if r := v.emberfs("umount", v.mnt); r.code != 3 {
		t.Errorf("umount: want exit 3\n%v", r)
	}
	v.waitGone()
}

// TestNetBusyServer: a server that answers 500 or 503 for a while gets the push when it is well again, without anybody
// asking.
func TestNetBusyServer(t *testing.T) {
	for _, status := range []int{500, 503} {
		t.Run(strconv.Itoa(status), func(t *testing.T) {
			t.Parallel()
			length := effort.Time(t, 10*time.Second, time.Minute)
			deadline(t, length+3*time.Minute)
			s := gitserver.HTTP(t, serverDir(t), gitserver.HTTPOptions{BodyLimit: "0"})
			front := gitserver.NewFront(t, s)
			v := remoteVolume(t, "v", s.Server, front.Port(), withOpts("backup_interval=1s,push_min_interval=0"))
			v.mount()
			v.write("f", "one")
			v.sync()
			var asked atomic.Int64
			front.Answer(func(w http.ResponseWriter, _ *http.Request) {
				asked.Add(1)
				http.Error(w, "come again later", status)
			})
			files := map[string]string{}
			for end, i := time.Now().Add(length), 0; time.Now().Before(end); i++ {
				name := fmt.Sprint("f", i)
				v.write(name, name)
				files[name] = name
				time.Sleep(300 * time.Millisecond)
			}
			v.says(strconv.Itoa(status), "meanwhile")
			here, there := v.remoteTips(s.Server)
			if here == there {
				t.Errorf("a server that answers %d has %s", status, there)
			}
			if asked.Load() < 2 {
				t.Errorf("it was asked %d times in %v", asked.Load(), length)
			}
			front.Answer(nil)
			v.converges(s.Server, "after it is well again")
			v.sync()
			v.remoteSound(s.Server, files)
			v.umount()
		})
	}
}

// TestNetRetryAfter: a server that answers 429 is not asked again before the time that it named, and gets the push
// after it, without anybody asking.
func TestNetRetryAfter(t *testing.T) {
	t.Parallel()
	length := effort.Time(t, 10*time.Second, time.Minute)
	deadline(t, length+3*time.Minute)
	const wait = 4 * time.Second
	s := gitserver.HTTP(t, serverDir(t), gitserver.HTTPOptions{BodyLimit: "0"})
	front := gitserver.NewFront(t, s)
	v := remoteVolume(t, "v", s.Server, front.Port(), withOpts("backup_interval=1s,push_min_interval=0")).mount()
	v.write("f", "one")
	v.sync()
	var asked, early, last atomic.Int64
	front.Answer(func(w http.ResponseWriter, _ *http.Request) {
		now := time.Now().UnixNano()
		asked.Add(1)
		if since := time.Duration(now - last.Swap(now)); since < wait {
			early.Add(1)
		}
		w.Header().Set("Retry-After", fmt.Sprint(int(wait.Seconds())))
		http.Error(w, "come again later", http.StatusTooManyRequests)
	})
	files := map[string]string{}
	for end, i := time.Now().Add(length), 0; time.Now().Before(end); i++ {
		name := fmt.Sprint("f", i)
		v.write(name, name)
		files[name] = name
		time.Sleep(300 * time.Millisecond)
	}
	v.says("429", "meanwhile")
	front.Answer(nil)
	v.converges(s.Server, "after it is well again")
	v.sync()
	v.remoteSound(s.Server, files)
	v.umount()
	t.Logf("%d requests while it answered 429, %d of them too early", asked.Load(), early.Load())
	if asked.Load() < 2 {
		t.Errorf("it was asked %d times in %v", asked.Load(), length)
	}
	if early.Load() > 0 {
		t.Errorf("%d requests came before the time that the server named", early.Load())
	}
}
