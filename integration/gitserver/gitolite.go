package gitserver

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Gitolite starts gitolite behind OpenSSH, as Debian packages it: it decides by the client's key who may do what, and
// has hooks of its own. The repository is the one that its set-up makes for everybody.
func Gitolite(t testing.TB, dir string) *SSHServer {
	t.Helper()
	s := newSSHServer(t, dir, shellAccount(t))
	home := filepath.Join(dir, "home")
	s.as.mkdir(t, home)
	public, err := os.ReadFile(s.key() + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	pub := filepath.Join(dir, "admin.pub")
	s.as.write(t, pub, string(public), 0o644)
	s.as.run(t, []string{"HOME=" + home}, lookPath(t, "gitolite"), "setup", "-pk", pub)
	// It expects its home to be the account's, which all its servers here share.
	keys, err := os.ReadFile(filepath.Join(home, ".ssh", "authorized_keys"))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(string(keys), `command="`, `command="HOME='`+home+`' `)
	if text == string(keys) {
		t.Fatalf("gitolite's authorized_keys has no command: %s", keys)
	}
	s.as.write(t, filepath.Join(dir, "authorized_keys"), text, 0o600)
	s.Repo = filepath.Join(home, "repositories", "testing.git")
	s.source = func(port int) string { return fmt.Sprintf("ssh://127.0.0.1:%d/testing", port) }
	s.configure(false)
	s.Start()
	return s
}
