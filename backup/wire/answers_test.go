package wire

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"emberfs/tiers/cold"
)

// TestRedirects: the references of another host are taken, and later requests go there; a request with a pack in it is
// never sent to another place than it was meant for.
func TestRedirects(t *testing.T) {
	dir, path := newRemote(t)
	v := newVolume(t)
	check(t, path.push(t.Context(), one(cold.ID{}, v.commit("one")), v.pack))
	elsewhere := strings.ReplaceAll(httpServer(t, dir, unwrapped), " ", "%20")
	hits := 0
	refs := func(handler http.HandlerFunc) (map[string]cold.ID, error) {
		hits = 0
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			hits++
			handler(w, r)
		}))
		t.Cleanup(s.Close)
		r, err := Open(s.URL+"/moved.git", Options{})
		check(t, err)
		if _, err := r.Refs(t.Context()); err != nil {
			return nil, err
		}
		return r.Refs(t.Context())
	}
	list, err := refs(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, elsewhere+"/info/refs?"+r.URL.RawQuery, http.StatusMovedPermanently)
	})
	if err != nil || list[mainRef] != v.tip || hits != 1 {
		t.Errorf("to another host: %v, %v, %d requests", list, err, hits)
	}
	_, err = refs(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, r.URL.String(), http.StatusFound)
	})
	if err == nil || !strings.Contains(err.Error(), "more than 5 redirects") || hits != maxRedirects {
		t.Errorf("for ever: %v, %d requests", err, hits)
	}
	_, err = refs(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/login", http.StatusFound)
	})
	if err == nil || !strings.Contains(err.Error(), "no repository") {
		t.Errorf("to something else: %v", err)
	}
	script := script{say(introduce2())}
	_, err = refs(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			http.Redirect(w, r, elsewhere+"/git-upload-pack", http.StatusTemporaryRedirect)
			return
		}
		w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
		check(t, script[0](w))
	})
	var status *StatusError
	if !errors.As(err, &status) || status.Code != http.StatusTemporaryRedirect {
		t.Errorf("of a request: %v", err)
	}
}

// TestTrailing: what comes behind a pack is not waited for.
func TestTrailing(t *testing.T) {
	v := newVolume(t)
	v.commit("some text")
	var pack strings.Builder
	check(t, v.pack(&pack))
	answer := pkt("packfile\n") + inBand([]byte(pack.String()))
	for what, more := range map[string]time.Duration{"at once": 0, "slowly": time.Millisecond} {
		s := script{say(introduce2()), say(heads(v.tip, mainRef)), then(say(answer), forEver("more ", more))}
		b := newVolume(t)
		start := time.Now()
		r := &Remote{path: "fake", net: fakeDialer{s}, paces: &tempi{listingTempo(), packTempo(),
			tempo{every: 200 * time.Millisecond, most: 1}}}
		tip, release, err := r.Fetch(t.Context(), b.db, mainRef, nil)
		check(t, err)
		check(t, release())
		if took := time.Since(start); tip != v.tip || took > 20*time.Second {
			t.Errorf("%s: fetched %s in %v", what, tip, took)
		}
	}
}

// TestRefNames: names that git would not make are no references.
func TestRefNames(t *testing.T) {
	tip := cold.ID{1}
	names := []string{mainRef, "refs/heads/\x1b[31m", "refs/heads/../../config", "refs/heads/x.lock",
		"refs/heads//", "HEAD", "heads/main", "refs/heads/" + strings.Repeat("x", 60_000),
		"refs/heads/tag^{}", "refs/notes/v"}
	for _, s := range []script{{say(introduce0(tip, append(names, "refs/heads/a b")...))},
		{say(introduce2()), say(heads(tip, names...))}} {
		refs, err := (&Remote{path: "fake", net: fakeDialer{s}}).Refs(t.Context())
		if err != nil || len(refs) != 1 || refs[mainRef] != tip {
			t.Errorf("%v, %v", refs, err)
		}
	}
}

// TestClean: what another host says is fit for a terminal.
func TestClean(t *testing.T) {
	for text, want := range map[string]string{
		"":                       "",
		"two\nlines\r\n":         "two; lines",
		"\x1b[31mred\x1b[0m":     "[31mred[0m",
		"a\u0085b\u009bc":        "abc",
		"a\u202eb\u2066c\u200fd": "abcd",
		"bad \xff\xfe bytes":     "bad  bytes",
		"läuft – 走る":             "läuft – 走る",
		"line\u2028separator":    "lineseparator",
	} {
		if got := Clean(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	long := Clean(strings.Repeat("走", 1000) + "end")
	if len(long) > maxWords || !strings.HasSuffix(long, "走end") || !strings.HasPrefix(long, "... 走") {
		t.Errorf("%d bytes: %.30q", len(long), long)
	}
	var m messages
	for range 100 {
		_, err := m.Write([]byte(strings.Repeat("x", 3*maxMessages)))
		check(t, err)
	}
	if len(m.mu.buf) > maxMessages || len(m.String()) > maxWords {
		t.Errorf("%d bytes are kept, %d shown", len(m.mu.buf), len(m.String()))
	}
}
