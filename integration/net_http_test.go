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
			v := remoteVolume(t, "v", s.Server, front.Port(), withOpts("backup_interval=1s")).mount()
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
