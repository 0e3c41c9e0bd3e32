// Package metaserver has fakes of the clouds' metadata servers, with the paths, headers, tokens and answers that AWS,
// Google and Azure document.
package metaserver

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// The paths of notices: arguments of Set.
const (
	AWSAction      = "/latest/meta-data/spot/instance-action"
	AWSRebalance   = "/latest/meta-data/events/recommendations/rebalance"
	GCPPreempted   = "/computeMetadata/v1/instance/preempted"
	GCPMaintenance = "/computeMetadata/v1/instance/maintenance-event"
	AzureEvents    = "/metadata/scheduledevents"
	AzureName      = "/metadata/instance/compute/name"
)

// Request is a request that was answered, or refused.
type Request struct {
	Time         time.Time
	Method, Path string
	Query        url.Values
	Code         int // 0: not answered yet, or left hanging
}

// Server is a fake metadata server on a port of 127.0.0.1. Its methods are safe for concurrent use.
type Server struct {
	// URL has no path.
	URL string

	http   *httptest.Server
	ending chan struct{}

	mu       sync.Mutex
	values   map[string]string
	change   chan struct{} // closed when a value changes
	fault    http.HandlerFunc
	tokens   map[string]time.Time // until when they are good
	requests []*Request
}

// AWS returns a server that answers by IMDSv2 alone: a GET without a token of its own is refused with 401.
func AWS() *Server { return start((*Server).aws) }

// GCP returns a server that knows wait_for_change, last_etag and timeout_sec, and refuses a request without the header
// Metadata-Flavor. Nothing is preempted at first.
func GCP() *Server {
	s := start((*Server).gcp)
	s.Set(GCPPreempted, "FALSE")
	s.Set(GCPMaintenance, "NONE")
	return s
}

// Azure returns a server of a machine named name. It refuses a request without the header Metadata or a version, and
// every POST. There are no events at first.
func Azure(name string) *Server {
	s := start((*Server).azure)
	s.Set(AzureName, name)
	s.Set(AzureEvents, `{"DocumentIncarnation":1,"Events":[]}`)
	return s
}

func start(answer func(*Server, http.ResponseWriter, *http.Request)) *Server {
	s := &Server{values: map[string]string{}, change: make(chan struct{}), ending: make(chan struct{}),
		tokens: map[string]time.Time{}}
	s.http = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		log := &Request{Time: time.Now(), Method: r.Method, Path: r.URL.Path, Query: r.URL.Query()}
		s.requests = append(s.requests, log)
		fault := s.fault
		s.mu.Unlock()
		noted := &coded{ResponseWriter: w, code: http.StatusOK}
		if fault != nil {
			fault(noted, r)
		} else if r.Header.Get("X-Forwarded-For") != "" {
			http.Error(noted, "forwarded", http.StatusForbidden)
		} else {
			answer(s, noted, r)
		}
		s.mu.Lock()
		log.Code = noted.code
		s.mu.Unlock()
	}))
	s.URL = s.http.URL
	return s
}

// coded remembers the status of an answer.
type coded struct {
	http.ResponseWriter
	code int
}

func (c *coded) WriteHeader(code int) {
	c.code = code
	c.ResponseWriter.WriteHeader(code)
}

// Close ends the server. Requests that hang end.
func (s *Server) Close() {
	close(s.ending)
	s.http.CloseClientConnections()
	s.http.Close()
}

// Host returns address and port.
func (s *Server) Host() string { return strings.TrimPrefix(s.URL, "http://") }

// Set gives a path an answer.
func (s *Server) Set(path, value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.values[path] = value
	close(s.change)
	s.change = make(chan struct{})
}

// Unset leaves a path without an answer: 404.
func (s *Server) Unset(path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.values, path)
	close(s.change)
	s.change = make(chan struct{})
}

// Fail lets fault answer everything from now on; nil ends that.
func (s *Server) Fail(fault http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = fault
}

// Hang is an argument of Fail: no answer at all, until the client or the server goes away.
func (s *Server) Hang(_ http.ResponseWriter, r *http.Request) {
	select {
	case <-r.Context().Done():
	case <-s.ending:
	}
}

// Status returns an argument of Fail: an answer with a status and a text.
func Status(code int, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(code)
		fmt.Fprint(w, text)
	}
}

// ForgetTokens makes all tokens that were given out worthless.
func (s *Server) ForgetTokens() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.tokens)
}

// Requests returns the requests up to now, the oldest first.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Request, len(s.requests))
	for i, r := range s.requests {
		out[i] = *r
	}
	return out
}

// value returns the answer for a path, and a channel that is closed when an answer changes.
func (s *Server) value(path string) (text string, has bool, change <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	text, has = s.values[path]
	return text, has, s.change
}

func (s *Server) aws(w http.ResponseWriter, r *http.Request) {
	const ttl = "X-Aws-Ec2-Metadata-Token-Ttl-Seconds"
	if r.URL.Path == "/latest/api/token" {
		seconds, err := strconv.Atoi(r.Header.Get(ttl))
		switch {
		case r.Method != http.MethodPut:
			w.WriteHeader(http.StatusMethodNotAllowed)
		case err != nil || seconds < 1 || seconds > 21600:
			w.WriteHeader(http.StatusBadRequest)
		default:
			s.mu.Lock()
			token := fmt.Sprintf("token-%d", len(s.requests))
			s.tokens[token] = time.Now().Add(time.Duration(seconds) * time.Second)
			s.mu.Unlock()
			w.Header().Set(ttl, strconv.Itoa(seconds))
			fmt.Fprint(w, token)
		}
		return
	}
	s.mu.Lock()
	until := s.tokens[r.Header.Get("X-Aws-Ec2-Metadata-Token")]
	s.mu.Unlock()
	text, has, _ := s.value(r.URL.Path)
	switch {
	case !time.Now().Before(until):
		w.WriteHeader(http.StatusUnauthorized)
	case r.Method != http.MethodGet || !has:
		w.WriteHeader(http.StatusNotFound)
	default:
		fmt.Fprint(w, text)
	}
}

func (s *Server) gcp(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Metadata-Flavor", "Google")
	if r.Header.Get("Metadata-Flavor") != "Google" || r.Method != http.MethodGet {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	tag := func(text string, has bool) string {
		if !has {
			return "0"
		}
		return fmt.Sprintf("%.16x", sha256.Sum256([]byte(text)))
	}
	q := r.URL.Query()
	text, has, change := s.value(r.URL.Path)
	if q.Get("wait_for_change") == "true" {
		known, limit := q.Get("last_etag"), time.Hour
		if known == "" {
			known = tag(text, has)
		}
		if seconds, err := strconv.Atoi(q.Get("timeout_sec")); err == nil {
			limit = time.Duration(seconds) * time.Second
		}
		late := time.After(limit)
		for over := false; !over && tag(text, has) == known; text, has, change = s.value(r.URL.Path) {
			select {
			case <-change:
			case <-late:
				over = true
			case <-r.Context().Done():
				return
			case <-s.ending:
				return
			}
		}
	}
	w.Header().Set("Etag", tag(text, has))
	if !has {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	fmt.Fprint(w, text)
}

func (s *Server) azure(w http.ResponseWriter, r *http.Request) {
	text, has, _ := s.value(r.URL.Path)
	version := r.URL.Query().Get("api-version")
	switch {
	case r.Header.Get("Metadata") != "true" || version == "" ||
		r.URL.Path == AzureEvents && version != "2020-07-01" && version != "2019-08-01":
		w.WriteHeader(http.StatusBadRequest)
	case r.Method != http.MethodGet:
		w.WriteHeader(http.StatusMethodNotAllowed)
	case !has:
		w.WriteHeader(http.StatusNotFound)
	default:
		fmt.Fprint(w, text)
	}
}

// AzureEvent returns the answer of AzureEvents with one event that has the given type, machine and time, "" for one
// that has started.
func AzureEvent(kind, machine, notBefore string) string {
	status := "Scheduled"
	if notBefore == "" {
		status = "Started"
	}
	return fmt.Sprintf(`{"DocumentIncarnation":2,"Events":[{"EventId":"602d9444-d2cd-49c7-8624-8643e7171297",
		"EventType":%q,"ResourceType":"VirtualMachine","Resources":[%q],"EventStatus":%q,"NotBefore":%q,
		"Description":"Host server is undergoing maintenance.","EventSource":"Platform","DurationInSeconds":-1}]}`,
		kind, machine, status, notBefore)
}
