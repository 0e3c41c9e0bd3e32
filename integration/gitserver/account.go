package gitserver

import (
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"sync"
	"syscall"
	"testing"

	"emberfs/integration/testprog"
)

// account is the user that a server runs as and that its repository belongs to.
type account struct {
	name     string
	uid, gid uint32
}

// accounts serializes the making of accounts in this process; useradd(8) does it between processes.
var accounts sync.Mutex

// gitAccount is one whose shell lets nothing run but git's services.
func gitAccount(t testing.TB) account {
	t.Helper()
	shell, err := exec.LookPath("git-shell")
	if err != nil {
		t.Fatal(err)
	}
	return ensureAccount(t, "emberfs-git", shell)
}

// shellAccount is one for servers that bring their own command in place of git-shell.
func shellAccount(t testing.TB) account {
	t.Helper()
	return ensureAccount(t, "emberfs-gitolite", "/bin/sh")
}

// ensureAccount makes a system account without a password and without a home of its own, unless there is one.
func ensureAccount(t testing.TB, name, shell string) account {
	t.Helper()
	accounts.Lock()
	defer accounts.Unlock()
	u, err := user.Lookup(name)
	if err != nil {
		out, uerr := exec.Command("useradd", "--system", "--user-group", "--no-create-home", "--home-dir", "/",
			"--shell", shell, name).CombinedOutput()
		if u, err = user.Lookup(name); err != nil {
			t.Fatalf("make the account %s: %v: %s (%v)", name, uerr, out, err)
		}
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	return account{name: name, uid: uint32(uid), gid: uint32(gid)}
}

func (a account) credential() *syscall.Credential { return &syscall.Credential{Uid: a.uid, Gid: a.gid} }

// mkdir makes a directory of the account's that all may read.
func (a account) mkdir(t testing.TB, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, int(a.uid), int(a.gid)); err != nil {
		t.Fatal(err)
	}
}

// write writes a file of the account's.
func (a account) write(t testing.TB, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(path, int(a.uid), int(a.gid)); err != nil {
		t.Fatal(err)
	}
}

// run runs a program of the account's to its end. The test fails unless it ends well.
func (a account) run(t testing.TB, env []string, args ...string) string {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = "/"
	cmd.Env = append(serverEnv(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: a.credential()}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%q as %s: %v: %s", args, a.name, err, out)
	}
	return string(out)
}

// serverEnv is the environment of servers: nothing of the developer's.
func serverEnv() []string {
	return []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/",
		"GIT_CONFIG_GLOBAL=/dev/null", "LC_ALL=C.UTF-8", "TZ=UTC"}
}

// program writes an executable of the account's.
func (a account) program(t testing.TB, path, text string) {
	t.Helper()
	if err := testprog.Write(path, text); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(path, int(a.uid), int(a.gid)); err != nil {
		t.Fatal(err)
	}
}
