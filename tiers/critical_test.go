package tiers

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/warm"
)

// newest returns the paths of the newest commit, with the contents of small files.
func newest(t *testing.T, repo *memCold) map[string]string {
	t.Helper()
	s, err := repo.Newest(context.Background())
	must(t, err)
	out := map[string]string{}
	if s == nil {
		return out
	}
	var dir func(at string, id cold.DirID)
	dir = func(at string, id cold.DirID) {
		l, err := s.ReadDir(context.Background(), id)
		must(t, err)
		for _, e := range l.Entries {
			switch e.Kind {
			case cold.KindDir:
				out[at+e.Name] = "/"
				dir(at+e.Name+"/", e.Dir())
			case cold.KindFile:
				repo.mu.Lock()
				b, ok := repo.blobs[e.ID]
				repo.mu.Unlock()
				if !ok {
					t.Errorf("%s%s: its content %s is not in cold", at, e.Name, e.ID)
				}
				out[at+e.Name] = string(b)
			default:
				out[at+e.Name] = e.Kind.String()
			}
		}
	}
	root := s.Root()
	dir("", root.Dir())
	return out
}

func wantNewest(t *testing.T, cold *memCold, want map[string]string) {
	t.Helper()
	if got := newest(t, cold); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("the newest commit has %v\nwant %v", got, want)
	}
}

// openCritical opens a volume with these rules, and its loops run.
func openCritical(t *testing.T, cold *memCold, text string) *Volume {
	t.Helper()
	v := openTiered(t, t.TempDir(), cold, func(c *Config) { c.CriticalDelay = 50 * time.Millisecond })
	must(t, v.SetRulesText([]byte(text)))
	return v
}

func mustCritical(t *testing.T, v *Volume) *Receipt {
	t.Helper()
	rc, err := v.syncCritical(context.Background())
	if err != nil || !rc.Complete {
		t.Fatalf("commit of what is critical: %v %+v", err, rc)
	}
	return rc
}

const criticalState = "- {match: state/, class: critical}\n- {match: '**/*.db', class: critical}\n"

func overwrite(t *testing.T, v *Volume, n *Inode, data string) {
	t.Helper()
	h, err := v.Open(context.Background(), n, unix.O_WRONLY|unix.O_TRUNC, false)
	must(t, err)
	_, err = h.Write(context.Background(), []byte(data), 0, false)
	must(t, err)
	h.Release()
}

func TestLiveTakesWhatIsCritical(t *testing.T) {
	cold := newMemCold()
	v := openCritical(t, cold, criticalState)
	write(t, v, v.Root(), "plain", "1")
	state := mkdir(t, v, v.Root(), "state")
	v.mustSync(t)
	head := cold.head

	a := write(t, v, state, "a", "1")
	write(t, v, v.Root(), "plain2", "2")
	deep := mkdir(t, v, mkdir(t, v, v.Root(), "d"), "e")
	db := write(t, v, deep, "x.db", "x")
	write(t, v, deep, "x.txt", "text")
	if rc := mustCritical(t, v); !rc.New {
		t.Fatal("no commit")
	}
	want := map[string]string{"plain": "1", "state": "/", "state/a": "1", "d": "/", "d/e": "/", "d/e/x.db": "x"}
	wantNewest(t, cold, want)
	if cold.head != head || cold.live.IsZero() {
		t.Fatal("it went to main")
	}
	if st := v.Status(); st.AtRisk.Files == 0 || st.Critical.Waiting != 0 || st.Critical.Commits != 1 {
		t.Errorf("status: %+v %+v", st.AtRisk, st.Critical)
	}
	// Further live commits extend the earlier ones.
	overwrite(t, v, a, "22")
	overwrite(t, v, db, "xx")
	sub := mkdir(t, v, state, "sub")
	write(t, v, sub, "b", "b")
	_, _, err := v.Symlink(context.Background(), state, "l", "a", me)
	must(t, err)
	mustCritical(t, v)
	want["state/a"], want["d/e/x.db"], want["state/sub"], want["state/sub/b"], want["state/l"] = "22", "xx", "/", "b",
		"symlink"
	wantNewest(t, cold, want)
	must(t, v.Unlink(context.Background(), state, "a"))
	must(t, v.Rename(context.Background(), deep, "x.db", v.Root(), "y.db", 0))
	mustCritical(t, v)
	delete(want, "state/a")
	delete(want, "d/e/x.db")
	want["y.db"] = "xx"
	wantNewest(t, cold, want)
	if rc := mustCritical(t, v); rc.New {
		t.Error("a commit of nothing")
	}
	if cold.head != head {
		t.Error("main moved")
	}
	// Main catches up with everything.
	v.mustSync(t)
	want["plain2"], want["d/e/x.txt"] = "2", "text"
	wantNewest(t, cold, want)
	if !cold.live.IsZero() || cold.head == head {
		t.Error("main did not take the live branch's place")
	}
	if st := v.Status(); st.AtRisk.Files != 0 || st.AtRisk.Bytes != 0 {
		t.Errorf("at risk after it: %+v", st.AtRisk)
	}
	if !v.rootClean() {
		t.Error("not clean")
	}
	// A new start finds a live branch.
	write(t, v, state, "c", "c")
	mustCritical(t, v)
	want["state/c"] = "c"
	must(t, v.Close())
	v = openTiered(t, v.cfg.State, cold, func(c *Config) { c.CriticalDelay = 50 * time.Millisecond })
	if st := v.Status(); len(st.Errors) > 0 {
		t.Errorf("after a restart: %v", st.Errors)
	}
	write(t, v, mustFind(t, v, "state"), "c2", "c2")
	mustCritical(t, v)
	want["state/c2"] = "c2"
	wantNewest(t, cold, want)
	// The next machine has it all.
	next := openTiered(t, t.TempDir(), cold)
	if got := read(t, next, mustFind(t, next, "state/c2")); got != "c2" {
		t.Errorf("on the next machine: %q", got)
	}
	must(t, next.Close())
	v.mustSync(t)
	wantNewest(t, cold, want)
	must(t, v.Close())
}

// TestLiveNeedsWhole: everything is committed where a commit of critical names alone cannot show what changed.
func TestLiveNeedsWhole(t *testing.T) {
	for name, change := range map[string]func(v *Volume, state *Inode){
		"rename of a directory": func(v *Volume, state *Inode) {
			must(t, v.Rename(context.Background(), v.Root(), "d", v.Root(), "moved", 0))
		},
		"hard link": func(v *Volume, state *Inode) {
			_, err := v.Link(context.Background(), mustFind(t, v, "state/a"), state, "b")
			must(t, err)
		},
		"directory removed": func(v *Volume, state *Inode) {
			d := mustFind(t, v, "d")
			must(t, v.Unlink(context.Background(), d, "x.db"))
			must(t, v.Rmdir(context.Background(), v.Root(), "d"))
			v.Forget(d, 2)
		},
	} {
		t.Run(name, func(t *testing.T) {
			cold := newMemCold()
			v := openCritical(t, cold, criticalState)
			state := mkdir(t, v, v.Root(), "state")
			write(t, v, state, "a", "1")
			write(t, v, mkdir(t, v, v.Root(), "d"), "x.db", "x")
			v.mustSync(t)
			head := cold.head
			change(v, state)
			mustCritical(t, v)
			if cold.head == head {
				t.Error("main did not move")
			}
			got := slices.Sorted(func(yield func(string) bool) {
				for p := range newest(t, cold) {
					if !yield(p) {
						return
					}
				}
			})
			var warm []string
			for p := range scanVolume(t, v) {
				warm = append(warm, p)
			}
			slices.Sort(warm)
			if !slices.Equal(got, warm) {
				t.Errorf("committed %v, warm has %v", got, warm)
			}
			must(t, v.Close())
		})
	}
}

// scanVolume lists the paths that are there.
func scanVolume(t *testing.T, v *Volume) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	var dir func(at string, fd int)
	dir = func(at string, fd int) {
		list, err := warm.ListNames(fd)
		must(t, err)
		for _, d := range list {
			out[at+d.Name] = true
			if d.Mode == unix.S_IFDIR {
				sub, err := warm.OpenAt(fd, d.Name, unix.O_PATH|unix.O_DIRECTORY, 0)
				must(t, err)
				dir(at+d.Name+"/", sub)
				unix.Close(sub)
			}
		}
	}
	dir("", v.warmFD)
	return out
}

// TestCriticalDelay: a critical file is committed within its delay after it was closed or fsynced, also while writes go
// on.
func TestCriticalDelay(t *testing.T) {
	cold := newMemCold()
	v := openCritical(t, cold, criticalState)
	v.Start()
	write(t, v, v.Root(), "plain", "1")
	v.mustSync(t)
	has := func(path, content string) func() bool {
		return func() bool { return newest(t, cold)[path] == content }
	}
	wait := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s is not committed: %v", what, newest(t, cold))
			}
		}
	}
	n := write(t, v, v.Root(), "x.db", "one")
	wait("a file that was closed", has("x.db", "one"))
	h, err := v.Open(context.Background(), n, unix.O_WRONLY, false)
	must(t, err)
	_, err = h.Write(context.Background(), []byte("two"), 0, false)
	must(t, err)
	time.Sleep(200 * time.Millisecond)
	if has("x.db", "two")() {
		t.Error("committed before it was closed or fsynced") // allowed, but nothing asked for it
	}
	must(t, h.Fsync(context.Background(), true))
	wait("a file that was fsynced", has("x.db", "two"))
	for i := range 30 {
		_, err = h.Write(context.Background(), fmt.Appendf(nil, "%03d", i), 0, false)
		must(t, err)
		must(t, h.Fsync(context.Background(), true))
		time.Sleep(10 * time.Millisecond)
	}
	wait("the last of many", has("x.db", "029"))
	h.Release()
	s := v.Status()
	if c := s.Critical; c.Commits < 3 || c.Commits > 20 || c.P50 <= 0 || c.P99 < c.P50 || c.Worst < c.P99 {
		t.Errorf("critical: %+v", c)
	}
	if !has("plain", "1")() {
		t.Error("what is not critical was lost")
	}
	must(t, v.Close())
}

// TestFsyncRemote: fsync of a file of `fsync: remote` returns when a commit has it.
func TestFsyncRemote(t *testing.T) {
	cold := newMemCold()
	v := openCritical(t, cold, "- {match: '*.db', class: critical, fsync: remote, critical_delay: 1h}\n")
	v.Start()
	v.mustSync(t)
	_, h, _, err := v.Create(context.Background(), v.Root(), "x.db", unix.O_RDWR, 0o600, me)
	must(t, err)
	for i := range 5 {
		data := fmt.Sprint("version ", i)
		_, err = h.Write(context.Background(), []byte(data), 0, false)
		must(t, err)
		must(t, h.Fsync(context.Background(), true))
		if got := newest(t, cold)["x.db"]; got != data {
			t.Fatalf("after fsync the commit has %q, want %q", got, data)
		}
	}
	cold.mu.Lock()
	cold.failTx = unix.ENOSPC
	cold.mu.Unlock()
	_, err = h.Write(context.Background(), []byte("more"), 0, false)
	must(t, err)
	if err := h.Fsync(context.Background(), true); err == nil || !strings.Contains(err.Error(), "not remotely") {
		t.Errorf("fsync of what no commit has: %v", err)
	}
	cold.mu.Lock()
	cold.failTx = nil
	cold.mu.Unlock()
	must(t, h.Fsync(context.Background(), true))
	h.Release()
	must(t, v.Close())
}

// TestRuleInterval: everything is committed within a rule's backup_interval after a change of a file that it is about.
func TestRuleInterval(t *testing.T) {
	cold := newMemCold()
	v := openTiered(t, t.TempDir(), cold, func(c *Config) { c.BackupInterval = time.Hour })
	must(t, v.SetRulesText([]byte("- {match: soon/, class: session, backup_interval: 200ms}\n")))
	v.Start()
	d := mkdir(t, v, v.Root(), "soon")
	v.mustSync(t)
	head := cold.head
	write(t, v, v.Root(), "later", "1")
	time.Sleep(400 * time.Millisecond)
	cold.mu.Lock()
	moved := cold.head != head
	cold.mu.Unlock()
	if moved {
		t.Error("a backup that nothing asked for")
	}
	write(t, v, d, "f", "1")
	for end := time.Now().Add(10 * time.Second); newest(t, cold)["soon/f"] != "1"; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("no backup within the rule's interval")
		}
	}
	must(t, v.Close())
}

// TestCriticalComesFirst: on the next machine critical files come back before what the last session opened first.
func TestCriticalComesFirst(t *testing.T) {
	cold := newMemCold()
	v := openCritical(t, cold, criticalState)
	content := strings.Repeat("content ", 2000)
	state := mkdir(t, v, v.Root(), "state")
	write(t, v, mkdir(t, v, state, "deep"), "a", content)
	write(t, v, v.Root(), "plain", content)
	write(t, v, v.Root(), "x.db", content)
	v.mustSync(t)
	must(t, v.Close())

	v = openTiered(t, t.TempDir(), cold, func(c *Config) { c.Prefetch, c.CriticalDelay = true, time.Second })
	if got := v.urgentFirst(t.Context(), []string{"plain", "gone", "x.db"}); !slices.Equal(got,
		[]string{"state/deep/a", "x.db", "plain", "gone"}) {
		t.Errorf("order: %v", got)
	}
	if warmBlocks(t, v, "state/deep/a") != 0 {
		t.Fatal("it is in warm before anybody asked")
	}
	v.Start()
	for end := time.Now().Add(10 * time.Second); warmBlocks(t, v, "state/deep/a") == 0; time.Sleep(
		5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("a critical file does not come back by itself")
		}
	}
	must(t, v.Close())
}

// TestLiveOverDamage: where the newest commit's directory cannot be extended, what is critical is committed with
// everything.
func TestLiveOverDamage(t *testing.T) {
	repo := newMemCold()
	v := openCritical(t, repo, criticalState)
	state := mkdir(t, v, v.Root(), "state")
	write(t, v, state, "a", "1")
	write(t, v, state, "b", "2")
	v.mustSync(t)
	head := repo.head
	r := &state.mu.rec
	repo.mu.Lock()
	delete(repo.dirs, cold.DirID{Tree: r.ID, Meta: r.Meta})
	repo.mu.Unlock()
	overwrite(t, v, mustFind(t, v, "state/a"), "new")
	mustCritical(t, v)
	if repo.head == head {
		t.Error("main did not move")
	}
	wantNewest(t, repo, map[string]string{"state": "/", "state/a": "new", "state/b": "2"})
	must(t, v.Close())
}
