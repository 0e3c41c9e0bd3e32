package powercut

import (
	"fmt"
	"math/rand"
	"slices"
)

// Cut is a power cut: only the first At entries of the log had been begun. Seed decides what became of those that no
// flush covers.
type Cut struct {
	At   int
	Seed int64
}

func (c Cut) String() string { return fmt.Sprintf("cut at entry %d with seed %d", c.At, c.Seed) }

// Cuts chooses n power cuts between entries from and to of a log, most of them around flushes: there the promises
// change hands.
func (l Log) Cuts(n, from, to int, seed int64) []Cut {
	rnd := rand.New(rand.NewSource(seed))
	var flushes []int
	for i := from; i < to; i++ {
		if l[i].Kind == Flush {
			flushes = append(flushes, i)
		}
	}
	cuts := make([]Cut, n)
	for i := range cuts {
		at := from + rnd.Intn(to-from+1)
		if len(flushes) > 0 {
			f := flushes[rnd.Intn(len(flushes))]
			switch rnd.Intn(5) {
			case 0:
				at = f // all is written, nothing of it is flushed
			case 1:
				at = f + 1
			case 2:
				at = min(f+1+rnd.Intn(6), to)
			}
		}
		cuts[i] = Cut{At: at, Seed: rnd.Int63()}
	}
	slices.SortFunc(cuts, func(a, b Cut) int { return a.At - b.At })
	return cuts
}

// flushed is the number of entries that are durable at a cut: those up to the last flush.
func (l Log) flushed(at int) int {
	for i := at; i > 0; i-- {
		if l[i-1].Kind == Flush {
			return i
		}
	}
	return 0
}

// piece is a part of a write that reached the disk.
type piece struct {
	off  int64
	data []byte
}

// survivors are the pieces, in the order in which they take effect, of the unflushed writes that a cut left.
func (l Log) survivors(c Cut, sector int) []piece {
	rnd := rand.New(rand.NewSource(c.Seed))
	var writes []Entry
	for _, e := range l[l.flushed(c.At):c.At] {
		if e.Kind == Write {
			writes = append(writes, e)
		}
	}
	keep := [...]float64{0, 0.2, 0.5, 0.8, 0.95, 1}[rnd.Intn(6)]
	torn := [...]float64{0, 0.1, 0.4}[rnd.Intn(3)]
	prefix := rnd.Intn(4) == 0 // a disk that writes in order, up to a point
	stop := rnd.Intn(len(writes) + 1)
	var left []piece
	for i, w := range writes {
		switch {
		case prefix && i > stop, !prefix && rnd.Float64() >= keep:
		case prefix && i == stop, rnd.Float64() < torn:
			left = append(left, tear(w, sector, rnd)...)
		default:
			left = append(left, piece{w.Off, w.Data})
		}
	}
	return left
}

// tear returns the parts of a write that arrived: its beginning, its end or some sectors of it.
func tear(w Entry, sector int, rnd *rand.Rand) []piece {
	all := sectors(w, sector)
	switch n := rnd.Intn(len(all) + 1); rnd.Intn(3) {
	case 0:
		return all[:n]
	case 1:
		return all[n:]
	}
	var some []piece
	for _, p := range all {
		if rnd.Intn(2) == 0 {
			some = append(some, p)
		}
	}
	return some
}

// sectors cuts a write at the borders of the disk's sectors.
func sectors(w Entry, sector int) []piece {
	var all []piece
	for off, data := w.Off, w.Data; len(data) > 0; {
		n := min(len(data), sector-int(off%int64(sector)))
		all = append(all, piece{off, data[:n]})
		off, data = off+int64(n), data[n:]
	}
	return all
}
