package wire

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"emberfs/integration/testprog"
	"emberfs/tiers/cold"
)

// TestExtraHeaders: all that are for the URL go with each request, and count again once the server refuses them.
func TestExtraHeaders(t *testing.T) {
	f := newForge(t, false)
	set := func(secret string) {
		configure(t, fmt.Sprintf("[http]\nextraHeader = X-A: 1\n[http \"%s/\"]\nextraHeader = X-A: 2\n"+
			"extraHeader = Authorization: Basic %s\n[http \"http://elsewhere.example/\"]\nextraHeader = X-B: 3\n"+
			"[http]\nuserAgent = git/test\n", f.URL, secret))
	}
	set("s3cret-1")
	f.only(basicWanted, "Basic s3cret-1")
	r := f.open(Options{})
	succeeds(t, r)
	list := f.requests()
	if h := list[0].Header; len(list) != 2 || !slices.Equal(h["X-A"], []string{"1", "2"}) || h["X-B"] != nil ||
		h.Get("User-Agent") != "git/test" {
		t.Errorf("%d requests, the first with %v", len(list), h)
	}
	f.only(basicWanted, "Basic s3cret-2")
	fails(t, r, "401")
	set("s3cret-2")
	succeeds(t, r)
	configure(t, "[http]\nextraHeader = X-A: 1\nextraHeader =\nextraHeader = X-A: 2\n")
	f.only(basicWanted, "")
	f.requests()
	succeeds(t, f.open(Options{}))
	if h := f.requests()[0].Header; !slices.Equal(h["X-A"], []string{"2"}) {
		t.Errorf("an empty header does not take back those before it: %v", h)
	}
	configure(t, "[http\n")
	if _, err := Open(f.url(), Options{}); err == nil || !strings.Contains(err.Error(), "git's configuration") {
		t.Errorf("a configuration that git cannot read: %v", err)
	}
}

// TestVariablesOfGit: configuration by GIT_CONFIG_COUNT counts, beside our own questions.
func TestVariablesOfGit(t *testing.T) {
	f := newForge(t, false)
	for k, v := range map[string]string{"GIT_CONFIG_COUNT": "2", "GIT_CONFIG_KEY_0": "http.extraHeader",
		"GIT_CONFIG_VALUE_0": "X-A: 1", "GIT_CONFIG_KEY_1": "http." + f.URL + ".extraHeader",
		"GIT_CONFIG_VALUE_1": "X-A: 2"} {
		t.Setenv(k, v)
	}
	succeeds(t, f.open(Options{}))
	if h := f.requests()[0].Header; !slices.Equal(h["X-A"], []string{"1", "2"}) {
		t.Errorf("%v", h)
	}
}

// TestInsteadOf: git's configuration says what a source stands for; what it has as a password is not shown.
func TestInsteadOf(t *testing.T) {
	f, other := newForge(t, false), newForge(t, false)
	name := filepath.Base(f.path)
	configure(t, fmt.Sprintf("[url \"%s/\"]\ninsteadOf = gh:\n[url \"http://wrong.example/\"]\ninsteadOf = g\n", f.URL))
	succeeds(t, opened(t, "gh:"+name, Options{}))

	host := strings.TrimPrefix(f.URL, "http://")
	configure(t, fmt.Sprintf("[url \"http://joe:s3cret@%s/\"]\ninsteadOf = %s/\n", host, f.URL))
	f.only(basicWanted, basic("joe", "s3cret"))
	r := f.open(Options{})
	succeeds(t, r)
	if strings.Contains(r.String(), "s3cret") {
		t.Error(r)
	}
	f.only(basicWanted, "nothing")
	fails(t, r, "401", "insteadOf")

	configure(t, fmt.Sprintf("[url \"%s/\"]\ninsteadOf = gh:\n[url \"%s/\"]\npushInsteadOf = gh:\n", f.URL, other.URL))
	f.only(basicWanted, "")
	f.requests()
	other.requests()
	v := newVolume(t)
	check(t, opened(t, "gh:"+name, Options{}).push(t.Context(), one(cold.ID{}, v.commit("one")), v.pack))
	if n, m := len(f.requests()), len(other.requests()); n != 0 || m != 2 {
		t.Errorf("%d requests to the one to fetch from, %d to the other", n, m)
	}

	dir, _ := newRemote(t)
	configure(t, fmt.Sprintf("[url \"%s/\"]\ninsteadOf = gh:\n", filepath.Dir(dir)))
	if r := opened(t, "gh:"+filepath.Base(dir), Options{}); r.net != nil || r.String() != dir {
		t.Errorf("a path: %v", r)
	}
	configure(t, "[url \"svn://s3cret@h/\"]\ninsteadOf = gh:\n")
	if _, err := Open("gh:x", Options{}); err == nil || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("%v", err)
	}
}

// TestHome: what git configures for the user counts where HOME is not set, as in a system unit.
func TestHome(t *testing.T) {
	alone(t)
	t.Setenv("HOME", "")
	if home() == "" || expand("~/x") != home()+"/x" || expand("~root/x") == "~root/x" || expand("/x~") != "/x~" {
		t.Errorf("home %q, %q, %q", home(), expand("~/x"), expand("~root/x"))
	}
	if got := asUser(nil); !slices.Contains(got, "HOME="+home()) {
		t.Errorf("%q", got)
	}
}

// countingGit puts a git into PATH that notes each start, and returns how many there were since the last call.
func countingGit(t *testing.T) func() int {
	t.Helper()
	stock, err := exec.LookPath("git")
	check(t, err)
	dir := t.TempDir()
	check(t, testprog.Write(filepath.Join(dir, "git"), fmt.Sprintf("#!/bin/sh\necho x >>%s/n\nexec %s \"$@\"\n", dir,
		stock)))
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return func() int {
		data, err := os.ReadFile(dir + "/n")
		if err != nil {
			return 0
		}
		check(t, os.Remove(dir+"/n"))
		return len(data) / 2
	}
}

// TestNoProcessPerPush: git is asked once, and again only after a refusal.
func TestNoProcessPerPush(t *testing.T) {
	f := newForge(t, false)
	helper(t, "username=joe\npassword=s3cret\n")
	f.only(basicWanted, basic("joe", "s3cret"))
	count := countingGit(t)
	r := f.open(Options{})
	succeeds(t, r)
	if count() == 0 {
		t.Error("git was never asked")
	}
	v := newVolume(t)
	check(t, r.push(t.Context(), one(cold.ID{}, v.commit("one")), v.pack))
	if n := count(); n != 0 {
		t.Errorf("a push has started git %d times", n)
	}
}

// proxy is one that takes CONNECT alone, and leads everything to one address. It notes what it is asked.
type proxy struct {
	*httptest.Server
	mu    sync.Mutex
	asked []string
}

func newProxy(t *testing.T, to string) *proxy {
	t.Helper()
	p := &proxy{}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		p.asked = append(p.asked, r.Method+" "+r.Host+" "+r.Header.Get("Proxy-Authorization"))
		p.mu.Unlock()
		if r.Method != http.MethodConnect {
			http.Error(w, "CONNECT alone", http.StatusMethodNotAllowed)
			return
		}
		there, err := net.Dial("tcp", to)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer there.Close()
		here, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer here.Close()
		_, _ = io.WriteString(here, "HTTP/1.1 200 OK\r\n\r\n")
		go func() {
			_, _ = io.Copy(there, rw)
			_ = there.(*net.TCPConn).CloseWrite()
		}()
		_, _ = io.Copy(here, there)
	}))
	t.Cleanup(p.Close)
	return p
}

// took says what the proxy was asked since the last call.
func (p *proxy) took() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.asked
	p.asked = nil
	return list
}

// TestProxy: one by the settings, by git's configuration and by the environment. The name of the host is known to the
// proxy alone.
func TestProxy(t *testing.T) {
	f := newForge(t, true)
	ca := f.ca()
	_, port, err := net.SplitHostPort(strings.TrimPrefix(f.URL, "https://"))
	check(t, err)
	p := newProxy(t, "127.0.0.1:"+port)
	source := "https://example.com:" + port + "/" + filepath.Base(f.path) // httptest's certificate is for this name too
	want := "CONNECT example.com:" + port + " "
	through := func(want string, o Options) {
		t.Helper()
		p.took()
		o.TLSCA = ca
		succeeds(t, opened(t, source, o))
		if got := p.took(); !slices.Equal(got, []string{want}) {
			t.Errorf("the proxy was asked %q", got)
		}
	}
	through(want, Options{Proxy: p.URL})
	through(want, Options{Proxy: strings.TrimPrefix(p.URL, "http://")})
	configure(t, fmt.Sprintf("[http \"https://example.com:%s/\"]\nproxy = %s\n", port,
		strings.Replace(p.URL, "http://", "http://joe:s3cret@", 1)))
	through(want+basic("joe", "s3cret"), Options{})
	configure(t, "")
	t.Setenv("https_proxy", p.URL)
	through(want, Options{})
	t.Setenv("https_proxy", "")
	t.Setenv("ALL_PROXY", p.URL)
	through(want, Options{})

	// For this machine itself a proxy is taken only if it was named.
	p.took()
	succeeds(t, f.open(Options{TLSCA: ca}))
	if got := p.took(); len(got) != 0 {
		t.Errorf("the proxy was asked %q", got)
	}
	succeeds(t, f.open(Options{TLSCA: ca, Proxy: p.URL}))
	if got := p.took(); len(got) != 1 {
		t.Errorf("the proxy was asked %q", got)
	}
	configure(t, "[http]\nproxy =\n") // none, whatever the environment says
	r := opened(t, source, Options{TLSCA: ca})
	c, err := r.net.(*httpDialer).config(t.Context())
	check(t, err)
	if c.own.Transport.(*http.Transport).Proxy != nil {
		t.Error("an empty http.proxy is not obeyed")
	}
	configure(t, "[http]\nproxy = \"http://joe:s3cret@bad host\"\n")
	fails(t, opened(t, source, Options{TLSCA: ca}), "proxy")
}

// TestProxyRefuses: a proxy that wants a password is for a person, and one that is busy is not.
func TestProxyRefuses(t *testing.T) {
	f := newForge(t, true)
	for code, want := range map[int]string{http.StatusProxyAuthRequired: "person",
		http.StatusServiceUnavailable: "busy"} {
		p := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "no", code)
		}))
		_, err := opened(t, "https://example.com/x.git", Options{Proxy: p.URL, TLSCA: f.ca()}).Refs(t.Context())
		p.Close()
		if kind, advice := kindOf(err); kind != want || want == "person" && !strings.Contains(advice, "http.proxy") {
			t.Errorf("%d: %s %q: %v", code, kind, advice, err)
		}
	}
}
