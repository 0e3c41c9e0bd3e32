//go:build slow

package integration

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"
)

// TestAnyCommitTime: whatever time a stock client's commit has that git stores, everything that shows commits shows it;
// our own commits after it keep their true time, restore goes by that, and status says that a clock is wrong.
func TestAnyCommitTime(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, date string
		ahead      bool
	}{
		{"zone", "1700000000 +2400", false}, {"odd zone", "1700000000 -9999", false}, {"before", "0 +0000", false},
		{"2035", "2051222400 +0000", true}, {"year 10000", "253402300800 +0000", true},
		{"far", "1000000000000 +1400", true},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			deadline(t, 2*time.Minute)
			repo := newBareRepo(t, "remote.git", user{})
			command{args: []string{"git", "-C", repo, "fast-import", "--quiet", "--date-format=raw-permissive"},
				stdin: "commit refs/heads/main\ncommitter a <a@b> " + c.date +
					"\ndata 1\nx\nM 100644 inline f\ndata 1\n1\n"}.must(t)
			v := newVolume(t, "v", withSource(repo)).mount()
			check(t, os.WriteFile(v.at("f"), []byte("2"), 0o644))
			v.sync()
			time.Sleep(1100 * time.Millisecond) // commits' times are of whole seconds
			between := time.Now().UTC().Format(time.RFC3339Nano)
			time.Sleep(1100 * time.Millisecond)
			check(t, os.WriteFile(v.at("f"), []byte("3"), 0o644))
			v.sync()
			for _, args := range [][]string{{"status", v.mnt, "--json"}, {"status", "--json", v.state},
				{"log", repo, "--json"}, {"snapshots", repo, "--json"}, {"check", repo, "--json"}} {
				r := v.emberfs(args...)
				if r.code != 0 || !json.Valid([]byte(r.stdout)) {
					t.Errorf("%q: %v", args, r)
				}
			}
			for _, args := range [][]string{{"status", v.mnt}, {"log", repo}, {"snapshots", repo},
				{"diff", repo, "main~1", "main"}} {
				if r := v.emberfs(args...); r.code != 0 || r.stdout == "" {
					t.Errorf("%q: %v", args, r)
				}
			}
			if b, err := os.ReadFile(v.at(".emberfs/status.json")); err != nil || !json.Valid(b) {
				t.Errorf("status.json: %v\n%s", err, b)
			}
			if st := v.status(); strings.Contains(strings.Join(st.Errors, "\n"), "clock") != c.ahead {
				t.Errorf("status says %q", st.Errors)
			}
			v.umount()
			to := v.dir + "/to"
			must(t, "/", env.bin, "restore", "--from", repo, "--commit", between, "--to", to)
			wantFile(t, to+"/f", "2", "restore by time gives")
			fsck(t, repo)
			next := newVolume(t, "next", withSource(repo)).mount()
			wantFile(t, next.at("f"), "3", "the next machine has")
			next.umount()
		})
	}
}
