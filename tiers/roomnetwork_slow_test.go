//go:build slow

package tiers

import (
	"context"
	"testing"
	"time"
)

// slowRemote is a cold tier whose remote does not answer.
type slowRemote struct{ *memCold }

func (slowRemote) HasRemote() bool { return true }
func (slowRemote) Push(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// TestRoomWaitsForNoNetwork: a write that meets a full disk does not wait for a push. It waits for roomPatience, 10 s.
func TestRoomWaitsForNoNetwork(t *testing.T) {
	t.Parallel()
	v := openTiered(t, t.TempDir(), slowRemote{newMemCold()})
	write(t, v, v.root, "f", "x")
	v.Start()
	done := make(chan bool, 1)
	go func() { done <- v.makeRoom(t.Context()) }()
	select {
	case found := <-done:
		if found {
			t.Error("there is room")
		}
	case <-time.After(2 * roomPatience):
		t.Error("a writer waits for the network")
	}
}
