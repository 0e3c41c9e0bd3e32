package tiers

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"emberfs/integration/effort"
)

// TestCtimeBesideCommit: a commit that records files clean takes back no ctime of a chmod at the same moment.
func TestCtimeBesideCommit(t *testing.T) {
	v := openTiered(t, t.TempDir(), newMemCold())
	var list []*Inode
	for i := range 200 {
		list = append(list, write(t, v, v.root, fmt.Sprint(i), "text"))
	}
	until := time.Now().Add(effort.Time(t, time.Second, time.Minute))
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		for i := uint32(0); time.Now().Before(until); i++ {
			for j, n := range list {
				a, err := v.Setattr(context.Background(), n, nil, &SetAttr{Mode: new(0600 + i&1*044)})
				if err != nil {
					t.Error(err)
					return
				}
				for range 3 {
					if b, err := v.Getattr(context.Background(), n, nil); err != nil || b.Ctime.Before(a.Ctime) {
						t.Errorf("ctime of %d went back from %v to %v, %v", j, a.Ctime, b.Ctime, err)
						return
					}
				}
			}
		}
	})
	for i := 0; time.Now().Before(until) && !t.Failed(); i++ {
		for j, n := range list {
			h, err := v.Open(context.Background(), n, unix.O_RDWR, false)
			must(t, err)
			_, err = h.Write(context.Background(), fmt.Append(nil, i, " ", j), 0, false)
			must(t, err)
			h.Release()
		}
		v.mustSync(t)
	}
}
