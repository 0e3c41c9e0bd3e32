package tiers

import (
	"context"
	"math"
	"time"

	"emberfs/tiers/cold"
	"emberfs/tiers/warm"
)

const (
	// countPatience is how long status waits for a count that it began.
	countPatience = 100 * time.Millisecond
	// countRest says how long to wait before the next count, in multiples of the time that the last one took: commits
	// may come faster than they can be counted.
	countRest = 20
)

// coldCount knows how many files the last commit has. They are counted in the background when somebody asks, at most
// once for each commit.
type coldCount struct {
	mu      mutex[leaf]
	commit  string // the commit that files is of; "": none was counted
	files   int64
	running chan struct{} // closed when the count under way ends; nil: none
	next    time.Time     // when another may begin
	stop    context.CancelFunc
	ended   bool
}

// coldFiles returns the number of files in the last commit. If they are not counted yet it starts that, waits for a
// moment, and then gives the last number counted, or an estimate from use, which is what warm holds.
func (v *Volume) coldFiles(use warm.Use) int64 {
	last := v.lastCommit()
	if last == nil {
		return 0
	}
	c := &v.coldCount
	c.mu.Lock()
	if c.commit != last.ID && c.running == nil && !c.ended && !time.Now().Before(c.next) {
		ctx, stop := context.WithCancel(context.Background())
		c.running, c.stop = make(chan struct{}), stop
		go v.countCold(ctx, last.ID)
	}
	running := c.running
	c.mu.Unlock()
	if running != nil {
		t := time.NewTimer(countPatience)
		select {
		case <-running:
		case <-t.C:
		}
		t.Stop()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.commit == "" {
		return max(0, use.Files+use.Stubs-v.risk.files())
	}
	return c.files
}

// countCold counts the files of a commit. If the commit cannot be read, the number stays as it was.
func (v *Volume) countCold(ctx context.Context, commit string) {
	began := time.Now()
	files, err := func() (int64, error) {
		id, err := cold.ParseID(commit)
		if err != nil {
			return 0, err
		}
		s, err := v.cold.Snapshot(ctx, id)
		if err != nil {
			return 0, err
		}
		files, _, err := s.Files(ctx, math.MaxInt64)
		return files, err
	}()
	c := &v.coldCount
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		c.commit, c.files = commit, files
	}
	c.stop()
	c.next = time.Now().Add(countRest * time.Since(began))
	close(c.running)
	c.running = nil
}

// end stops counting for good, before cold is closed.
func (c *coldCount) end() {
	c.mu.Lock()
	c.ended = true
	running := c.running
	if running != nil {
		c.stop()
	}
	c.mu.Unlock()
	if running != nil {
		<-running
	}
}
