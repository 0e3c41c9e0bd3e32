//go:build lockorder

package tiers

import (
	"bytes"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"sync"
)

// mutex is a sync.Mutex with a rank. Lock panics when it is against the order of ranks.
type mutex[R ranked] struct{ m sync.Mutex }

func (m *mutex[R]) Lock() {
	var r R
	before(r)
	m.m.Lock()
	took(r)
}

func (m *mutex[R]) TryLock() bool { // never waits, so it may be tried at any time
	if !m.m.TryLock() {
		return false
	}
	var r R
	took(r)
	return true
}

func (m *mutex[R]) Unlock() {
	var r R
	gave(r)
	m.m.Unlock()
}

// rwMutex is a sync.RWMutex with a rank. It panics as mutex does.
type rwMutex[R ranked] struct{ m sync.RWMutex }

func (m *rwMutex[R]) Lock() {
	var r R
	before(r)
	m.m.Lock()
	took(r)
}

func (m *rwMutex[R]) Unlock() {
	var r R
	gave(r)
	m.m.Unlock()
}

func (m *rwMutex[R]) RLock() {
	var r R
	before(r)
	m.m.RLock()
	took(r)
}

func (m *rwMutex[R]) RUnlock() {
	var r R
	gave(r)
	m.m.RUnlock()
}

func (m *rwMutex[R]) TryLock() bool {
	if !m.m.TryLock() {
		return false
	}
	var r R
	took(r)
	return true
}

// holders knows which ranks some goroutines hold, by the goroutines' numbers.
type holders struct {
	mu sync.Mutex
	by map[int64][]ranked
}

// held is divided by goroutines' numbers, so that goroutines seldom wait for each other.
var held [64]holders

// mine returns the caller's part of held, locked, and the caller's number.
func mine() (*holders, int64) {
	g := goroutine()
	h := &held[g%int64(len(held))]
	h.mu.Lock()
	if h.by == nil {
		h.by = map[int64][]ranked{}
	}
	return h, g
}

// before panics when the calling goroutine holds a lock that must not be held while one of rank r is taken.
func before(r ranked) {
	h, g := mine()
	defer h.mu.Unlock()
	for _, have := range h.by[g] {
		if have.rank() > r.rank() || have.rank() == r.rank() && !r.several() {
			panic(fmt.Sprintf("lock order: %T is taken while %T is held", r, have))
		}
	}
}

// took notes that the calling goroutine has taken a lock of rank r.
func took(r ranked) {
	h, g := mine()
	defer h.mu.Unlock()
	h.by[g] = append(h.by[g], r)
}

// gave notes that the calling goroutine gives back a lock of rank r.
func gave(r ranked) {
	h, g := mine()
	defer h.mu.Unlock()
	list := h.by[g]
	for i := len(list) - 1; i >= 0; i-- {
		if list[i] == r {
			if list = slices.Delete(list, i, i+1); len(list) == 0 {
				delete(h.by, g)
			} else {
				h.by[g] = list
			}
			return
		}
	}
	panic(fmt.Sprintf("lock order: %T is given back by a goroutine that does not hold it", r))
}

// goroutine returns the number of the calling goroutine. It reads it from a stack trace, as Go has no call for it.
func goroutine() int64 {
	var buf [64]byte
	b := bytes.TrimPrefix(buf[:runtime.Stack(buf[:], false)], []byte("goroutine "))
	n, err := strconv.ParseInt(string(b[:bytes.IndexByte(b, ' ')]), 10, 64)
	if err != nil {
		panic(err)
	}
	return n
}
