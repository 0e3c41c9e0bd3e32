package tiers

import (
	"errors"
	"math"
	"sync/atomic"
	"testing"
	"time"
)

// TestHugeBudget checks that a size that is as good as none slows nobody.
func TestHugeBudget(t *testing.T) {
	for _, bytes := range []int64{1 << 20, 1 << 60, math.MaxInt64} {
		p := Budget{Bytes: bytes}.plan(&outlook{now: time.Now()}, time.Time{}, time.Time{})
		g := &brake{plan: p, all: carefulCommit()}
		if g.pressing(1, bytes/8) != free {
			t.Errorf("%d bytes: an eighth of it is too much: %+v", bytes, p)
		}
	}
}

// TestFinalBackupsOverlap checks that the end of one final backup does not take away the deadline of another.
func TestFinalBackupsOverlap(t *testing.T) {
	v, _ := newVolume(t)
	now := time.Now()
	first, second := v.budget.finalBy(now.Add(time.Minute)), v.budget.finalBy(now.Add(time.Second))
	deadline := func() time.Time { _, at := v.budget.ends(now); return at }
	if got := deadline(); !got.Equal(now.Add(time.Second)) {
		t.Errorf("of two deadlines %v counts", got)
	}
	second()
	if got := deadline(); !got.Equal(now.Add(time.Minute)) {
		t.Errorf("after the earlier one %v counts", got)
	}
	if first(); !deadline().IsZero() {
		t.Error("there is a deadline after the last one")
	}
}

// TestSlowCommitWithoutLink checks that commits go on while the remote fails, also where one takes a while to begin.
func TestSlowCommitWithoutLink(t *testing.T) {
	for _, expires := range []bool{false, true} {
		c := newMemCold()
		c.remote, c.failPush = true, errors.New("no route")
		var slow atomic.Bool
		v, err := Open(t.Context(), Config{State: t.TempDir(), Cold: c, Log: quiet(), Branch: "main",
			MemoryLimit: 64 << 20, BackupInterval: time.Hour, MaxAtRisk: Budget{Time: time.Second},
			Fail: func(step string) error {
				if step == "commit.begin" && slow.Load() {
					time.Sleep(2 * budgetTick)
				}
				return nil
			}})
		must(t, err)
		t.Cleanup(v.over)
		v.Start()
		write(t, v, v.root, "first", "x")
		eventuallyTrue(t, "the push has failed", func() bool {
			return v.points.failing("push") && v.risk.parts().local() == riskCount{}
		})
		slow.Store(true)
		if expires {
			v.Expire(time.Now().Add(time.Hour))
		}
		write(t, v, v.root, "second", "y")
		eventuallyTrue(t, "the change is committed", func() bool { return newest(t, c)["second"] == "y" })
	}
}
