//go:build slow

package integration

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// Critical files: soon after close and fsync they are in the live branch, here and on the remote.

const livePrefix = "refs/heads/emberfs-live/main/"

// rules writes the volume's rules through the mount.
func (v *volume) rules(lines ...string) {
	v.t.Helper()
	check(v.t, os.WriteFile(v.rulesFile(), []byte(strings.Join(lines, "\n")+"\n"), 0o644))
}

const (
	criticalState = `- {match: state/, class: critical, critical_delay: 300ms}`
	ignoreBuild   = `- {match: build/, ignore: true}`
)

// liveRefs are the live branches of a repository.
func liveRefs(t testing.TB, repo string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, line := range strings.Split(strings.TrimSpace(
		must(t, repo, "git", "for-each-ref", "--format=%(refname) %(objectname)", livePrefix)), "\n") {
		if name, id, ok := strings.Cut(line, " "); ok {
			out[name] = id
		}
	}
	return out
}

// newestOf is the tip of the one live branch of a repository, or of main where there is none.
func newestOf(t testing.TB, repo string) string {
	t.Helper()
	live := liveRefs(t, repo)
	if len(live) > 1 {
		t.Fatalf("%s has several live branches: %v", repo, live)
	}
	for _, id := range live {
		return id
	}
	return strings.TrimSpace(must(t, repo, "git", "rev-parse", "main"))
}

// shows says whether a commit of a repository has a file with this content.
func shows(t testing.TB, repo, id, path, content string) bool {
	t.Helper()
	r := command{args: []string{"git", "cat-file", "blob", id + ":" + path}, dir: repo}.run(t)
	return r.code == 0 && r.stdout == content
}

// soon waits until the newest commit of a repository has a file with this content.
func soon(t testing.TB, repo, path, content string) string {
	t.Helper()
	var id string
	if !waitFor(time.Minute, func() bool {
		// An epoch may end between the two looks.
		r := command{args: []string{"git", "for-each-ref", "--format=%(objectname)", livePrefix, "refs/heads/main"},
			dir: repo}.run(t)
		for _, at := range strings.Fields(r.stdout) {
			if shows(t, repo, at, path, content) {
				id = at
				return true
			}
		}
		return false
	}) {
		t.Fatalf("%s is not in %s with %q: %v, main has %q", path, repo, content, liveRefs(t, repo),
			command{args: []string{"git", "cat-file", "blob", "main:" + path}, dir: repo}.run(t).stdout)
	}
	return id
}

// criticalStatus is what status says of critical files.
type criticalStatus struct {
	Waiting, Commits int64
	P50, P99, Worst  float64
}

func (v *volume) critical() (c criticalStatus) {
	v.t.Helper()
	s := v.status()
	check(v.t, json.Unmarshal(s.raw["critical"], &c))
	return c
}

// pathStatus is what `emberfs status PATH` says.
func (v *volume) pathStatus(name string) (s struct {
	Class, Why          string
	Clean, Pushed, Safe bool
	Commit              string
}) {
	v.t.Helper()
	r := v.emberfs("status", "--json", v.at(name))
	if r.code != 0 {
		v.t.Fatalf("%v", r)
	}
	check(v.t, json.Unmarshal([]byte(r.stdout), &s))
	return s
}

// noComplaints requires that the daemon found nothing wrong.
func (v *volume) noComplaints() {
	v.t.Helper()
	log, err := os.ReadFile(v.logFile())
	check(v.t, err)
	for _, line := range strings.Split(string(log), "\n") {
		if strings.Contains(line, "previous=incomplete") { // of the machine before it
			continue
		}
		if strings.Contains(line, "level=error") || strings.Contains(line, "level=warning") {
			v.t.Errorf("the daemon complains: %s", line)
		}
	}
}

// TestCriticalLive: a critical file is in the live branch soon after close and fsync, here and on the remote, while
// main stays; the next machine has it when this one is lost; main takes it over with the next backup, and the live
// branch goes.
func TestCriticalLive(t *testing.T) {
	deadline(t, 5*time.Minute)
	repo := newBareRepo(t, "remote.git", user{})
	v := newVolume(t, "one", withSource(repo)).mount()
	v.rules(criticalState)
	mkdir(t, v.at("state"), user{})
	check(t, os.WriteFile(v.at("plain"), []byte("one"), 0o644))
	v.sync()
	main := revision(t, v.cold())
	if len(liveRefs(t, v.cold())) != 0 {
		t.Errorf("after a sync there is %v", liveRefs(t, v.cold()))
	}

	check(t, os.WriteFile(v.at("plain"), []byte("two"), 0o644))
	check(t, os.WriteFile(v.at("state/a"), []byte("closed"), 0o644))
	id := soon(t, v.cold(), "state/a", "closed")
	soon(t, repo, "state/a", "closed")
	f, err := os.Create(v.at("state/open"))
	check(t, err)
	defer f.Close()
	_, err = f.WriteString("fsynced")
	check(t, err)
	check(t, f.Sync())
	soon(t, repo, "state/open", "fsynced")
	if now := revision(t, v.cold()); now != main || revision(t, repo) != main {
		t.Errorf("main went from %s to %s, on the remote to %s", main, now, revision(t, repo))
	}
	live := liveRefs(t, v.cold())
	if len(live) != 1 || !maps.Equal(live, liveRefs(t, repo)) {
		t.Errorf("live branches: %v here, %v on the remote", live, liveRefs(t, repo))
	}
	tip := newestOf(t, v.cold())
	if !shows(t, v.cold(), tip, "plain", "one") {
		t.Error("a live commit has what is not critical and in no commit")
	}
	fsck(t, v.cold())
	fsck(t, repo)

	// What people see: log, status, and stock git.
	log := v.emberfs("log", v.mnt)
	if lines := strings.Split(strings.TrimSpace(log.stdout), "\n"); log.code != 0 || len(lines) < 3 ||
		!strings.HasPrefix(lines[0], tip[:12]) ||
		!strings.HasSuffix(lines[0], "(live)") || strings.Contains(lines[len(lines)-1], "(live)") {
		t.Errorf("%v", log)
	}
	if ids := strings.Fields(must(t, v.cold(), "git", "log", "--format=%H", tip)); !slices.Contains(ids, id) ||
		ids[len(ids)-1] == tip || !slices.Contains(ids, main) {
		t.Errorf("git log of the live branch: %q, want %s and %s in it", ids, id, main)
	}
	if !waitFor(time.Minute, func() bool { return v.critical().Waiting == 0 }) {
		t.Errorf("critical: %+v", v.critical())
	}
	if c := v.critical(); c.Commits < 2 || c.P50 <= 0 || c.P50 > c.P99 || c.P99 > c.Worst || c.Worst > 60 {
		t.Errorf("critical: %+v", c)
	}
	if s := v.pathStatus("state/a"); s.Class != "critical" || !s.Safe || !s.Clean || !s.Pushed || s.Commit != tip {
		t.Errorf("state/a: %+v", s)
	}
	if s := v.pathStatus("plain"); s.Class != "session" || s.Safe || s.Clean || s.Why == "" {
		t.Errorf("plain: %+v", s)
	}
	if r := v.emberfs("status", v.mnt); !strings.Contains(r.stdout, "0 names waiting") {
		t.Errorf("%v", r)
	}

	// What is moved out of the critical directory is not lost on the way.
	check(t, os.WriteFile(v.at("state/moves"), []byte("moved"), 0o644))
	soon(t, repo, "state/moves", "moved")
	check(t, os.Rename(v.at("state/moves"), v.at("out")))
	check(t, os.WriteFile(v.at("state/after"), []byte("after"), 0o644))
	soon(t, repo, "state/after", "after")

	// The machine goes; the next one has it, and what was not critical as main has it.
	v.kill()
	check(t, os.RemoveAll(v.state))
	next := newVolume(t, "two", withSource(repo)).mount()
	for name, want := range map[string]string{"state/a": "closed", "state/open": "fsynced", "plain": "one",
		"out": "moved"} {
		wantFile(t, next.at(name), want, "on the next machine %s holds", name)
	}
	next.hasRules(criticalState + "\n")
	check(t, os.WriteFile(next.at("state/b"), []byte("next"), 0o644))
	soon(t, repo, "state/b", "next")
	next.sync()
	if here, there := liveRefs(t, next.cold()), liveRefs(t, repo); len(here) != 0 || len(there) != 0 {
		t.Errorf("after sync there are %v here, %v on the remote", here, there)
	}
	if revision(t, repo) == main || !shows(t, repo, "main", "state/b", "next") ||
		!shows(t, repo, "main", "state/a", "closed") {
		t.Error("main has not taken over what the live branch had")
	}
	if parents := must(t, repo, "git", "log", "-1", "--format=%P", "main"); strings.TrimSpace(parents) != main {
		t.Errorf("main's parents are %s, want %s alone", parents, main)
	}
	next.umount()
	next.noComplaints()
	fsck(t, next.cold())
	fsck(t, repo)
}

// TestCriticalBecomes: when new rules say critical of what was changed before, it is committed within its delay.
func TestCriticalBecomes(t *testing.T) {
	deadline(t, 2*time.Minute)
	v := newVolume(t, "one").mount()
	v.rules(ignoreBuild)
	v.sync()
	mkdir(t, v.at("state"), user{})
	mkdir(t, v.at("build"), user{})
	check(t, os.WriteFile(v.at("state/a"), []byte("before"), 0o644))
	check(t, os.WriteFile(v.at("build/out"), []byte("ignored"), 0o644))
	v.sync()
	check(t, os.WriteFile(v.at("state/a"), []byte("dirty"), 0o644))
	v.rules(criticalState, ignoreBuild)
	soon(t, v.cold(), "state/a", "dirty")
	v.rules(`- {match: build/, class: critical, critical_delay: 300ms}`)
	soon(t, v.cold(), "build/out", "ignored")
	v.umount()
	fsck(t, v.cold())
}

// TestCriticalUmount: what is critical and waits goes first at umount, and with a deadline that is too short for the
// rest it is all that went.
func TestCriticalUmount(t *testing.T) {
	deadline(t, 3*time.Minute)
	repo := newBareRepo(t, "remote.git", user{})
	v := newVolume(t, "one", withSource(repo)).mount()
	v.rules(`- {match: state/, class: critical, critical_delay: 1h}`)
	mkdir(t, v.at("state"), user{})
	v.sync()
	for i := range 100 {
		check(t, os.WriteFile(v.at(fmt.Sprint("state/", i)), fmt.Append(nil, i), 0o644))
	}
	if c := v.critical(); c.Waiting < 100 {
		t.Errorf("critical: %+v", c)
	}
	if r := v.emberfs("status", v.mnt); !strings.Contains(r.stdout, "100 names waiting") {
		t.Errorf("%v", r)
	}
	v.umount()
	for i := range 100 {
		if !shows(t, repo, "main", fmt.Sprint("state/", i), fmt.Sprint(i)) {
			t.Fatalf("state/%d is not in main", i)
		}
	}
	if live := liveRefs(t, repo); len(live) != 0 {
		t.Errorf("live branches after umount: %v", live)
	}
	fsck(t, repo)
	// So much else that a deadline passes before it is committed.
	v.mount()
	mkdir(t, v.at("rest"), user{})
	shell(t, v.at("rest"), `head -c 200M /dev/urandom | split -b 1M -a 4 - f`)
	check(t, os.WriteFile(v.at("state/last"), []byte("last"), 0o644))
	r := v.emberfs("umount", v.mnt, "--deadline", "1s")
	v.waitGone()
	if id := newestOf(t, repo); !shows(t, repo, id, "state/last", "last") {
		t.Errorf("a critical file is not on the remote\n%v", r)
	}
	// A push that the deadline cut may have arrived all the same.
	whole := shows(t, repo, "main", "state/last", "last")
	if (r.code == 0) != whole && !(whole && strings.Contains(r.stdout, "is not known to be on")) {
		t.Errorf("exit %d, main has it: %v\n%v", r.code, whole, r)
	}
	t.Logf("umount with a short deadline: exit %d", r.code)
	v.mount()
	if list, err := os.ReadDir(v.at("rest")); err != nil || len(list) != 200 {
		t.Errorf("%d files, %v", len(list), err)
	}
	v.umount()
	fsck(t, repo)
}
