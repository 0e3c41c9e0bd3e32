package tiers

import (
	"fmt"
	"testing"
	"time"
)

// TestProgress: a commit says how many of the changed files it has taken, and nothing once it has ended.
func TestProgress(t *testing.T) {
	var at Progress
	var v *Volume
	v = openTiered(t, t.TempDir(), newMemCold(), func(c *Config) {
		c.Fail = func(step string) error {
			if step == "commit.walked" && v != nil {
				at = v.Progress()
			}
			return nil
		}
	})
	write(t, v, v.root, "f", "content")
	v.mustSync(t) // from now on changes are counted by name
	const files = 7
	for i := range files {
		write(t, v, v.root, fmt.Sprint("f", i), "content")
	}
	if p := v.Progress(); !p.Since.IsZero() || p.AtRisk.Files < files || p.AtRisk.Bytes < files*7 {
		t.Errorf("before the commit: %+v", p)
	}
	v.mustSync(t)
	if at.Since.IsZero() || at.Files != files || at.Of != files || at.AtRisk.Files < files {
		t.Errorf("at the end of the walk: %+v", at)
	}
	if p := v.Progress(); !p.Since.IsZero() || p.Files != 0 || p.AtRisk.Files != 0 {
		t.Errorf("after the commit: %+v", p)
	}
}

// TestAlive: a volume does not answer while its changes have to wait for a commit's boundary, and does afterwards.
func TestAlive(t *testing.T) {
	v, _ := newVolume(t)
	v.Alive()
	v.barrier.Lock()
	answered := make(chan struct{})
	go func() {
		v.Alive()
		close(answered)
	}()
	select {
	case <-answered:
		t.Error("it answers while every change waits")
	case <-time.After(50 * time.Millisecond):
	}
	v.barrier.Unlock()
	select {
	case <-answered:
	case <-time.After(20 * time.Second):
		t.Fatal("it does not answer any more")
	}
}
