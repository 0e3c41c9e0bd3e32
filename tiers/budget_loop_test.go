package tiers

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

// budgetVolume is a started volume with a remote whose backups nothing begins but its budget.
func budgetVolume(t *testing.T, b, warn Budget) (*Volume, *memCold) {
	t.Helper()
	c := newMemCold()
	c.remote = true
	v, err := Open(t.Context(), Config{State: t.TempDir(), Cold: c, Log: quiet(), Branch: "main", MemoryLimit: 64 << 20,
		BackupInterval: time.Hour, MaxAtRisk: b, RiskWarn: warn})
	must(t, err)
	t.Cleanup(v.over)
	return v, c
}

// eventuallyTrue waits until f holds.
func eventuallyTrue(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

// safe says whether nothing is at risk.
func safe(v *Volume) bool { return v.risk.parts().remote() == riskCount{} }

func (c *memCold) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.commits)
}

// TestBudgetBeginsBackups checks that a change is pushed within max_at_risk by itself, that a volume in which nothing
// changes makes no further commit, and that status has what is at risk for both kinds of durability.
func TestBudgetBeginsBackups(t *testing.T) {
	v, c := budgetVolume(t, Budget{Time: 2 * time.Second}, Budget{})
	write(t, v, v.root, "before", "x")
	if s := v.Status().AtRisk; s.Local.Files == 0 || s.Remote.Files == 0 ||
		s.Remote.SecondsToSave <= s.Local.SecondsToSave || s.Local.Measured || s.Remote.Measured {
		t.Errorf("before the first backup: %+v, %+v", s.Local, s.Remote)
	}
	v.Start()
	eventuallyTrue(t, "the first backup", func() bool { return safe(v) })
	write(t, v, v.root, "f", "one")
	eventuallyTrue(t, "a backup of one file", func() bool { return safe(v) })
	s := v.Status()
	if s.AtRisk.Local.SecondsToSave != 0 || s.AtRisk.Remote.SecondsToSave != 0 || !s.AtRisk.Remote.Measured ||
		s.Budget.MaxAtRisk != "2s" || s.Budget.RiskWarn != "none" {
		t.Errorf("after it: %+v, %+v, %+v", s.AtRisk.Local, s.AtRisk.Remote, s.Budget)
	}
	n := c.count()
	time.Sleep(3 * time.Second)
	if c.count() != n || n == 0 {
		t.Errorf("%d commits, and %d when nothing had changed", n, c.count())
	}
}

// TestBudgetWithoutLink checks that while the remote fails commits go on, writers are not slowed, and status says that
// the promise is broken; and that all is well again once the remote answers.
func TestBudgetWithoutLink(t *testing.T) {
	v, c := budgetVolume(t, Budget{Time: time.Second, Bytes: 1 << 20}, Budget{Bytes: 2 << 20})
	c.mu.Lock()
	c.failPush = errors.New("no route")
	c.mu.Unlock()
	v.Start()
	says := func(what string) bool {
		return slices.ContainsFunc(v.Status().Errors, func(e string) bool { return strings.HasPrefix(e, what+":") })
	}
	write(t, v, v.root, "a", strings.Repeat("x", 600<<10))
	eventuallyTrue(t, "the push has failed", func() bool { return v.points.failing("push") })
	eventuallyTrue(t, "the brake is off", func() bool { return v.budget.brake.Load() == nil })
	write(t, v, v.root, "b", strings.Repeat("y", 3<<20))
	eventuallyTrue(t, "it is committed", func() bool { return v.risk.parts().local().files == 0 })
	eventuallyTrue(t, "status says it", func() bool { return says("max_at_risk") && says("risk_warn") })
	c.mu.Lock()
	c.failPush = nil
	c.mu.Unlock()
	v.pushSoon(true)
	eventuallyTrue(t, "it is pushed", func() bool {
		return safe(v) && !says("max_at_risk") && !says("risk_warn")
	})
	eventuallyTrue(t, "the brake is back", func() bool { return v.budget.brake.Load() != nil })
}

// TestExpire checks that a machine that goes away is backed up at once, and that taking that back ends it.
func TestExpire(t *testing.T) {
	v, c := budgetVolume(t, Budget{}, Budget{})
	v.Start()
	write(t, v, v.root, "f", "one")
	time.Sleep(time.Second)
	if c.count() != 0 {
		t.Fatal("a commit without a reason")
	}
	v.Expire(time.Now().Add(time.Minute))
	for _, name := range []string{"f", "g", "h"} {
		write(t, v, v.root, name, "more")
		eventuallyTrue(t, "a backup of "+name, func() bool { return safe(v) })
	}
	if s := v.Status().Budget; s.Expires == nil || v.budget.brake.Load() == nil {
		t.Errorf("%+v, %v", s, v.budget.brake.Load())
	}
	v.Expire(time.Time{})
	eventuallyTrue(t, "the brake is off", func() bool { return v.budget.brake.Load() == nil })
	n := c.count()
	write(t, v, v.root, "i", "late")
	time.Sleep(1500 * time.Millisecond)
	if c.count() != n {
		t.Error("backups go on")
	}
}
