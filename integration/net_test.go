//go:build slow

package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"emberfs/integration/gitserver"
)

// transport is one way to a server of another host.
type transport struct {
	name  string
	start func(t testing.TB, dir string) *gitserver.Server
}

// overSSH is a stock OpenSSH server, which makes git speak version 0 of its protocol.
func overSSH() transport {
	return transport{"ssh", func(t testing.TB, dir string) *gitserver.Server {
		return gitserver.SSH(t, dir, false).Server
	}}
}

// overHTTP is nginx with git-http-backend that takes requests of any length.
func overHTTP() transport {
	return transport{"http", func(t testing.TB, dir string) *gitserver.Server {
		return gitserver.HTTP(t, dir, gitserver.HTTPOptions{BodyLimit: "0"}).Server
	}}
}

// transports are all of them that need nothing special of the client.
func transports() []transport {
	return []transport{overSSH(), overHTTP(),
		{"ssh-v2", func(t testing.TB, dir string) *gitserver.Server { return gitserver.SSH(t, dir, true).Server }},
		{"gitolite", func(t testing.TB, dir string) *gitserver.Server { return gitserver.Gitolite(t, dir).Server }},
	}
}

// eachTransport runs a test for some transports, beside each other.
func eachTransport(t *testing.T, limit time.Duration, list []transport,
	run func(t *testing.T, s *gitserver.Server)) {
	t.Helper()
	for _, tr := range list {
		t.Run(tr.name, func(t *testing.T) {
			t.Parallel()
			deadline(t, limit)
			run(t, tr.start(t, serverDir(t)))
			nothingOfClients(t)
		})
	}
}

// serverDir is where the test's server has its files.
func serverDir(t testing.TB) string { return filepath.Join(testDir(t), "server") }

// remoteVolume is a volume on a server; by is the port of what stands before the server, 0: nothing does.
func remoteVolume(t testing.TB, name string, s *gitserver.Server, by int, options ...volumeOption) *volume {
	t.Helper()
	source := s.Source()
	if by != 0 {
		source = s.SourceBy(by)
	}
	return newVolume(t, name, append([]volumeOption{withSource(source), withEnv(s.Env...)}, options...)...)
}

// write writes a file in the mount.
func (v *volume) write(name, content string) {
	v.t.Helper()
	check(v.t, os.WriteFile(v.at(name), []byte(content), 0o644))
}

// syncs is `emberfs sync`, which has to end with the exit status code.
func (v *volume) syncs(code int, what string) result {
	v.t.Helper()
	r := v.emberfs("sync", v.mnt)
	if r.code != code {
		v.t.Errorf("sync %s: want exit %d\n%v", what, code, r)
	}
	return r
}

// says requires that `emberfs status` shows a text, and nothing that steers a terminal.
func (v *volume) says(text, what string) {
	v.t.Helper()
	r := v.emberfs("status", v.mnt)
	if !strings.Contains(r.stdout, text) {
		v.t.Errorf("status %s does not say %q\n%v", what, text, r)
	}
	if i := strings.IndexFunc(r.stdout, func(c rune) bool { return c != '\n' && (c < ' ' || c == 0x7f) }); i >= 0 {
		v.t.Errorf("status %s prints %q", what, r.stdout[i:min(len(r.stdout), i+20)])
	}
}

// tips are where the branch is here and at the server; "" where it is not.
func (v *volume) remoteTips(s *gitserver.Server) (here, there string) {
	return tipOf(v.cold(), "main"), tipOf(s.Repo, "main")
}

func tipOf(repo, branch string) string {
	r, err := command{args: []string{"git", "-C", repo, "rev-parse", "-q", "--verify", "refs/heads/" + branch}}.try()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(r.stdout)
}

// convergesIn is how long after its cause a push may wait that had to be tried again.
const convergesIn = time.Minute

// converges requires that the server gets all commits soon, without anybody asking for it.
func (v *volume) converges(s *gitserver.Server, what string) {
	v.t.Helper()
	begin := time.Now()
	if !waitFor(convergesIn, func() bool {
		here, there := v.remoteTips(s)
		if here != there {
			time.Sleep(50 * time.Millisecond)
		}
		return here == there && here != ""
	}) {
		here, there := v.remoteTips(s)
		v.t.Errorf("%s: after %v the server is at %q, the volume at %q\n%v", what, convergesIn, there, here,
			v.emberfs("status", v.mnt))
	}
	v.t.Logf("%s: it took %v", what, time.Since(begin).Round(time.Millisecond))
}

// sound requires that the server's repository is sound to the letter, has the files, and no commit twice.
func (v *volume) remoteSound(s *gitserver.Server, files map[string]string) {
	v.t.Helper()
	fsck(v.t, s.Repo)
	for name, want := range files {
		r := command{args: []string{"git", "-C", s.Repo, "cat-file", "blob", "main:" + name}}.run(v.t)
		if r.code != 0 || r.stdout != want {
			v.t.Errorf("the server has %d bytes as %s, want %d\n%v", len(r.stdout), name, len(want), r.stderr)
		}
	}
	log := func(repo string) string { return must(v.t, "/", "git", "-C", repo, "log", "--format=%H %P", "main") }
	equal(v.t, log(s.Repo), log(v.cold()), "the history at the server")
	listed := strings.Count(must(v.t, "/", "git", "-C", s.Repo, "ls-tree", "-r", "--name-only", "main"), "\n")
	if here := strings.Count(must(v.t, "/", "git", "-C", v.cold(), "ls-tree", "-r", "--name-only", "main"),
		"\n"); listed != here {
		v.t.Errorf("the server lists %d files, the volume %d", listed, here)
	}
}

// nothingOfClients requires that no connection of a client is kept once its volume is unmounted.
func nothingOfClients(t testing.TB) {
	t.Helper()
	var left []int
	if !waitFor(10*time.Second, func() bool { left = clientsOf(testDir(t)); return len(left) == 0 }) {
		t.Errorf("ssh runs still: %d", left)
	}
}
