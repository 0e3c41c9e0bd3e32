package wire

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"emberfs/integration/testprog"
)

// forge is a server of git's own that notes the requests that it gets and decides who may pass.
type forge struct {
	*httptest.Server
	t    *testing.T
	path string // of the repository
	dir  string // for files of a test: the CA, git's configuration

	mu   sync.Mutex
	seen []*http.Request
	came int                                               // connections
	pass func(w http.ResponseWriter, r *http.Request) bool // false: it has answered
}

// newForge starts a server; the caller's environment has nothing of the user's.
func newForge(t *testing.T, encrypted bool) *forge {
	t.Helper()
	alone(t)
	path, _ := newRemote(t)
	f := &forge{t: t, path: path, dir: t.TempDir(),
		pass: func(http.ResponseWriter, *http.Request) bool { return true }}
	git := gitHandler(t, path)
	f.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		f.seen = append(f.seen, r.Clone(context.Background()))
		pass := f.pass
		f.mu.Unlock()
		if pass(w, r) {
			git.ServeHTTP(w, r)
		}
	}))
	f.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		f.mu.Lock()
		defer f.mu.Unlock()
		if state == http.StateNew {
			f.came++
		}
	}
	f.Config.ErrorLog = log.New(io.Discard, "", 0)
	if encrypted {
		f.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
		f.StartTLS()
	} else {
		f.Start()
	}
	t.Cleanup(f.Close)
	return f
}

// alone takes away what the environment and the user's configuration would say.
func alone(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("HOME", dir)
	t.Setenv("GIT_CONFIG_NOSYSTEM", "1")
	t.Setenv("GIT_CONFIG_GLOBAL", filepath.Join(dir, ".gitconfig"))
	for _, v := range []string{"EMBERFS_TOKEN", "CREDENTIALS_DIRECTORY", "SSH_AUTH_SOCK", "GIT_SSH_COMMAND", "GIT_SSH",
		"GIT_SSL_CAINFO", "GIT_SSL_CAPATH", "GIT_SSL_CERT", "GIT_SSL_KEY", "GIT_SSL_NO_VERIFY", "GIT_HTTP_USER_AGENT",
		"SSL_CERT_FILE", "SSL_CERT_DIR", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy",
		"ALL_PROXY", "no_proxy", "NO_PROXY"} {
		t.Setenv(v, "")
	}
}

// configure sets git's configuration of the user.
func configure(t *testing.T, text string) {
	t.Helper()
	check(t, os.WriteFile(os.Getenv("GIT_CONFIG_GLOBAL"), []byte(text), 0o600))
}

func (f *forge) url() string { return f.URL + "/" + filepath.Base(f.path) }

// ca is a file with the certificate of the server.
func (f *forge) ca() string {
	path := filepath.Join(f.dir, "ca.pem")
	data := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.Certificate().Raw})
	check(f.t, os.WriteFile(path, data, 0o644))
	return path
}

// only lets pass whoever sends one of the values of Authorization, and challenges the others.
func (f *forge) only(challenge string, values ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pass = func(w http.ResponseWriter, r *http.Request) bool {
		if slices.Contains(values, r.Header.Get("Authorization")) {
			return true
		}
		w.Header().Set("WWW-Authenticate", challenge)
		http.Error(w, "who are you?", http.StatusUnauthorized)
		return false
	}
}

// requests are those since the last call.
func (f *forge) requests() []*http.Request {
	f.mu.Lock()
	defer f.mu.Unlock()
	seen := f.seen
	f.seen = nil
	return seen
}

func (f *forge) open(o Options) *Remote {
	f.t.Helper()
	return opened(f.t, f.url(), o)
}

func opened(t *testing.T, source string, o Options) *Remote {
	t.Helper()
	r, err := Open(source, o)
	check(t, err)
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// succeeds asks for the references.
func succeeds(t *testing.T, r *Remote) {
	t.Helper()
	_, err := r.Refs(t.Context())
	check(t, err)
}

// fails asks for the references, and wants an error with the words and without the secret.
func fails(t *testing.T, r *Remote, words ...string) {
	t.Helper()
	_, err := r.Refs(t.Context())
	if err == nil {
		t.Fatalf("the references came, want an error with %q", words)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%v\nhas not %q", err, w)
		}
	}
	if strings.Contains(err.Error(), "s3cret") {
		t.Errorf("the error has a secret in it: %v", err)
	}
}

// helper configures a credential helper that notes what it is asked, and answers with what the file answer has. It
// returns the directory of both.
func helper(t *testing.T, answer string) string {
	t.Helper()
	dir := t.TempDir()
	check(t, testprog.Write(filepath.Join(dir, "git-credential-test"), "#!/bin/sh\n"+
		`[ "$1" != get ] || cat "`+dir+`/answer"`+"\n(echo \"[$1]\"; cat; env) >>\""+dir+"/asked\"\n"))
	check(t, os.WriteFile(filepath.Join(dir, "answer"), []byte(answer), 0o600))
	configure(t, "[credential]\nhelper = "+dir+"/git-credential-test\n")
	return dir
}

// asked is what the helper was asked since the last call.
func asked(t *testing.T, dir string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "asked"))
	if os.IsNotExist(err) {
		return ""
	}
	check(t, err)
	check(t, os.Remove(filepath.Join(dir, "asked")))
	return string(data)
}

// authorizations are the values that came with requests.
func authorizations(list []*http.Request) (values []string) {
	for _, r := range list {
		values = append(values, r.Header.Get("Authorization"))
	}
	return values
}

// writer makes a pack that is longer than what is buffered.
func writer(n int) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := w.Write(make([]byte, n))
		return err
	}
}
