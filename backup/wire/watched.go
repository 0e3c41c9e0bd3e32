package wire

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"
)

const (
	// idleMost is how long another host may take for anything: git's services say every few seconds that they are still
	// at work (git-config(1), uploadpack.keepAlive and receive.keepAlive).
	idleMost = 30 * time.Second
	// thinkMost is how long it may take over HTTP from the end of a request to the beginning of the answer: web servers
	// hold back what a service says to keep the connection alive. A host that is gone is noticed by TCP before that.
	thinkMost = 5 * time.Minute
)

// errIdle says that a host that was reached has stopped answering.
var errIdle = fmt.Errorf("nothing came or went for %v", idleMost)

// watched ends a session with another host that gets nowhere: while it is the other side's turn, something must come or
// go within idleMost. While a request is sent, nothing has to come.
type watched struct {
	in  io.WriteCloser
	out io.Reader
	// thinking says that a request was sent and its answer has not begun; nil: it is not known.
	thinking func() bool
	ctx      context.Context
	cancel   context.CancelCauseFunc

	idle, think time.Duration // idleMost and thinkMost, but in tests

	mu               sync.Mutex
	timer            *time.Timer
	reading, writing bool
	sending          bool // a request whose answer is read already, for what may come of it
	closed           bool // the request has ended
	came             bool // and something has come since
}

// watch watches a session whose context cancel ends.
func watch(p *session, cancel context.CancelCauseFunc) *watched {
	w := &watched{in: p.in, out: p.out, ctx: p.ctx, cancel: cancel, idle: idleMost, think: thinkMost}
	if t, ok := p.end.(interface{ thinking() bool }); ok {
		w.thinking = t.thinking
	}
	return w
}

// over ends the session, unless the other side thinks, and may.
func (w *watched) over() {
	if w.thinks() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.waits() {
			w.timer = time.AfterFunc(w.think-w.idle, func() { w.cancel(errIdle) })
		}
		return
	}
	w.cancel(errIdle)
}

// thinks reports whether the other side may take longer. What was sent last may still be on its way, in buffers here
// and between, when the request has ended; that a host is gone ssh notices.
func (w *watched) thinks() bool {
	if w.thinking != nil {
		return w.thinking()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sending && w.closed && !w.came
}

// waits reports whether it is the other side's turn. mu is held.
func (w *watched) waits() bool { return w.writing || w.reading && (!w.sending || w.closed) }

// change notes what is under way now, and starts the time anew.
func (w *watched) change(note func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	note()
	if w.timer != nil {
		w.timer.Stop()
	}
	if w.waits() {
		w.timer = time.AfterFunc(w.idle, w.over)
	}
}

// send says that a request begins whose answer is read while it is sent.
func (w *watched) send() {
	if w != nil {
		w.change(func() { w.sending = true })
	}
}

func (w *watched) Read(p []byte) (int, error) {
	w.change(func() { w.reading = true })
	n, err := w.out.Read(p)
	w.change(func() { w.reading, w.came = false, w.came || w.closed && n > 0 })
	return n, w.why(err)
}

// writeMost is how many bytes have to go within the idle time.
const writeMost = 16 << 10

func (w *watched) Write(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var m int
		w.change(func() { w.writing = true })
		m, err = w.in.Write(p[n:min(n+writeMost, len(p))])
		n += m
		w.change(func() { w.writing = false })
	}
	return n, w.why(err)
}

func (w *watched) Close() error {
	w.change(func() { w.closed = true })
	return w.in.Close()
}

// why returns why the session was ended, in place of an error that this caused.
func (w *watched) why(err error) error {
	if err != nil && w.ctx.Err() != nil {
		return context.Cause(w.ctx)
	}
	return err
}
