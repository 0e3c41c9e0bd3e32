//go:build slow

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"emberfs/integration/gitserver"
	"emberfs/integration/testprog"
)

// passwords is a credential helper of git's that gives what a file has, and git's configuration that names it.
type passwords struct{ file, config string }

func newPasswords(t testing.TB, user, password string) passwords {
	t.Helper()
	dir := testDir(t)
	p := passwords{filepath.Join(dir, "password"), filepath.Join(dir, "gitconfig")}
	helper := filepath.Join(dir, "helper")
	check(t, testprog.Write(helper, fmt.Sprintf("#!/bin/sh\n[ \"$1\" != get ] || { echo username=%s; printf password=; "+
		"cat %s; }\n", user, p.file)))
	check(t, os.WriteFile(p.config, fmt.Appendf(nil, "[credential]\n\thelper = %s\n", helper), 0o600))
	p.set(t, password)
	return p
}

// set changes the password that the helper gives.
func (p passwords) set(t testing.TB, password string) {
	t.Helper()
	check(t, os.WriteFile(p.file, []byte(password+"\n"), 0o600))
}

func (p passwords) env() []string { return []string{"GIT_CONFIG_GLOBAL=" + p.config} }

// noSecret requires that a secret is nowhere where others could read it: in the arguments of processes, the log, the
// status, the state.
func (v *volume) noSecret(secret string) {
	v.t.Helper()
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range append(lines, v.logFile()) {
		if text, err := os.ReadFile(p); err == nil && strings.Contains(string(text), secret) {
			v.t.Errorf("%s has the password: %q", p, text)
		}
	}
	if r := v.emberfs("status", v.mnt, "--json"); strings.Contains(r.stdout+r.stderr, secret) {
		v.t.Errorf("the status has the password: %v", r)
	}
	found := command{args: []string{"grep", "-rl", "--exclude-dir=objects", secret, v.state}}.run(v.t)
	if found.code != 1 {
		v.t.Errorf("the state has the password: %v", found)
	}
}

// TestNetBasic: a server that wants a password, which git's credential helper knows, as in TestNetRoundTrip.
func TestNetBasic(t *testing.T) {
	t.Parallel()
	deadline(t, 3*time.Minute)
	const secret = "s3cret-of-the-test"
	s := gitserver.HTTP(t, serverDir(t), gitserver.HTTPOptions{BodyLimit: "0", User: "somebody", Password: secret,
		NoPush: true})
	s.Env = append(s.Env, newPasswords(t, "somebody", secret).env()...)
	roundTrip(t, s.Server)
}

// TestNetNewToken: the password changes in the middle. The volume says that somebody has to look after it, and goes on;
// the new one counts from the next sync on, without a restart.
func TestNetNewToken(t *testing.T) {
	t.Parallel()
	deadline(t, 2*time.Minute)
	const first, second = "first-token-of-the-test", "second-token-of-the-test"
	s := gitserver.HTTP(t, serverDir(t), gitserver.HTTPOptions{BodyLimit: "0", User: "somebody", Password: first,
		NoPush: true})
	known := newPasswords(t, "somebody", first)
	s.Env = append(s.Env, known.env()...)
	v := remoteVolume(t, "v", s.Server, 0).mount()
	v.write("f", "one")
	v.sync()
	s.SetPassword(second)
	v.write("f", "two")
	v.syncs(3, "with a token that is no longer good")
	v.says("401", "with a token that is no longer good")
	v.write("g", "three")
	known.set(t, second)
	v.sync()
	v.remoteSound(s.Server, map[string]string{"f": "two", "g": "three"})
	for _, secret := range []string{first, second} {
		v.noSecret(secret)
	}
	v.umount()
}
