package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"emberfs/tiers"
	"emberfs/tiers/cold"
)

// daemonReply says who serves a state directory: GET /v1/daemon, which costs nothing.
type daemonReply struct {
	PID        int    `json:"pid"`
	Mountpoint string `json:"mountpoint"`
	Phase      string `json:"phase"` // mounted, or finishing: the mount is gone and the last backup runs
	Version    string `json:"version"`
}

// statusReply is what GET /v1/status and `emberfs status --json` show.
type statusReply struct {
	daemonReply
	tiers.Status
}

const (
	phaseMounted   = "mounted"
	phaseFinishing = "finishing"
)

// syncRequest is the body of POST /v1/sync.
type syncRequest struct {
	// Relative to the root; a sync takes everything, so they are always covered.
	Paths  []string `json:"paths,omitempty"`
	Reason string   `json:"reason"`
}

// umountRequest is the body of POST /v1/umount.
type umountRequest struct {
	Deadline time.Duration `json:"deadline_ns"` // for the final backup; 0: the volume's own; negative: none
	Lazy     bool          `json:"lazy"`        // detach now, finish when the last user has left
}

// gcRequest is the body of POST /v1/gc.
type gcRequest struct {
	Grace  time.Duration `json:"grace_ns"` // as in tiers.GCOptions
	DryRun bool          `json:"dry_run"`
}

// gcReply answers gc. Error is set where it failed; the report says what was removed before that.
type gcReply struct {
	Report cold.GCReport `json:"report"`
	outcome
}

// tierRequest is the body of POST /v1/tier: slash paths relative to the root, as base64, for names may be any bytes.
type tierRequest struct {
	Paths [][]byte `json:"paths64"`
}

// tierReply answers tier. Error is set where it failed; the report says what left warm before that.
type tierReply struct {
	Report tiers.TierReport `json:"report"`
	outcome
}

// atimeRequest is the body of POST /v1/atime: mount(8)'s words for the ways to keep access times that the mount has
// now.
type atimeRequest struct {
	Words []string `json:"words"`
}

// fileReply answers GET /v1/file?path=, a slash path relative to the root.
type fileReply struct {
	File tiers.FileStatus `json:"file"`
	outcome
}

// rulesPath is a path in the volume that rules are asked about.
type rulesPath struct {
	Path []byte `json:"path64"` // slash path relative to the root, "" for that itself; any bytes
	Dir  bool   `json:"dir"`
}

// rulesRequest is the body of POST /v1/rules.
type rulesRequest struct {
	Paths []rulesPath `json:"paths"`
}

// rulesReply answers rules: a report for each path that was asked about.
type rulesReply struct {
	List    tiers.RulesList     `json:"list"`
	Reports []tiers.RulesReport `json:"reports"`
	outcome
}

// controlReply answers sync, umount and wait. Error is set where the request failed; the receipt may say more even
// then.
type controlReply struct {
	Receipt *tiers.Receipt `json:"receipt,omitempty"`
	outcome
	Busy bool `json:"busy,omitempty"`
}

func (r *controlReply) fail(err error) (code int) {
	code = r.outcome.fail(err)
	if r.Busy = errors.Is(err, errBusy) || errors.Is(err, unix.EBUSY); r.Busy {
		code = http.StatusConflict
	}
	return code
}

func (r *controlReply) failed() error {
	switch {
	case r.Busy:
		return errBusy
	case r.Error == "" && r.Receipt == nil:
		return errors.New("the daemon sent no receipt")
	}
	return r.outcome.failed()
}

// failing is a reply that can say that the request failed: each that a handler may return with an error.
type failing interface {
	fail(err error) (code int) // stores the error and returns the HTTP status for it
	failed() error             // is what the client returns
}

// outcome makes a reply failing.
type outcome struct {
	Error string `json:"error,omitempty"`
}

func (o *outcome) fail(err error) (code int) {
	var bad *requestError
	if errors.As(err, &bad) {
		o.Error = bad.text
		return bad.code
	}
	o.Error = redact(err.Error())
	return http.StatusInternalServerError
}

func (o *outcome) failed() error {
	if o.Error == "" {
		return nil
	}
	return errors.New(o.Error)
}

// requestError is what is wrong with a request itself.
type requestError struct {
	code int // of HTTP
	text string
}

func (e *requestError) Error() string { return e.text }

// errBusy: the mount is in use, so it stays.
var errBusy = errors.New("the mount is busy: processes use it")

// controlled is what the socket steers: the daemon, or a fake in tests.
type controlled interface {
	who() daemonReply
	settings() *config
	status() statusReply
	sync(ctx context.Context, reason string) (*tiers.Receipt, error)
	gc(ctx context.Context, in gcRequest) (cold.GCReport, error)
	tier(ctx context.Context, paths []string) (tiers.TierReport, error)
	file(ctx context.Context, path string) (tiers.FileStatus, error)
	rules(paths []rulesPath) (rulesReply, error)
	atime(words []string)
	// umount returns the final receipt once the mount is gone and the last backup is done, errBusy where the mount
	// stays.
	umount(ctx context.Context, r umountRequest) (*tiers.Receipt, error)
	// wait returns the final receipt once the last backup is done.
	wait(ctx context.Context) (*tiers.Receipt, error)
}

// controlServer serves the control socket of one daemon.
type controlServer struct {
	http *http.Server
	path string
	done chan error
}

// throughFD gives a short name for a file in dir, valid while d is open: a socket's name has room for 107 bytes.
func throughFD(d *os.File, name string) string {
	return filepath.Join("/proc/self/fd", strconv.Itoa(int(d.Fd())), name)
}

// controlListener is a control socket that nobody answers yet: whoever connects waits.
type controlListener struct {
	*net.UnixListener
	path string
}

// listenControl makes the socket in the state directory, which the caller has locked.
func listenControl(state string) (*controlListener, error) {
	path := filepath.Join(state, controlName)
	fail := func(err error) (*controlListener, error) {
		return nil, fmt.Errorf("control socket %s: %w", path, err)
	}
	// What lies there is of a daemon that died: we hold the lock.
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fail(plainError(err))
	}
	dir, err := os.Open(state)
	if err != nil {
		return fail(err)
	}
	defer dir.Close()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: throughFD(dir, controlName), Net: "unix"})
	if err != nil {
		return fail(err)
	}
	l.SetUnlinkOnClose(false) // its name goes through a descriptor that is closed by then
	if err := os.Chmod(path, 0o600); err != nil {
		return fail(errors.Join(err, l.Close()))
	}
	return &controlListener{l, path}, nil
}

// serve answers until close.
func (l *controlListener) serve(c controlled) *controlServer {
	s := &controlServer{path: l.path, done: make(chan error, 1),
		http: &http.Server{Handler: controlHandler(c), ReadHeaderTimeout: 10 * time.Second}}
	go func() { s.done <- s.http.Serve(l) }()
	return s
}

// remove takes back a socket that was never served.
func (l *controlListener) remove() error {
	err := l.Close()
	if rm := os.Remove(l.path); rm != nil && !errors.Is(rm, fs.ErrNotExist) {
		err = errors.Join(err, rm)
	}
	return err
}

// close lets running requests end, for at most a few seconds, and removes the socket.
func (s *controlServer) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	err := s.http.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = s.http.Close()
	}
	if serveErr := <-s.done; !errors.Is(serveErr, http.ErrServerClosed) {
		err = errors.Join(err, serveErr)
	}
	if rm := os.Remove(s.path); rm != nil && !errors.Is(rm, fs.ErrNotExist) {
		err = errors.Join(err, rm)
	}
	return err
}

func controlHandler(c controlled) http.Handler {
	type nothing = struct{}
	mux := http.NewServeMux()
	handle(mux, "GET /v1/daemon", func(*http.Request, nothing) (daemonReply, error) { return c.who(), nil })
	handle(mux, "GET /v1/config", func(*http.Request, nothing) (*config, error) { return c.settings(), nil })
	handle(mux, "GET /v1/status", func(*http.Request, nothing) (statusReply, error) { return c.status(), nil })
	handle(mux, "POST /v1/sync", func(r *http.Request, in syncRequest) (controlReply, error) {
		if in.Reason == "" {
			in.Reason = "sync"
		}
		receipt, err := c.sync(r.Context(), in.Reason)
		return controlReply{Receipt: receipt}, err
	})
	handle(mux, "POST /v1/gc", func(r *http.Request, in gcRequest) (gcReply, error) {
		report, err := c.gc(r.Context(), in)
		return gcReply{Report: report}, err
	})
	handle(mux, "POST /v1/tier", func(r *http.Request, in tierRequest) (tierReply, error) {
		paths := make([]string, len(in.Paths))
		for i, p := range in.Paths {
			if paths[i] = path.Clean(string(p)); !filepath.IsLocal(paths[i]) {
				return tierReply{}, notBelow(string(p))
			}
		}
		report, err := c.tier(r.Context(), paths)
		return tierReply{Report: report}, err
	})
	handle(mux, "GET /v1/file", func(r *http.Request, _ nothing) (fileReply, error) {
		p := path.Clean(r.URL.Query().Get("path"))
		if !filepath.IsLocal(p) {
			return fileReply{}, notBelow(p)
		}
		st, err := c.file(r.Context(), p)
		if errors.Is(err, fs.ErrNotExist) {
			err = &requestError{http.StatusNotFound, "no such file or directory"}
		}
		return fileReply{File: st}, err
	})
	handle(mux, "POST /v1/rules", func(_ *http.Request, in rulesRequest) (rulesReply, error) {
		return c.rules(in.Paths)
	})
	handle(mux, "POST /v1/atime", func(_ *http.Request, in atimeRequest) (nothing, error) {
		c.atime(in.Words)
		return nothing{}, nil
	})
	handle(mux, "POST /v1/umount", func(r *http.Request, in umountRequest) (controlReply, error) {
		receipt, err := c.umount(r.Context(), in)
		return controlReply{Receipt: receipt}, err
	})
	mux.HandleFunc("GET /v1/wait", func(w http.ResponseWriter, r *http.Request) {
		// The header goes out first: a client that has seen it knows that it will not miss the end.
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusOK)
		if err := http.NewResponseController(w).Flush(); err != nil {
			return
		}
		receipt, err := c.wait(r.Context())
		out := controlReply{Receipt: receipt}
		if err != nil {
			out.fail(err)
		}
		writeJSON(w, out)
	})
	return mux
}

func notBelow(p string) error {
	return &requestError{http.StatusBadRequest, fmt.Sprintf("bad request: %q is no path below the root", p)}
}

// maxBody is more than the longest command line becomes.
const maxBody = 8 << 20

// handle registers what answers a request. That of a POST is its JSON; an unknown field is an error, so that a newer
// client is not half understood. A reply that comes with an error has to be failing.
func handle[In, Out any](mux *http.ServeMux, pattern string, f func(*http.Request, In) (Out, error)) {
	mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		var in In
		if r.Method == http.MethodPost {
			d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
			d.DisallowUnknownFields()
			if err := d.Decode(&in); err != nil && !errors.Is(err, io.EOF) {
				reply(w, http.StatusBadRequest, outcome{Error: "bad request: " + err.Error()})
				return
			}
		}
		out, err := f(r, in)
		code := http.StatusOK
		if err != nil {
			code = any(&out).(failing).fail(err)
		}
		reply(w, code, out)
	})
}

func reply(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	writeJSON(w, v)
}

// writeJSON ends an answer. A client that went away is its own affair.
func writeJSON(w io.Writer, v any) {
	_ = json.NewEncoder(w).Encode(v)
}
