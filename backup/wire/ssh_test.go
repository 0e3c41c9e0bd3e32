package wire

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"emberfs/tiers/cold"
)

// sshServer runs a stock sshd, with more settings, and has ssh know its key and ours. It returns the address of the
// repository at path.
func sshServer(t *testing.T, path string, more ...string) string {
	t.Helper()
	dir, port := sshDaemon(t, more...)
	config := filepath.Join(dir, "config")
	check(t, os.WriteFile(config, fmt.Appendf(nil, "Host here\n HostName 127.0.0.1\n Port %d\n User root\n IdentityFile "+
		"%s/user\n IdentitiesOnly yes\n UserKnownHostsFile %s/known\n", port, dir, dir), 0o600))
	t.Setenv("GIT_SSH_COMMAND", "ssh -F "+config)
	return "here:" + path
}

// sshDaemon runs a stock sshd on a port of its own, as root for root alone. It returns a directory with the keys "host"
// and "user", and with "known", which has its key.
func sshDaemon(t *testing.T, more ...string) (dir string, port int) {
	t.Helper()
	dir = t.TempDir()
	for _, key := range []string{"host", "user"} {
		run(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, key))
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	port = l.Addr().(*net.TCPAddr).Port
	check(t, l.Close())
	public, err := os.ReadFile(filepath.Join(dir, "host.pub"))
	check(t, err)
	check(t, os.WriteFile(filepath.Join(dir, "known"), fmt.Appendf(nil, "[127.0.0.1]:%d %s", port, public), 0o600))
	args := []string{"-D", "-e", "-f", "/dev/null", "-o", fmt.Sprint("Port=", port),
		"-o", "ListenAddress=127.0.0.1", "-o", "HostKey=" + dir + "/host",
		"-o", "AuthorizedKeysFile=" + dir + "/user.pub",
		"-o", "StrictModes=no", "-o", "PidFile=none", "-o", "PermitRootLogin=yes", "-o", "UsePAM=no"}
	for _, m := range more {
		args = append(args, "-o", m)
	}
	sshd := exec.Command("/usr/sbin/sshd", args...)
	check(t, os.MkdirAll("/run/sshd", 0o755))
	said, err := os.Create(filepath.Join(dir, "said"))
	check(t, err)
	sshd.Stderr = said
	check(t, sshd.Start())
	t.Cleanup(func() {
		_ = sshd.Process.Kill()
		_ = sshd.Wait()
		if text, _ := os.ReadFile(said.Name()); t.Failed() {
			t.Logf("sshd: %s", text)
		}
	})
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("tcp", fmt.Sprint("127.0.0.1:", port))
		if err == nil {
			_ = c.Close()
			break
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	return dir, port
}

func run(t *testing.T, program string, args ...string) {
	t.Helper()
	if out, err := exec.Command(program, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", program, err, out)
	}
}

// TestSSH pushes to, and fetches from, a stock sshd over one connection.
func TestSSH(t *testing.T) {
	v := newVolume(t)
	path, _ := newRemote(t)
	dir := t.TempDir()
	r, err := Open(sshServer(t, path), Options{Dir: dir})
	check(t, err)
	one1 := v.commit("one")
	start := time.Now()
	check(t, r.push(t.Context(), one(cold.ID{}, one1), v.pack))
	t.Log("first push", time.Since(start))
	two := v.commit("two")
	start = time.Now()
	check(t, r.push(t.Context(), one(one1, two), v.pack))
	t.Log("second push", time.Since(start))
	refs, err := r.Refs(t.Context())
	check(t, err)
	if refs[mainRef] != two {
		t.Errorf("the remote has %v", refs)
	}
	check(t, r.Close())
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) { // it goes after it has said so
		if _, err := os.Lstat(filepath.Join(dir, "ssh")); err != nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the kept connection is still there")
		}
	}
}
