//go:build slow

package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"emberfs/integration/metaserver"
)

// The notice that the machine goes away: what the binary makes of it.

// noticed is notice.json, and the field of status.
type noticed struct {
	What, Source, Detail string
	When                 time.Time
	Until                *time.Time
	Guessed              bool
}

// notice reads .emberfs/notice.json of the mount; nil: there is none.
func (v *volume) notice() *noticed {
	v.t.Helper()
	b, err := os.ReadFile(v.at(".emberfs/notice.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	check(v.t, err)
	n := new(noticed)
	if err := json.Unmarshal(b, n); err != nil {
		v.t.Fatalf("notice.json: %v\n%s", err, b)
	}
	return n
}

// awaitNotice waits for a notice, "" for none, and compares what status says.
func (v *volume) awaitNotice(what string, limit time.Duration) *noticed {
	v.t.Helper()
	var n *noticed
	if !waitFor(limit, func() bool {
		n = v.notice()
		return n == nil && what == "" || n != nil && n.What == what
	}) {
		v.t.Fatalf("the notice is %+v after %v, want %q", n, limit, what)
	}
	var inStatus *noticed
	check(v.t, json.Unmarshal(v.status().raw["notice"], &inStatus))
	text := v.emberfs("status", v.mnt).stdout
	switch {
	case n == nil && (inStatus != nil || strings.Contains(text, "NOTICE")):
		v.t.Errorf("status has a notice: %+v\n%s", inStatus, text)
	case n != nil && (inStatus == nil || inStatus.What != what || !inStatus.When.Equal(n.When) ||
		!strings.Contains(text, "NOTICE") || !strings.Contains(text, what+" (")):
		v.t.Errorf("notice.json has %+v, status %+v\n%s", n, inStatus, text)
	}
	return n
}

// savedBy writes a file and waits until the remote has it, without any command.
func (v *volume) savedBy(name string, limit time.Duration) {
	v.t.Helper()
	check(v.t, os.WriteFile(v.at(name), []byte(name), 0o644))
	if !v.reaches(name, limit) {
		v.t.Fatalf("%s is not in the remote after %v", name, limit)
	}
}

func (v *volume) reaches(name string, limit time.Duration) bool {
	return waitFor(limit, func() bool {
		return command{args: []string{"git", "-C", v.source, "cat-file", "-e", "main:" + name}}.succeeds()
	})
}

// newNoticed mounts a volume with a source, nothing of which is backed up by itself for a long time.
func newNoticed(t *testing.T, settings string, options ...volumeOption) *volume {
	v := newVolume(t, "v", append(options, withSource(newBareRepo(t, "remote.git", user{})))...)
	v.config = "backup_interval: 1h\npush_min_interval: 1h\n" + settings
	v.mount()
	if n := v.notice(); n != nil {
		t.Fatalf("there is a notice at once: %+v", n)
	}
	return v
}

// TestNoticeByFile: a file that appears leads to a backup at once and to rounds, is in notice.json and status, runs the
// hook with its environment, and when it goes away that is over.
func TestNoticeByFile(t *testing.T) {
	t.Parallel()
	deadline(t, 3*time.Minute)
	dir := testDir(t)
	file, out := filepath.Join(dir, "leaving"), filepath.Join(dir, "hook")
	v := newNoticed(t, fmt.Sprintf("notice: file:%s\nnotice_command: env | grep ^EMBERFS_ | sort > %s.tmp; "+
		"mv %s.tmp %s; echo wrong >&2; exit 4\n", file, out, out, out), withEnv("EMBERFS_TOKEN=tea-time"))
	check(t, os.WriteFile(v.at("before"), []byte("before"), 0o644))
	began := time.Now()
	check(t, os.WriteFile(file, []byte("50s\n"), 0o644))
	if !v.reaches("before", 20*time.Second) {
		t.Fatal("a notice brings no backup")
	}
	n := v.awaitNotice("file", 10*time.Second)
	if n.Source != "file" || n.When.Before(began.Add(-time.Second)) || n.Until == nil ||
		n.Until.Sub(n.When) != 50*time.Second || n.Guessed {
		t.Errorf("%+v", n)
	}
	v.savedBy("after", 20*time.Second)
	if !waitFor(10*time.Second, func() bool { _, err := os.Stat(out); return err == nil }) {
		t.Fatal("the hook did not run")
	}
	wantFile(t, out, fmt.Sprintf("EMBERFS_MOUNTPOINT=%s\nEMBERFS_NOTICE_UNTIL=%s\nEMBERFS_NOTICE_WHAT=file\n",
		v.mnt, n.Until.UTC().Format(time.RFC3339)), "the hook's variables")
	if r := script(t, v.at(".emberfs"), `ls; stat -c %a:%F notice.json; ! { : > notice.json; } 2>/dev/null
		! rm -f notice.json 2>/dev/null`); r.code != 0 ||
		r.stdout != "notice.json\nstatus.json\n444:regular file\n" {
		t.Errorf("%v", r)
	}
	check(t, os.Remove(file))
	v.awaitNotice("", 10*time.Second)
	log, err := os.ReadFile(v.logFile())
	check(t, err)
	for _, want := range []string{"notice: file (file: ", "exit status 4: wrong", "withdrawn"} {
		if !strings.Contains(string(log), want) {
			t.Errorf("the log does not have %q", want)
		}
	}
	if !waitFor(20*time.Second, func() bool { return v.status().AtRisk.Files == 0 }) {
		t.Fatal("it stays at risk")
	}
	time.Sleep(7 * time.Second) // a round that was due by then may still come
	check(t, os.WriteFile(v.at("later"), []byte("later"), 0o644))
	if v.reaches("later", 12*time.Second) {
		t.Error("after the withdrawal backups go on in rounds")
	}
	v.umount()
	if !v.reaches("later", time.Second) {
		t.Error("the final backup lacks a file")
	}
	tree := must(t, "/", "git", "-C", v.source, "ls-tree", "-r", "--name-only", "main")
	if strings.Contains(tree, "notice") {
		t.Errorf("the notice is committed:\n%s", tree)
	}
}

// TestNoticeBySignal: SIGUSR1 is a notice whatever else is watched.
func TestNoticeBySignal(t *testing.T) {
	t.Parallel()
	deadline(t, 2*time.Minute)
	v := newNoticed(t, "notice: none\n")
	check(t, os.WriteFile(v.at("before"), []byte("before"), 0o644))
	check(t, syscall.Kill(v.daemon(), syscall.SIGUSR1))
	if !v.reaches("before", 20*time.Second) {
		t.Fatal("a signal brings no backup")
	}
	n := v.awaitNotice("signal", 5*time.Second)
	if !n.Guessed || n.Until == nil || n.Until.Sub(n.When) != 30*time.Second {
		t.Errorf("%+v", n)
	}
	v.savedBy("after", 20*time.Second)
	v.umount()
}

// TestNoticeByCommand: a command that exits 0 is a notice, and may be in the middle of a run when the volume goes.
func TestNoticeByCommand(t *testing.T) {
	t.Parallel()
	deadline(t, 2*time.Minute)
	flag := filepath.Join(testDir(t), "flag")
	v := newNoticed(t, fmt.Sprintf("notice: 'command:[ -e %s ] && echo 2031-01-02T03:04:05Z'\n", flag))
	check(t, os.WriteFile(flag, nil, 0o644))
	n := v.awaitNotice("command", 20*time.Second)
	if n.Until == nil || n.Until.Year() != 2031 {
		t.Errorf("%+v", n)
	}
	v.savedBy("after", 20*time.Second)
	check(t, os.Remove(flag))
	v.awaitNotice("", 20*time.Second)
	v.umount()
}

// TestNoticeByCloud: the documented metadata of each cloud leads to a notice, and its end to the end of the notice; no
// server is asked more often than its cloud recommends, nor at all after the unmount.
func TestNoticeByCloud(t *testing.T) {
	soon := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	for _, c := range []struct {
		cloud     string
		server    func() *metaserver.Server
		env       func(*metaserver.Server) string
		give      func(*metaserver.Server)
		take      func(*metaserver.Server)
		what      string
		until     bool
		perSecond float64 // requests
	}{
		{"aws", metaserver.AWS,
			func(s *metaserver.Server) string { return "AWS_EC2_METADATA_SERVICE_ENDPOINT=" + s.URL },
			func(s *metaserver.Server) {
				s.Set(metaserver.AWSAction,
					fmt.Sprintf(`{"action": "terminate", "time": %q}`, soon.Format(time.RFC3339)))
			},
			func(s *metaserver.Server) { s.Unset(metaserver.AWSAction) }, "terminate", true, 0.4},
		{"gcp", metaserver.GCP, func(s *metaserver.Server) string { return "GCE_METADATA_HOST=" + s.Host() },
			func(s *metaserver.Server) { s.Set(metaserver.GCPPreempted, "TRUE") },
			func(s *metaserver.Server) { s.Set(metaserver.GCPPreempted, "FALSE") }, "preempt", false, 0.1},
		{"azure", func() *metaserver.Server { return metaserver.Azure("vm-1") },
			func(s *metaserver.Server) string { return "AZURE_METADATA_SERVICE_ENDPOINT=" + s.URL },
			func(s *metaserver.Server) {
				s.Set(metaserver.AzureEvents,
					metaserver.AzureEvent("Preempt", "vm-1", soon.Format(http.TimeFormat)))
			},
			func(s *metaserver.Server) { s.Set(metaserver.AzureEvents, `{"DocumentIncarnation":3,"Events":[]}`) },
			"preempt", true, 1},
	} {
		t.Run(c.cloud, func(t *testing.T) {
			t.Parallel()
			deadline(t, 2*time.Minute)
			s := c.server()
			defer s.Close()
			began := time.Now()
			v := newNoticed(t, "notice: "+c.cloud+"\n", withEnv(c.env(s)))
			check(t, os.WriteFile(v.at("before"), []byte("before"), 0o644))
			c.give(s)
			if !v.reaches("before", 20*time.Second) {
				t.Fatal("a notice brings no backup")
			}
			n := v.awaitNotice(c.what, 10*time.Second)
			if n.Source != c.cloud || n.Until == nil || c.until && !n.Until.Equal(soon) || c.until == n.Guessed {
				t.Errorf("%+v", n)
			}
			v.savedBy("after", 20*time.Second)
			c.take(s)
			v.awaitNotice("", 20*time.Second)
			v.umount()
			asked, most := len(s.Requests()), 8+int(c.perSecond*time.Since(began).Seconds())
			if asked > most {
				t.Errorf("%d requests in %v, want at most %d", asked, time.Since(began), most)
			}
			time.Sleep(3 * time.Second)
			if now := len(s.Requests()); now > asked {
				t.Errorf("after the unmount there are %d requests", now-asked)
			}
			if log, err := os.ReadFile(v.logFile()); err != nil || strings.Contains(string(log), "cannot be asked") {
				t.Errorf("the log, %v:\n%s", err, log)
			}
		})
	}
}

// TestNoticeUnreachable: a cloud that cannot be asked is in status and in the log once, and holds nothing up.
func TestNoticeUnreachable(t *testing.T) {
	t.Parallel()
	deadline(t, time.Minute)
	s := metaserver.Azure("vm-1")
	defer s.Close()
	s.Fail(s.Hang)
	v := newNoticed(t, "notice: aws\n", withEnv("AWS_EC2_METADATA_SERVICE_ENDPOINT="+s.URL))
	if !waitFor(20*time.Second, func() bool { return len(v.status().Errors) == 2 }) {
		t.Fatalf("status has the errors %q", v.status().Errors)
	}
	for _, e := range v.status().Errors {
		if !strings.HasPrefix(e, "notice: aws ") {
			t.Errorf("%q", e)
		}
	}
	b, err := os.ReadFile(v.at(".emberfs/status.json"))
	if err != nil || !strings.Contains(string(b), `"notice: emberfs status says more"`) {
		t.Errorf("%v: %s", err, b)
	}
	start := time.Now()
	v.umount()
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("the unmount took %v", took)
	}
	if log, err := os.ReadFile(v.logFile()); err != nil || strings.Count(string(log), "cannot be asked") != 2 {
		t.Errorf("the log, %v:\n%s", err, log)
	}
}

// TestExpiresIn: the last part of a machine's fixed life is as after a notice, with rounds.
func TestExpiresIn(t *testing.T) {
	t.Parallel()
	deadline(t, 2*time.Minute)
	began := time.Now()
	v := newVolume(t, "v", withSource(newBareRepo(t, "remote.git", user{})))
	v.config = "backup_interval: 1h\npush_min_interval: 1h\n"
	v.mount("--notice=none", "--expires-in", "20s")
	check(t, os.WriteFile(v.at("before"), []byte("before"), 0o644))
	n := v.awaitNotice("expire", 30*time.Second)
	if early := 10*time.Second - n.When.Sub(began); early > 0 || n.Until == nil ||
		n.Until.Sub(began) < 20*time.Second || n.Until.Sub(n.When) > 10*time.Second || n.Source != "clock" {
		t.Errorf("%v too early: %+v", early, n)
	}
	if !v.reaches("before", 10*time.Second) {
		t.Fatal("the end of its life brings no backup")
	}
	v.savedBy("after", 20*time.Second)
	v.umount()
}

// TestNoticeRefused: settings that cannot be are refused before anything is mounted.
func TestNoticeRefused(t *testing.T) {
	t.Parallel()
	deadline(t, time.Minute)
	v := newVolume(t, "v")
	for _, c := range []struct {
		flag string
		code int
		text string
	}{
		{"--notice=soon", 2, "want auto, aws, gcp, azure, file:PATH, command:COMMAND or none"},
		{"--notice=file:" + v.at("here"), 32, "notice file"},
		{"--expires-in=4", 2, "bad time"},
		{"--expires-at=tomorrow", 2, "2026-11-30T18:00:00Z"},
	} {
		if r := v.tryMount(c.flag); r.code != c.code || !strings.Contains(r.stderr, c.text) {
			t.Errorf("%v", r)
		}
	}
}
