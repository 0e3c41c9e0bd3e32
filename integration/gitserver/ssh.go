package gitserver

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// SSHServer is an OpenSSH server.
type SSHServer struct {
	*Server
	known string // the client's known_hosts
}

// alias is the name under which clients know the server's key, whatever port they go by.
const alias = "gitserver"

// SSH starts OpenSSH's server with the settings that Debian has. With acceptProtocol it also takes the variable
// GIT_PROTOCOL from clients, without which git speaks its protocol version 0. Clients call the repository by an ssh
// URL, and with acceptProtocol by host:path, where the host is an alias of ssh's configuration.
func SSH(t testing.TB, dir string, acceptProtocol bool) *SSHServer {
	t.Helper()
	s := newSSHServer(t, dir, gitAccount(t))
	s.configure(acceptProtocol)
	s.source = func(port int) string { return fmt.Sprintf("ssh://127.0.0.1:%d%s", port, s.Repo) }
	if acceptProtocol {
		s.source = func(port int) string { return s.aliasOf(port) + ":" + s.Repo }
	}
	s.Start()
	return s
}

// newSSHServer makes keys and what a client needs.
func newSSHServer(t testing.TB, dir string, as account) *SSHServer {
	t.Helper()
	s := &SSHServer{Server: newServer(t, dir, as), known: filepath.Join(dir, "known_hosts")}
	client := filepath.Join(dir, "client")
	if err := os.MkdirAll(client, 0o700); err != nil {
		t.Fatal(err)
	}
	run(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "client", "-f", s.key())
	s.NewHostKey()
	s.TrustHostKey()
	config := filepath.Join(client, "config")
	text := fmt.Sprintf("User %s\nIdentityFile %s\nIdentitiesOnly yes\nHostKeyAlias %s\nUserKnownHostsFile %s\n"+
		"GlobalKnownHostsFile /dev/null\nMatch host gs-*\nHostName 127.0.0.1\n", as.name, s.key(), alias, s.known)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Env = []string{"GIT_SSH_COMMAND=ssh -F " + config}
	return s
}

func (s *SSHServer) key() string     { return filepath.Join(s.dir, "client", "key") }
func (s *SSHServer) hostKey() string { return filepath.Join(s.dir, "host_key") }

// aliasOf enters an alias for a port into the client's configuration, and returns it.
func (s *SSHServer) aliasOf(port int) string {
	s.t.Helper()
	name := fmt.Sprint("gs-", port)
	path := filepath.Join(s.dir, "client", "config")
	text, err := os.ReadFile(path)
	if err != nil {
		s.t.Fatal(err)
	}
	if entry := fmt.Sprintf("Match host %s\nPort %d\n", name, port); !strings.Contains(string(text), entry) {
		// The first value of an option counts, so that of a host comes first of all.
		if err := os.WriteFile(path, append([]byte(entry+"Match all\n"), text...), 0o600); err != nil {
			s.t.Fatal(err)
		}
	}
	return name
}

// configure writes the server's settings: those of Debian's sshd_config, and what a server needs that runs beside the
// system's own, as somebody else than root.
func (s *SSHServer) configure(acceptProtocol bool, more ...string) {
	s.t.Helper()
	accept := "LANG LC_*"
	if acceptProtocol {
		accept += " GIT_PROTOCOL"
	}
	public, err := os.ReadFile(s.key() + ".pub")
	if err != nil {
		s.t.Fatal(err)
	}
	keys := filepath.Join(s.dir, "authorized_keys")
	if _, err := os.Stat(keys); err != nil {
		s.as.write(s.t, keys, string(public), 0o600)
	}
	lines := append([]string{
		"KbdInteractiveAuthentication no", "X11Forwarding yes", "PrintMotd no", "AcceptEnv " + accept,
		"Subsystem sftp /usr/lib/openssh/sftp-server",
		fmt.Sprint("Port ", s.port), "ListenAddress 127.0.0.1", "HostKey " + s.hostKey(), "PidFile none", "UsePAM no",
		"AuthorizedKeysFile " + keys, "StrictModes no",
	}, more...)
	config := filepath.Join(s.dir, "sshd_config")
	s.as.write(s.t, config, strings.Join(lines, "\n")+"\n", 0o644)
	s.add(s.port, lookPath(s.t, "sshd"), "-D", "-e", "-f", config)
}

// NewHostKey gives the server another key. It counts from the next Start on.
func (s *SSHServer) NewHostKey() {
	s.t.Helper()
	for _, f := range []string{s.hostKey(), s.hostKey() + ".pub"} {
		if err := os.Remove(f); err != nil && !os.IsNotExist(err) {
			s.t.Fatal(err)
		}
	}
	s.as.run(s.t, nil, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "host", "-f", s.hostKey())
}

// TrustHostKey makes the server's key the one that clients expect.
func (s *SSHServer) TrustHostKey() {
	s.t.Helper()
	public, err := os.ReadFile(s.hostKey() + ".pub")
	if err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(s.known, []byte(alias+" "+string(public)), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// run runs a program as root to its end.
func run(t testing.TB, args ...string) {
	t.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%q: %v: %s", args, err, out)
	}
}
