package wire

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// sshSource is a repository behind a stock sshd, with nothing of the user's configuration. o has what is needed.
func sshSource(t *testing.T) (source, dir string, o Options) {
	t.Helper()
	alone(t)
	path, _ := newRemote(t)
	dir, port := sshDaemon(t)
	check(t, os.Unsetenv("HOME")) // alone puts it back
	t.Setenv("GIT_SSH_COMMAND", "ssh -F none")
	return fmt.Sprintf("ssh://root@127.0.0.1:%d%s", port, strings.ReplaceAll(path, " ", "%20")), dir,
		Options{SSHKey: filepath.Join(dir, "user"), KnownHosts: filepath.Join(dir, "known")}
}

// TestSSHKey: a key comes from a file, a variable or systemd, also without its last newline, and is read at each use.
func TestSSHKey(t *testing.T) {
	source, dir, o := sshSource(t)
	key := read(t, filepath.Join(dir, "user"))
	succeeds(t, opened(t, source, o))

	o.SSHKey = "file:" + filepath.Join(dir, "user")
	succeeds(t, opened(t, source, o))

	t.Setenv("DEPLOY_KEY", strings.TrimSuffix(key, "\n"))
	o.SSHKey = "env:DEPLOY_KEY"
	for _, state := range []string{"", filepath.Join(t.TempDir(), "50% \"$x\" state")} {
		if o.Dir = state; state != "" {
			check(t, os.Mkdir(state, 0o700))
			check(t, os.WriteFile(filepath.Join(state, "ssh_key"), []byte("left by a killed process"), 0o600))
		}
		r := opened(t, source, o)
		succeeds(t, r)
		copied, err := r.net.(*sshDialer).key.file()
		check(t, err)
		if st, err := os.Stat(copied); err != nil || st.Mode().Perm() != 0o600 ||
			state != "" && filepath.Dir(copied) != state {
			t.Errorf("the key is at %s: %v, %v", copied, st, err)
		}
		check(t, r.Close())
		if _, err := os.Stat(copied); !os.IsNotExist(err) {
			t.Errorf("the key is still there: %v", err)
		}
	}
	o.Dir = ""

	credentials := t.TempDir()
	t.Setenv("CREDENTIALS_DIRECTORY", credentials)
	check(t, os.WriteFile(filepath.Join(credentials, "emberfs-ssh-key"), []byte(strings.TrimSuffix(key, "\n")), 0o400))
	check(t, os.Rename(filepath.Join(dir, "known"), filepath.Join(credentials, "emberfs-known-hosts")))
	r := opened(t, source, Options{})
	succeeds(t, r)
	run(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, "new"))
	check(t, os.WriteFile(filepath.Join(dir, "user.pub"), []byte(read(t, filepath.Join(dir, "new.pub"))), 0o600))
	fails(t, r, "Permission denied")
	check(t, os.Remove(filepath.Join(credentials, "emberfs-ssh-key")))
	check(t, os.WriteFile(filepath.Join(credentials, "emberfs-ssh-key"), []byte(read(t, filepath.Join(dir, "new"))),
		0o400))
	succeeds(t, r)

	check(t, os.Chmod(filepath.Join(dir, "new"), 0o640))
	o = Options{SSHKey: filepath.Join(dir, "new")}
	fails(t, opened(t, source, o), dir+"/new", "chmod 600")
	fails(t, opened(t, source, Options{SSHKey: "env:NO_KEY"}), "env:NO_KEY", "not set")
	if _, err := Open(source, Options{SSHKey: "-----BEGIN s3cret"}); !errors.Is(err, ErrReference) ||
		strings.Contains(err.Error(), "s3cret") {
		t.Errorf("%v", err)
	}
}

// TestSSHAgentStaysOut: with a key of its own, ssh does not try those of the agent, which belong to somebody else.
func TestSSHAgentStaysOut(t *testing.T) {
	source, dir, o := sshSource(t)
	socket := filepath.Join(t.TempDir(), "agent")
	agent := exec.Command("ssh-agent", "-D", "-a", socket)
	check(t, agent.Start())
	t.Cleanup(func() {
		_ = agent.Process.Kill()
		_ = agent.Wait()
	})
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(socket); err == nil {
			break
		} else if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	t.Setenv("SSH_AUTH_SOCK", socket)
	run(t, "ssh-add", "-q", o.SSHKey)
	succeeds(t, opened(t, source, Options{KnownHosts: o.KnownHosts}))
	run(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, "new"))
	o.SSHKey = filepath.Join(dir, "new")
	fails(t, opened(t, source, o), "Permission denied")
}

// TestSSHHosts: the key of a host that is not known, or another one than before, ends the call; without a question.
func TestSSHHosts(t *testing.T) {
	source, dir, o := sshSource(t)
	known := o.KnownHosts
	good := read(t, known)
	o.KnownHosts = filepath.Join(t.TempDir(), "with a space", "known 100%")
	check(t, os.Mkdir(filepath.Dir(o.KnownHosts), 0o700))
	fails(t, opened(t, source, o), o.KnownHosts, "no such file")
	check(t, os.WriteFile(o.KnownHosts, nil, 0o600))
	fails(t, opened(t, source, o), "Host key verification failed")
	if text := read(t, o.KnownHosts); text != "" {
		t.Errorf("it is known now: %s", text)
	}
	o.AcceptNew = true
	check(t, os.Remove(o.KnownHosts))
	succeeds(t, opened(t, source, o))
	if text := read(t, o.KnownHosts); text == "" {
		t.Error("the new host is not known")
	}
	o.AcceptNew = false
	succeeds(t, opened(t, source, o))

	run(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, "other"))
	public := read(t, filepath.Join(dir, "other.pub"))
	name, _, _ := strings.Cut(good, " ")
	check(t, os.WriteFile(known, []byte(name+" "+public), 0o600))
	for _, accept := range []bool{false, true} {
		o := Options{SSHKey: o.SSHKey, KnownHosts: known, AcceptNew: accept}
		fails(t, opened(t, source, o), "HOST IDENTIFICATION HAS CHANGED")
		o.Dir = t.TempDir()
		fails(t, opened(t, source, o), "HOST IDENTIFICATION HAS CHANGED")
	}
	check(t, os.WriteFile(known, []byte(good), 0o600))
	succeeds(t, opened(t, source, Options{SSHKey: o.SSHKey, KnownHosts: known}))
}

// TestSSHWays: the two ways of a remote that pushes elsewhere share neither connection nor key file.
func TestSSHWays(t *testing.T) {
	alone(t)
	configure(t, "[url \"ssh://a/\"]\ninsteadOf = gh:\n[url \"ssh://b/\"]\npushInsteadOf = gh:\n")
	r := opened(t, "gh:x", Options{Dir: t.TempDir(), User: "git"})
	a, b := r.way(uploadPack).(*sshDialer), r.way(receivePack).(*sshDialer)
	if a.host != "git@a" || b.host != "git@b" || a.socket == b.socket || a.socket == "" || a.key.name == b.key.name {
		t.Errorf("%+v, %+v", a, b)
	}
}
