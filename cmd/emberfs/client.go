package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"emberfs/tiers"
	"emberfs/tiers/cold"
)

// errNoDaemon says that nobody listens at the control socket.
var errNoDaemon = errors.New("no daemon answers")

// errSilent says that somebody listens at the control socket, but does not answer.
var errSilent = errors.New("its daemon does not answer")

// maxAnswer is the maximum size of an answer in bytes; lists of names in answers have some hundred entries at most.
const maxAnswer = 64 << 20

// statusTimeout is how long a status may take, for which the daemon only reads counters.
const statusTimeout = 10 * time.Second

// client talks to the daemon of one state directory. It is safe for concurrent use.
type client struct {
	state string
	owner owner // who must own the daemon; 0: whoever owns the state directory
	http  *http.Client
}

// client returns a client for the daemon that a registration names.
func (e registration) client() *client { return newClientOf(e.State, e.owner) }

func newClient(state string) *client { return newClientOf(state, 0) }

func newClientOf(state string, of owner) *client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) { return dialControl(ctx, state, of) }
	return &client{state: state, owner: of, http: &http.Client{
		Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}}
}

// errForeign says that another user's daemon would answer.
var errForeign = errors.New("it is not this user's")

// dialControl connects to the socket in a state directory, whatever the length of its path. The daemon that answers
// must belong to the owner of the directory, who must be the user of this command or, if that is root, the user whose
// volume was named.
func dialControl(ctx context.Context, state string, of owner) (net.Conn, error) {
	dir, err := os.OpenFile(state, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, noDaemon(err)
	}
	defer dir.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return nil, &fs.PathError{Op: "stat", Path: state, Err: err}
	}
	uid, us := int(st.Uid), os.Geteuid()
	if of != 0 && of != ownedBy(uid) || us != 0 && uid != us {
		return nil, fmt.Errorf("state directory %s: %w: it belongs to uid %d", state, errForeign, uid)
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", throughFD(dir, controlName))
	if err != nil {
		return nil, noDaemon(err)
	}
	if peer, err := peerOf(conn); err != nil || peer != uid {
		return nil, errors.Join(fmt.Errorf("%s: %w: uid %d answers, the state directory belongs to uid %d",
			filepath.Join(state, controlName), errForeign, peer, uid), err, conn.Close())
	}
	return conn, nil
}

// peerOf returns the user who listens at the other end (SO_PEERCRED, see unix(7)).
func peerOf(conn net.Conn) (uid int, err error) {
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return -1, err
	}
	uid = -1
	cerr := raw.Control(func(fd uintptr) {
		var cred *unix.Ucred
		if cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			uid = int(cred.Uid)
		}
	})
	return uid, errors.Join(err, cerr)
}

// noDaemon marks errors that mean that nobody listens, as opposed to somebody who refuses us.
func noDaemon(err error) error {
	if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w (%w)", errNoDaemon, err)
	}
	return err
}

// cutOff reports whether a connection ended before the answer: the daemon closed its socket while we waited to be
// accepted, or it died.
func cutOff(err error) bool {
	return errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE) || errors.Is(err, io.EOF)
}

// alive reports whether a daemon accepts connections, without asking it anything.
func (c *client) alive(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	conn, err := dialControl(ctx, c.state, c.owner)
	if err == nil {
		_ = conn.Close()
	}
	return !errors.Is(err, errNoDaemon)
}

func (c *client) who(ctx context.Context) (daemonReply, error) {
	return call[daemonReply](ctx, c, "/v1/daemon", nil, "")
}

func (c *client) status(ctx context.Context) (statusReply, error) {
	return call[statusReply](ctx, c, "/v1/status", nil, "")
}

func (c *client) sync(ctx context.Context, r syncRequest) (*tiers.Receipt, error) {
	out, err := call[controlReply](ctx, c, "/v1/sync", r, sayingReceipt)
	return out.Receipt, err
}

func (c *client) umount(ctx context.Context, r umountRequest) (*tiers.Receipt, error) {
	out, err := call[controlReply](ctx, c, "/v1/umount", r, sayingReceipt)
	return out.Receipt, err
}

func (c *client) gc(ctx context.Context, r gcRequest) (cold.GCReport, error) {
	out, err := call[gcReply](ctx, c, "/v1/gc", r, working)
	return out.Report, err
}

// tier makes the daemon age files below paths, which are relative to the root; if there are none, all files.
func (c *client) tier(ctx context.Context, paths []string) (tiers.TierReport, error) {
	in := tierRequest{Paths: [][]byte{}}
	for _, p := range paths {
		in.Paths = append(in.Paths, []byte(p))
	}
	out, err := call[tierReply](ctx, c, "/v1/tier", in, working)
	return out.Report, err
}

// file asks about one file by its path relative to the root.
func (c *client) file(ctx context.Context, path string) (tiers.FileStatus, error) {
	out, err := call[fileReply](ctx, c, "/v1/file?path="+url.QueryEscape(path), nil, "")
	return out.File, err
}

// rules asks for the rules in effect and for what they say about paths.
func (c *client) rules(ctx context.Context, paths []rulesPath) (rulesReply, error) {
	return call[rulesReply](ctx, c, "/v1/rules", rulesRequest{Paths: paths}, "")
}

// waiting is a request for the final receipt that the daemon has accepted.
type waiting struct {
	client *client
	body   io.ReadCloser
}

// startWait asks for the final receipt. Once it has returned, the daemon will answer before it ends.
func (c *client) startWait(ctx context.Context) (*waiting, error) {
	resp, err := c.do(ctx, "/v1/wait", nil)
	if err != nil {
		return nil, err
	}
	return &waiting{c, resp.Body}, nil
}

// receipt blocks until the daemon has finished its last backup.
func (w *waiting) receipt() (*tiers.Receipt, error) {
	out, err := answer[controlReply](w.client, w.body, sayingReceipt)
	return out.Receipt, err
}

// What a daemon had not done yet when it ended in the middle of an answer; these end a message.
const (
	working       = "the work was done"
	sayingReceipt = "it could say what it backed up"
)

// call sends a request, by GET if in is nil, and returns the reply. unfinished is for the message if the daemon dies
// meanwhile; see working and sayingReceipt. If it is "", the request takes the daemon no time, and call waits no longer
// than statusTimeout.
func call[Out any](ctx context.Context, c *client, path string, in any, unfinished string) (out Out, err error) {
	quick := unfinished == ""
	if quick {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, statusTimeout, errSilent)
		defer cancel()
	}
	resp, err := c.do(ctx, path, in)
	if err != nil {
		if cause := context.Cause(ctx); quick && cause != nil {
			err = cause
		}
		return out, err
	}
	return answer[Out](c, resp.Body, unfinished)
}

// answer reads a reply. If the reply says that the request failed, answer returns both the reply and the error.
func answer[Out any](c *client, body io.ReadCloser, unfinished string) (Out, error) {
	defer body.Close()
	var out, none Out
	err := json.NewDecoder(body).Decode(&out)
	f, ok := any(&out).(failing)
	switch {
	case err == nil && ok:
		return out, f.failed()
	case err == nil:
		return out, nil
	case unfinished == "":
		return none, fmt.Errorf("answer of the daemon of %s: %w", c.state, err)
	case unfinished == working || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, unix.ECONNRESET):
		return none, fmt.Errorf("%w: it ended before %s", errNoDaemon, unfinished)
	}
	return none, err
}

func (c *client) do(ctx context.Context, path string, in any) (*http.Response, error) {
	method := http.MethodPost
	if in == nil {
		method = http.MethodGet
	}
	data, err := json.Marshal(in)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://emberfs"+path, bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) && errors.Is(op.Err, fs.ErrPermission) {
			return nil, fmt.Errorf("no permission to speak to the daemon at %s", filepath.Join(c.state, controlName))
		}
		if cutOff(err) && !c.alive(ctx) {
			return nil, fmt.Errorf("%w: it ended before it answered (%w)", errNoDaemon, err)
		}
		return nil, err
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(resp.Body, maxAnswer), resp.Body}
	if kind := resp.Header.Get("Content-Type"); kind != "application/json" { // net/http's own 404 or 405
		return nil, errors.Join(fmt.Errorf("its daemon, of another version, does not know this: HTTP status %s",
			resp.Status), resp.Body.Close())
	}
	return resp, nil
}
