//go:build !lockorder

package tiers

import "sync"

// mutex is a sync.Mutex; in builds with the tag lockorder R is its rank.
type mutex[R ranked] = sync.Mutex

// rwMutex is a sync.RWMutex; in builds with the tag lockorder R is its rank.
type rwMutex[R ranked] = sync.RWMutex
