package tiers

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/unix"

	"emberfs/integration/effort"
	"emberfs/tiers/cold"
)

// askingCold looks at each content that a commit stores.
type askingCold struct {
	*memCold
	look func(cold.Content)
}

type askingTx struct {
	cold.Tx
	c *askingCold
}

func (c *askingCold) Begin(ctx context.Context) (cold.Tx, error) {
	tx, err := c.memCold.Begin(ctx)
	return askingTx{tx, c}, err
}

func (t askingTx) PutFile(ctx context.Context, f cold.Content, base cold.Base) (cold.ID, error) {
	if t.c.look != nil {
		t.c.look(f)
	}
	return t.Tx.PutFile(ctx, f, base)
}

// TestHolesAtBoundary: of a sparse file that changes while it is committed the commit sees the bytes and the holes of
// the boundary.
func TestHolesAtBoundary(t *testing.T) {
	t.Parallel()
	for _, seed := range effort.Seeds(t, 4, 200) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			holesAtBoundary(t, rand.New(rand.NewPCG(uint64(seed), 0)))
		})
	}
}

func holesAtBoundary(t *testing.T, rnd *rand.Rand) {
	const size, grain = 4 << 20, 1 << preserveShift
	c := &askingCold{memCold: newMemCold()}
	v, after := afterBoundary(t, c, true)
	f := write(t, v, v.root, "f", "start")
	want := make([]byte, size)
	copy(want, "start")
	for range 5 {
		off, b := rnd.IntN(size-100_000), bytes.Repeat([]byte{'x'}, 1+rnd.IntN(100_000))
		writeAt(t, v, f, b, int64(off))
		copy(want[off:], b)
	}
	end := uint64(size)
	_, err := v.Setattr(context.Background(), f, nil, &SetAttr{Size: &end})
	must(t, err)
	*after = func() error {
		p := &pitDir{t: t, v: v, f: f}
		for range 20 {
			off := rnd.Int64N(size)
			switch rnd.IntN(4) {
			case 0:
				p.fallocate(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, 1+rnd.Int64N(size))
			case 1:
				p.size(uint64(off))
			default:
				writeAt(t, v, f, bytes.Repeat([]byte{'y'}, 1+rnd.IntN(200_000)), off)
			}
		}
		return nil
	}
	looked := false
	c.look = func(f cold.Content) {
		looked = true
		got := make([]byte, size+1)
		if n, err := f.ReadAt(got, 0); n != size || err != io.EOF || f.Size() != size ||
			!bytes.Equal(got[:size], want) {
			t.Errorf("read %d of %d, %v, other bytes", n, f.Size(), err)
		}
		var data [size / grain]bool
		for off := int64(0); ; {
			r, ok, err := f.Data(off)
			must(t, err)
			if !ok {
				break
			}
			for g := r.Off / grain; g <= (min(r.End, size)-1)/grain; g++ {
				data[g] = true
			}
			off = r.End
		}
		for g := range data {
			if is := bytes.ContainsAny(want[g*grain:(g+1)*grain], "xstar"); is != data[g] {
				t.Errorf("grain %d has data: %v, is said to: %v", g, is, data[g])
			}
		}
	}
	v.mustSync(t)
	if !looked {
		t.Error("the file was not read")
	}
	c.look = nil
	sameTree(t, "next", scanCommit(t, c.memCold, v.mustSync(t).Commit), scan(t, v))
}
