package wire

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"emberfs/tiers/cold"
)

const basicWanted = `Basic realm="git"`

// TestToken: a token comes from each of the places, in their order, and goes as the password of Basic.
func TestToken(t *testing.T) {
	f := newForge(t, true)
	ca := f.ca()
	helperDir := helper(t, "username=joe\npassword=s3cret-helper\n")
	check(t, os.WriteFile(filepath.Join(os.Getenv("HOME"), ".netrc"),
		[]byte("machine 127.0.0.1 login ann password s3cret-netrc\n"), 0o600))
	from := func(want, user string, o Options) {
		t.Helper()
		f.only(basicWanted, basic(user, want))
		f.requests()
		o.TLSCA = ca
		succeeds(t, f.open(o))
	}
	from("s3cret-helper", "joe", Options{})
	if asked(t, helperDir) == "" {
		t.Error("the helper was not asked")
	}
	configure(t, "")
	from("s3cret-netrc", "ann", Options{})
	credential := secretFile(t, "emberfs-token", "s3cret-credential\n", 0o400)
	t.Setenv("CREDENTIALS_DIRECTORY", filepath.Dir(credential))
	from("s3cret-credential", anyUser, Options{})
	t.Setenv("EMBERFS_TOKEN", "s3cret-variable")
	from("s3cret-variable", anyUser, Options{})
	if list := f.requests(); len(list) != 2 {
		t.Errorf("%d requests, want two: over TLS a token goes with the first", len(list))
	}
	from("s3cret-file", "kim", Options{User: "kim",
		Token: "file:" + secretFile(t, "token", "s3cret-file\n", 0o600)})
	t.Setenv("CI_TOKEN", "s3cret-ci")
	from("s3cret-ci", anyUser, Options{Token: "env:CI_TOKEN"})
	from("s3cret-credential", anyUser, Options{Token: "credential:emberfs-token"})

	fails(t, f.open(Options{TLSCA: ca, Token: "env:EMBERFS_TOKEN"}), "401", "env:EMBERFS_TOKEN")
	fails(t, f.open(Options{TLSCA: ca, Token: "env:NOTHING"}), "env:NOTHING", "not set")
	fails(t, f.open(Options{TLSCA: ca, Token: "file:" + secretFile(t, "open", "s3cret", 0o644)}), "/open", "chmod 600")
	for _, o := range []Options{{Token: "s3cret"}, {Proxy: "http://u:s3cret@h:1"}, {Proxy: "s3cret://h"},
		{User: "a:s3cret"}} {
		if _, err := Open(f.url(), o); err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

// TestTokenInTheClear: over a connection that is not encrypted a token goes only to a server that wants one.
func TestTokenInTheClear(t *testing.T) {
	f := newForge(t, false)
	t.Setenv("EMBERFS_TOKEN", "s3cret")
	succeeds(t, f.open(Options{}))
	if got := authorizations(f.requests()); len(got) != 2 || got[0] != "" || got[1] != "" {
		t.Errorf("nobody asked for %q", got)
	}
	f.only(basicWanted, basic(anyUser, "s3cret"))
	r := f.open(Options{})
	succeeds(t, r)
	succeeds(t, r)
	if got := authorizations(f.requests()); len(got) != 4 || got[0] != "" || got[1] == "" || got[3] == "" {
		t.Errorf("got %q, want one request without and three with the token", got)
	}
}

// TestBearer: a server that offers no Basic gets the token as it wants it.
func TestBearer(t *testing.T) {
	f := newForge(t, true)
	t.Setenv("EMBERFS_TOKEN", "s3cret")
	f.only("Bearer", "Bearer s3cret")
	succeeds(t, f.open(Options{TLSCA: f.ca(), User: "joe"}))
	for want, list := range map[bool][][]string{true: {{`bearer realm="x"`}, {"Negotiate", "Bearer"}},
		false: {nil, {"Bearer", `BASIC realm="x"`}, {"BearerX"}}} {
		for _, l := range list {
			if bearerAlone(l) != want {
				t.Errorf("%q: want %v", l, want)
			}
		}
	}
}

// TestRotatedToken: the file is read at each use, without a new start.
func TestRotatedToken(t *testing.T) {
	f := newForge(t, true)
	file := secretFile(t, "token", "s3cret-1\n", 0o600)
	f.only(basicWanted, basic(anyUser, "s3cret-1"))
	r := f.open(Options{TLSCA: f.ca(), Token: "file:" + file})
	succeeds(t, r)
	f.only(basicWanted, basic(anyUser, "s3cret-2"))
	fails(t, r, "401")
	check(t, os.WriteFile(file, []byte("s3cret-2\n"), 0o600))
	succeeds(t, r)
}

// TestRefusedInTheMiddle: the token is replaced between the references and the request. A short request is sent again;
// with a long one the push begins again.
func TestRefusedInTheMiddle(t *testing.T) {
	f := newForge(t, true)
	file := secretFile(t, "token", "s3cret-1\n", 0o600)
	rotate := func(from, to string) {
		f.mu.Lock()
		defer f.mu.Unlock()
		good := basic(anyUser, from)
		f.pass = func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodPost && good == basic(anyUser, from) {
				good = basic(anyUser, to)
				check(t, os.WriteFile(file, []byte(to), 0o600))
			}
			if r.Header.Get("Authorization") == good {
				return true
			}
			w.Header().Set("WWW-Authenticate", basicWanted)
			w.WriteHeader(http.StatusUnauthorized)
			return false
		}
	}
	v := newVolume(t)
	r := f.open(Options{TLSCA: f.ca(), Token: "file:" + file})
	rotate("s3cret-1", "s3cret-2")
	first := v.commit("one")
	check(t, r.push(t.Context(), one(cold.ID{}, first), v.pack))
	if list := f.requests(); len(list) != 3 {
		t.Errorf("%d requests, want the GET and twice the POST", len(list))
	}
	rotate("s3cret-2", "s3cret-3")
	big := make([]byte, 3<<20)
	_, _ = rand.Read(big)
	second := v.commit(string(big))
	check(t, r.push(t.Context(), one(first, second), v.pack)) // of a long one the push begins again
	if got := git(t, f.path, "rev-parse", "main"); got != second.String() {
		t.Errorf("after a long request the branch is at %s", got)
	}
	var status *StatusError

	// Nobody has another one.
	f.only(basicWanted, "nothing")
	if err := r.push(t.Context(), one(second, v.commit("three")), v.pack); !errors.As(err, &status) ||
		status.Code != http.StatusUnauthorized {
		t.Errorf("without another token: %v", err)
	}
}

// TestEarlyAnswer: a server that refuses a long request before it has read it does not hold the push.
func TestEarlyAnswer(t *testing.T) {
	f := newForge(t, true)
	f.pass = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPost {
			http.Error(w, "too much", http.StatusRequestEntityTooLarge)
		}
		return r.Method != http.MethodPost
	}
	v := newVolume(t)
	id := v.commit("one")
	err := f.open(Options{TLSCA: f.ca()}).push(t.Context(), one(cold.ID{}, id), writer(64<<20))
	var status *StatusError
	if !errors.As(err, &status) || status.Code != http.StatusRequestEntityTooLarge || status.Words != "too much" ||
		errors.Is(err, errIdle) {
		t.Errorf("%v", err)
	}
}

// TestAnswerWithoutReading: neither does one that answers as if it had.
func TestAnswerWithoutReading(t *testing.T) {
	f := newForge(t, true)
	f.pass = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPost {
			w.Header().Set("Content-Type", "application/x-git-receive-pack-result")
		}
		return r.Method != http.MethodPost
	}
	v := newVolume(t)
	id := v.commit("one")
	err := f.open(Options{TLSCA: f.ca()}).push(t.Context(), one(cold.ID{}, id), writer(64<<20))
	if err == nil || errors.Is(err, errIdle) {
		t.Errorf("%v", err)
	}
}

// TestTokenLostInTheMiddle: a token that cannot be read any more ends a long request at once, with the reason.
func TestTokenLostInTheMiddle(t *testing.T) {
	f := newForge(t, true)
	file := secretFile(t, "token", "s3cret\n", 0o600)
	f.pass = func(http.ResponseWriter, *http.Request) bool {
		check(t, os.Chmod(file, 0o644))
		return true
	}
	v := newVolume(t)
	id := v.commit("one")
	o := Options{TLSCA: f.ca(), Token: "file:" + file}
	err := f.open(o).push(t.Context(), one(cold.ID{}, id), writer(64<<20))
	if !errors.Is(err, ErrOpenSecret) || errors.Is(err, errIdle) {
		t.Errorf("%v", err)
	}
}

// TestConnectionIsKept: all requests of two pushes go over one connection, also where the references are so many that
// they come in chunks.
func TestConnectionIsKept(t *testing.T) {
	f := newForge(t, true)
	v := newVolume(t)
	first := v.commit("one")
	r := f.open(Options{TLSCA: f.ca()})
	check(t, r.push(t.Context(), one(cold.ID{}, first), v.pack))
	for i := range 100 {
		git(t, f.path, "update-ref", fmt.Sprint("refs/heads/side/", i), first.String())
	}
	check(t, r.push(t.Context(), one(first, v.commit("two")), v.pack))
	if n := len(f.requests()); n != 4 || f.came != 1 {
		t.Errorf("%d requests over %d connections, want 4 over 1", n, f.came)
	}
}

// TestNoGit: a token is enough where git is not installed.
func TestNoGit(t *testing.T) {
	f := newForge(t, true)
	t.Setenv("EMBERFS_TOKEN", "s3cret")
	f.only(basicWanted, basic(anyUser, "s3cret"))
	ca := f.ca()
	bin := t.TempDir()
	t.Setenv("PATH", bin)
	succeeds(t, f.open(Options{TLSCA: ca}))
	t.Setenv("EMBERFS_TOKEN", "")
	fails(t, f.open(Options{TLSCA: ca}), "401", "EMBERFS_TOKEN")
}
