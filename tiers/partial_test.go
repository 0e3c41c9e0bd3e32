package tiers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestPartIsLeftOutWhole checks that what a commit leaves out for lack of time is in it as the last commit had it, is
// at risk and in the receipt, is not taken for clean, not even by the next start, and is in the next commit; and that
// what the live branch has of a critical file is not taken back.
func TestPartIsLeftOutWhole(t *testing.T) {
	c, state := newMemCold(), t.TempDir()
	v := openTest(t, state, c)
	must(t, v.SetRulesText([]byte("- {match: crit/, class: critical}\n")))
	dir, crit := mkdir(t, v, v.root, "dir"), mkdir(t, v, v.root, "crit")
	for _, name := range []string{"a", "b", "new"} {
		if name != "new" {
			write(t, v, dir, name, "old")
		}
	}
	write(t, v, crit, "k", "old")
	_, err := v.Sync(t.Context(), "sync")
	must(t, err)
	p := &part{until: time.Now().Add(time.Hour), stays: map[inoKey]struct{}{}}
	for _, name := range []string{"a", "b", "new"} {
		n := write(t, v, dir, name, "changed")
		if name != "a" {
			p.stays[n.key()] = struct{}{}
		}
	}
	k := write(t, v, crit, "k", "changed")
	_, err = v.syncCritical(t.Context())
	must(t, err)
	p.stays[k.key()] = struct{}{}
	c.failPush, c.remote = errors.New("no route"), true
	rc := &Receipt{Reason: "unmount"}
	must(t, v.syncBy(t.Context(), rc, true, func(ctx context.Context, rc *Receipt) error {
		return v.commitPart(ctx, rc, p)
	}))
	if got := newest(t, c); got["dir/a"] != "changed" || got["dir/b"] != "old" || got["crit/k"] != "changed" ||
		got["dir/new"] != "" {
		t.Errorf("the commit has %v", got)
	}
	if slices.Sort(rc.Missing); rc.Complete || len(rc.Missing) != 4 || !strings.HasPrefix(rc.Missing[1], "dir/b: ") ||
		!strings.HasPrefix(rc.Missing[2], "dir/new: ") {
		t.Errorf("%+v", rc)
	}
	if r := v.risk.now(); r.Files < 4 || r.Bytes < 21 {
		t.Errorf("with what is not pushed %+v are at risk", r)
	}
	c.failPush, c.remote = nil, false
	if l := v.risk.late(); l.files != 2 || l.bytes != 14 || l.age(time.Now()) > time.Minute {
		t.Errorf("at risk are %+v", l)
	}
	must(t, v.Close())
	v = openTest(t, state, c)
	if !v.leftBehind() {
		t.Error("the next start does not know that something is left")
	}
	rc, err = v.Sync(t.Context(), "recovery")
	must(t, err)
	if got := newest(t, c); !rc.Complete || got["dir/b"] != "changed" || got["dir/new"] != "changed" {
		t.Errorf("the next commit: %+v, %v", rc, got)
	}
	if v.risk.late().files != 0 {
		t.Error("what the next commit has is still at risk")
	}
}

// TestFinalBackupInTime checks that a final backup that does not fit into its deadline ends in time, has saved what was
// at risk for longest, whatever its name, and says exactly what it has not saved.
func TestFinalBackupInTime(t *testing.T) {
	for _, fresh := range []bool{false, true} {
		t.Run(fmt.Sprintf("fresh=%v", fresh), func(t *testing.T) { finalBackupInTime(t, fresh) })
	}
}

// finalBackupInTime is with fresh for a volume that has no commit yet, so that only a commit of everything has its
// critical files.
func finalBackupInTime(t *testing.T, fresh bool) {
	c := newMemCold()
	var mu sync.Mutex
	c.skim = func(size int64) bool { // a disk that reads 1 MB a second
		mu.Lock()
		defer mu.Unlock()
		time.Sleep(time.Duration(size) * time.Microsecond)
		return false
	}
	v := openTest(t, t.TempDir(), c)
	must(t, v.SetRulesText([]byte("- {match: crit/, class: critical}\n")))
	if !fresh {
		write(t, v, v.root, "first", "x")
		_, err := v.Sync(t.Context(), "sync")
		must(t, err)
	}
	v.budget.commit = speed{each: 0.05, byte: 1e-6, samples: 1}
	const files, size = 80, 100_000
	name := func(i int) string { return fmt.Sprintf("f%02d", files-i) } // the oldest is the last by name
	for i := range files {
		write(t, v, v.root, name(i), fmt.Sprintf("%0*d", size, i))
		time.Sleep(5 * time.Millisecond) // the clock of change times is coarse
	}
	write(t, v, mkdir(t, v, v.root, "crit"), "last", "critical")
	const limit = 4 * time.Second
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	began := time.Now()
	rc, err := v.Sync(ctx, "unmount")
	took := time.Since(began)
	must(t, err)
	got, saved := newest(t, c), 0
	if got["crit/last"] != "critical" {
		t.Error("the critical file is not saved")
	}
	for i := range files {
		_, has := got[name(i)]
		said := slices.ContainsFunc(rc.Missing, func(l string) bool { return strings.HasPrefix(l, name(i)+": ") })
		if has == said {
			t.Errorf("%s: the commit has it: %v, the receipt says that it is missing: %v", name(i), has, said)
		}
		if has {
			saved++
		} else if i < 10 {
			t.Errorf("%s is among the oldest and was not saved", name(i))
		}
	}
	t.Logf("%d files in %v: %+v", saved, took, rc.Missing[:min(1, len(rc.Missing))])
	if rc.Complete || !rc.New || saved < 10 || saved > 60 || took > limit+3*time.Second {
		t.Errorf("%d of %d files in %v: %+v", saved, files, took, rc)
	}
	want := fmt.Sprintf("not saved before the deadline: %d files, %d bytes", files-saved, (files-saved)*size)
	if len(rc.Missing) == 0 || rc.Missing[0] != want {
		t.Errorf("%q, want %q first", rc.Missing, want)
	}
}

// TestFilesOfADatabaseStayTogether checks what choose takes: the oldest files that fit, and of files that belong
// together all or none.
func TestFilesOfADatabaseStayTogether(t *testing.T) {
	v, _ := newVolume(t)
	dir := mkdir(t, v, v.root, "dir")
	keys := map[string]inoKey{}
	for _, f := range []struct {
		name string
		size int
	}{{"zeta", 300_000}, {"db", 200_000}, {"large", 3_000_000}, {"alpha", 300_000}, {"db-wal", 250_000},
		{"young", 400_000}} {
		keys[f.name] = write(t, v, dir, f.name, strings.Repeat("x", f.size)).key()
		time.Sleep(10 * time.Millisecond)
	}
	v.budget.commit = speed{each: 0.01, byte: 1e-6, samples: 1}
	p := v.choose(t.Context(), 2*time.Second) // room for nearly 1 MB
	if p == nil {
		t.Fatal("nothing fits")
	}
	stays := func(name string) bool { _, ok := p.stays[keys[name]]; return ok }
	for name, want := range map[string]bool{"zeta": false, "alpha": false, "large": true, "db": true, "db-wal": true,
		"young": true} { // 600 kB are taken before the last two
		if stays(name) != want {
			t.Errorf("%s is left out: %v, want %v", name, stays(name), want)
		}
	}
	if v.choose(t.Context(), 30*time.Millisecond) != nil {
		t.Error("something fits into no time")
	}
}
