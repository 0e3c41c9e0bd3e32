package powercut

import (
	"bytes"
	"fmt"
	"maps"
	"path"
	"slices"
	"time"
)

// Node is a file or directory that is found after a cut.
type Node struct {
	Dir  bool
	Data []byte
}

// view is a history as a cut leaves it.
type view struct {
	*History
	acked   int // operations that were acknowledged; the next one may have been under way
	durable int // operations before this one are durable, whatever they are
	because string
	paths   map[*object][]string
}

// Judge says what is wrong with the tree after a cut before which the first seen events had been told: nil if it is one
// that the promises allow. What is acknowledged for longer than age is durable.
//
// An fsync makes a file's bytes and its present name durable, an fdatasync its bytes, and its first name if it is new;
// an fsync of a directory the names in it. Whatever is not durable is there or not, each byte of it as before or after
// each operation, or zero beyond the durable size. A rename or replacement happens whole.
func (h *History) Judge(seen int, age time.Duration, tree map[string]Node) []string {
	h.replay()
	v := &view{History: h, paths: map[*object][]string{}}
	var times []time.Duration
	for _, e := range h.Events[:seen] {
		if e.Ack {
			v.acked++
			times = append(times, e.At)
		} else {
			v.reach(e.Op, "a commit")
		}
	}
	if seen > 0 {
		now := h.Events[seen-1].At
		for i, at := range times {
			if now-at > age {
				v.reach(i+1, "their age")
			}
		}
	}
	return v.judge(tree)
}

// reach notes that the operations before op are durable.
func (v *view) reach(op int, because string) {
	if op > v.durable {
		v.durable, v.because = op, because
	}
}

func (v *view) judge(tree map[string]Node) []string {
	possible := map[string][]*object{}
	for _, o := range v.all {
		for _, p := range v.pathsOf(o) {
			possible[p] = append(possible[p], o)
		}
	}
	var wrong []string
	found := map[*object][]string{}
	for _, p := range slices.Sorted(maps.Keys(tree)) {
		n, why := tree[p], ""
		fits := 0
		for _, o := range possible[p] {
			if o.dir != n.Dir {
				continue
			}
			if bad := v.badContent(o, n.Data); bad != "" {
				why += "; " + bad
				continue
			}
			found[o] = append(found[o], p)
			fits++
		}
		if fits == 0 && why == "" {
			why = "; it should not be there"
		}
		if fits == 0 {
			wrong = append(wrong, p+why)
		}
	}
	for _, o := range v.all {
		if len(found[o]) == 0 && !v.mayLack(o, found) {
			wrong = append(wrong, fmt.Sprintf("%s is missing: it must be at one of %q", v.describe(o), v.pathsOf(o)))
		}
		if len(found[o]) > 1 && !o.dir && slices.ContainsFunc(found[o], func(p string) bool {
			return v.telling(possible[p], tree[p].Data)
		}) {
			wrong = append(wrong, fmt.Sprintf("%s is in several places: %q", v.describe(o), found[o]))
		}
	}
	return wrong
}

// telling says that bytes identify the only object that can have them.
func (v *view) telling(could []*object, b []byte) bool {
	fits := 0
	for _, o := range could {
		if !o.dir && v.badContent(o, b) == "" {
			fits++
		}
	}
	return fits == 1 && len(bytes.Trim(b, "\x00")) > 16
}

func (v *view) describe(o *object) string {
	return fmt.Sprintf("what operation %d called %s", o.names[0].op, o.first)
}

// namings are those that may hold after the cut, the first of them certain unless it is the object's first; fresh says
// that the object may not be there yet.
func (v *view) namings(o *object) (may []naming, fresh bool) {
	sure := -1
	for i, n := range o.names {
		if n.op <= v.acked && v.certain(o, i) {
			sure = i
		}
	}
	for _, n := range o.names[max(sure, 0):] {
		if n.op <= v.acked {
			may = append(may, n)
		}
	}
	return may, sure < 0
}

// certain says whether an object's ith naming is durable.
func (v *view) certain(o *object, i int) bool {
	n := o.names[i]
	if n.op < v.durable {
		return true
	}
	for _, s := range o.syncs {
		if s.op >= n.op && s.op < v.acked && (!s.data || i == 0) {
			return true
		}
	}
	for _, s := range n.parent.syncs {
		if s.op > n.op && s.op < v.acked {
			return true
		}
	}
	if n.by != nil {
		for k, m := range n.by.names {
			if m.op == n.op {
				return v.certain(n.by, k)
			}
		}
	}
	return false
}

// pathsOf are the paths at which an object may be found.
func (v *view) pathsOf(o *object) []string {
	if p, ok := v.paths[o]; ok {
		return p
	}
	may, _ := v.namings(o)
	v.paths[o] = v.pathsBy(o, may)
	return v.paths[o]
}

// pathsBy are the paths that these namings of an object give.
func (v *view) pathsBy(o *object, names []naming) []string {
	return v.pathsBelow(names, map[*object]bool{o: true})
}

// pathsBelow are the paths of namings whose object lies below those of a chain, itself included. Two directories may
// each have been in the other at different times, and while neither is certain the namings of both hold; but no
// directory lies below itself, so a chain that meets an object again ends nowhere.
func (v *view) pathsBelow(names []naming, chain map[*object]bool) []string {
	var paths []string
	for _, n := range names {
		if n.gone || chain[n.parent] {
			continue
		}
		dirs := []string{""}
		if n.parent != v.root {
			chain[n.parent] = true
			may, _ := v.namings(n.parent)
			dirs = v.pathsBelow(may, chain)
			delete(chain, n.parent)
		}
		for _, dir := range dirs {
			if p := path.Join(dir, n.name); !slices.Contains(paths, p) {
				paths = append(paths, p)
			}
		}
	}
	return paths
}

// mayLack says whether an object that was not found may be missing.
func (v *view) mayLack(o *object, found map[*object][]string) bool {
	may, fresh := v.namings(o)
	return fresh || v.takenAway(o, -1, found, may)
}

// takenAway says whether an object may have lost its name after operation op: to nobody, or to a successor that is
// there.
func (v *view) takenAway(o *object, op int, found map[*object][]string, names []naming) bool {
	for _, n := range names {
		if !n.gone || n.op <= op || n.op > v.acked {
			continue
		}
		if n.by == nil || v.tookOver(n.by, n.op, found) {
			return true
		}
	}
	return false
}

// tookOver says whether what took another's place in operation op is there under a name that it had from then on, or
// lost it later.
func (v *view) tookOver(o *object, op int, found map[*object][]string) bool {
	i := slices.IndexFunc(o.names, func(n naming) bool { return n.op == op })
	for _, p := range v.pathsBy(o, o.names[i:]) {
		if slices.Contains(found[o], p) {
			return true
		}
	}
	return v.takenAway(o, op, found, o.names)
}

// badContent says what is wrong with a file's bytes.
func (v *view) badContent(o *object, got []byte) string {
	if o.dir {
		return ""
	}
	floor, because := v.durable, v.because
	for _, s := range o.syncs {
		if s.op < v.acked && s.op >= floor {
			floor, because = s.op+1, "fsync"
		}
	}
	base := v.content(o, floor)
	least, most := len(base), len(base)
	size := len(base)
	type write struct {
		off  int
		data []byte
	}
	var writes []write
	for _, c := range o.changes {
		if c.op < floor || c.op > v.acked {
			continue
		}
		if c.trunc {
			least, size = 0, 0
			continue
		}
		writes = append(writes, write{c.off, v.Data(c.op)})
		size = max(size, c.off+c.size)
		most = max(most, size)
	}
	if len(got) < least || len(got) > most {
		return fmt.Sprintf("%s has %d bytes, it must have %d to %d: durable by %s is what came before operation %d",
			v.describe(o), len(got), least, most, because, floor)
	}
	const step = 512
	for at := 0; at < len(got); at += step {
		end := min(at+step, len(got))
		if end <= len(base) && bytes.Equal(got[at:end], base[at:end]) {
			continue
		}
		for i := at; i < end; i++ {
			ok := i < len(base) && got[i] == base[i] || i >= least && got[i] == 0
			for k := 0; k < len(writes) && !ok; k++ {
				w := writes[k]
				ok = i >= w.off && i < w.off+len(w.data) && got[i] == w.data[i-w.off]
			}
			if !ok {
				return fmt.Sprintf("%s of %d bytes, %d of them durable by %s before operation %d, holds at %d %s",
					v.describe(o), len(got), len(base), because, floor, i, v.origin(i, got))
			}
		}
	}
	return ""
}

// origin says where the bytes at an offset come from.
func (v *view) origin(at int, got []byte) string {
	piece := got[at:min(at+16, len(got))]
	if len(bytes.Trim(piece, "\x00")) == 0 {
		return "zeros"
	}
	for _, o := range v.all {
		for _, c := range o.changes {
			if d := v.Data(c.op); !c.trunc && bytes.Contains(d, piece) {
				return fmt.Sprintf("bytes of operation %d: %v", c.op, v.Ops[c.op])
			}
		}
		if bytes.Contains(o.start, piece) {
			return "bytes from the beginning of " + v.describe(o)
		}
	}
	return fmt.Sprintf("bytes that nobody wrote: %x", piece)
}
