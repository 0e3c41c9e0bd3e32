package wire

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"emberfs/tiers/cold"
)

// TestSorted: what goes wrong with a remote is tried again soon, or is a thing for a person.
func TestSorted(t *testing.T) {
	said := func(text string) error {
		return fmt.Errorf("read references: %w", &saidError{"receive-pack", text, io.ErrUnexpectedEOF})
	}
	status := func(code int) error { return fmt.Errorf("x: %w", &StatusError{Code: code, RetryAfter: time.Minute}) }
	report := func(reason, said string) error { return (&refusalError{reason}).sorted(said) }
	for _, c := range []struct {
		err    error
		kind   string
		advice string
	}{
		{report("command error on refs/heads/main: pre-receive hook declined", "no"), "person", "hook"},
		{report("command error on refs/heads/main: failed to update ref", ""), "locked", ""},
		{report("command error on refs/heads/main: failed to update ref",
			"error: Unable to create '/x/refs/heads/main.lock': File exists."), "locked", ""},
		{report("unpack error: unpack-objects abnormal exit", "fatal: write error: No space left on device"), "busy",
			""},
		{report("unpack error: unpack-objects abnormal exit", "fatal: write error: Disk quota exceeded"), "person",
			"quota"},
		{report("unpack error: index-pack abnormal exit", "error: object 12: hasDotgit: contains '.git'"), "person",
			""},
		{report("command error on refs/heads/main: pre-receive hook declined",
			"GH013: Repository rule violations found: a secret"), "person", "secret"},
		{report("command error on refs/heads/main: pre-receive hook declined", "GH008: unknown LFS objects"), "person",
			"LFS"},
		{report("command error on refs/heads/main: shallow update not allowed", ""), "person", "shallowUpdate"},
		{status(401), "person", "token"}, {&StatusError{Code: 403}, "person", ""}, {status(403), "busy", ""},
		{status(404), "person", "address"},
		{status(413), "person", "client_max_body_size"}, {status(407), "person", "proxy"}, {status(400), "person", ""},
		{status(429), "busy", ""}, {status(500), "busy", ""}, {status(502), "busy", ""}, {status(503), "busy", ""},
		{said("ssh: connect to host h port 22: Connection refused"), "again", ""},
		{said("ssh: Could not resolve hostname h: Temporary failure in name resolution"), "again", ""},
		{said("kex_exchange_identification: Connection closed by remote host"), "again", ""},
		{said(""), "again", ""},
		{said("Host key verification failed."), "person", "known_hosts"},
		{said("@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @; Host key verification failed."), "person",
			"keygen"},
		{said("git@h: Permission denied (publickey)."), "person", "key"},
		{said(`Load key "/k": error in libcrypto; git@h: Permission denied (publickey).`), "person", "newline"},
		{said("fatal: '/x.git' does not appear to be a git repository"), "person", "address"},
		{said("ERROR: Repository not found."), "person", "address"},
		{said("fatal: unrecognized command 'git-receive-pack '/x''"), "person", "install git"},
		{x509.UnknownAuthorityError{}, "person", "tls_ca"},
		{x509.HostnameError{Certificate: &x509.Certificate{}, Host: "h"}, "person", "certificate"},
		{io.ErrUnexpectedEOF, "again", ""}, {errIdle, "again", ""},
		// What login scripts, banners, hooks and names of hosts say is no reason.
		{&saidError{"receive-pack", "bash: line 3: module: command not found", errIdle}, "again", ""},
		{said("/etc/profile.d/x.sh: Permission denied"), "again", ""},
		{said("mirror is read-only until 18:00, thank you"), "again", ""},
		{said("If you are not authorized to use this system, disconnect now.; Connection reset by h port 22"), "again",
			""},
		{said("ssh: Could not resolve hostname git-read-only.example.com: Name or service not known"), "again", ""},
		{fmt.Errorf("dial tcp: lookup git-read-only.example.com: no such host"), "again", ""},
		{said("fatal: unable to create temporary file: Read-only file system"), "again", ""},
		{report("command error on refs/heads/main: pre-receive hook declined", "Unable to create release 1.2"),
			"person",
			"hook"},
		{said("fatal: remote error: access denied to /x.git"), "person", "account"},
		{fmt.Errorf("%w: elsewhere", cold.ErrDiverged), "moved", ""},
	} {
		got, advice := kindOf(sorted(c.err))
		if got != c.kind || !strings.Contains(advice, c.advice) {
			t.Errorf("%v: %s %q, want %s %q", c.err, got, advice, c.kind, c.advice)
		}
	}
	var busy *cold.BusyError
	if err := sorted(status(429)); !errors.As(err, &busy) || busy.After != time.Minute {
		t.Errorf("429: %+v", err)
	}
	var refused *cold.RefusedError
	long := report("pre-receive hook declined", strings.Repeat("ü", 5000)+"end")
	if !errors.As(long, &refused) || len(refused.Reason) > maxWords || !strings.HasSuffix(refused.Reason, "end)") {
		t.Errorf("a long reason: %d bytes", len(refused.Reason))
	}
}

func kindOf(err error) (kind, advice string) {
	var refused *cold.RefusedError
	var busy *cold.BusyError
	switch {
	case errors.As(err, &refused):
		return "person", refused.Advice
	case errors.As(err, &busy) && busy.Locked:
		return "locked", ""
	case errors.As(err, &busy):
		return "busy", ""
	case errors.Is(err, cold.ErrDiverged):
		return "moved", ""
	}
	return "again", ""
}

// TestNameConflict: a branch below, or above, ours on the remote is a thing for a person, although git only says that
// it could not update the reference.
func TestNameConflict(t *testing.T) {
	dir, r := newRemote(t)
	v := newVolume(t)
	tip := v.commit("x")
	check(t, r.push(t.Context(), []Update{{Ref: "refs/heads/main/below", New: tip}}, v.pack))
	err := r.push(t.Context(), one(cold.ID{}, tip), v.pack)
	if kind, advice := kindOf(err); kind != "person" || !strings.Contains(advice, "rename") {
		t.Errorf("%v: %s %q", err, kind, advice)
	}
	git(t, dir, "update-ref", "-d", "refs/heads/main/below")
	check(t, r.push(t.Context(), one(cold.ID{}, tip), v.pack))
}
