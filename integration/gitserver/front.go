package gitserver

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync/atomic"
	"testing"
)

// Front stands before an HTTP server and passes requests on, or answers them itself.
type Front struct {
	server   *httptest.Server
	handler  atomic.Pointer[http.HandlerFunc]
	requests atomic.Int64
}

// NewFront starts a front of a server, which passes everything on. It streams both ways.
func NewFront(t testing.TB, s *HTTPServer) *Front {
	t.Helper()
	f := &Front{}
	pass := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: s.Addr()})
	pass.FlushInterval = -1
	pass.ErrorLog = nil
	f.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.requests.Add(1)
		if h := f.handler.Load(); h != nil {
			(*h)(w, r)
			return
		}
		pass.ServeHTTP(w, r)
	}))
	t.Cleanup(f.server.Close)
	return f
}

// Port is where the front listens, on 127.0.0.1.
func (f *Front) Port() int { return portOf(f.server.Listener.Addr()) }

// Answer has the front answer all requests by itself from now on; nil: it passes them on.
func (f *Front) Answer(h http.HandlerFunc) {
	if h == nil {
		f.handler.Store(nil)
		return
	}
	f.handler.Store(&h)
}

// Requests is how many requests have come so far.
func (f *Front) Requests() int64 { return f.requests.Load() }
