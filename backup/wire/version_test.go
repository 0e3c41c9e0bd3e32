package wire

import (
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

// gitServer runs git daemon on a port of its own. It returns the URL of the repository at path.
func gitServer(t *testing.T, path string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	port := l.Addr().(*net.TCPAddr).Port
	check(t, l.Close())
	dir, err := exec.Command("git", "--exec-path").Output()
	check(t, err)
	daemon := exec.Command(filepath.Join(strings.TrimSpace(string(dir)), "git-daemon"), "--listen=127.0.0.1",
		fmt.Sprint("--port=", port), "--reuseaddr", "--export-all", "--base-path="+filepath.Dir(path),
		filepath.Dir(path))
	check(t, daemon.Start())
	t.Cleanup(func() {
		_ = daemon.Process.Kill()
		_ = daemon.Wait()
	})
	waitForPort(t, port)
	return fmt.Sprintf("git://127.0.0.1:%d/%s", port, strings.ReplaceAll(filepath.Base(path), " ", "%20"))
}

func waitForPort(t *testing.T, port int) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("tcp", fmt.Sprint("127.0.0.1:", port))
		if err == nil {
			_ = c.Close()
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// requests is a handler that notes what came.
type requests struct {
	http.Handler
	mu   sync.Mutex
	list []string
}

func (r *requests) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	r.list = append(r.list, req.Method+" "+req.Header.Get(protocolHeader))
	r.mu.Unlock()
	r.Handler.ServeHTTP(w, req)
}

func (r *requests) take() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer func() { r.list = nil }()
	return strings.Join(r.list, ", ")
}

// exchangeAll fetches twice, the second time what is new, and the third time nothing.
func exchangeAll(t *testing.T, dir string, r *Remote, version2 bool) {
	t.Helper()
	p, _, err := r.list(t.Context(), []string{mainRef})
	check(t, err)
	check(t, p.hangUp())
	if got := p.v2 != nil; got != version2 {
		t.Errorf("version 2: %v, want %v", got, version2)
	}
	path, err := Open(dir, Options{})
	check(t, err)
	v, b := newVolume(t), newVolume(t)
	var last cold.ID
	refs, err := path.Refs(t.Context())
	check(t, err)
	last = refs[mainRef]
	if !last.IsZero() {
		t.Fatal("the repository is not empty")
	}
	if _, _, err := r.Fetch(t.Context(), b.db, mainRef, nil); err == nil || !strings.Contains(err.Error(),
		odb.ErrNoRef.Error()) {
		t.Errorf("fetch of nothing: %v", err)
	}
	var have []cold.ID
	for i := range 4 {
		tip := v.commit(fmt.Sprint(strings.Repeat("text ", 1000), i))
		check(t, path.push(t.Context(), []Update{{mainRef, last, tip}, {mainRef + "-2", last, tip},
			{"refs/tags/t", last, tip}}, v.pack))
		if i == 2 {
			git(t, dir, "gc", "-q")
		}
		refs, err := r.Refs(t.Context())
		check(t, err)
		if len(refs) != 3 || refs[mainRef] != tip || refs[mainRef+"-2"] != tip {
			t.Errorf("it has %v, not two heads and a tag at %s", refs, tip)
		}
		got, release, err := r.Fetch(t.Context(), b.db, mainRef, have)
		check(t, err)
		check(t, b.db.UpdateRef(mainRef, last, got))
		check(t, release())
		last, have = tip, append([]cold.ID{tip}, have...)
		if got, release, err = r.Fetch(t.Context(), b.db, mainRef, have); err != nil || got != tip {
			t.Errorf("fetch of what is here: %s, %v", got, err)
		}
		check(t, release())
	}
	if out := git(t, b.dir, "fsck", "--strict", "--full"); out != "" {
		t.Error(out)
	}
	for _, ref := range []string{mainRef, mainRef + "-2", "refs/tags/t"} {
		check(t, path.push(t.Context(), []Update{{ref, last, cold.ID{}}}, nil))
	}
}

// TestVersions: version 2 where it is offered, else version 0, with the same results.
func TestVersions(t *testing.T) {
	dir, r := newRemote(t)
	git(t, dir, "config", "receive.denyDeleteCurrent", "ignore")
	exchangeAll(t, dir, r, true)
	open := func(source string) *Remote {
		r, err := Open(source, Options{Dir: t.TempDir()})
		check(t, err)
		t.Cleanup(func() { check(t, r.Close()) })
		return r
	}
	t.Run("http", func(t *testing.T) {
		var came *requests
		r := open(httpServer(t, dir, func(h http.Handler) http.Handler {
			came = &requests{Handler: h}
			return came
		}))
		exchangeAll(t, dir, r, true)
		came.take()
		_, err := r.Refs(t.Context())
		check(t, err)
		if got := came.take(); got != "POST version=2" {
			t.Errorf("the references took %q", got)
		}
	})
	t.Run("http, version 0", func(t *testing.T) {
		var came *requests
		r := open(httpServer(t, dir, func(h http.Handler) http.Handler {
			came = &requests{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				r.Header.Del(protocolHeader)
				h.ServeHTTP(w, r)
			})}
			return came
		}))
		exchangeAll(t, dir, r, false)
		came.take()
		_, err := r.Refs(t.Context())
		check(t, err)
		if got := came.take(); got != "GET version=2" {
			t.Errorf("the references took %q", got)
		}
	})
	t.Run("git daemon", func(t *testing.T) {
		r := open(gitServer(t, dir))
		exchangeAll(t, dir, r, true)
		v := newVolume(t)
		err := r.push(t.Context(), one(cold.ID{}, v.commit("x")), v.pack)
		if err == nil || !strings.Contains(err.Error(), ErrReadOnly.Error()) {
			t.Errorf("push: %v", err)
		}
		r = open(gitServer(t, dir) + "-is-not-here")
		if _, err := r.Refs(t.Context()); err == nil || !strings.Contains(err.Error(), "not exported") {
			t.Errorf("a repository that is not there: %v", err)
		}
	})
	t.Run("ssh", func(t *testing.T) {
		exchangeAll(t, dir, open(sshServer(t, dir, "AcceptEnv=GIT_PROTOCOL")), true)
	})
	t.Run("ssh, version 0", func(t *testing.T) { exchangeAll(t, dir, open(sshServer(t, dir)), false) })
}

// TestVersionOfAnotherServer: what an HTTP server said of version 2 is forgotten when it is no longer true, and one
// that answers version 2 with nothing is asked in version 0.
func TestVersionOfAnotherServer(t *testing.T) {
	dir, path := newRemote(t)
	v := newVolume(t)
	check(t, path.push(t.Context(), one(cold.ID{}, v.commit("one")), v.pack))
	var came *requests
	var now, server http.HandlerFunc
	r, err := Open(httpServer(t, dir, func(h http.Handler) http.Handler {
		now, server = h.ServeHTTP, h.ServeHTTP
		came = &requests{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { now(w, r) })}
		return came
	}), Options{})
	check(t, err)
	// unless has the server do something else for some requests.
	unless := func(when func(*http.Request) bool, do http.HandlerFunc) {
		now = func(w http.ResponseWriter, r *http.Request) {
			if when(r) {
				do(w, r)
				return
			}
			server(w, r)
		}
	}
	isPost := func(r *http.Request) bool { return r.Method == http.MethodPost }
	isVersion2 := func(r *http.Request) bool { return r.Header.Get(protocolHeader) != "" }
	nothing := func(w http.ResponseWriter, r *http.Request) {
		kind := "advertisement"
		if isPost(r) {
			kind = "result"
		}
		w.Header().Set("Content-Type", "application/x-git-upload-pack-"+kind)
	}
	ask := func(what, want string, fails bool) {
		t.Helper()
		refs, err := r.Refs(t.Context())
		if fails != (err != nil) || !fails && refs[mainRef] != v.tip {
			t.Errorf("%s: %v, %v", what, refs, err)
		}
		if got := came.take(); got != want {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	ask("first", "GET version=2, POST version=2", false)
	ask("again", "POST version=2", false)
	unless(isPost, http.NotFound)
	ask("posts are refused", "POST version=2, GET version=2, POST version=2", true)
	now = server
	ask("they are taken", "POST version=2", false)
	unless(isVersion2, func(w http.ResponseWriter, r *http.Request) {
		r.Header.Del(protocolHeader)
		server(w, r)
	})
	ask("it speaks version 0", "POST version=2, GET version=2", false)
	ask("it still does", "GET version=2", false)
	now = server
	ask("it speaks version 2", "GET version=2, POST version=2", false)
	unless(func(r *http.Request) bool { return isPost(r) && isVersion2(r) }, nothing)
	ask("posts have no answer", "POST version=2, GET version=2, POST version=2, GET ", false)
	r, err = Open(r.String(), Options{})
	check(t, err)
	unless(isVersion2, nothing)
	ask("it answers with nothing", "GET version=2, GET ", false)
	ask("it still does", "GET ", false)
}
