//go:build slow

package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"emberfs/integration/effort"
)

// commitTime is for how long the tests of commits under load make some.
func commitTime(t testing.TB) time.Duration { return effort.Time(t, 6*time.Second, time.Minute) }

// underLoad says whether a test goes on taking commits: for a time, and then until there are enough of them, and of the
// transactions that acked counts, for two minutes at most. On a busy machine the time alone shows little. With acked
// nil nobody counts.
func underLoad(limit time.Duration, taken *[]takenCommit, acked func() int64) (more func() bool) {
	end := time.Now().Add(limit)
	return func() bool {
		over := time.Since(end)
		return over < 0 || over < 2*time.Minute &&
			(len(*taken) < enoughCommits || acked != nil && acked() < enoughAcked)
	}
}

// enoughCommits and enoughAcked are how many commits and transactions such a test has at least.
const (
	enoughCommits = 5
	enoughAcked   = 50
)

// takenCommit is a commit and what had been acknowledged before it began.
type takenCommit struct {
	id    string
	acked int64
}

// commitLoop commits every 300 ms; acked says what the writer had acknowledged to it at the moment; nil: nobody counts.
func (v *volume) commitLoop(acked func() int64) (taken []takenCommit) {
	v.t.Helper()
	for more := underLoad(commitTime(v.t), &taken, acked); more(); {
		next := time.After(300 * time.Millisecond)
		var before int64
		if acked != nil {
			before = acked()
		}
		v.sync()
		taken = append(taken, takenCommit{strings.TrimSpace(must(v.t, v.cold(), "git", "rev-parse", "main")), before})
		<-next
	}
	if len(taken) < enoughCommits {
		v.t.Errorf("only %d commits", len(taken))
	}
	return taken
}

// inCommit is a file of a commit, as git gives it; "" where it is not there.
func (v *volume) inCommit(id, path string) string {
	r := command{args: []string{"git", "cat-file", "blob", id + ":" + path}, dir: v.cold()}.run(v.t)
	if r.code != 0 {
		return ""
	}
	return r.stdout
}

// restoreCommit restores a commit alone.
func (v *volume) restoreCommit(id string) string {
	v.t.Helper()
	to := filepath.Join(testDir(v.t), "restored")
	check(v.t, os.RemoveAll(to))
	v.must("restore", "--from", v.state, "--commit", id, "--to", to)
	return to
}

// writers are programs that write until they are told to stop.
type writers struct {
	t    *testing.T
	stop atomic.Bool
	wg   sync.WaitGroup
}

// run calls step with 1, 2, 3... until the end.
func (w *writers) run(step func(i int) error) *atomic.Int64 {
	var done atomic.Int64
	w.wg.Go(func() {
		for i := 1; !w.stop.Load(); i++ {
			if err := step(i); err != nil {
				w.t.Error(err)
				return
			}
			done.Store(int64(i))
		}
	})
	return &done
}

func (w *writers) end() {
	w.stop.Store(true)
	w.wg.Wait()
}

// replaceFile writes a new file and renames it over name, as editors do.
func replaceFile(name, text string) error {
	f, err := os.Create(name + ".tmp")
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(name+".tmp", name)
}

// TestCommitKeepsOrder: what a program did later is in no commit without what it did before, and a file that is
// replaced by renaming another over it is always there, and whole.
func TestCommitKeepsOrder(t *testing.T) {
	deadline(t, 2*time.Minute+2*commitTime(t))
	v := newVolume(t, "one").mount()
	for _, d := range []string{"one", "two", "left", "right", "busy"} {
		mkdir(t, v.at(d), user{})
	}
	var open []*os.File
	overwrite := func(path string) func(i int) error {
		f, err := os.Create(v.at(path))
		check(t, err)
		open = append(open, f)
		return func(i int) error {
			_, err := f.WriteAt(fmt.Appendf(nil, "%012d\n", i), 0)
			return err
		}
	}
	number := func(path string) func(id string) int {
		return func(id string) int {
			text := strings.Fields(v.inCommit(id, path))
			if len(text) == 0 {
				return 0
			}
			n, err := strconv.Atoi(text[0])
			if err != nil {
				t.Errorf("%s in %s: %q", path, id, text[0])
			}
			return n
		}
	}
	padding := strings.Repeat("x", 100_000)
	replaced := func(path string) func(i int) error {
		return func(i int) error { return replaceFile(v.at(path), fmt.Sprintf("%d %s end", i, padding)) }
	}
	fsynced := func(path string) func(i int) error {
		write := overwrite(path)
		return func(i int) error {
			f, err := os.OpenFile(v.at(path), os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			return errors.Join(write(i), f.Sync(), f.Close())
		}
	}
	created := func(dir string) func(i int) error {
		return func(i int) error {
			if i > 200 {
				_ = os.Remove(v.at(fmt.Sprintf("%s/n%d", dir, i-200)))
			}
			return os.WriteFile(v.at(fmt.Sprintf("%s/n%d", dir, i)), nil, 0o644)
		}
	}
	newest := func(dir string) func(id string) int {
		return func(id string) (n int) {
			for _, name := range strings.Fields(command{args: []string{"git", "ls-tree", "--name-only", id + ":" + dir},
				dir: v.cold()}.run(t).stdout) {
				i, _ := strconv.Atoi(strings.TrimPrefix(name, "n"))
				n = max(n, i)
			}
			return n
		}
	}
	pairs := []struct {
		name          string
		first, second func(i int) error
		a, b          func(id string) int
	}{
		{"one directory", overwrite("a"), overwrite("b"), number("a"), number("b")},
		{"later name first", overwrite("z"), overwrite("y"), number("z"), number("y")},
		{"two directories", overwrite("two/a"), overwrite("one/b"), number("two/a"), number("one/b")},
		{"fsync", fsynced("two/f"), overwrite("one/f"), number("two/f"), number("one/f")},
		{"replaced", replaced("two/r"), replaced("one/r"), number("two/r"), number("one/r")},
		{"created", created("right"), created("left"), newest("right"), newest("left")},
	}
	w := &writers{t: t}
	for _, p := range pairs {
		w.run(func(i int) error { return errors.Join(p.first(i), p.second(i)) })
	}
	check(t, os.WriteFile(v.at("one/token"), []byte("token"), 0o644))
	w.run(func(i int) error { // one file that is always in one of two directories
		from, to := "one/token", "two/token"
		if i%2 == 0 {
			from, to = to, from
		}
		return os.Rename(v.at(from), v.at(to))
	})
	w.run(func(i int) error { // makes the walk long
		return os.WriteFile(v.at(fmt.Sprintf("busy/%d", i%500)), []byte(padding), 0o644)
	})
	taken := v.commitLoop(nil)
	w.end()
	for _, f := range open {
		check(t, f.Close())
	}
	v.umount()
	moved := 0
	for k, c := range taken {
		for _, p := range pairs {
			a, b := p.a(c.id), p.b(c.id)
			if a < b || k > 3 && b == 0 {
				t.Errorf("%s: commit %s has %d and then %d", p.name, c.id, a, b)
			}
			moved += b
		}
		for _, f := range []string{"one/r", "two/r"} {
			if text := v.inCommit(c.id, f); k > 3 && !strings.HasSuffix(text, padding+" end") {
				t.Errorf("commit %s has a file %s of %d bytes", c.id, f, len(text))
			}
		}
		one, two := v.inCommit(c.id, "one/token"), v.inCommit(c.id, "two/token")
		if k > 0 && one+two != "token" {
			t.Errorf("commit %s has %q and %q", c.id, one, two)
		}
	}
	if moved == 0 {
		t.Error("nothing was written")
	}
	t.Logf("%d commits", len(taken))
	fsck(t, v.cold())
}

// TestCommitsOfSQLite: every commit of a database under load, restored alone, is sound and has each transaction that
// was acknowledged before the commit began.
func TestCommitsOfSQLite(t *testing.T) {
	lookPath(t, "sqlite3", "stdbuf")
	for _, mode := range []string{"delete", "wal"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			deadline(t, 3*time.Minute+6*commitTime(t))
			v := newVolume(t, "one").mount()
			db := v.at("db")
			must(t, v.mnt, "sqlite3", db, "PRAGMA journal_mode="+mode+
				"; CREATE TABLE t(a INTEGER PRIMARY KEY, b BLOB); CREATE TABLE sums(n INT);")
			load := sqliteLoad(t, db)
			taken := v.commitLoop(load.last.Load)
			load.stop()
			v.umount()
			acked := load.last.Load()
			if acked < 50 {
				t.Errorf("no progress: %d", acked)
			}
			for _, c := range taken {
				if n := sound(t, filepath.Join(v.restoreCommit(c.id), "db")); int64(n) < c.acked {
					t.Errorf("commit %s has %d transactions, %d were acknowledged before it", c.id, n, c.acked)
				}
			}
			t.Logf("%d commits, %d transactions", len(taken), acked)
		})
	}
}

// TestCommitsOfPostgres is TestCommitsOfSQLite for PostgreSQL under pgbench. Some of the commits are restored.
func TestCommitsOfPostgres(t *testing.T) {
	deadline(t, 8*time.Minute+10*commitTime(t))
	v := newVolume(t, "one").mount()
	pg := newPostgres(t)
	taken, transactions := pg.underLoad(v, v.commitLoop)
	v.umount()
	pg.restoredWhole(v, taken)
	t.Logf("%d commits, %d transactions of our own", len(taken), transactions)
}
