package tiers

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"emberfs/integration/effort"
	"emberfs/tiers/cold"
)

// TestRandomTree commits between random changes and compares the restored tree each time.
func TestRandomTree(t *testing.T) {
	t.Parallel()
	for _, seed := range effort.Seeds(t, 1, 30) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { randomTree(t, rand.New(rand.NewPCG(uint64(seed), 2))) })
	}
}

func randomTree(t *testing.T, rng *rand.Rand) {
	v, c := newVolume(t)
	dirs := []*Inode{v.root}
	type file struct {
		dir  *Inode
		name string
	}
	var files []file
	for round := range 12 {
		for range 60 {
			d := dirs[rng.IntN(len(dirs))]
			name := fmt.Sprintf("n%d", rng.IntN(1000))
			switch rng.IntN(8) {
			case 0:
				if n, _, err := v.Mkdir(context.Background(), d, name, 0755, me); err == nil && len(dirs) < 20 {
					dirs = append(dirs, n)
				}
			case 1, 2:
				if n, h, _, err := v.Create(context.Background(), d, name, unix.O_RDWR|unix.O_EXCL, 0600,
					me); err == nil {
					_, _ = h.Write(context.Background(), bytes.Repeat([]byte(name), rng.IntN(3000)),
						int64(rng.IntN(5000)), false)
					h.Release()
					v.Forget(n, 1)
					files = append(files, file{d, name})
				}
			case 3, 4:
				if len(files) > 0 {
					i := rng.IntN(len(files))
					_ = v.Rename(context.Background(), files[i].dir, files[i].name, d, name, 0)
					files[i] = file{d, name}
				}
			case 5:
				if len(files) > 0 {
					i := rng.IntN(len(files))
					_ = v.Unlink(context.Background(), files[i].dir, files[i].name)
				}
			case 6:
				if len(files) > 0 {
					f := files[rng.IntN(len(files))]
					if n, _, err := v.Lookup(context.Background(), f.dir, f.name); err == nil {
						if n.Kind() == cold.KindFile {
							_, _ = v.Link(context.Background(), n, d, name)
							v.Forget(n, 1)
						}
						v.Forget(n, 1)
					}
				}
			case 7:
				if len(files) > 0 {
					f := files[rng.IntN(len(files))]
					if n, _, err := v.Lookup(context.Background(), f.dir, f.name); err == nil {
						mode := uint32(0600 + rng.IntN(64))
						_, _ = v.Setattr(context.Background(), n, nil, &SetAttr{Mode: &mode})
						v.Forget(n, 1)
					}
				}
			}
		}
		v.mustSync(t)
		state := t.TempDir()
		next := openTest(t, state, c)
		rsyncEqual(t, filepath.Join(v.cfg.State, "warm"), filepath.Join(state, "warm"))
		if err := next.Close(); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
	}
}

// TestHotExact compares reads through hot with a model under random writes, truncations and reads.
func TestHotExact(t *testing.T) {
	t.Parallel()
	for _, seed := range effort.Seeds(t, 1, 30) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { hotExact(t, rand.New(rand.NewPCG(uint64(seed), 4))) })
	}
}

func hotExact(t *testing.T, rng *rand.Rand) {
	v, _ := newVolume(t)
	n, h, _, err := v.Create(context.Background(), v.root, "f", unix.O_RDWR, 0600, me)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Release()
	var model []byte
	grow := func(size int) {
		for len(model) < size {
			model = append(model, 0)
		}
	}
	const limit = 300 << 10
	buf := make([]byte, limit+1)
	for i := range 20000 {
		off, size := rng.IntN(limit), 1+rng.IntN(9000)
		if rng.IntN(20) == 0 {
			size = rng.IntN(limit)
		}
		if rng.IntN(3) == 0 {
			off = len(model)
		}
		if rng.IntN(4) == 0 {
			off &^= hotPage - 1
		}
		size = min(size, limit-off)
		switch op := rng.IntN(10); {
		case op < 4 && size > 0:
			p := bytes.Repeat([]byte{byte(i)}, size)
			if m, err := h.Write(context.Background(), p, int64(off), false); err != nil || m != size {
				t.Fatal(m, err)
			}
			grow(off + size)
			copy(model[off:], p)
		case op == 4:
			to := uint64(off)
			if _, err := v.Setattr(context.Background(), n, h, &SetAttr{Size: &to}); err != nil {
				t.Fatal(err)
			}
			model = model[:min(len(model), off)]
			grow(off)
		default:
			m, err := h.Read(context.Background(), buf[:size], int64(off))
			if err != nil {
				t.Fatal(err)
			}
			var want []byte
			if off < len(model) {
				want = model[off:min(len(model), off+size)]
			}
			if !bytes.Equal(buf[:m], want) {
				t.Fatalf("step %d: read %d at %d of %d: %d bytes, wrong from %d", i, size, off, len(model), m,
					firstDiff(buf[:m], want))
			}
		}
	}
	if s := v.hot.status(); s.Hits == 0 || s.Misses == 0 {
		t.Fatalf("the test did not exercise the cache: %+v", s)
	}
}

func firstDiff(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}
