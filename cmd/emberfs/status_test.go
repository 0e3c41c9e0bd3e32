package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"emberfs/fs"
	"emberfs/tiers"
	"emberfs/tiers/cold"
)

func TestStatusText(t *testing.T) {
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	var st statusReply
	st.daemonReply = daemonReply{PID: 12, Mountpoint: "/m", Phase: phaseMounted}
	st.Volume, st.Branch, st.State, st.Verified, st.Records = "v1", "main", "/s", true, true
	st.Tiers.Hot = tiers.HotStatus{TierStatus: tiers.TierStatus{Files: 12, Bytes: 3 << 20}, Limit: 32 << 20, Hits: 850,
		Inodes: 1203, InodesMax: 20000}
	st.Tiers.Warm = tiers.WarmStatus{TierStatus: tiers.TierStatus{Files: 1, Bytes: 34 << 20}, Limit: 1 << 30, Hits: 100,
		Stubs: 1200, Lazy: 1,
		Released: 1300, Returned: 100, LastTick: &tiers.TierReport{Reason: "age", Time: now.Add(-3 * time.Minute),
			Files: 2, Bytes: 2048, Kept: map[string]int64{"open": 2}}}
	st.Tiers.Cold = tiers.ColdStatus{TierStatus: tiers.TierStatus{Files: 1201, Bytes: 5 << 20}, Hits: 50, Packs: 3,
		Objects: 2400}
	show := func() string {
		t.Helper()
		var out strings.Builder
		noError(t, printStatus(&out, st, now))
		return out.String()
	}
	want := `mountpoint    /m (mounted, pid 12)
volume        v1, branch main
source        none: the backup is in the state directory alone
state         /s
hot           12 files     3.0 MiB of 32 MiB  85.0% of reads
warm          1 file       34 MiB of 1.0 GiB  10.0% of reads
cold          1,201 files  5.0 MiB            5.0% of reads, 2,400 objects in 3 packs
inodes        1,203 in memory, at most 20,000 unless in use
in cold only  1,200 files, 1 directory not listed yet
moved         1,300 files released, 100 returned since the mount
last tick     3 minutes ago (age): released 2 files, 2.0 KiB; kept: 2 open
at risk       nothing
last commit   none
errors        none
`
	if got := show(); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	dirty := st
	dirty.AtRisk = cold.AtRisk{Files: 3, Bytes: 3 << 20, Seconds: 70,
		Local:  &cold.RiskPart{Files: 1, Bytes: 1 << 20, Age: 5, SecondsToSave: 0.25, Measured: true},
		Remote: &cold.RiskPart{Files: 3, Bytes: 3 << 20, Age: 70, SecondsToSave: 12.3}}
	dirty.Budget = tiers.BudgetStatus{MaxAtRisk: "1m0s", RiskWarn: "none", Slowed: 2, Waited: 1.5}
	st, dirty = dirty, st
	for _, line := range []string{"3 files, 3.0 MiB, the oldest for 1m10s\n",
		"  not committed  1 file, 1.0 MiB, the oldest for 5s; about 0.2 s to save, at the speed of the last backups\n",
		"  not pushed     3 files, 3.0 MiB, the oldest for 1m10s; about 12.3 s to save, at a speed that is assumed, as none was " +
			"measured yet\n", "max at risk      1m0s; 2 writes waited for 1.5 s in all\n"} {
		if got := show(); !strings.Contains(got, line) {
			t.Errorf("%q is missing:\n%s", line, got)
		}
	}
	st = dirty
	st.Tiers.Hot.Hits, st.Tiers.Warm.Hits, st.Tiers.Cold.Hits, st.Tiers.Warm.Limit, st.Tiers.Warm.LastTick = 0, 0, 0, 0,
		nil
	st.Tiers.Warm.Lazy = 2
	for _, line := range []string{"warm          1 file       34 MiB             no reads\n", "last tick     none\n",
		"1,200 files, 2 directories not listed yet\n"} {
		if got := show(); !strings.Contains(got, line) {
			t.Errorf("%q is missing:\n%s", line, got)
		}
	}
}

func TestFileText(t *testing.T) {
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		st   tiers.FileStatus
		want string
	}{
		{tiers.FileStatus{Path: "d/a\nb", Kind: "file", Size: 12 << 10, Tiers: []string{"hot", "cold"},
			Class: "session", Clean: true, Object: "0123abcd",
			Commit: "4567", Pushed: true, Safe: true, Open: 1, Used: now.Add(-time.Minute)}, `path      "d/a\nb" in /m
kind      file, 12 KiB, class session
tiers     hot, cold
content   clean: as the last commit has it
object    0123abcd
commit    4567, pushed
safe      yes
open      1 handle
last use  1 minute ago
`},
		{tiers.FileStatus{Path: "b", Kind: "file", Tiers: []string{"warm"}, Class: "session", Why: "written after the last commit"}, `path      b in /m
kind      file, 0 B, class session
tiers     warm
content   dirty: differs from the last commit
object    none
commit    none has it as it is now
safe      NO: written after the last commit
open      0 handles
last use  not since the mount
`},
	} {
		var out strings.Builder
		if err := printFile(&out, "/m", c.st, now); err != nil || out.String() != c.want {
			t.Errorf("%v, got:\n%s\nwant:\n%s", err, out.String(), c.want)
		}
	}
}

func TestFileStatus(t *testing.T) {
	x := servedVolume(t)
	mnt := x.config.Mountpoint
	odd := "a\xff&path=+%"
	write(t, mnt, odd, "")
	write(t, mnt, "none", "")
	noError(t, os.Symlink("/nowhere", filepath.Join(mnt, "link")))
	ask := func(name string, asJSON bool) (string, error) {
		var out strings.Builder
		err := fileStatus(t.Context(), registration{Mountpoint: mnt, State: x.config.State}, filepath.Join(mnt, name),
			asJSON, world{out: &out})
		return out.String(), err
	}
	for _, name := range []string{odd, "link"} {
		out, err := ask(name, true)
		var r fileResult
		if jerr := json.Unmarshal([]byte(out), &r); err != nil || jerr != nil || r.Mountpoint != mnt ||
			r.Kind != "file" || (r.Path64 == nil) != (name == "link") {
			t.Errorf("%q: %v, %v, %s", name, err, jerr, out)
		} else if r.Path64 != nil && string(r.Path64) != name || r.Path64 == nil && r.Path != name {
			t.Errorf("%q: %s", name, out)
		}
	}
	if out, err := ask(odd, false); err != nil || !strings.HasPrefix(out, `path      "a\377&path=+%" in `+mnt) {
		t.Errorf("%v, %q", err, out)
	}
	for _, name := range []string{"none", "missing"} { // of the daemon, and before it is asked
		if out, err := ask(name, false); err == nil || !strings.Contains(err.Error(), "no such file") || out != "" {
			t.Errorf("%s: %v, %q", name, err, out)
		}
	}
	if code, _, errs := emberfs(t, "status", filepath.Join(mnt, "missing")); code != 1 ||
		!strings.Contains(errs, "missing") {
		t.Errorf("exit %d, %q", code, errs)
	}
	if code, out, errs := emberfs(t, "status", x.config.State); code != 0 || !strings.Contains(out, "fake") {
		t.Errorf("a state directory stands for its volume: exit %d, %q, %q", code, out, errs)
	}
}

func TestMountAbove(t *testing.T) {
	const ours = "fuse.emberfs"
	table := []fs.MountEntry{{Path: "/", FSType: "ext4"}, {Path: "/m", FSType: ours}, {Path: "/m/tmp", FSType: "tmpfs"},
		{Path: "/m/in", FSType: "ext4"}, {Path: "/m/in", FSType: ours}, {Path: "/over", FSType: ours},
		{Path: "/over", FSType: "tmpfs"}}
	for path, want := range map[string]string{
		"/m": "/m", "/m/a/b": "/m", "/m2": "", "/": "", "/etc/x": "", "/m/tmp/f": "", "/m/tmpf": "/m", "/m/in": "/m/in",
		"/m/in/x": "/m/in", "/over/x": "",
	} {
		if got := mountAbove(table, path); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}
