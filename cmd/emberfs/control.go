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

	"emberfs/cmd/emberfs/notice"
	"emberfs/tiers"
	"emberfs/tiers/cold"
)

// daemonReply says who serves a state directory. It answers GET /v1/daemon, which takes no time.
type daemonReply struct {
	PID        int    `json:"pid"`
	Mountpoint string `json:"mountpoint"`
	Phase      string `json:"phase"` // mounted, or finishing: the mount is gone and the final backup runs
	Version    string `json:"version"`
}

// statusReply answers GET /v1/status; `emberfs status --json` prints it.
type statusReply struct {
	daemonReply
	tiers.Status
	Notice *notice.Notice `json:"notice"` // that this machine goes away, or may; null: there is none
}

const (
	phaseMounted   = "mounted"
	phaseFinishing = "finishing"
)

// syncRequest is the body of POST /v1/sync.
type syncRequest struct {
	// Paths are relative to the root. They are ignored, because a sync covers everything.
	Paths  []string `json:"paths,omitempty"`
	Reason string   `json:"reason"`
}

// umountRequest is the body of POST /v1/umount.
type umountRequest struct {
	Deadline time.Duration `json:"deadline_ns"` // limit for the final backup; 0: the volume's own; negative: none
	Lazy     bool          `json:"lazy"`        // detach now, finish when the last user has left
}

// gcRequest is the body of POST /v1/gc.
type gcRequest struct {
	Grace  time.Duration `json:"grace_ns"` // as in cold.GCOptions
	DryRun bool          `json:"dry_run"`
}

// gcReply answers gc. Error is set if it failed; the report then says what was removed before.
type gcReply struct {
	Report cold.GCReport `json:"report"`
	outcome
}

// tierRequest is the body of POST /v1/tier: slash paths relative to the root, in base64 because names may contain any
// bytes.
type tierRequest struct {
	Paths [][]byte `json:"paths64"`
}

// tierReply answers tier. Error is set if it failed; the report then says what left warm before.
type tierReply struct {
	Report tiers.TierReport `json:"report"`
	outcome
}

// atimeRequest is the body of POST /v1/atime: mount(8)'s words for how the mount keeps access times now.
type atimeRequest struct {
	Words []string `json:"words"`
}

// fileReply answers GET /v1/file?path=, a slash path relative to the root.
type fileReply struct {
	File tiers.FileStatus `json:"file"`
	outcome
}

// rulesPath is a path in the volume about which the rules are asked.
type rulesPath struct {
	Path []byte `json:"path64"` // slash path relative to the root, which is ""; may contain any bytes
	Dir  bool   `json:"dir"`
}

// rulesRequest is the body of POST /v1/rules.
type rulesRequest struct {
	Paths []rulesPath `json:"paths"`
}

// rulesReply answers rules with a report for each path.
type rulesReply struct {
	List    tiers.RulesList     `json:"list"`
	Reports []tiers.RulesReport `json:"reports"`
	outcome
}

// controlReply answers sync, umount and wait. Error is set if the request failed; the receipt may have more details
// even then.
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

// failing is a reply that can say that the request failed. A handler may return only such replies together with an
// error.
type failing interface {
	fail(err error) (code int) // stores the error and returns the HTTP status for it
	failed() error             // returns the error for the client, nil if the request succeeded
}

// outcome implements failing for the replies that embed it.
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

// requestError says what is wrong with a request itself.
type requestError struct {
	code int // HTTP status
	text string
}

func (e *requestError) Error() string { return e.text }

// errBusy says that the mount is in use, so it stays.
var errBusy = errors.New("the mount is busy: processes use it")

// controlled is what requests to the socket control: the daemon, or a fake in tests.
type controlled interface {
	who() daemonReply
	settings() *config
	status() statusReply
	transfer() transferReply
	sync(ctx context.Context, reason string) (*tiers.Receipt, error)
	gc(ctx context.Context, in gcRequest) (cold.GCReport, error)
	tier(ctx context.Context, paths []string) (tiers.TierReport, error)
	file(ctx context.Context, path string) (tiers.FileStatus, error)
	rules(paths []rulesPath) (rulesReply, error)
	atime(words []string)
	// umount returns the final receipt once the mount is gone and the final backup is done, or errBusy if the mount
	// stays.
	umount(ctx context.Context, r umountRequest) (*tiers.Receipt, error)
	// wait returns the final receipt once the final backup is done.
	wait(ctx context.Context) (*tiers.Receipt, error)
}

// controlServer serves the control socket of one daemon.
type controlServer struct {
	http *http.Server
	path string
	done chan error
}

// throughFD returns a short path for a file in d, valid while d is open. The path of a socket may only have 107 bytes.
func throughFD(d *os.File, name string) string {
	return filepath.Join("/proc/self/fd", strconv.Itoa(int(d.Fd())), name)
}

// controlListener is a control socket that is not served yet; whoever connects waits.
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
	// We hold the lock, so a socket that is there was left by a daemon that died.
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
	l.SetUnlinkOnClose(false) // its path uses a descriptor that will be closed by then
	if err := os.Chmod(path, 0o600); err != nil {
		return fail(errors.Join(err, l.Close()))
	}
	return &controlListener{l, path}, nil
}

// serve answers requests until close is called.
func (l *controlListener) serve(c controlled) *controlServer {
	s := &controlServer{path: l.path, done: make(chan error, 1),
		http: &http.Server{Handler: controlHandler(c), ReadHeaderTimeout: 10 * time.Second}}
	go func() { s.done <- s.http.Serve(l) }()
	return s
}

// remove removes a socket that was never served.
func (l *controlListener) remove() error {
	err := l.Close()
	if rm := os.Remove(l.path); rm != nil && !errors.Is(rm, fs.ErrNotExist) {
		err = errors.Join(err, rm)
	}
	return err
}

// close waits a few seconds at most for running requests, and removes the socket.
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
	handle(mux, "GET /v1/transfer", func(*http.Request, nothing) (transferReply, error) { return c.transfer(), nil })
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
		// The header is sent first, so that a client that has received it knows that it will get the receipt.
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

// handle registers a handler. The body of a POST is JSON; an unknown field in it is an error, so that a newer client's
// request is not misunderstood. If f returns an error, its reply must be failing.
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

// writeJSON writes an answer. It ignores errors, because then the client has gone away.
func writeJSON(w io.Writer, v any) {
	_ = json.NewEncoder(w).Encode(v)
}
