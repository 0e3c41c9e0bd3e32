package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

// gitPort is the port of git daemon.
const gitPort = 9418

// ErrReadOnly says that a remote takes no pushes, whoever asks.
var ErrReadOnly = errors.New("the git:// protocol is for reading only")

// ReadOnly reports whether the remote that source means can only be read, because of its protocol.
func ReadOnly(source string) bool {
	a, err := parse(source)
	return err == nil && a.scheme == "git"
}

// gitDialer reaches a repository that git daemon serves (git-daemon(1), gitprotocol-pack(5)). Neither side is
// authenticated, and nothing is encrypted. Safe for concurrent use.
type gitDialer struct {
	at   string // host:port
	host string // as the URL names it
	path string
}

func newGit(a *address) *gitDialer {
	port := a.port
	if port == 0 {
		port = gitPort
	}
	return &gitDialer{at: net.JoinHostPort(a.host, strconv.Itoa(port)), host: a.url.Host, path: a.path}
}

func (d *gitDialer) dial(ctx context.Context, service string) (*session, error) {
	if service != uploadPack {
		return nil, ErrReadOnly
	}
	dialer := net.Dialer{Timeout: idleMost, KeepAlive: aliveEvery * time.Second}
	conn, err := dialer.DialContext(ctx, "tcp", d.at)
	if err != nil {
		return nil, err
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("connect to %s: no TCP", d.at), conn.Close())
	}
	c := &gitConn{TCPConn: tcp}
	c.unwatch = context.AfterFunc(ctx, func() { _ = tcp.Close() })
	// A daemon that does not know what is behind the second zero byte passes over it.
	text := fmt.Sprintf("git-%s %s\x00host=%s\x00\x00version=2\x00", service, d.path, d.host)
	if _, err := fmt.Fprintf(tcp, "%04x%s", len(text)+4, text); err != nil {
		return nil, errors.Join(err, c.wait())
	}
	return &session{name: service, in: c, out: tcp, end: c}, nil
}

// gitConn is a connection to git daemon.
type gitConn struct {
	*net.TCPConn
	unwatch func() bool
}

// Close ends the request; the answer can still be read.
func (c *gitConn) Close() error { return c.CloseWrite() }

func (c *gitConn) bye(in io.Writer) error { return flushBye(in) }

func (c *gitConn) wait() error {
	c.unwatch()
	return ignoreClosed(c.TCPConn.Close())
}

func (c *gitConn) kill(io.Closer) {
	_ = c.SetLinger(0) // whatever is still under way is of no use
	_ = c.wait()
}

func (c *gitConn) orderly() bool { return true }

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
