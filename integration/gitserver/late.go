package gitserver

import (
	"errors"
	"net"
	"slices"
	"time"
)

// late returns c, or a connection like it to which what is written arrives later by a delay. It does not slow down what
// is under way: as on a long link, there may be much of it at a time.
func late(c net.Conn, delay time.Duration) net.Conn {
	if delay <= 0 {
		return c
	}
	l := &lateConn{Conn: c, delay: delay, queue: make(chan lateBytes, 4096), failed: make(chan struct{})}
	go l.run()
	return l
}

type lateConn struct {
	net.Conn
	delay  time.Duration
	queue  chan lateBytes
	failed chan struct{} // closed when the other side takes no more
}

// lateBytes are due at a time; none: the end.
type lateBytes struct {
	due  time.Time
	data []byte
}

var errLate = errors.New("the connection was closed")

func (l *lateConn) Write(p []byte) (int, error) {
	select {
	case l.queue <- lateBytes{time.Now().Add(l.delay), slices.Clone(p)}:
		return len(p), nil
	case <-l.failed:
		return 0, errLate
	}
}

// CloseWrite ends what is written, once it has arrived.
func (l *lateConn) CloseWrite() error {
	_, err := l.Write(nil)
	return err
}

// arrived waits until all that was written to a connection that may be late has arrived, or cannot any more.
func arrived(c net.Conn) {
	if l, ok := c.(*lateConn); ok {
		close(l.queue)
		<-l.failed
	}
}

func (l *lateConn) run() {
	defer close(l.failed)
	for b := range l.queue {
		time.Sleep(time.Until(b.due))
		if len(b.data) == 0 {
			_ = l.Conn.(*net.TCPConn).CloseWrite()
			continue
		}
		if _, err := l.Conn.Write(b.data); err != nil {
			return
		}
	}
}
