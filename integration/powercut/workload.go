package powercut

import (
	"fmt"
	"math/rand"
	"path"
	"strings"
)

// Next chooses the next operation of a program that works at random in the tree as the operations so far left it: it
// creates, writes, renames, replaces and removes, and makes some of that durable. It does not add it.
func (h *History) Next(rnd *rand.Rand) Op {
	const bigSize = 400_000 // over the chunk threshold
	files, dirs := h.Paths(false), append(h.Paths(true), ".")
	pick := func(from []string) string { return from[rnd.Intn(len(from))] }
	fresh := func(name string) string {
		return path.Join(pick(dirs), fmt.Sprintf("%s%d-%d", name, h.Seed%10, len(h.Ops)))
	}
	durable := func() Sync {
		return [...]Sync{"", Fsync, Fdatasync}[rnd.Intn(3)]
	}
	k := rnd.Intn(100)
	switch {
	case len(dirs) < 3 || k < 3 && len(dirs) < 8:
		return Op{Kind: Mkdir, Path: fresh("d")}
	case h.Size("big") < 0:
		return Op{Kind: Create, Path: "big", Len: bigSize, Sync: durable()}
	case len(files) < 8 || k < 20 && len(files) < 30:
		return Op{Kind: Create, Path: fresh("f"), Len: rnd.Intn(30_000), Sync: durable()}
	case k < 30:
		return Op{Kind: Put, Path: "big", Off: rnd.Intn(bigSize), Len: 1 + rnd.Intn(20_000), Sync: durable()}
	}
	f := pick(files)
	size := h.Size(f)
	switch {
	case k < 45: // append
		return Op{Kind: Put, Path: f, Off: size, Len: 1 + rnd.Intn(9000), Sync: durable()}
	case k < 65 && size > 0:
		return Op{Kind: Put, Path: f, Off: rnd.Intn(size), Len: 1 + rnd.Intn(9000), Sync: durable()}
	case k < 70 && f == "big":
		return Op{Kind: Rewrite, Path: f, Len: bigSize, Sync: durable()}
	case k < 70:
		return Op{Kind: Rewrite, Path: f, Len: rnd.Intn(20_000), Sync: durable()}
	case k < 74:
		return Op{Kind: Touch, Path: f, Sync: Fsync}
	case k < 78:
		return Op{Kind: Touch, Path: pick(dirs), Sync: Fsync}
	case f == "big":
		return Op{Kind: Touch, Path: f, Sync: Fdatasync}
	case k < 84:
		return Op{Kind: Rename, Path: f, To: fresh("m")}
	case k < 87: // a directory into another, which does not lie in it
		if d, to := pick(dirs), fresh("n"); d != "." && !strings.HasPrefix(to+"/", d+"/") {
			return Op{Kind: Rename, Path: d, To: to}
		}
		return Op{Kind: Touch, Path: f, Sync: Fdatasync}
	case k < 93: // an editor's save: a new file over the old one
		to := pick(files)
		if to == f || to == "big" {
			return Op{Kind: Touch, Path: f, Sync: Fsync}
		}
		return Op{Kind: Rename, Path: f, To: to}
	default:
		return Op{Kind: Unlink, Path: f}
	}
}
