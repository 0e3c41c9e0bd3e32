package fs

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// request is the context of a request. It is cancelled when the program that made the request is killed, so that the
// program is gone at once, whatever the request waits for. Other signals interrupt the request too, but do not cancel
// it: programs do not expect EINTR for a file on a disk, and Go's runtime sends its own threads a signal whenever a
// goroutine runs for long.
//
// Only operations that may take long call Done, so a request that waits for nothing costs no goroutine.
type request struct {
	interrupted <-chan struct{} // closed by go-fuse
	pid         uint32          // the thread that waits; 0 if it is in a pid namespace that cannot be seen from here
	killed      atomic.Bool

	mu    sync.Mutex
	done  chan struct{} // closed when the program was killed; nil until somebody calls Done
	ended chan struct{} // closed by end; nil until somebody calls Done
}

var _ context.Context = (*request)(nil)

func newRequest(interrupted <-chan struct{}, h *fuse.InHeader) *request {
	return &request{interrupted: interrupted, pid: h.Pid}
}

// end must be called when the request has its answer.
func (r *request) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended != nil {
		close(r.ended)
	}
}

// Deadline implements context.Context. There is none.
func (r *request) Deadline() (time.Time, bool) { return time.Time{}, false }

// Value implements context.Context. There is none.
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

// watch closes done when the program was killed. The kernel reports only the first signal, which may have been a
// harmless one, so watch then polls the program's state.
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
