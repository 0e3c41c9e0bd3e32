package wire

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"emberfs/tiers/cold"
)

// redirect leads GETs of the references to another server.
func redirect(to *forge, code int) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		http.Redirect(w, r, to.url()+"/info/refs?"+r.URL.RawQuery, code)
		return false
	}
}

// TestNothingGoesElsewhere: whatever proves who we are stays with the host that the source names.
func TestNothingGoesElsewhere(t *testing.T) {
	f, other := newForge(t, true), newForge(t, true)
	ca := secretFile(t, "both.pem", read(t, f.ca())+read(t, other.ca()), 0o644)
	t.Setenv("EMBERFS_TOKEN", "s3cret")
	configure(t, "[http]\nextraHeader = X-Secret: s3cret-header\n")
	f.pass = redirect(other, http.StatusTemporaryRedirect)
	v := newVolume(t)
	id := v.commit("one")
	r := f.open(Options{TLSCA: ca})
	check(t, r.push(t.Context(), one(cold.ID{}, id), v.pack))
	first := f.requests()
	if len(first) != 1 || first[0].Header.Get("Authorization") == "" ||
		first[0].Header.Get("X-Secret") != "s3cret-header" {
		t.Fatalf("the source got %v", first)
	}
	got := other.requests()
	if len(got) != 2 || got[1].Method != http.MethodPost {
		t.Fatalf("%d requests, want a GET and a POST", len(got))
	}
	for _, req := range got {
		if text := fmt.Sprint(req.Header, req.URL); strings.Contains(text, "s3cret") || req.Header.Get("Cookie") != "" {
			t.Errorf("the other host got %s", text)
		}
	}

	// It wants to know who we are: it does not get the token, and the message says why. Nor does it get what ~/.netrc
	// has for any host.
	netrc := filepath.Join(os.Getenv("HOME"), ".netrc")
	check(t, os.WriteFile(netrc, []byte("default login u password s3cret\n"), 0o600))
	other.only(basicWanted, "nothing")
	r = f.open(Options{TLSCA: ca})
	fails(t, r, "401", "another host")
	for _, value := range authorizations(other.requests()) {
		if value != "" {
			t.Errorf("the other host got %q", value)
		}
	}
	// But it may have its own.
	check(t, os.WriteFile(netrc, []byte("machine 127.0.0.1 login u password p\n"), 0o600))
	other.only(basicWanted, basic("u", "p"))
	succeeds(t, r)

	// The redirect is over, and so is its effect.
	f.mu.Lock()
	f.pass = func(http.ResponseWriter, *http.Request) bool { return true }
	f.mu.Unlock()
	other.Close()
	f.requests()
	// The first call fails, or finds out by itself that it has to ask the source; from then on it is asked alone.
	if _, err := r.Refs(t.Context()); err == nil && len(f.requests()) == 0 {
		t.Error("the references came, and not from the source")
	}
	f.requests()
	succeeds(t, r)
	if n := len(f.requests()); n != 1 && n != 2 { // what it said of version 2 is known, or is asked too
		t.Errorf("the source was asked %d times", n)
	}
}

// TestHelpersStay: what a helper gave for the source is for the source alone.
func TestHelpersStay(t *testing.T) {
	f, other := newForge(t, false), newForge(t, false)
	helper(t, "username=joe\npassword=s3cret\n")
	f.only(basicWanted, basic("joe", "s3cret"))
	r := f.open(Options{})
	succeeds(t, r)
	f.mu.Lock()
	f.pass = redirect(other, http.StatusMovedPermanently)
	f.mu.Unlock()
	succeeds(t, r)
	if got := authorizations(other.requests()); len(got) != 2 || got[0] != "" || got[1] != "" {
		t.Errorf("the other host got %q", got)
	}
}

// TestRedirectsThatAreNotFollowed: only a GET of the references is led elsewhere, to a repository, and never from https
// to http.
func TestRedirectsThatAreNotFollowed(t *testing.T) {
	f, open := newForge(t, true), newForge(t, false)
	t.Setenv("EMBERFS_TOKEN", "s3cret")
	o := Options{TLSCA: f.ca()}
	f.pass = redirect(open, http.StatusFound)
	fails(t, f.open(o), "not encrypted")
	f.pass = func(w http.ResponseWriter, r *http.Request) bool {
		http.Redirect(w, r, "/login?s3cret", http.StatusFound)
		return false
	}
	fails(t, f.open(o), "no repository")
	f.pass = func(w http.ResponseWriter, r *http.Request) bool {
		http.Redirect(w, r, r.URL.Path+"?"+r.URL.RawQuery, http.StatusFound)
		return false
	}
	f.requests()
	fails(t, f.open(o), "redirects")
	if n := len(f.requests()); n != maxRedirects {
		t.Errorf("%d requests", n)
	}
	f.pass = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPost {
			http.Redirect(w, r, open.url()+"/git-receive-pack", http.StatusTemporaryRedirect)
		}
		return r.Method != http.MethodPost
	}
	v := newVolume(t)
	err := f.open(o).push(t.Context(), one(cold.ID{}, v.commit("one")), v.pack)
	if err == nil || !strings.Contains(err.Error(), "307") {
		t.Errorf("a POST is led elsewhere: %v", err)
	}
	if list := open.requests(); len(list) != 0 {
		t.Errorf("%d requests went over the connection that is not encrypted", len(list))
	}
}

// TestOrigins: the same host by another name, port or scheme is another one.
func TestOrigins(t *testing.T) {
	for _, c := range []struct {
		a, b string
		same bool
	}{{"https://h/x", "https://H:443/y", true}, {"http://h", "http://h:80", true}, {"https://h", "http://h", false},
		{"https://h", "https://h:444", false}, {"https://h", "https://h.example", false},
		{"https://[::1]/", "https://[::1]:443", true}} {
		a, err := parse(c.a + "/r")
		check(t, err)
		b, err := parse(c.b + "/r")
		check(t, err)
		if (originOf(a.url) == originOf(b.url)) != c.same {
			t.Errorf("%s and %s: %s, %s", c.a, c.b, originOf(a.url), originOf(b.url))
		}
	}
}

// TestEscapedPath: what is escaped in a source stays so.
func TestEscapedPath(t *testing.T) {
	f := newForge(t, false)
	f.pass = func(w http.ResponseWriter, r *http.Request) bool {
		http.NotFound(w, r)
		return false
	}
	fails(t, opened(t, f.URL+"/a%2Fb/c%20d/", Options{}), "404")
	if got := f.requests()[0].URL.EscapedPath(); got != "/a%2Fb/c%20d/info/refs" {
		t.Errorf("asked for %s", got)
	}
}
