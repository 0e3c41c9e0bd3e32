package odb

import (
	"bytes"
	"container/heap"
	"iter"
)

// mergeIndexes yields the pack and the position of each object of the packs, sorted by id, then by pack.
func mergeIndexes(src []*pack) iter.Seq2[int, int] {
	return func(yield func(k, i int) bool) {
		h := &indexHeap{src: src, at: make([]int, len(src)), next: make([]ID, len(src))}
		for k, p := range src {
			if p.idx.count > 0 {
				h.ks = append(h.ks, k)
				h.next[k] = p.idx.id(0)
			}
		}
		heap.Init(h)
		for len(h.ks) > 0 {
			k := h.ks[0]
			if !yield(k, h.at[k]) {
				return
			}
			if h.at[k]++; h.at[k] == src[k].idx.count {
				heap.Pop(h)
			} else {
				h.next[k] = src[k].idx.id(h.at[k])
				heap.Fix(h, 0)
			}
		}
	}
}

// indexHeap is a heap of the packs that still have objects, ordered by their next object's id.
type indexHeap struct {
	src  []*pack
	at   []int
	ks   []int
	next []ID // each pack's next id
}

func (h *indexHeap) Len() int { return len(h.ks) }

func (h *indexHeap) Swap(i, j int) { h.ks[i], h.ks[j] = h.ks[j], h.ks[i] }

func (h *indexHeap) Push(any) {} // never called: no pack is added later

func (h *indexHeap) Less(i, j int) bool {
	c := bytes.Compare(h.next[h.ks[i]][:], h.next[h.ks[j]][:])
	return c < 0 || c == 0 && h.ks[i] < h.ks[j]
}

func (h *indexHeap) Pop() any {
	k := h.ks[len(h.ks)-1]
	h.ks = h.ks[:len(h.ks)-1]
	return k
}
