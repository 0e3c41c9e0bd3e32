package fs

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// request is the context of a request. It ends when the kernel interrupts the request because its program was killed,
// so that the program is gone at once whatever the request waits for. Any other signal comes as an interrupt too, and
// does not end it: programs do not expect EINTR of a file on a disk, and Go's runtime alone sends its threads a signal
// for each long turn.
//
// Done is asked for by what may take long only. A request that nobody waits for costs no goroutine.
type request struct {
	interrupted <-chan struct{} // closed by go-fuse
	pid         uint32          // the thread that waits; 0: of a pid namespace that is not seen from here
	killed      atomic.Bool

	mu    sync.Mutex
	done  chan struct{} // closed when the program was killed; nil: nobody asked
	ended chan struct{} // closed by end
}

var _ context.Context = (*request)(nil)

func newRequest(interrupted <-chan struct{}, h *fuse.InHeader) *request {
	return &request{interrupted: interrupted, pid: h.Pid}
}

// end is called when the request has its answer.
func (r *request) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended != nil {
		close(r.ended)
	}
}

// Deadline implements context.Context: there is none.
func (r *request) Deadline() (time.Time, bool) { return time.Time{}, false }

// Value implements context.Context: there is none.
func (r *request) Value(any) any { return nil }

// Err implements context.Context.
func (r *request) Err() error {
	if r.killed.Load() {
		return context.Canceled
	}
	return nil
}

// Done implements context.Context.
func (r *request) Done() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.done == nil {
		r.done, r.ended = make(chan struct{}), make(chan struct{})
		go r.watch(r.done, r.ended)
	}
	return r.done
}

// watch closes done once the program was killed. The kernel tells of the first signal alone, which may have been a
// harmless one.
func (r *request) watch(done, ended chan struct{}) {
	select {
	case <-ended:
		return
	case <-r.interrupted:
	}
	const longest = 200 * time.Millisecond
	for pause := time.Millisecond; !wasKilled(r.pid); pause = min(2*pause, longest) {
		select {
		case <-ended:
			return
		case <-time.After(pause):
		}
	}
	r.killed.Store(true)
	close(done)
}
