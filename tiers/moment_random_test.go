package tiers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"emberfs/integration/effort"
	"emberfs/tiers/cold"
)

// slowCold is a Cold that lets others run while a commit reads a file.
type slowCold struct{ *memCold }

type slowTx struct{ cold.Tx }

func (c slowCold) Begin(ctx context.Context) (cold.Tx, error) {
	tx, err := c.memCold.Begin(ctx)
	return slowTx{tx}, err
}

// slowContent gives way between two reads.
type slowContent struct{ cold.Content }

func (c slowContent) ReadAt(b []byte, off int64) (int, error) {
	runtime.Gosched()
	if rand.IntN(16) == 0 {
		time.Sleep(time.Duration(rand.IntN(200)) * time.Microsecond)
	}
	return c.Content.ReadAt(b, off)
}

func (t slowTx) PutFile(ctx context.Context, c cold.Content, base cold.Base) (cold.ID, error) {
	return t.Tx.PutFile(ctx, slowContent{c}, base)
}

func (t slowTx) PutDir(ctx context.Context, base cold.DirID, full bool, root *cold.Root, put []cold.Entry,
	del []string) (cold.DirID, error) {
	runtime.Gosched()
	return t.Tx.PutDir(ctx, base, full, root, put, del)
}

// churner changes a volume at random.
type churner struct {
	v   *Volume
	rnd *rand.Rand
	ops *atomic.Int64

	dirs   *sync.Map   // *Inode -> *sync.Mutex: the kernel changes names in one directory one after the other
	rename *sync.Mutex // and moves between directories too
}

// lock is what the kernel does before it changes names in directories.
func (c *churner) lock(dirs ...*Inode) (unlock func()) {
	if len(dirs) == 2 && dirs[0] == dirs[1] {
		dirs = dirs[:1]
	}
	slices.SortFunc(dirs, func(a, b *Inode) int { return cmp.Compare(a.id, b.id) })
	var held []*sync.Mutex
	if len(dirs) == 2 {
		held = append(held, c.rename)
	}
	for _, d := range dirs {
		m, _ := c.dirs.LoadOrStore(d, &sync.Mutex{})
		held = append(held, m.(*sync.Mutex))
	}
	for _, m := range held {
		m.Lock()
	}
	return func() {
		for _, m := range held {
			m.Unlock()
		}
	}
}

// dir walks down to a directory at random; it has a reference more.
func (c *churner) dir() *Inode {
	n := c.v.root
	c.v.ref(n)
	for c.rnd.IntN(3) > 0 {
		next, _, err := c.v.Lookup(context.Background(), n, c.dirName())
		if err != nil {
			break
		}
		if next.kind != cold.KindDir {
			c.v.Forget(next, 1)
			break
		}
		c.v.Forget(n, 1)
		n = next
	}
	return n
}

func (c *churner) dirName() string { return fmt.Sprintf("d%d", c.rnd.IntN(4)) }
func (c *churner) name() string    { return fmt.Sprintf("f%d", c.rnd.IntN(8)) }
func (c *churner) any() string {
	if c.rnd.IntN(3) == 0 {
		return c.dirName()
	}
	return c.name()
}

func (c *churner) bytes() []byte {
	b := make([]byte, c.rnd.IntN(100_000))
	for i := 0; i < len(b); i += 100 {
		b[i] = byte(c.rnd.Uint32())
	}
	return b
}

// step makes one change, or fails as a program would.
func (c *churner) step() error {
	v := c.v
	c.ops.Add(1)
	d := c.dir()
	defer v.Forget(d, 1)
	switch k := c.rnd.IntN(20); k {
	case 0, 1, 2:
		defer c.lock(d)()
		n, h, _, err := v.Create(context.Background(), d, c.name(), unix.O_RDWR, 0644, me)
		if err != nil {
			return err
		}
		defer v.Forget(n, 1)
		defer h.Release()
		_, err = h.Write(context.Background(), c.bytes(), 0, false)
		return err
	case 3:
		defer c.lock(d)()
		n, _, err := v.Mkdir(context.Background(), d, c.dirName(), 0755, me)
		if err == nil {
			v.Forget(n, 1)
		}
		return err
	case 4:
		defer c.lock(d)()
		return v.Unlink(context.Background(), d, c.name())
	case 5:
		defer c.lock(d)()
		return v.Rmdir(context.Background(), d, c.dirName())
	case 6, 7:
		to := c.dir()
		defer v.Forget(to, 1)
		name := c.any()
		flags := uint32(0)
		if c.rnd.IntN(5) == 0 {
			flags = unix.RENAME_EXCHANGE
		}
		defer c.lock(d, to)()
		return v.Rename(context.Background(), d, name, to, c.any(), flags)
	case 8:
		defer c.lock(d)()
		n, _, err := v.Symlink(context.Background(), d, c.name(), fmt.Sprint("to ", c.rnd.IntN(1000)), me)
		if err == nil {
			v.Forget(n, 1)
		}
		return err
	}
	n, _, err := v.Lookup(context.Background(), d, c.any())
	if err != nil {
		return err
	}
	defer v.Forget(n, 1)
	switch c.rnd.IntN(8) {
	case 0:
		to := c.dir()
		defer v.Forget(to, 1)
		if n.kind == cold.KindDir {
			return unix.EPERM
		}
		defer c.lock(to)()
		if _, err = v.Link(context.Background(), n, to, c.name()); err == nil {
			v.Forget(n, 1)
		}
		return err
	case 1:
		mode := uint32(0400 + c.rnd.IntN(0377))
		if n.kind == cold.KindDir {
			mode |= 0700
		}
		_, err = v.Setattr(context.Background(), n, nil, &SetAttr{Mode: &mode})
		return err
	case 2:
		if n.kind == cold.KindSymlink {
			return unix.EPERM
		}
		return v.Setxattr(context.Background(), n, fmt.Sprint("user.", c.rnd.IntN(3)), c.bytes()[:0], 0, false, me)
	case 3:
		size := uint64(c.rnd.IntN(300_000))
		_, err = v.Setattr(context.Background(), n, nil, &SetAttr{Size: &size})
		return err
	}
	h, err := v.Open(context.Background(), n, unix.O_RDWR, false)
	if err != nil {
		return err
	}
	defer h.Release()
	if c.rnd.IntN(6) == 0 {
		return h.Fallocate(context.Background(), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE,
			int64(c.rnd.IntN(100_000)), 1+int64(c.rnd.IntN(100_000)))
	}
	_, err = h.Write(context.Background(), c.bytes(), int64(c.rnd.IntN(200_000)), false)
	return err
}

// TestCommitUnderChurn: while many change everything, each commit has exactly what was there at its boundary.
func TestCommitUnderChurn(t *testing.T) {
	limit, seed := effort.Time(t, 2*time.Second, 2*time.Minute), effort.Seed(t)
	for _, records := range []bool{true, false} {
		t.Run(fmt.Sprintf("records %v", records), func(t *testing.T) { churn(t, records, limit/2, uint64(seed)) })
	}
}

func churn(t *testing.T, records bool, limit time.Duration, seed uint64) {
	c := newMemCold()
	v, after := afterBoundary(t, slowCold{c}, records)
	var pause sync.RWMutex
	var ops atomic.Int64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var dirs sync.Map
	var rename sync.Mutex
	for i := range 4 {
		ch := &churner{v: v, rnd: rand.New(rand.NewPCG(seed, uint64(i))), ops: &ops, dirs: &dirs, rename: &rename}
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				pause.RLock()
				err := ch.step()
				pause.RUnlock()
				time.Sleep(time.Duration(ch.rnd.IntN(300)) * time.Microsecond)
				var errno unix.Errno
				if err != nil && !errors.As(err, &errno) {
					t.Error(err)
					return
				}
			}
		})
	}
	commits, during := 0, int64(0)
	for end := time.Now().Add(limit); time.Now().Before(end) && !t.Failed(); commits++ {
		pause.Lock()
		var want map[string]string
		var began int64
		*after = func() error {
			want = scan(t, v)
			began = ops.Load()
			pause.Unlock()
			return nil
		}
		rc, err := v.Sync(context.Background(), "test")
		if err != nil {
			t.Errorf("sync: %v", err)
			break
		}
		if *after != nil { // nothing had changed
			*after = nil
			pause.Unlock()
			continue
		}
		during += ops.Load() - began
		sameTree(t, fmt.Sprintf("commit %d", commits), scanCommit(t, c, rc.Commit), want)
		if commits%3 == 0 && records {
			_, err := v.Tier(context.Background(), nil)
			must(t, err)
		}
	}
	close(stop)
	wg.Wait()
	t.Logf("%d commits, %d changes while they were made", commits, during)
	v.mustSync(t)
	want := scan(t, v)
	sameTree(t, "the last", scanCommit(t, c, v.mustSync(t).Commit), want)
	if records {
		next := openTiered(t, t.TempDir(), c)
		sameTree(t, "restored", scan(t, next), want)
	}
}
