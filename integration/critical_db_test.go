//go:build slow

package integration

import (
	"bufio"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"emberfs/integration/effort"
)

// acks counts what a program prints as acknowledged: a number a line.
type acks struct {
	last atomic.Int64
	stop func()
}

func acknowledged(t testing.TB, c command) *acks {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := c.prepare(ctx)
	out, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	a, read := &acks{}, make(chan struct{})
	go func() {
		defer close(read)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if n, err := strconv.ParseInt(lines.Text(), 10, 64); err == nil {
				a.last.Store(n)
			}
		}
	}()
	var once atomic.Bool
	a.stop = func() {
		if once.Swap(true) {
			return
		}
		check(t, unix.Kill(-cmd.Process.Pid, unix.SIGKILL))
		<-read
		_ = cmd.Wait()
		cancel()
	}
	t.Cleanup(a.stop)
	return a
}

// watchCommits notes for some time each commit that appears on the live branch and on main, and what had been
// acknowledged before its moment: before the commit that came before it was there, for only then does the next one
// begin.
func (v *volume) watchCommits(limit time.Duration, acked func() int64) (taken []takenCommit) {
	v.t.Helper()
	seen := map[string]bool{}
	var bound, before int64 // acknowledged before the newest commit was there
	add := func(id string) bool {
		if id == "" || seen[id] {
			return false
		}
		seen[id] = true
		taken = append(taken, takenCommit{id, bound})
		return true
	}
	for _, id := range v.tips() {
		seen[id] = true // from before
	}
	for more := underLoad(limit, &taken, acked); more(); time.Sleep(2 * time.Millisecond) {
		var now int64
		if acked != nil {
			now = acked()
		}
		found := false
		for _, id := range v.tips() {
			if seen[id] {
				continue
			}
			// Those that came and went between two looks are its ancestors.
			chain := strings.Fields(must(v.t, v.cold(), "git", "rev-list", "--first-parent", id))
			for i := slices.IndexFunc(chain, func(id string) bool { return seen[id] }) - 1; i >= 0; i-- {
				found = add(chain[i]) || found
			}
		}
		if found {
			bound = before
		}
		before = now
	}
	if len(taken) < enoughCommits {
		v.t.Errorf("only %d commits", len(taken))
	}
	return taken
}

// tips are what main and the live branch point to, read as files: a look costs nothing.
func (v *volume) tips() (ids []string) {
	live, _ := filepath.Glob(filepath.Join(v.cold(), livePrefix, "*"))
	for _, name := range append(live, filepath.Join(v.cold(), "refs/heads/main")) {
		if b, err := os.ReadFile(name); err == nil && len(b) >= 40 && !strings.HasSuffix(name, ".lock") {
			ids = append(ids, string(b[:40]))
		}
	}
	return ids
}

// spread picks that many of a list, the last included.
func spread(list []takenCommit, most int) (out []takenCommit) {
	for k, c := range list {
		if len(list) <= most || k*most/len(list) != (k+1)*most/len(list) {
			out = append(out, c)
		}
	}
	return out
}

// sqliteLoad has SQLite make one transaction after the other; the tables t and sums have a row of each.
func sqliteLoad(t testing.TB, db string) *acks {
	t.Helper()
	return acknowledged(t, command{args: []string{
		"sh", "-c", `i=0; while :; do i=$((i+1)); echo "BEGIN; INSERT INTO t(b) VALUES(randomblob(3000)); UPDATE t SET b=randomblob(3000) WHERE a=abs(random())%$i; INSERT INTO sums VALUES($i); COMMIT; SELECT $i;"; done | stdbuf -oL sqlite3 -cmd ".timeout 5000" ` + db}})
}

// TestCriticalSQLite: every commit of a critical database under constant transactions, of the live branch and of main,
// is sound when restored alone, and has all that was acknowledged before its moment.
func TestCriticalSQLite(t *testing.T) {
	lookPath(t, "sqlite3", "stdbuf")
	for _, mode := range []string{"delete", "wal"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			deadline(t, 5*time.Minute+6*commitTime(t))
			v := newVolume(t, "one", withOpts("backup_interval=4s")).mount()
			v.rules(`- {match: "**/*.db{,-wal,-journal}", class: critical, critical_delay: 300ms}`)
			v.sync()
			mkdir(t, v.at("data"), user{})
			db := v.at("data/x.db")
			must(t, v.mnt, "sqlite3", db, "PRAGMA journal_mode="+mode+
				"; CREATE TABLE t(a INTEGER PRIMARY KEY, b BLOB); CREATE TABLE sums(n INT);")
			soon := waitFor(time.Minute, func() bool { return v.critical().Commits > 0 && v.critical().Waiting == 0 })
			if !soon {
				t.Fatalf("the empty database is not committed: %+v", v.critical())
			}
			load := sqliteLoad(t, db)
			taken := v.watchCommits(commitTime(t), load.last.Load)
			load.stop()
			live := v.critical()
			v.umount()
			v.noComplaints()
			acked := load.last.Load()
			if acked < enoughAcked {
				t.Errorf("no progress: %d", acked)
			}
			if live.Commits < 5 {
				t.Errorf("few live commits: %+v", live)
			}
			for _, c := range spread(taken, effort.Count(t, 40, 1000)) {
				if n := sound(t, filepath.Join(v.restoreCommit(c.id), "data/x.db")); int64(n) < c.acked {
					t.Errorf("commit %s has %d transactions, %d were acknowledged before it", c.id, n, c.acked)
				}
			}
			t.Logf("%d commits, %d transactions, %d by the last moment; %+v", len(taken), acked,
				taken[len(taken)-1].acked, live)
			fsck(t, v.cold())
		})
	}
}

// TestCriticalPostgres is TestCriticalSQLite for PostgreSQL under pgbench, a critical directory.
func TestCriticalPostgres(t *testing.T) {
	deadline(t, 8*time.Minute+10*commitTime(t))
	v := newVolume(t, "one", withOpts("backup_interval=10s")).mount()
	v.rules(`- {match: pg/, class: critical, critical_delay: 300ms}`)
	pg := newPostgres(t)
	taken, transactions := pg.underLoad(v, func(acked func() int64) []takenCommit {
		return v.watchCommits(commitTime(t), acked)
	})
	live := v.critical()
	v.umount()
	v.noComplaints()
	if live.Commits < 3 {
		t.Errorf("few live commits: %+v", live)
	}
	pg.restoredWhole(v, taken)
	t.Logf("%d commits, %d transactions of our own; %+v", len(taken), transactions, live)
	fsck(t, v.cold())
}
