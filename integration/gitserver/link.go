package gitserver

import (
	"io"
	"math"
	"math/rand"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Mode is what a Link does to what goes through it.
type Mode int

const (
	// Pass lets everything through.
	Pass Mode = iota
	// Chaos delays, stalls, resets and truncates by chance.
	Chaos
	// Down lets nothing through and tells nobody: what is sent waits, as if packets were lost.
	Down
)

// Link is a TCP proxy on 127.0.0.1 between clients and a server, which can be made as bad as a test wants it.
type Link struct {
	listener net.Listener
	target   string

	mu      sync.Mutex
	rnd     *rand.Rand
	mode    Mode
	rate    int           // bytes a second each way of a connection; 0: as fast as it goes
	changed chan struct{} // closed at the next change of mode
	conns   map[net.Conn]bool
	closed  bool
	delay   time.Duration

	wg               sync.WaitGroup
	count, up, down  atomic.Int64
	stalls, resets   atomic.Int64
	truncated, slows atomic.Int64
}

// NewLink starts a link to a server's address, which passes everything. What goes wrong in Chaos comes from the seed.
func NewLink(t testing.TB, target string, seed int64) *Link {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &Link{listener: listener, target: target, rnd: rand.New(rand.NewSource(seed)), changed: make(chan struct{}),
		conns: map[net.Conn]bool{}}
	l.wg.Go(l.accept)
	t.Cleanup(func() {
		_ = listener.Close()
		l.mu.Lock()
		l.closed = true
		close(l.changed)
		l.changed = make(chan struct{})
		for c := range l.conns {
			_ = c.Close()
		}
		l.mu.Unlock()
		l.wg.Wait()
		t.Logf("link: %d connections, %d and %d bytes; %d stalls, %d resets, %d truncated, %d delays", l.count.Load(),
			l.up.Load(), l.down.Load(), l.stalls.Load(), l.resets.Load(), l.truncated.Load(), l.slows.Load())
	})
	return l
}

func portOf(a net.Addr) int { return a.(*net.TCPAddr).Port }

// Port is where the link listens.
func (l *Link) Port() int { return portOf(l.listener.Addr()) }

// Set changes the mode, for the connections that there are and those to come. What waited goes on.
func (l *Link) Set(m Mode) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mode = m
	close(l.changed)
	l.changed = make(chan struct{})
}

// Delay has bytes arrive so much later, each way, on connections that are made from now on.
func (l *Link) Delay(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.delay = d
}

// Limit has each way of a connection pass at most so many bytes a second from now on; 0: as many as there are.
func (l *Link) Limit(bytesPerSecond int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rate = bytesPerSecond
}

// pause is how long n bytes take at the rate of the link.
func (l *Link) pause(n int) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.rate == 0 {
		return 0
	}
	return time.Duration(n) * time.Second / time.Duration(l.rate)
}

// Reset breaks all connections that there are.
func (l *Link) Reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		reset(c)
	}
}

// Connections is how many connections clients have made so far.
func (l *Link) Connections() int64 { return l.count.Load() }

// Bytes are how many bytes went to the server and came from it so far.
func (l *Link) Bytes() (to, from int64) { return l.up.Load(), l.down.Load() }

// Troubles is how often Chaos has stalled, reset or truncated a connection so far.
func (l *Link) Troubles() int64 { return l.stalls.Load() + l.resets.Load() + l.truncated.Load() }

func (l *Link) accept() {
	for {
		c, err := l.listener.Accept()
		if err != nil {
			return // it was closed
		}
		l.count.Add(1)
		if l.keep(c) {
			l.wg.Go(func() { l.serve(c) })
		}
	}
}

// keep notes a connection, to be closed at the end.
func (l *Link) keep(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		_ = c.Close()
		return false
	}
	l.conns[c] = true
	return true
}

func (l *Link) drop(c net.Conn) {
	_ = c.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
}

func (l *Link) serve(client net.Conn) {
	defer l.drop(client)
	if !l.wait() {
		return
	}
	server, err := net.Dial("tcp", l.target)
	if err != nil {
		reset(client) // nobody listens there
		return
	}
	if !l.keep(server) {
		return
	}
	defer l.drop(server)
	var both sync.WaitGroup
	l.mu.Lock()
	d := l.delay
	l.mu.Unlock()
	toServer, toClient := late(server, d), late(client, d)
	both.Go(func() { l.copy(toServer, client, &l.up) })
	both.Go(func() { l.copy(toClient, server, &l.down) })
	both.Wait()
	arrived(toServer)
	arrived(toClient)
}

// wait waits while the link is down, and says whether it is to go on at all.
func (l *Link) wait() bool {
	for {
		l.mu.Lock()
		mode, changed, closed := l.mode, l.changed, l.closed
		l.mu.Unlock()
		if closed || mode != Down {
			return !closed
		}
		<-changed
	}
}

// copy moves bytes one way until the end, or until chaos makes one.
func (l *Link) copy(to, from net.Conn, count *atomic.Int64) {
	b := make([]byte, 16<<10)
	left := l.budget()
	for {
		n, err := from.Read(b)
		if !l.wait() {
			return
		}
		if n > 0 && l.isChaos() {
			if left -= int64(n); left < 0 {
				left = l.budget()
				if !l.trouble(to, from, b[:n]) {
					return
				}
			}
		}
		if n > 0 {
			time.Sleep(l.pause(n))
			if _, werr := to.Write(b[:n]); werr != nil {
				reset(from)
				return
			}
			count.Add(int64(n))
		}
		if err == io.EOF {
			_ = to.(interface{ CloseWrite() error }).CloseWrite()
			return
		}
		if err != nil {
			reset(to)
			return
		}
	}
}

func (l *Link) isChaos() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mode == Chaos
}

// budget is after how many bytes something happens: as often after a few as after many.
func (l *Link) budget() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	const least, most = 300, 100_000
	return int64(least * math.Pow(most/least, l.rnd.Float64()))
}

const (
	slow      = 200 * time.Millisecond // the delay of Chaos
	longStall = 4 * time.Second        // below this are the stalls that end by themselves
)

// trouble does something by chance to a connection before the bytes b pass, and says whether it lives on.
func (l *Link) trouble(to, from net.Conn, b []byte) bool {
	l.mu.Lock()
	kind, part := l.rnd.Intn(10), l.rnd.Intn(len(b))
	stall := time.Duration(l.rnd.Int63n(int64(longStall)))
	if l.rnd.Intn(8) == 0 {
		stall = time.Hour // until the mode changes: who waits for it has to give up
	}
	changed := l.changed
	l.mu.Unlock()
	switch {
	case kind < 5:
		l.slows.Add(1)
		time.Sleep(slow)
	case kind < 7:
		l.stalls.Add(1)
		select {
		case <-time.After(stall):
		case <-changed:
		}
	case kind < 9:
		l.resets.Add(1)
		reset(to)
		reset(from)
		return false
	default:
		l.truncated.Add(1)
		_, _ = to.Write(b[:part])
		_ = to.Close()
		_ = from.Close()
		return false
	}
	return true
}

// reset closes a connection in a way that the other side takes for an error.
func reset(c net.Conn) {
	if l, ok := c.(*lateConn); ok {
		c = l.Conn
	}
	_ = c.(*net.TCPConn).SetLinger(0)
	_ = c.Close()
}
