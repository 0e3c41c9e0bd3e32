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
	Paths  []string `json:"paths,omitempty"` // relative to the root; a sync takes everything, so they are always covered
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
	Error  string        `json:"error,omitempty"`
}

// tierRequest is the body of POST /v1/tier: slash paths relative to the root, as base64, for names may be any bytes.
type tierRequest struct {
	Paths [][]byte `json:"paths64"`
}

// tierReply answers tier. Error is set where it failed; the report says what left warm before that.
type tierReply struct {
	Report tiers.TierReport `json:"report"`
	Error  string           `json:"error,omitempty"`
}

// atimeRequest is the body of POST /v1/atime: mount(8)'s words for the ways to keep access times that the mount has now.
type atimeRequest struct {
	Words []string `json:"words"`
}

// fileReply answers GET /v1/file?path=, a slash path relative to the root.
type fileReply struct {
	File  tiers.FileStatus `json:"file"`
	Error string           `json:"error,omitempty"`
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
	Error   string              `json:"error,omitempty"`
}

// controlReply answers sync, umount and wait. Error is set where the request failed; the receipt may say more even then.
type controlReply struct {
	Receipt *tiers.Receipt `json:"receipt,omitempty"`
	Error   string         `json:"error,omitempty"`
	Busy    bool           `json:"busy,omitempty"`
}

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
	// umount returns the final receipt once the mount is gone and the last backup is done, errBusy where the mount stays.
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
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/daemon", func(w http.ResponseWriter, r *http.Request) {
		reply(w, http.StatusOK, c.who())
	})
	mux.HandleFunc("GET /v1/config", func(w http.ResponseWriter, r *http.Request) {
		reply(w, http.StatusOK, c.settings())
	})
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, r *http.Request) {
		reply(w, http.StatusOK, c.status())
	})
	mux.HandleFunc("POST /v1/sync", func(w http.ResponseWriter, r *http.Request) {
		var in syncRequest
		if !body(w, r, &in) {
			return
		}
		if in.Reason == "" {
			in.Reason = "sync"
		}
		receipt, err := c.sync(r.Context(), in.Reason)
		replyReceipt(w, receipt, err)
	})
	mux.HandleFunc("POST /v1/gc", func(w http.ResponseWriter, r *http.Request) {
		var in gcRequest
		if !body(w, r, &in) {
			return
		}
		report, err := c.gc(r.Context(), in)
		out, code := gcReply{Report: report}, http.StatusOK
		if err != nil {
			out.Error, code = redact(err.Error()), http.StatusInternalServerError
		}
		reply(w, code, out)
	})
	mux.HandleFunc("POST /v1/tier", func(w http.ResponseWriter, r *http.Request) {
		var in tierRequest
		if !body(w, r, &in) {
			return
		}
		paths := make([]string, len(in.Paths))
		for i, p := range in.Paths {
			if paths[i] = path.Clean(string(p)); !filepath.IsLocal(paths[i]) {
				reply(w, http.StatusBadRequest, tierReply{Error: fmt.Sprintf("bad request: %q is no path below the root", p)})
				return
			}
		}
		report, err := c.tier(r.Context(), paths)
		out, code := tierReply{Report: report}, http.StatusOK
		if err != nil {
			out.Error, code = redact(err.Error()), http.StatusInternalServerError
		}
		reply(w, code, out)
	})
	mux.HandleFunc("GET /v1/file", func(w http.ResponseWriter, r *http.Request) {
		p := path.Clean(r.URL.Query().Get("path"))
		if !filepath.IsLocal(p) {
			reply(w, http.StatusBadRequest, fileReply{Error: fmt.Sprintf("bad request: %q is no path below the root", p)})
			return
		}
		st, err := c.file(r.Context(), p)
		out, code := fileReply{File: st}, http.StatusOK
		switch {
		case errors.Is(err, fs.ErrNotExist):
			out.Error, code = "no such file or directory", http.StatusNotFound
		case err != nil:
			out.Error, code = redact(err.Error()), http.StatusInternalServerError
		}
		reply(w, code, out)
	})
	mux.HandleFunc("POST /v1/rules", func(w http.ResponseWriter, r *http.Request) {
		var in rulesRequest
		if !body(w, r, &in) {
			return
		}
		out, err := c.rules(in.Paths)
		code := http.StatusOK
		if err != nil {
			out.Error, code = redact(err.Error()), http.StatusInternalServerError
		}
		reply(w, code, out)
	})
	mux.HandleFunc("POST /v1/atime", func(w http.ResponseWriter, r *http.Request) {
		var in atimeRequest
		if !body(w, r, &in) {
			return
		}
		c.atime(in.Words)
		reply(w, http.StatusOK, struct{}{})
	})
	mux.HandleFunc("POST /v1/umount", func(w http.ResponseWriter, r *http.Request) {
		var in umountRequest
		if !body(w, r, &in) {
			return
		}
		receipt, err := c.umount(r.Context(), in)
		replyReceipt(w, receipt, err)
	})
	mux.HandleFunc("GET /v1/wait", func(w http.ResponseWriter, r *http.Request) {
		// The header goes out first: a client that has seen it knows that it will not miss the end.
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusOK)
		if err := http.NewResponseController(w).Flush(); err != nil {
			return
		}
		receipt, err := c.wait(r.Context())
		writeJSON(w, receiptReply(receipt, err))
	})
	return mux
}

// maxBody is more than the longest command line becomes.
const maxBody = 8 << 20

// body reads a request's JSON; an unknown field is an error, so that a newer client is not half understood.
func body(w http.ResponseWriter, r *http.Request, in any) bool {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	d.DisallowUnknownFields()
	if err := d.Decode(in); err != nil && !errors.Is(err, io.EOF) {
		reply(w, http.StatusBadRequest, controlReply{Error: "bad request: " + err.Error()})
		return false
	}
	return true
}

func receiptReply(receipt *tiers.Receipt, err error) controlReply {
	out := controlReply{Receipt: receipt}
	if err != nil {
		out.Error = redact(err.Error())
		out.Busy = errors.Is(err, errBusy) || errors.Is(err, unix.EBUSY)
	}
	return out
}

func replyReceipt(w http.ResponseWriter, receipt *tiers.Receipt, err error) {
	out := receiptReply(receipt, err)
	code := http.StatusOK
	switch {
	case out.Busy:
		code = http.StatusConflict
	case err != nil:
		code = http.StatusInternalServerError
	}
	reply(w, code, out)
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
