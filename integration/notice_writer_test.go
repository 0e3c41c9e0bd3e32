//go:build slow

package integration

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"emberfs/integration/gitserver"
)

// TestNoticeUnderFastWriter gives a notice of 30 s to a machine with more unsaved than its link can take in that time,
// and a writer that goes on. All critical files are on the remote in the end, and the receipt is true of what the next
// machine gets.
func TestNoticeUnderFastWriter(t *testing.T) {
	t.Parallel()
	deadline(t, 3*time.Minute)
	s := gitserver.HTTP(t, serverDir(t), gitserver.HTTPOptions{BodyLimit: "0"})
	link := gitserver.NewLink(t, s.Addr(), 1)
	file := filepath.Join(testDir(t), "leaving")
	v := remoteVolume(t, "v", s.Server, link.Port())
	v.config = "backup_interval: 1h\npush_min_interval: 0s\nnotice: file:" + file + "\n" + v.config
	v.mount()
	v.rules("- {match: \"*.db\", class: critical, critical_delay: 500ms}")
	v.write("first", "x")
	v.sync()
	link.Limit(1 << 20)
	var list []written
	for i := range 60 {
		w := written{fmt.Sprintf("old%03d", i), 1 << 20, time.Now()}
		check(t, os.WriteFile(v.at(w.name), noise(int(w.size), w.name), 0o644))
		list = append(list, w)
	}
	until := time.Now().Add(30 * time.Second)
	check(t, os.WriteFile(file, []byte("30s\n"), 0o644))
	v.awaitNotice("file", 10*time.Second)
	_, stop := budgetWriter(t, v, "f")
	ctx, cancel := context.WithCancel(t.Context())
	critical := make(chan []string)
	go func() {
		var names []string
		for i := 0; sleepFor(ctx, 300*time.Millisecond); i++ {
			name := fmt.Sprintf("k%03d.db", i)
			if os.WriteFile(v.at(name), []byte(name), 0o644) == nil {
				names = append(names, name)
			}
		}
		critical <- names
	}()
	time.Sleep(time.Until(until.Add(-10 * time.Second)))
	list = append(list, stop()...)
	cancel()
	first := <-critical
	began := time.Now()
	r := command{args: []string{env.bin, "umount", v.mnt, "--deadline", "8s"}, env: v.userEnv(),
		limit: time.Minute}.run(t)
	took := time.Since(began)
	v.waitGone()
	t.Logf("%d files and %d critical ones: exit %d after %v\n%s", len(list), len(first), r.code, took, clip(r.stdout))
	if took > 11*time.Second {
		t.Errorf("the unmount took %v", took)
	}
	if r.code != 3 {
		t.Errorf("exit %d where not everything can be saved", r.code)
	}
	rc := v.lastReceipt()
	link.Limit(0)
	tree := strings.Fields(must(t, s.Repo, "git", "ls-tree", "--name-only", "main"))
	var lacks int64
	for _, w := range list {
		if !slices.Contains(tree, w.name) || !shows(t, s.Repo, "main", w.name, string(noise(int(w.size), w.name))) {
			lacks++
		}
	}
	if lacks == 0 || rc.Complete || rc.AtRisk.Files != lacks {
		t.Errorf("the remote lacks %d files; the receipt says %d, complete: %v", lacks, rc.AtRisk.Files, rc.Complete)
	}
	check(t, os.RemoveAll(v.dir)) // the machine is gone
	next := remoteVolume(t, "next", s.Server, link.Port()).mount()
	for _, name := range first {
		wantFile(t, next.at(name), name, "a critical file")
	}
	if p := next.previous(); p.State != "incomplete" {
		t.Errorf("the next machine is told %+v", p)
	}
	next.umount()
	fsck(t, s.Repo)
}

// TestNoticeBeforeDeadline unmounts a machine with more unsaved than fits into the time of its notice, with a deadline
// that is later: what can be saved before the machine goes away is on the remote by then.
func TestNoticeBeforeDeadline(t *testing.T) {
	t.Parallel()
	deadline(t, 3*time.Minute)
	s := gitserver.HTTP(t, serverDir(t), gitserver.HTTPOptions{BodyLimit: "0"})
	link := gitserver.NewLink(t, s.Addr(), 1)
	file := filepath.Join(testDir(t), "leaving")
	v := remoteVolume(t, "v", s.Server, link.Port())
	v.config = "backup_interval: 1h\nnotice: file:" + file + "\n" + v.config
	v.mount()
	v.write("first", "x")
	v.sync()
	link.Limit(1 << 20)
	until := time.Now().Add(12 * time.Second)
	check(t, os.WriteFile(file, []byte("12s\n"), 0o644))
	v.awaitNotice("file", 10*time.Second)
	for i := range 40 {
		check(t, os.WriteFile(v.at(fmt.Sprintf("f%02d", i)), noise(1<<20, fmt.Sprint(i)), 0o644))
	}
	umount := command{args: []string{env.bin, "umount", v.mnt, "--deadline", "5m"}, env: v.userEnv()}.prepare(
		t.Context())
	check(t, umount.Start())
	time.Sleep(time.Until(until))
	has := strings.Fields(must(t, s.Repo, "git", "ls-tree", "--name-only", "main"))
	t.Logf("when the machine goes away the remote has %v", has)
	if !slices.Contains(has, "f00") || slices.Contains(has, "f39") {
		t.Error("want the oldest files and not all")
	}
	link.Limit(0) // the machine stays after all
	check(t, umount.Wait())
	v.waitGone()
	if has := must(t, s.Repo, "git", "ls-tree", "--name-only", "main"); !strings.Contains(has, "f39\n") {
		t.Errorf("in the end the remote has only\n%s", has)
	}
	if r := v.lastReceipt(); !r.Complete || !r.Clean {
		t.Errorf("%+v", r)
	}
	fsck(t, s.Repo)
}

func sleepFor(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}
