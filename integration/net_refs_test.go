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

// both are the two ways that differ in how the server's words come to the client.
func both() []transport { return []transport{overSSH(), overHTTP()} }

// TestNetHookRefuses: a hook that says no is somebody's to look at. Its words are in the status, without what would
// steer a terminal; the volume goes on, and all is pushed once the hook is gone.
func TestNetHookRefuses(t *testing.T) {
	eachTransport(t, 2*time.Minute, both(), func(t *testing.T, s *gitserver.Server) {
		v := remoteVolume(t, "v", s, 0).mount()
		v.write("f", "one")
		v.sync()
		before := tipOf(s.Repo, "main")
		s.Hook("pre-receive", "#!/bin/sh\nprintf '\\033[31mpolicy\\033[0m says\\007 no:\\rticket 42\\n' >&2\nexit 1\n")
		v.write("f", "two")
		v.syncs(3, "that a hook refuses")
		for _, words := range []string{"policy", "says no", "ticket 42"} {
			v.says(words, "after a hook has refused")
		}
		if st := v.status(); st.AtRisk.Files == 0 || len(st.Errors) == 0 {
			t.Errorf("status: at risk %+v, errors %q", st.AtRisk, st.Errors)
		}
		if b, err := os.ReadFile(v.logFile()); err != nil || strings.ContainsAny(string(b), "\x1b\a") {
			t.Errorf("the log has control characters, %v", err)
		}
		v.write("g", "three")
		wantFile(t, v.at("f"), "two", "meanwhile f holds")
		v.syncs(3, "that a hook refuses again")
		if here, there := v.remoteTips(s); there != before || here == before {
			t.Errorf("meanwhile the volume is at %s and the server at %s", here, there)
		}
		s.Hook("pre-receive", "")
		v.sync()
		if st := v.status(); st.AtRisk.Files != 0 || len(st.Errors) != 0 {
			t.Errorf("after the hook is gone: at risk %+v, errors %q", st.AtRisk, st.Errors)
		}
		v.remoteSound(s, map[string]string{"f": "two", "g": "three"})
		v.umount()
	})
}

// TestNetLongWords: a hook that has a lot to say is quoted within bounds.
func TestNetLongWords(t *testing.T) {
	eachTransport(t, 2*time.Minute, both(), func(t *testing.T, s *gitserver.Server) {
		v := remoteVolume(t, "v", s, 0).mount()
		s.Hook("pre-receive", "#!/bin/sh\nfor i in $(seq 5000); do echo long long words $i >&2; done\nexit 1\n")
		v.write("f", "one")
		v.syncs(3, "that a hook refuses with many words")
		for _, e := range v.status().Errors {
			if len(e) > 1500 {
				t.Errorf("an error has %d bytes: %s", len(e), clip(e))
			}
		}
		v.says("long long words", "after a hook has refused")
		s.Hook("pre-receive", "")
		v.umount()
	})
}

// TestNetRefsChanged: what a stock client, or the server's owner, does to the branch. What the server has lost comes
// back; what somebody else put there stays.
func TestNetRefsChanged(t *testing.T) {
	eachTransport(t, 2*time.Minute, both(), func(t *testing.T, s *gitserver.Server) {
		v := remoteVolume(t, "v", s, 0).mount()
		files := map[string]string{}
		put := func(name, content string) {
			t.Helper()
			v.write(name, content)
			files[name] = content
		}
		put("f", "one")
		v.sync()
		put("f", "two")
		v.sync()

		s.Git("update-ref", "-d", "refs/heads/main")
		put("g", "after it was deleted")
		v.sync()
		v.remoteSound(s, files)

		s.Git("update-ref", "refs/heads/main", "main~1")
		put("h", "after it was rewound")
		v.sync()
		v.remoteSound(s, files)

		before := tipOf(s.Repo, "main")
		clone := filepath.Join(testDir(t), "clone")
		stock := func(args ...string) {
			t.Helper()
			command{args: append([]string{"git"}, args...), env: s.Env}.must(t)
		}
		stock("clone", "-q", s.Source(), clone)
		stock("-C", clone, "commit", "-q", "--amend", "-m", "rewritten")
		stock("-C", clone, "push", "-q", "--force", "origin", "main")
		theirs := tipOf(s.Repo, "main")
		put("h", "after it was rewritten")
		v.syncs(3, "beside a rewritten branch")
		if st := v.status(); len(st.Errors) == 0 || st.AtRisk.Files == 0 {
			t.Errorf("beside a rewritten branch: errors %q, at risk %+v", st.Errors, st.AtRisk)
		}
		if there := tipOf(s.Repo, "main"); there != theirs {
			t.Errorf("the server went from %s to %s: what somebody else put there is gone", theirs, there)
		}
		stock("-C", clone, "push", "-q", "--force", "origin", before+":refs/heads/main")
		v.sync()
		v.remoteSound(s, files)
		v.umount()
	})
}

// TestNetLockLeft: a lock that a dead git left at the server holds pushes up, and nothing else; once somebody has
// removed it, they go on without being asked.
func TestNetLockLeft(t *testing.T) {
	eachTransport(t, 3*time.Minute, both(), func(t *testing.T, s *gitserver.Server) {
		v := remoteVolume(t, "v", s, 0).mount()
		v.write("f", "one")
		v.sync()
		s.File("refs/heads/main.lock", "")
		v.write("f", "two")
		v.syncs(3, "beside a lock")
		v.says("lock", "beside a lock")
		v.write("g", "three")
		v.syncs(3, "beside a lock again")
		check(t, os.Remove(s.Repo+"/refs/heads/main.lock"))
		v.converges(s, "after the lock is gone")
		v.remoteSound(s, map[string]string{"f": "two", "g": "three"})
		v.umount()
	})
}

// TestNetHostKey: a server whose key is another than the known one gets nothing; when that is put right, it does.
func TestNetHostKey(t *testing.T) {
	t.Parallel()
	deadline(t, 2*time.Minute)
	s := gitserver.SSH(t, serverDir(t), false)
	v := remoteVolume(t, "v", s.Server, 0).mount()
	v.write("f", "one")
	v.sync()
	before := tipOf(s.Repo, "main")
	s.Kill()
	s.NewHostKey()
	s.Start()
	v.write("f", "two")
	v.syncs(3, "with a server that has another key")
	v.says("ost key verification failed", "with a server that has another key")
	if there := tipOf(s.Repo, "main"); there != before {
		t.Error("something was pushed to a server that has another key")
	}
	s.TrustHostKey()
	v.sync()
	v.remoteSound(s.Server, map[string]string{"f": "two"})
	v.umount()
	nothingOfClients(t)
}
