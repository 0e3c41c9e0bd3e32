package tiers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"emberfs/integration/effort"
	"emberfs/tiers/cold"
)

func TestRanges(t *testing.T) {
	r := newRanges()
	if !r.empty() || r.list() != nil {
		t.Error("a new set is not empty")
	}
	r.add(5, 5)
	if !r.empty() {
		t.Error("an empty range counts")
	}
	const k = 64 << 10
	r.add(1, 2)
	r.add(k, k+1)
	r.add(5*k-1, 5*k+1)
	if want := []cold.Range{{Off: 0, End: 2 * k}, {Off: 4 * k, End: 6 * k}}; !slices.Equal(r.list(), want) {
		t.Errorf("list = %v, want %v", r.list(), want)
	}
	r.addFrom(5*k + 100)
	r.add(9*k, 10*k) // behind the tail, says nothing new
	if want := []cold.Range{{Off: 0, End: 2 * k}, {Off: 4 * k, End: math.MaxInt64}}; !slices.Equal(r.list(), want) {
		t.Errorf("list = %v, want %v", r.list(), want)
	}
	far := newRanges()
	far.add(0, 1)
	far.add(1<<50, 1<<50+1)
	l := far.list()
	if len(l) != 2 || l[0].Off != 0 || l[1].Off > 1<<50 || l[1].End <= 1<<50 || len(far.bits)*64 > writtenBits {
		t.Errorf("list = %v in %d words", l, len(far.bits))
	}
}

// TestRangesRandom compares the set with a plain one: nothing that was added is missing, whatever the grain.
func TestRangesRandom(t *testing.T) {
	for _, seed := range effort.Seeds(t, 50, 2000) {
		rnd := rand.New(rand.NewSource(seed))
		r := newRanges()
		var added []cold.Range
		span := int64(1) << (20 + rnd.Intn(20))
		for range 200 {
			off := rnd.Int63n(span)
			end := off + rnd.Int63n(1<<20)
			r.add(off, end)
			added = append(added, cold.Range{Off: off, End: end})
		}
		l := r.list()
		for i := 1; i < len(l); i++ {
			if l[i].Off <= l[i-1].End {
				t.Fatalf("seed %d: %v is not behind %v", seed, l[i], l[i-1])
			}
		}
		for _, a := range added {
			if a.Off == a.End {
				continue
			}
			if !slices.ContainsFunc(l, func(r cold.Range) bool { return r.Off <= a.Off && a.End <= r.End }) {
				t.Fatalf("seed %d: %v is missing in %v", seed, a, l)
			}
		}
	}
}

// TestWrittenRanges changes a big file in every way, commits now and then, sometimes in vain: what is said to be
// unchanged is so (memCold checks it), and the commit has what the file has.
func TestWrittenRanges(t *testing.T) {
	t.Parallel()
	for _, seed := range effort.Seeds(t, 1, 80) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { writtenRanges(t, rand.New(rand.NewSource(seed))) })
	}
}

func writtenRanges(t *testing.T, rnd *rand.Rand) {
	v, cold := newVolume(t)
	defer v.Close()
	n := write(t, v, v.Root(), "big", string(make([]byte, 3<<20)))
	write(t, v, v.Root(), "other", string(bytes.Repeat([]byte("other"), 1<<20)))
	v.mustSync(t)
	src, _, err := v.Lookup(context.Background(), v.Root(), "other")
	if err != nil {
		t.Fatal(err)
	}
	for round := range 40 {
		h, err := v.Open(context.Background(), n, unix.O_RDWR, false)
		if err != nil {
			t.Fatal(err)
		}
		for range rnd.Intn(4) {
			off := rnd.Int63n(6 << 20)
			switch rnd.Intn(7) {
			case 0, 1, 2:
				p := make([]byte, rnd.Intn(200_000))
				rnd.Read(p)
				_, err = h.Write(context.Background(), p, off, false)
			case 3:
				err = v.truncate(n, h.fd, off, false)
			case 4:
				err = h.Fallocate(context.Background(), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off,
					rnd.Int63n(1<<20)+1)
			case 5:
				if err = h.Fallocate(context.Background(), unix.FALLOC_FL_COLLAPSE_RANGE, off&^0xffff,
					64<<10); errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
					err = nil
				}
			case 6:
				var in *Handle
				if in, err = v.Open(context.Background(), src, unix.O_RDONLY, false); err == nil {
					_, err = v.CopyFileRange(context.Background(), in, rnd.Int63n(4<<20), h, off, rnd.Int63n(1<<20)+1,
						false)
					in.Release()
				}
			}
			if err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
		}
		if rnd.Intn(3) > 0 {
			h.Release()
			h = nil
		}
		switch rnd.Intn(4) {
		case 0:
			cold.failTx = errors.New("not now")
			if rc, err := v.Sync(context.Background(), "test"); err == nil && rc.New {
				t.Fatal("a commit that fails succeeded")
			}
			cold.failTx = nil
		case 1, 2:
			v.mustSync(t)
			checkCommitted(t, v, cold, "big", n)
		}
		if h != nil {
			h.Release()
		}
	}
	if cold.known < 12 {
		t.Errorf("of %d files put only %d had a known base", cold.reads, cold.known)
	}
}

// checkCommitted compares a file of the root with the last commit.
func checkCommitted(t *testing.T, v *Volume, repo *memCold, name string, n *Inode) {
	t.Helper()
	head, err := repo.Head(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	root := head.Root()
	l, err := head.ReadDir(context.Background(), root.Dir())
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(l.Entries, func(e cold.Entry) bool { return e.Name == name })
	if i < 0 || string(repo.blobs[l.Entries[i].ID]) != read(t, v, n) {
		t.Fatalf("the commit has another %q", name)
	}
}

// TestWrittenRangesLate writes while commits read: a later one must not miss what an earlier one saw half, also of a
// file with several names, which is read once for each.
func TestWrittenRangesLate(t *testing.T) {
	t.Parallel()
	v, cold := newVolume(t)
	defer v.Close()
	n := write(t, v, v.Root(), "a", string(make([]byte, 4<<20)))
	if _, err := v.Link(context.Background(), n, v.Root(), "b"); err != nil {
		t.Fatal(err)
	}
	h, err := v.Open(context.Background(), n, unix.O_RDWR, false)
	if err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		rnd := rand.New(rand.NewSource(2))
		p := make([]byte, 100)
		for {
			select {
			case <-stop:
				return
			default:
			}
			rnd.Read(p)
			if _, err := h.Write(context.Background(), p, rnd.Int63n(4<<20), false); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for range effort.Count(t, 8, 300) {
		if _, err := v.Sync(context.Background(), "test"); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	wg.Wait()
	h.Release()
	v.mustSync(t)
	checkCommitted(t, v, cold, "a", n)
	checkCommitted(t, v, cold, "b", n)
}
