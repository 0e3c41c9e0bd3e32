package tiers

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"emberfs/tiers/warm"
)

// TestStatWhileComingBack: whoever looks at a file just when its bytes come back, or at a directory when it is listed,
// sees what is there before and after it.
func TestStatWhileComingBack(t *testing.T) {
	state, cold := t.TempDir(), newMemCold()
	v := openTiered(t, state, cold)
	f := write(t, v, v.Root(), "f", strings.Repeat("x", 5000))
	time.Sleep(20 * time.Millisecond) // ctimes have ticks
	for i := range 60 {
		d := mkdir(t, v, v.Root(), fmt.Sprint("d", i))
		for j := range 5 {
			mkdir(t, v, d, fmt.Sprint(j))
		}
	}
	v.mustSync(t)
	watch(t, v, f, func() {
		for range 20 {
			mustTier(t, v)
			must(t, v.recall(t.Context(), f))
		}
	})
	must(t, v.Close())
	v = openTiered(t, t.TempDir(), cold)
	for i := range 60 {
		d := mustFind(t, v, fmt.Sprint("d", i))
		if !d.dir.lazy.Load() {
			t.Fatal("it is listed")
		}
		watch(t, v, d, func() { must(t, v.list(context.Background(), d)) })
		v.unref(d, 1)
	}
	must(t, v.Close())
}

// watch looks at n all the time while f runs: two at a time, by its inode and by its name.
func watch(t *testing.T, v *Volume, n *Inode, f func()) {
	t.Helper()
	want := mustAttr(t, v, n)
	var stop atomic.Bool
	var watching sync.WaitGroup
	look := func(get func() (Attr, error)) {
		for !stop.Load() && !t.Failed() {
			if a, err := get(); err != nil || a != want {
				t.Errorf("%v %+v\nbefore %+v", err, a, want)
			}
		}
	}
	watching.Go(func() { look(func() (Attr, error) { return v.Getattr(context.Background(), n, nil) }) })
	watching.Go(func() {
		look(func() (Attr, error) {
			n, a, err := v.Lookup(context.Background(), n.parent, n.name)
			if err == nil {
				v.unref(n, 1)
			}
			return a, err
		})
	})
	f()
	stop.Store(true)
	watching.Wait()
}

// TestFirstStatWhileComingBack: a file that came back and was forgotten by all, while somebody who had just looked at
// it was about to make it known, shows the mtime that it always had.
func TestFirstStatWhileComingBack(t *testing.T) {
	v := openTiered(t, t.TempDir(), newMemCold())
	f := write(t, v, v.root, "f", strings.Repeat("x", 5000))
	v.mustSync(t)
	mustTier(t, v)
	want := mustAttr(t, v, f)
	dirfd, err := v.dirFD(v.root)
	must(t, err)
	defer v.unpin(v.root)
	moves := v.nameChanges.Load()
	var st unix.Statx_t
	f.back.Lock()
	b, err := v.fetchRecalled(t.Context(), f)
	must(t, err)
	must(t, warm.StatAt(dirfd, "f", &st))
	must(t, v.endStub(b))
	b.close()
	f.back.Unlock()
	v.Forget(f, 1)
	if v.peek(&st) != nil {
		t.Fatal("it is not forgotten")
	}
	n, fresh := v.intern(&st)
	v.loadRecord(n, warm.ByName(dirfd, "f"), &st)
	n, a, err := v.adopt(v.root, dirfd, "f", &st, moves, n, fresh)
	must(t, err)
	defer v.unref(n, 1)
	if a.Mtime != want.Mtime || a.Ctime != want.Ctime || a.Blocks != want.Blocks {
		t.Errorf("shown %+v, before %+v", a, want)
	}
}
