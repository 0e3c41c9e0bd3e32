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
	// countRest is how many times as long as a count took the next one waits: commits may come faster than they can be
	// counted.
	countRest = 20
)

// coldCount is how many files the last commit has. It is counted when somebody asks, once a commit, in the background.
type coldCount struct {
	mu      mutex[leaf]
	commit  string // that files is of; "": none was counted
	files   int64
	running chan struct{} // closed when the count under way ends; nil: none
	next    time.Time     // when another may begin
	stop    context.CancelFunc
	ended   bool
}

// coldFiles is the number of files in the last commit, as far as it is known by now; use is what warm holds.
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

// countCold counts the files of a commit. One that cannot be read leaves the number as it was.
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
