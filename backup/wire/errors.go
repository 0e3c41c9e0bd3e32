package wire

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"

	"emberfs/tiers/cold"
)

// What goes wrong with a remote is of one of three kinds. Some things a person has to change (*cold.RefusedError): a
// credential, a host key, a hook, a quota. Some mean that somebody else was quicker (cold.ErrDiverged). The rest may be
// over when it is tried again: all that has to do with the link, and *cold.BusyError. git's protocol has no codes, so
// the texts decide; what no rule knows is tried again.

// saidError is an error of a session, with what the other side, or ssh, said.
type saidError struct {
	service string
	said    string
	err     error
}

func (e *saidError) Error() string {
	name := e.service
	if name != "ssh" {
		name = "git " + name
	}
	if e.said != "" {
		return fmt.Sprintf("%s: %v (it said: %s)", name, e.err, e.said)
	}
	return fmt.Sprintf("%s: %v", name, e.err)
}

func (e *saidError) Unwrap() error { return e.err }

func refusedFor(err error, advice string) error {
	return &cold.RefusedError{Reason: Clean(err.Error()), Advice: advice, Err: err}
}

func refused(reason, advice string) error {
	return &cold.RefusedError{Reason: Clean(reason), Advice: advice}
}

// refusalError is the status of unpacking, or of a reference, in the report of git receive-pack.
type refusalError struct{ reason string }

func (e *refusalError) Error() string { return e.reason }

// sorted is the error for callers; said is what came beside the report, without which much is ambiguous.
func (e *refusalError) sorted(said string) error {
	reason := e.reason
	if said != "" {
		reason += " (" + said + ")"
	}
	has := func(texts ...string) bool { return containsAny(reason, texts) }
	switch {
	case has("Disk quota exceeded"):
		return refused(reason, "free space in the quota of the remote")
	case has("No space left on device", "Cannot allocate memory", "Out of memory", "Too many open files",
		"Read-only file system", "Input/output error", "Resource temporarily unavailable"):
		return &cold.BusyError{Reason: Clean(reason)}
	// The texts of builtin/receive-pack.c for failures because something else is at work in the repository. They are in
	// the report itself; hooks may say anything.
	case containsAny(e.reason, []string{"failed to update ref", "cannot lock ref", "atomic transaction failed",
		"failed to start transaction", "failed to delete"}):
		return &cold.BusyError{Reason: Clean(reason), Soon: true, Locked: true}
	case containsAny(e.reason, []string{"unable to migrate objects", "unable to create temporary object directory"}):
		return &cold.BusyError{Reason: Clean(reason), Soon: true}
	}
	return refused(reason, adviceFor(reason))
}

// adviceFor says what to do about refusals that EmberFS knows.
func adviceFor(reason string) string {
	switch {
	case containsAny(reason, []string{"exceeds maximum allowed size", "exceeds the maximum", "pack exceeds",
		"GH001", "file size limit"}):
		return "raise the limit on the remote, or lower push_max, and keep files that are too large for it out by a rule"
	case containsAny(reason, []string{"GH008", "LFS object"}):
		return "the volume has LFS pointers whose objects the remote lacks: upload them there, or remove the pointers"
	case containsAny(reason, []string{"GH013", "secret", "Secret"}):
		return "the remote found a secret in what is pushed: allow it there, or begin a new branch without it"
	case strings.Contains(reason, "hook declined"):
		return "the hook's words say what it wants; sync tries again"
	case strings.Contains(reason, "protected branch"):
		return "allow pushes to the branch on the remote, or choose another --branch"
	case strings.Contains(reason, "shallow update not allowed"):
		return "set receive.shallowUpdate on the remote"
	}
	return ""
}

func containsAny(text string, parts []string) bool {
	for _, p := range parts {
		if strings.Contains(text, p) {
			return true
		}
	}
	return false
}

// errMoves says that a reference is not any more where the remote said that it is.
var errMoves = errors.New("the remote's branches moved while they were fetched; try again")

// sorted gives an error of a session its kind.
func sorted(err error) error {
	if err == nil {
		return nil
	}
	var known *cold.RefusedError
	var busy *cold.BusyError
	var words *ServerError
	switch {
	case errors.Is(err, ErrReadOnly):
		return refusedFor(err, "name the repository by ssh or https")
	case errors.As(err, &words) && strings.Contains(words.Words, "not our ref"):
		return fmt.Errorf("%w (%w)", errMoves, err)
	}
	if errors.As(err, &known) || errors.As(err, &busy) || errors.Is(err, cold.ErrDiverged) {
		return err
	}
	var status *StatusError
	if errors.As(err, &status) {
		return status.sorted(err)
	}
	if advice := certificateAdvice(err); advice != "" {
		return refusedFor(err, advice)
	}
	var said *saidError
	var slow *slowError
	if errors.Is(err, errIdle) || errors.As(err, &slow) {
		return err // whatever was said before that
	}
	text := ""
	if errors.As(err, &said) {
		if text = said.said; linkBroke(text) {
			return err
		}
		if advice := sshAdvice(text); advice != "" {
			return refusedFor(err, advice)
		}
	}
	if errors.As(err, &words) {
		text += "; error: " + words.Words
	}
	if errors.Is(err, errNotSmart) {
		return refusedFor(err, noRepository)
	}
	if advice := repositoryAdvice(text); advice != "" {
		return refusedFor(err, advice)
	}
	return err
}

// linkBroke reports whether ssh says that the link is at fault. What else it says may come from a banner, or from login
// scripts and hooks of the other side.
func linkBroke(said string) bool {
	return containsAny(said, []string{"Connection reset", "Connection refused", "Connection timed out",
		"Operation timed out", "Connection closed by", "closed by remote host", "Broken pipe", "not responding",
		"Could not resolve hostname", "No route to host", "Network is unreachable", "Shared connection to",
		"read from master failed"})
}

// sorted gives an error with an answer of an HTTP server its kind.
func (e *StatusError) sorted(err error) error {
	switch e.Code {
	case http.StatusUnauthorized:
		return refusedFor(err, "give a token or password that is valid for this repository; it is read again at "+
			"each use")
	case http.StatusForbidden:
		if e.RetryAfter > 0 { // GitHub's limits
			return &cold.BusyError{Reason: Clean(err.Error()), After: e.RetryAfter, Err: err}
		}
		return refusedFor(err, "the credentials may not do this with this repository, or it takes no pushes over "+
			"http: change that on the server")
	case http.StatusNotFound, http.StatusGone:
		return refusedFor(err, "check the address, and that the credentials may see the repository; create it "+
			"there if it does not exist")
	case http.StatusRequestEntityTooLarge:
		return refusedFor(err, "raise the limit for request bodies on the server (nginx: client_max_body_size), or "+
			"lower push_max")
	case http.StatusProxyAuthRequired:
		return refusedFor(err, "the proxy wants a password: set it in http.proxy of git's configuration")
	case http.StatusTooManyRequests, http.StatusRequestTimeout, http.StatusTooEarly, http.StatusInsufficientStorage:
		return &cold.BusyError{Reason: Clean(err.Error()), After: e.RetryAfter, Err: err}
	}
	if e.Code >= 400 && e.Code < 500 {
		return refusedFor(err, "")
	}
	return &cold.BusyError{Reason: Clean(err.Error()), After: e.RetryAfter, Err: err}
}

// certificateAdvice says what to do about a TLS connection that will not become a better one.
func certificateAdvice(err error) string {
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	var remote *net.OpError // crypto/tls says so what the other side has said; the type of the alert is its own
	var verify *tls.CertificateVerificationError
	switch {
	case errors.As(err, &unknown):
		return "name the file of the authority that signed it in tls_ca"
	case errors.As(err, &host), errors.As(err, &invalid), errors.As(err, &verify):
		return "the server's certificate is not valid for this address and time: mend it there"
	case errors.As(err, &remote) && remote.Op == "remote error" &&
		strings.Contains(remote.Err.Error(), "certificate"):
		return "the server wants a client certificate: name it in tls_cert and tls_key"
	}
	return ""
}

// sshAdvice says what to do about errors of ssh that stay (ssh speaks English with LC_ALL=C).
func sshAdvice(said string) string {
	has := func(texts ...string) bool { return containsAny(said, texts) }
	switch {
	case has("REMOTE HOST IDENTIFICATION HAS CHANGED", "POSSIBLE DNS SPOOFING"):
		return "find out why the host has another key; then correct known_hosts (ssh-keygen -R HOST)"
	case has("Host key verification failed", "host key is known for"):
		return "add the host's key to known_hosts, or take it at the first connection: --host-key-check=accept-new"
	case has("error in libcrypto", "UNPROTECTED PRIVATE KEY FILE", "bad permissions", "invalid format"):
		return "the key cannot be used: it needs mode 0600 and its last newline"
	case has("Permission denied (", "Permission denied, please", "Too many authentication failures",
		"No more authentication methods"):
		return "give a key that the server knows (ssh_key, or an agent), and check the user in the address"
	case has("Bad configuration option", "Bad owner or permissions on", "bad configuration options"):
		return "mend the configuration of ssh"
	case has("Bad stdio forwarding", "administratively prohibited", "This account is currently not available"):
		return "the server does not let this account in"
	}
	return ""
}

// errNotSmart says that there is a web server, and nothing of git.
var errNotSmart = errors.New("it is no git repository that speaks the smart protocol")

const noRepository = "check the address, and that the account may see the repository; create it there if it does " +
	"not exist"

// repositoryAdvice says what to do if the server's words are that it knows no such repository, or nothing of git.
func repositoryAdvice(text string) string {
	low := strings.ToLower(text)
	if containsAny(low, []string{"does not appear to be a git repository", "repository not found", "not exported",
		"no such project", "could not be found or you don't have permission",
		"project you were looking for could not be found"}) {
		return noRepository
	}
	for line := range strings.SplitSeq(low, "; ") {
		if containsAny(line, []string{"git-receive-pack", "git-upload-pack"}) &&
			containsAny(line, []string{"not found", "unrecognized command"}) {
			return "install git on the server, for this account"
		}
		// Banners and login scripts have these words too.
		if containsAny(line, []string{"access denied", "insufficient permission", "not authorized", "permission denied",
			"read-only"}) && !strings.Contains(line, "read-only file system") &&
			slices.ContainsFunc([]string{"fatal: ", "error: ", "remote: "}, func(p string) bool {
				return strings.HasPrefix(line, p)
			}) {
			return "the account may not do this with this repository: change that on the server"
		}
	}
	return ""
}
