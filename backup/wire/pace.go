package wire

import (
	"fmt"
	"sync"
	"time"
)

// tempo is how fast something has to come. A limit of the idle time alone does not end what comes byte by byte for
// ever.
type tempo struct {
	every time.Duration // how long a round is
	some  int64         // bytes that the first rounds have to bring
	first int           // how many those are
	least int64         // bytes that each later round has to bring
	most  int           // how many rounds there may be; 0: any number
}

// listingTempo is that of a list of references: a minute until something comes, then 32 KiB a minute for 10 minutes.
func listingTempo() tempo {
	return tempo{every: time.Minute, some: 1, first: 1, least: 32 << 10, most: 10}
}

// packTempo is that of a pack: a quarter of an hour for the other side to look for what belongs in it, then 64 KiB in 5
// minutes. Only bytes of the pack count.
func packTempo() tempo { return tempo{every: 5 * time.Minute, first: 3, least: 64 << 10} }

// trailingTempo is that of what upload-pack may still say when it has nothing more to say.
func trailingTempo() tempo { return tempo{every: idleMost, most: 1} }

// slowError says that the other side takes too long, though it goes on.
type slowError struct {
	came int64
	in   time.Duration
	all  bool // it is too long altogether
}

func (e *slowError) Error() string {
	switch {
	case e.all:
		return fmt.Sprintf("it has not come to an end in %v", e.in)
	case e.came == 0:
		return fmt.Sprintf("it said nothing for %v", e.in)
	}
	return fmt.Sprintf("only %d bytes came in %v", e.came, e.in)
}

// pace holds the other side to a tempo. It is safe for concurrent use; a nil one holds it to nothing.
type pace struct {
	tempo tempo
	late  func(error) // is called at most once

	mu      sync.Mutex
	timer   *time.Timer
	came    int64
	rounds  int
	stopped bool
}

// hold begins the first round.
func (t tempo) hold(late func(error)) *pace {
	p := &pace{tempo: t, late: late}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.timer = time.AfterFunc(t.every, p.look)
	return p
}

func (p *pace) look() {
	p.mu.Lock()
	if p.stopped {
		p.mu.Unlock()
		return
	}
	came := p.came
	p.came, p.rounds = 0, p.rounds+1
	least := p.tempo.least
	if p.rounds <= p.tempo.first {
		least = p.tempo.some
	}
	late := &slowError{came: came, in: p.tempo.every}
	switch {
	case came < least:
	case p.tempo.most > 0 && p.rounds >= p.tempo.most:
		late.in, late.all = p.tempo.every*time.Duration(p.rounds), true
	default:
		late = nil
		p.timer.Reset(p.tempo.every)
	}
	p.stopped = late != nil
	p.mu.Unlock()
	if late != nil {
		p.late(late)
	}
}

// count notes bytes that came.
func (p *pace) count(n int) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.came += int64(n)
}

// stop ends it.
func (p *pace) stop() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopped = true
	p.timer.Stop()
}
