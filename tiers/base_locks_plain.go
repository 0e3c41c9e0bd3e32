//go:build !lockorder

package tiers

import "sync"

// mutex is a sync.Mutex of a rank.
type mutex[R ranked] = sync.Mutex

// rwMutex is a sync.RWMutex of a rank.
type rwMutex[R ranked] = sync.RWMutex
