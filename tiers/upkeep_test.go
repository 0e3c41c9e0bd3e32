package tiers

import (
	"context"
	"errors"
	"testing"
	"time"

	"emberfs/tiers/cold"
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

// Close and the caller's context end a GC; without either it reports.
func TestVolumeGC(t *testing.T) {
	c := newMemCold()
	begun := make(chan struct{}, 1)
	c.collect = func(ctx context.Context, o cold.GCOptions) (cold.GCReport, error) {
		if o.DryRun {
			return cold.GCReport{Objects: 3}, nil
		}
		begun <- struct{}{}
		<-ctx.Done()
		return cold.GCReport{Objects: 1}, ctx.Err()
	}
	v := openTest(t, t.TempDir(), c)
	if _, err := v.GC(t.Context(), cold.GCOptions{}); err == nil {
		t.Error("a volume that was not started collects")
	}
	v.Start()
	if r, err := v.GC(t.Context(), cold.GCOptions{DryRun: true}); err != nil || r.Objects != 3 {
		t.Error(r, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-begun; cancel() }()
	if r, err := v.GC(ctx, cold.GCOptions{}); !errors.Is(err, context.Canceled) || r.Objects != 1 {
		t.Error(r, err)
	}
	closed := make(chan error, 1)
	go func() { <-begun; closed <- v.Close() }()
	if r, err := v.GC(t.Context(), cold.GCOptions{}); err == nil || r.Objects != 1 {
		t.Error(r, err)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if _, err := v.GC(t.Context(), cold.GCOptions{DryRun: true}); !errors.Is(err, errClosed) {
		t.Error(err)
	}
}

// TestUnaskedGC: garbage goes by itself, and what is wrong is said in status.
func TestUnaskedGC(t *testing.T) {
	c := newMemCold()
	runs := make(chan cold.GCOptions, 1)
	c.collect = func(_ context.Context, o cold.GCOptions) (cold.GCReport, error) {
		select {
		case runs <- o:
		default:
		}
		return cold.GCReport{}, errors.New("a reference cannot be read")
	}
	v := openTest(t, t.TempDir(), c)
	v.gcInterval = time.Millisecond
	v.Start()
	if o := <-runs; o.Grace != 0 || o.DryRun {
		t.Errorf("collected with %+v", o)
	}
	<-runs // the first one's result is known
	if e := v.Status().Errors; len(e) != 1 || e[0] != "gc: a reference cannot be read" {
		t.Errorf("status says %q", e)
	}
	if err := v.Close(); err != nil {
		t.Error(err)
	}
}
