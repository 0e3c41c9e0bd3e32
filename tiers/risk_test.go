package tiers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestNewDirectoriesAreCounted checks that each name that no commit has counts as at risk, also in directories and
// volumes that no commit has, however often it is touched; and once again after a commit has it.
func TestNewDirectoriesAreCounted(t *testing.T) {
	v, _ := newVolume(t)
	files := func() int64 { return v.risk.now().Files }
	tree := func(in *Inode, name string) *Inode {
		dir := mkdir(t, v, in, name)
		for i := range 100 {
			n := write(t, v, dir, fmt.Sprint(i), "x")
			_, err := v.Setattr(t.Context(), n, nil, &SetAttr{Mode: new(uint32(0600))})
			must(t, err)
		}
		return dir
	}
	tree(v.root, "first")
	if got := files(); got != 101 {
		t.Errorf("of a new volume %d names are at risk, want 101", got)
	}
	v.mustSync(t)
	if got := files(); got != 0 {
		t.Errorf("after a commit %d names are at risk", got)
	}
	dir := tree(v.root, "second")
	tree(dir, "below")
	if got := files(); got != 202 {
		t.Errorf("of a new tree %d names are at risk, want 202", got)
	}
	v.mustSync(t)
	write(t, v, dir, "0", "more")
	write(t, v, dir, "new", "x")
	if got := files(); got != 2 {
		t.Errorf("after the next commit %d names are at risk, want 2", got)
	}
}

// TestFoundChangesAreAtRisk checks that what an earlier run left, and no commit has, counts as at risk, and what it is
// as soon as a commit has it.
func TestFoundChangesAreAtRisk(t *testing.T) {
	c, state := newMemCold(), t.TempDir()
	c.remote = true
	v := openTest(t, state, c)
	for i := range 10 {
		write(t, v, v.root, fmt.Sprint(i), strings.Repeat("x", 1000))
	}
	must(t, v.Close())
	v = openTest(t, state, c)
	c.mu.Lock()
	c.failPush = errors.New("no route")
	c.mu.Unlock()
	v.Start()
	if r := v.StartReceipt().AtRisk; r.Files == 0 {
		t.Errorf("the receipt of the start says %+v at risk", r)
	}
	eventuallyTrue(t, "the push has failed", func() bool { return v.points.failing("push") })
	if r := v.risk.now(); r.Files != 10 || r.Bytes != 10_000 {
		t.Errorf("of 10 files that the remote lacks %+v are at risk", r)
	}
	c.mu.Lock()
	c.failPush = nil
	c.mu.Unlock()
	must(t, v.pushNow(t.Context()))
	if r := v.risk.now(); r.Files != 0 || r.Bytes != 0 || v.budget.commit.samples != 0 {
		t.Errorf("when all is pushed %+v are at risk; %+v", r, v.budget.commit)
	}
}

// TestLateFilesStayNamed checks that a final backup whose last round fails still names the files that an earlier round
// left out.
func TestLateFilesStayNamed(t *testing.T) {
	c, rounds := newMemCold(), -1
	v, err := Open(t.Context(), Config{State: t.TempDir(), Cold: c, Log: quiet(), Branch: "main", MemoryLimit: 64 << 20,
		Fail: func(step string) error {
			if step == "commit.begin" {
				if rounds++; rounds > 1 {
					return errors.New("no space")
				}
			}
			return nil
		}})
	must(t, err)
	t.Cleanup(v.over)
	write(t, v, v.root, "first", "x")
	v.mustSync(t)
	write(t, v, v.root, "small", "y")
	time.Sleep(10 * time.Millisecond) // the clock of change times is coarse
	write(t, v, v.root, "large", strings.Repeat("z", 1<<20))
	v.budget.commit = speed{each: 0.01, byte: 1e-5, samples: 1} // 10 s for the large one
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	rc, err := v.Sync(ctx, "unmount")
	if got := newest(t, c); err == nil || rounds != 2 || rc.Complete || got["small"] != "y" || got["large"] != "" {
		t.Fatalf("%d rounds: %v, %+v", rounds, err, rc)
	}
	if !slices.ContainsFunc(rc.Missing, func(l string) bool { return strings.HasPrefix(l, "large: ") }) {
		t.Errorf("the receipt does not name what is missing: %q", rc.Missing)
	}
}

// TestClockSetBack checks that a clock that was set back does not put off the backup of what was changed before.
func TestClockSetBack(t *testing.T) {
	v, _ := budgetVolume(t, Budget{Time: time.Minute}, Budget{})
	write(t, v, v.root, "f", "x")
	later := time.Now().Add(time.Hour).UnixNano()
	v.risk.lanes[laneMain].since.Store(later)
	v.risk.addUnpushed(riskCount{files: 1, since: later})
	o := v.outlook()
	o.now = o.now.Add(2 * time.Minute)
	if p := v.cfg.MaxAtRisk.plan(&o, time.Time{}, time.Time{}); p.due > 0 {
		t.Errorf("after two minutes the backup is due in %v", p.due)
	}
}

// TestStartReceiptWithoutRemote checks that the receipt of a start that could not reach the remote does not say that
// the remote has the last commit, which is only remembered.
func TestStartReceiptWithoutRemote(t *testing.T) {
	c, state := newMemCold(), t.TempDir()
	c.remote = true
	for _, reached := range []bool{true, false} {
		if !reached {
			c.fetching = func(context.Context) (bool, error) { return false, errors.New("no route") }
		}
		v := openTest(t, state, c)
		if reached {
			write(t, v, v.root, "f", "x")
			v.mustSync(t)
		}
		if rc := v.StartReceipt(); rc.Pushed != reached {
			t.Errorf("the remote was reached: %v, and the receipt says pushed: %v", reached, rc.Pushed)
		}
		must(t, v.Close())
	}
}
