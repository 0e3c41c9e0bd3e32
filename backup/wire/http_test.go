package wire

import (
	"bytes"
	"crypto/rand"
	"io"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"emberfs/tiers/cold"
)

// gitHandler serves the repository at path by git's own CGI program.
func gitHandler(t *testing.T, path string) http.Handler {
	t.Helper()
	git, err := exec.Command("git", "--exec-path").Output()
	check(t, err)
	backend := http.Handler(&cgi.Handler{Path: filepath.Join(strings.TrimSpace(string(git)), "git-http-backend"),
		Env: []string{"GIT_PROJECT_ROOT=" + filepath.Dir(path), "GIT_HTTP_EXPORT_ALL=1", "REMOTE_USER=user",
			"PATH=" + os.Getenv("PATH")},
		Dir: "/", Stderr: io.Discard})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.TransferEncoding) > 0 { // CGI needs a length
			body, err := io.ReadAll(r.Body)
			if err != nil { // the client has gone
				return
			}
			r.Body, r.ContentLength, r.TransferEncoding = io.NopCloser(bytes.NewReader(body)), int64(len(body)), nil
		}
		backend.ServeHTTP(w, r)
	})
}

// httpServer serves the repository at path behind what wrap makes of git's handler. It returns its URL.
func httpServer(t *testing.T, path string, wrap func(http.Handler) http.Handler) string {
	t.Helper()
	s := httptest.NewServer(wrap(gitHandler(t, path)))
	t.Cleanup(s.Close)
	return s.URL + "/" + filepath.Base(path)
}

func unwrapped(h http.Handler) http.Handler { return h }

// TestHTTP pushes to, and fetches from, a server of git's own; the second push is longer than what is buffered.
func TestHTTP(t *testing.T) {
	v := newVolume(t)
	path, _ := newRemote(t)
	r, err := Open(httpServer(t, path, unwrapped), Options{})
	check(t, err)
	first := v.commit("one")
	check(t, r.push(t.Context(), one(cold.ID{}, first), v.pack))
	big := make([]byte, 3<<20)
	_, _ = rand.Read(big)
	second := v.commit(string(big))
	check(t, r.push(t.Context(), one(first, second), v.pack))
	refs, err := r.Refs(t.Context())
	check(t, err)
	if refs[mainRef] != second {
		t.Errorf("the remote has %v", refs)
	}
	next := newVolume(t)
	tip, release, err := r.Fetch(t.Context(), next.db, mainRef, nil)
	check(t, err)
	check(t, release())
	if tip != second {
		t.Errorf("fetched %s, want %s", tip, second)
	}
	check(t, r.Close())
}
