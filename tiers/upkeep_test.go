package tiers

import (
	"context"
	"testing"
)

// Cold is put in order after a commit; neither the next commit nor Close waits for that.
func TestMaintainRunsAfterCommits(t *testing.T) {
	c := newMemCold()
	started, ended := make(chan struct{}), make(chan error, 1)
	c.maintain = func(ctx context.Context) error {
		close(started)
		<-ctx.Done()
		ended <- ctx.Err()
		return ctx.Err()
	}
	v := openTest(t, t.TempDir(), c)
	v.Start()
	write(t, v, v.root, "a", "1")
	v.mustSync(t)
	<-started
	write(t, v, v.root, "b", "2")
	v.mustSync(t)
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	default:
		t.Error("Close did not wait for the end of Maintain")
	}
}
