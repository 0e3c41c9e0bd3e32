//go:build slow

package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"emberfs/integration/gitserver"
)

// TestNetPartsKilled: a commit that is larger than push_max goes ahead in parts. The daemon is killed after the first
// of them; what has arrived is not sent again, the branch moves when all is there, and nothing of the parts is left.
func TestNetPartsKilled(t *testing.T) {
	eachTransport(t, 2*time.Minute, both(), func(t *testing.T, s *gitserver.Server) {
		link := gitserver.NewLink(t, s.Addr(), 1)
		v := remoteVolume(t, "v", s, link.Port(), withOpts("push_max=1MiB"))
		v.startForeground()
		v.write("f", "one")
		v.sync()
		_, first := v.remoteTips(s)
		files := map[string]string{}
		for i := range 6 {
			name := fmt.Sprint("big", i)
			files[name] = string(noise(900<<10, name))
			v.write(name, files[name])
		}
		link.Limit(2 << 20)
		cmd := command{args: []string{env.bin, "sync", v.mnt}}.prepare(t.Context())
		check(t, cmd.Start())
		carriers := func() int {
			return len(strings.Fields(s.Git("for-each-ref", "--format=x", "refs/heads/emberfs-part")))
		}
		if !waitFor(time.Minute, func() bool { return carriers() >= 2 }) {
			t.Fatal("no parts came")
		}
		v.kill()
		_ = cmd.Wait()
		if _, there := v.remoteTips(s); there != first {
			t.Errorf("the branch moved to %s before all was there", there)
		}
		had := carriers()
		before, _ := link.Bytes()
		link.Limit(0)
		v.mount()
		v.sync()
		after, _ := link.Bytes()
		if most := int64(6-had)*(900<<10) + 300<<10; after-before > most {
			t.Errorf("%d bytes were sent after the kill, %d parts were there", after-before, had)
		}
		if n := carriers(); n != 0 {
			t.Errorf("%d parts are left on the server", n)
		}
		if out := must(t, "/", "git", "-C", v.cold(), "for-each-ref"); strings.Contains(out, "part/") {
			t.Errorf("notes of parts are left here: %s", out)
		}
		v.remoteSound(s, files)
		v.umount()
	})
}

// TestNetFsyncRemote: fsync returns when the server has the bytes, with EIO while it cannot be reached, and works again
// when it can.
func TestNetFsyncRemote(t *testing.T) {
	eachTransport(t, 2*time.Minute, both(), func(t *testing.T, s *gitserver.Server) {
		link := gitserver.NewLink(t, s.Addr(), 1)
		v := remoteVolume(t, "v", s, link.Port(), withOpts("fsync_timeout=3s")).mount()
		v.rules(`- {match: "db/", class: critical, critical_delay: 1h, fsync: remote}`)
		mkdir(t, v.at("db"), user{})
		v.sync()
		f, err := os.Create(v.at("db/log"))
		check(t, err)
		write := func(text string) error {
			_, err := f.WriteAt([]byte(text), 0)
			check(t, err)
			return f.Sync()
		}
		check(t, write("first"))
		if id := newestOf(t, s.Repo); !shows(t, s.Repo, id, "db/log", "first") {
			t.Error("fsync returned, and the server does not have it")
		}
		link.Set(gitserver.Down)
		began := time.Now()
		if err := write("later"); !errors.Is(err, unix.EIO) {
			t.Errorf("fsync while the link is down: %v after %v", err, time.Since(began))
		}
		link.Set(gitserver.Pass)
		if !waitFor(convergesIn, func() bool { return f.Sync() == nil }) {
			t.Fatal("fsync fails a minute after the link is well")
		}
		if id := newestOf(t, s.Repo); !shows(t, s.Repo, id, "db/log", "later") {
			t.Error("fsync returned again, and the server does not have it")
		}
		check(t, f.Close())
		v.umount()
	})
}

// TestNetPushInterval: commits that nobody waits for are pushed no more often than push_min_interval says.
func TestNetPushInterval(t *testing.T) {
	t.Parallel()
	deadline(t, time.Minute)
	s := overHTTP().start(t, serverDir(t))
	count := filepath.Join(s.Repo, "pushes")
	s.Hook("post-receive", "#!/bin/sh\necho x >>pushes\n")
	v := remoteVolume(t, "v", s, 0, withOpts("backup_interval=1s,push_min_interval=5s")).mount()
	begin := time.Now()
	for i := 0; time.Since(begin) < 11*time.Second; i++ {
		v.write("f", fmt.Sprint(i))
		time.Sleep(200 * time.Millisecond)
	}
	text, err := os.ReadFile(count)
	check(t, err)
	pushes, most := len(strings.Fields(string(text))), 1+int(time.Since(begin)/(5*time.Second))
	commits := strings.TrimSpace(must(t, "/", "git", "-C", v.cold(), "rev-list", "--count", "main"))
	if pushes > most {
		t.Errorf("%d pushes of %s commits in %v, at most one each 5 s is wanted", pushes, commits, time.Since(begin))
	}
	if n := len(commits); n == 1 && commits < "4" {
		t.Errorf("only %s commits: they waited for the pushes", commits)
	}
	v.umount()
}

// TestNetServiceCredentials: in a service that has no home directory, no agent and no git configuration, what systemd
// puts into CREDENTIALS_DIRECTORY is enough for ssh.
func TestNetServiceCredentials(t *testing.T) {
	t.Parallel()
	deadline(t, time.Minute)
	s := gitserver.SSH(t, serverDir(t), false)
	config, err := os.ReadFile(filepath.Join(serverDir(t), "client", "config"))
	check(t, err)
	account := regexp.MustCompile(`(?m)^User (\S+)$`).FindSubmatch(config)
	if account == nil {
		t.Fatalf("no user in %s", config)
	}
	host, err := os.ReadFile(filepath.Join(serverDir(t), "host_key.pub"))
	check(t, err)
	key, err := os.ReadFile(filepath.Join(serverDir(t), "client", "key"))
	check(t, err)
	dir := mkdir(t, filepath.Join(testDir(t), "credentials"), user{})
	_, port, _ := strings.Cut(s.Addr(), ":")
	check(t, os.WriteFile(filepath.Join(dir, "emberfs-known-hosts"), fmt.Appendf(nil, "[127.0.0.1]:%s %s", port, host),
		0o400))
	check(t, os.WriteFile(filepath.Join(dir, "emberfs-ssh-key"), key, 0o400))
	source := strings.Replace(s.Source(), "ssh://", "ssh://"+string(account[1])+"@", 1)
	v := newVolume(t, "v", withSource(source), withEnv("CREDENTIALS_DIRECTORY="+dir, "HOME=", "SSH_AUTH_SOCK=",
		"GIT_SSH_COMMAND=", "XDG_CONFIG_HOME=")).mount()
	v.write("f", "one")
	v.sync()
	v.remoteSound(s.Server, map[string]string{"f": "one"})
	v.noSecret(strings.Split(string(key), "\n")[1])
	v.umount()
	check(t, os.WriteFile(filepath.Join(dir, "emberfs-known-hosts"), nil, 0o400))
	next := newVolume(t, "next", withSource(source), withEnv("CREDENTIALS_DIRECTORY="+dir, "HOME=", "SSH_AUTH_SOCK=",
		"GIT_SSH_COMMAND="))
	if r := next.tryMount(); r.code != 32 || !strings.Contains(r.stderr, "known_hosts") {
		t.Errorf("a host that nobody knows: want exit 32 and what to do\n%v", r)
	}
	nothingOfClients(t)
}
