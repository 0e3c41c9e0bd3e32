package wire

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"emberfs/integration/testprog"
	"emberfs/tiers/cold"
)

// section is what a helper got for one call.
func section(text, call string) string {
	_, rest, ok := strings.Cut(text, "["+call+"]\n")
	if !ok {
		return ""
	}
	rest, _, _ = strings.Cut(rest, "\n[")
	return rest
}

// TestHelperProtocol: helpers are asked for the host, told once what worked and what was refused, and never more.
func TestHelperProtocol(t *testing.T) {
	f := newForge(t, false)
	dir := helper(t, "username=joe\npassword=s3cret-1\n")
	f.only(basicWanted, basic("joe", "s3cret-1"))
	u, err := url.Parse(f.url())
	check(t, err)
	r := f.open(Options{})
	succeeds(t, r)
	succeeds(t, r)
	text := asked(t, dir)
	for call, lines := range map[string]string{"get": "protocol=http\nhost=" + u.Host + "\n",
		"store": "protocol=http\nhost=" + u.Host + "\nusername=joe\npassword=s3cret-1\n"} {
		if got := section(text, call); !strings.HasPrefix(got, lines) || strings.Count(text, "["+call+"]") != 1 ||
			strings.Contains(got, "path=") {
			t.Errorf("%s got %q", call, got)
		}
	}
	if strings.Contains(text, "[erase]") {
		t.Error("what worked is erased")
	}

	// It keeps one that is refused, until it is told so.
	f.only(basicWanted, basic("joe", "s3cret-2"))
	check(t, os.WriteFile(filepath.Join(dir, "answer"), []byte("username=joe\npassword=s3cret-2\n"), 0o600))
	succeeds(t, r)
	text = asked(t, dir)
	if got := section(text, "erase"); !strings.Contains(got, "password=s3cret-1\n") {
		t.Errorf("erase got %q", got)
	}
	if got := section(text, "store"); !strings.Contains(got, "password=s3cret-2\n") {
		t.Errorf("store got %q", got)
	}

	// What it gives is refused: it is not sent again and again.
	f.only(basicWanted, "nothing")
	f.requests()
	fails(t, r, "401", "credential helper")
	if n := len(f.requests()); n > 3 { // one as before, and two of a GET that begins anew
		t.Errorf("%d requests", n)
	}

	// The path, the user and its challenge.
	configure(t, read(t, os.Getenv("GIT_CONFIG_GLOBAL"))+"useHttpPath = true\n")
	f.only(basicWanted, basic("joe", "s3cret-2"))
	asked(t, dir)
	succeeds(t, f.open(Options{User: "joe"}))
	text = asked(t, dir)
	for _, call := range []string{"get", "store"} {
		if got := section(text, call); !strings.Contains(got, "path=remote repo.git\n") ||
			!strings.Contains(got, "username=joe\n") {
			t.Errorf("%s got %q", call, got)
		}
	}
}

// TestHelperQuits: then nobody else is asked.
func TestHelperQuits(t *testing.T) {
	f := newForge(t, false)
	check(t, os.WriteFile(filepath.Join(os.Getenv("HOME"), ".netrc"), []byte("default login u password p\n"), 0o600))
	f.only(basicWanted, basic("u", "p"))
	helper(t, "")
	succeeds(t, f.open(Options{})) // ~/.netrc knows
	helper(t, "quit=1\n")
	fails(t, f.open(Options{}), "401", "says that there is no password")
}

// TestNetrc: the file is ours alone, and of its entries the one for the host and the user counts.
func TestNetrc(t *testing.T) {
	f := newForge(t, false)
	path := filepath.Join(os.Getenv("HOME"), ".netrc")
	check(t, os.WriteFile(path, []byte("# a comment\nmachine other.example login x password y\n"+
		"machine 127.0.0.1 login ann password s3cret-1\nmachine 127.0.0.1 login bob password s3cret-2\n"), 0o600))
	f.only(basicWanted, basic("ann", "s3cret-1"))
	succeeds(t, f.open(Options{}))
	f.only(basicWanted, basic("bob", "s3cret-2"))
	r := f.open(Options{User: "bob"})
	succeeds(t, r)
	check(t, os.WriteFile(path, []byte("machine 127.0.0.1 login bob password s3cret-3\n"), 0o600))
	f.only(basicWanted, basic("bob", "s3cret-3"))
	succeeds(t, r) // it is read again
	check(t, os.Chmod(path, 0o644))
	fails(t, f.open(Options{User: "bob"}), ".netrc", "chmod 600")
	for _, bad := range []string{"default login a password b\nmachine s3cret login s3cret", "machine",
		"machine 127.0.0.1", "machine 127.0.0.1 password", "login s3cret", strings.Repeat("x ", 10000)} {
		check(t, os.Remove(path))
		check(t, os.WriteFile(path, []byte(bad), 0o600))
		fails(t, f.open(Options{}), "401")
	}
}

// TestHelperInjection: what a helper would read as several lines is not given to it.
func TestHelperInjection(t *testing.T) {
	f := newForge(t, false)
	dir := helper(t, "username=joe\npassword=s3cret\n")
	f.only(basicWanted, basic("joe", "s3cret"))
	for _, path := range []string{"/x%0ahost=other.example", "/x%0d", "/x%00"} {
		if _, err := Open(f.URL+path, Options{}); !errors.Is(err, errControl) {
			t.Errorf("%q: %v", path, err)
		}
	}
	if text := asked(t, dir); text != "" {
		t.Errorf("the helper got %q", text)
	}
	for _, bad := range []helperText{{{"host", "a\nb"}}, {{"a\nb", "c"}}, {{"a=b", "c"}}, {{"host", "a\x00"}}} {
		if text, err := bad.encode(); err == nil {
			t.Errorf("%q", text)
		}
	}
}

// fakeGit puts a git into PATH that answers as the newer ones that know capabilities (2.46).
func fakeGit(t *testing.T, answer string) {
	t.Helper()
	dir := t.TempDir()
	check(t, testprog.Write(filepath.Join(dir, "git"), "#!/bin/sh\n[ \"$1\" != config ] || exit 1\n"+
		"cat >>"+dir+"/asked\n[ \"$4\" != fill ] || printf '"+answer+"'\n"))
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	t.Cleanup(func() {
		text := read(t, filepath.Join(dir, "asked"))
		if !strings.Contains(text, "capability[]=authtype\n") ||
			!strings.Contains(text, "wwwauth[]="+basicWanted+"\n") {
			t.Errorf("git was asked %q", text)
		}
	})
}

// TestHelperCapabilities: a helper may know another scheme than Basic, and when a password ends.
func TestHelperCapabilities(t *testing.T) {
	f := newForge(t, false)
	t.Run("authtype", func(t *testing.T) {
		fakeGit(t, `capability[]=authtype\nauthtype=Bearer\ncredential=s3cret\n`)
		f.only(basicWanted, "Bearer s3cret")
		succeeds(t, opened(t, f.url(), Options{}))
	})
	t.Run("expired", func(t *testing.T) {
		fakeGit(t, `username=a\npassword=s3cret\npassword_expiry_utc=1000\n`)
		f.only(basicWanted, basic("a", "s3cret"))
		fails(t, opened(t, f.url(), Options{}), "401", "expired")
	})
	t.Run("expires", func(t *testing.T) {
		end := time.Now().Unix() + 2
		fakeGit(t, fmt.Sprintf(`username=a\npassword=s3cret\npassword_expiry_utc=%d\n`, end))
		r := opened(t, f.url(), Options{})
		succeeds(t, r)
		f.requests()
		for time.Now().Unix() < end {
			time.Sleep(50 * time.Millisecond)
		}
		fails(t, r, "401")
		for _, v := range authorizations(f.requests()) {
			if v != "" {
				t.Error("an expired password is sent")
			}
		}
	})
}

// TestWhatChildrenSee: a token in a variable is for us alone. Helpers have secrets of their own in theirs.
func TestWhatChildrenSee(t *testing.T) {
	alone(t)
	t.Setenv("EMBERFS_TOKEN", "s3cret-ours")
	t.Setenv("CI_HELPER_TOKEN", "s3cret-theirs")
	t.Setenv("CREDENTIALS_DIRECTORY", "/run/credentials/s3cret-ours")
	dir, _ := newRemote(t)
	t.Setenv("GIT_DIR", "/somewhere")
	check(t, testprog.Write(filepath.Join(dir, "hooks", "post-receive"), "#!/bin/sh\nenv >env\n"))
	v := newVolume(t)
	r := opened(t, dir, Options{})
	check(t, r.push(t.Context(), one(cold.ID{}, v.commit("one")), v.pack))
	if env := read(t, filepath.Join(dir, "env")); strings.Contains(env, "s3cret") {
		t.Errorf("a hook sees %s", env)
	}
	log := helper(t, "username=u\npassword=p\n")
	u, err := url.Parse("http://h/x")
	check(t, err)
	l, err := askHelpers(t.Context(), u, "", nil)
	if err != nil || l == nil || l.header != basic("u", "p") {
		t.Fatal(l, err)
	}
	env := asked(t, log)
	if strings.Contains(env, "EMBERFS_") || strings.Contains(env, "/somewhere") ||
		!strings.Contains(env, "CI_HELPER_TOKEN=s3cret-theirs\n") || !strings.Contains(env, "PATH=") {
		t.Errorf("a helper sees %s", env)
	}
	bin := t.TempDir()
	check(t, testprog.Write(filepath.Join(bin, "git"), "#!/bin/sh\nenv >"+bin+"/env\nexit 1\n"))
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	_, err = gitConfig(t.Context(), "--get", "core.sshCommand")
	check(t, err)
	if env := read(t, filepath.Join(bin, "env")); strings.Contains(env, "s3cret") {
		t.Errorf("git config sees %s", env)
	}
}

// TestApprovedByTheAnswer: a redirect or a server's failure is no proof that a password is right.
func TestApprovedByTheAnswer(t *testing.T) {
	f := newForge(t, false)
	dir := helper(t, "username=joe\npassword=s3cret\n")
	f.pass = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Authorization") == "" {
			w.Header().Set("WWW-Authenticate", basicWanted)
			w.WriteHeader(http.StatusUnauthorized)
		} else {
			w.WriteHeader(http.StatusInternalServerError)
		}
		return false
	}
	fails(t, f.open(Options{}), "500")
	if text := asked(t, dir); strings.Contains(text, "[store]") || strings.Contains(text, "[erase]") {
		t.Errorf("the helper got %s", text)
	}
}
