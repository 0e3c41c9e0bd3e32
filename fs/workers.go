package fs

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxWorkers is the maximum number of threads, and thus of requests under way; it also bounds the memory of their
	// buffers. When it is reached, requests wait in the kernel. That cannot deadlock, because no request depends on
	// another.
	maxWorkers = 64
	// tick is how long it takes to notice that a request blocks that was not expected to.
	tick = 5 * time.Millisecond
	// quiet is how long the supervisor goes on looking without seeing a request.
	quiet = 100 * time.Millisecond
	// window is how long threads that were needed are kept.
	window = time.Second
	// maxPinned is the number of CPUs up to which each CPU has a worker of its own.
	maxPinned = 4
)

// worker is one thread.
type worker struct {
	seq   atomic.Uint64 // odd while it has a request
	slow  bool          // the request was counted in pool.slow; used by the worker's goroutine only
	extra bool          // more than the base workers, so it may retire
	seen  uint64        // seq when the supervisor last looked; used by the supervisor only
	_     [64]byte      // keeps workers on different cache lines
}

// pool keeps as many threads as are needed for some of them not to be blocked: the base workers always, and more while
// requests wait for a disk. It does not keep idle threads for long, because each request would wake each of them.
type pool struct {
	work    func(*worker) // runs a worker; returns when retire says so or there is nothing left to read
	pending func() bool   // reports whether a request waits to be read
	base    int
	cpus    []int // the CPUs that base workers are pinned to, in turn; nil: they are not pinned

	total  atomic.Int32 // number of threads
	want   atomic.Int32 // number of threads that there should be; extra ones may retire
	slow   atomic.Int32 // number of threads in requests of which mayBlock said that they may block
	stuck  atomic.Int32 // number of threads in other requests that were found to block
	asleep atomic.Bool  // the supervisor is waiting for wake
	wake   chan struct{}
	done   chan struct{} // closed when the last worker is gone

	mu struct {
		sync.Mutex
		all    map[*worker]struct{}
		peak   [2]int32 // most workers blocked at the same time, in this window and in the last one
		closed bool
	}
}

func (p *pool) init(work func(*worker), pending func() bool) {
	p.work, p.pending, p.base = work, pending, 2
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err == nil && set.Count() <= maxPinned {
		for cpu := range len(set) * 64 {
			if set.IsSet(cpu) {
				p.cpus = append(p.cpus, cpu)
			}
		}
		p.base = max(p.base, len(p.cpus))
	}
	p.wake = make(chan struct{}, 1)
	p.done = make(chan struct{})
	p.mu.all = make(map[*worker]struct{})
	p.want.Store(int32(p.base))
}

// run starts the threads and returns when the last one has ended.
func (p *pool) run() {
	for i := range p.base {
		cpu := -1
		if len(p.cpus) > 0 {
			cpu = p.cpus[i%len(p.cpus)]
		}
		p.spawn(cpu, false)
	}
	p.supervise()
}

// spawn starts one thread, unless all have ended already or there are maxWorkers.
func (p *pool) spawn(cpu int, extra bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.closed || p.total.Load() >= maxWorkers {
		return false
	}
	p.total.Add(1)
	w := &worker{extra: extra}
	p.mu.all[w] = struct{}{}
	go func() {
		// The thread shall end with the goroutine: it may be pinned, and there may be many threads for a while.
		runtime.LockOSThread()
		if cpu >= 0 {
			var set unix.CPUSet
			set.Set(cpu)
			_ = unix.SchedSetaffinity(0, &set) // if that CPU went away meanwhile, any other will do
		}
		p.work(w)
		p.gone(w)
	}()
	return true
}

// gone notes that w's thread has ended.
func (p *pool) gone(w *worker) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.mu.all, w)
	if len(p.mu.all) == 0 {
		p.mu.closed = true
		close(p.done)
	}
}

// begin notes that w has a request, and makes sure that other threads can read the next ones.
func (p *pool) begin(w *worker, slow bool) {
	w.seq.Add(1)
	if slow {
		w.slow = true
		p.slow.Add(1)
		p.ensure()
	}
	if p.asleep.Load() {
		p.rouse()
	}
}

// rouse wakes the supervisor.
func (p *pool) rouse() {
	if p.asleep.Swap(false) {
		select {
		case p.wake <- struct{}{}:
		default:
		}
	}
}

// end notes that w's request is done.
func (p *pool) end(w *worker) {
	w.seq.Add(1)
	if w.slow {
		w.slow = false
		p.slow.Add(-1)
	}
}

// retire reports whether w, which is idle, is not needed any more. Then it must end.
func (p *pool) retire(w *worker) bool {
	if !w.extra {
		return false
	}
	t := p.total.Load()
	return t > p.want.Load() && p.total.CompareAndSwap(t, t-1)
}

// ensure starts threads until enough of them are not blocked.
func (p *pool) ensure() {
	blocked := p.slow.Load() + p.stuck.Load()
	need := min(int32(p.base)+blocked, maxWorkers)
	if p.want.Load() < need {
		p.mu.Lock()
		p.mu.peak[0] = max(p.mu.peak[0], blocked)
		p.want.Store(max(p.want.Load(), need))
		p.mu.Unlock()
	}
	for p.total.Load() < need && p.spawn(-1, true) {
	}
}

// supervise looks for requests that block unexpectedly, and forgets old peaks, until the last worker has ended.
func (p *pool) supervise() {
	t := time.NewTicker(tick)
	defer t.Stop()
	var idle time.Duration
	rotated := time.Now()
	for {
		select {
		case <-p.done:
			return
		case now := <-t.C:
			busy := p.look()
			if p.stuck.Load() > 0 && p.pending() {
				p.ensure()
			}
			if now.Sub(rotated) >= window {
				rotated = now
				p.rotate()
			}
			if busy {
				idle = 0
				continue
			}
			if idle += tick; idle < quiet || p.want.Load() > int32(p.base) {
				continue
			}
		}
		t.Stop()
		p.asleep.Store(true)
		if p.look() { // a request came before the flag was set
			p.asleep.Store(false)
		} else {
			select {
			case <-p.done:
				return
			case <-p.wake:
			}
		}
		idle = 0
		t.Reset(tick)
	}
}

// look counts the workers that have been in the same request since the last look, and reports whether any worker was
// busy.
func (p *pool) look() (busy bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var stuck int32
	for w := range p.mu.all {
		seq := w.seq.Load()
		if seq != w.seen || seq%2 == 1 {
			busy = true
		}
		if seq == w.seen && seq%2 == 1 {
			stuck++
		}
		w.seen = seq
	}
	// Requests in slow are counted already. The numbers change meanwhile, but a thread too many does no harm.
	p.stuck.Store(max(0, stuck-p.slow.Load()))
	p.mu.peak[0] = max(p.mu.peak[0], p.stuck.Load()+p.slow.Load())
	return busy
}

// rotate begins a new window. Threads that were needed neither in this nor in the last one may retire.
func (p *pool) rotate() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.want.Store(min(int32(p.base)+max(p.mu.peak[0], p.mu.peak[1]), maxWorkers))
	p.mu.peak = [2]int32{0, p.mu.peak[0]}
}
