//go:build slow

package integration

import (
	"fmt"
	"math/rand"
	"os"
	"testing"
	"time"

	"emberfs/integration/effort"
)

// TestOwnRulesKilled rewrites rules, critical and ignored directories among them, and files in a loop while the daemon
// is killed: the last rules that were accepted are there at the next mount, or those that were being written, and
// nothing that was acknowledged is lost, neither here nor, at the end, by the next machine.
func TestOwnRulesKilled(t *testing.T) {
	deadline(t, 15*time.Minute)
	repo := newBareRepo(t, "remote.git", user{})
	v := newVolume(t, "v", withSource(repo), withOpts("backup_interval=1s"))
	rnd := rand.New(rand.NewSource(effort.Seed(t)))
	// Each directory is in turn critical, ignored, and neither.
	text := func(i int) string {
		return fmt.Sprintf("# %d\n- match: d%d/\n  class: critical\n  critical_delay: 100ms\n- match: d%d/\n  "+
			"ignore: true\n", i, i%3, (i+1)%3)
	}
	accepted := 0
	v.mount()
	check(t, os.WriteFile(v.rulesFile(), []byte(text(0)), 0o644))
	dirs := []string{"", "d0/", "d1/", "d2/"}
	for _, d := range dirs[1:] {
		mkdir(t, v.at(d), user{})
	}
	written := map[string]int{} // what was acknowledged
	begun := 0
	holds := func(v *volume, round int) {
		t.Helper()
		for _, d := range dirs {
			b, err := os.ReadFile(v.at(d + "f"))
			n := written[d]
			if n == 0 && os.IsNotExist(err) {
				continue
			}
			if err != nil || string(b) != fmt.Sprint(n) && string(b) != fmt.Sprint(begun) {
				t.Fatalf("round %d: %sf reads %q, %v; acknowledged was %d, begun %d", round, d, b, err, n, begun)
			}
		}
	}
	for round := range effort.Count(t, 8, 100) {
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			for i := accepted + 1; ; i++ {
				bad := os.WriteFile(v.rulesFile(), []byte("- match: d/\n"), 0o644)
				if os.WriteFile(v.rulesFile(), []byte(text(i)), 0o644) != nil {
					return // killed
				}
				if accepted = i; bad == nil {
					t.Errorf("bad rules are taken")
				}
				for _, d := range dirs {
					begun++
					if replaceFile(v.at(d+"f"), fmt.Sprint(begun)) != nil {
						return
					}
					written[d] = begun
				}
			}
		}()
		pause := time.NewTimer(time.Duration(50+rnd.Intn(900)) * time.Millisecond) // any moment will do
		<-pause.C
		v.kill(func() { <-stopped })
		v.mount()
		b, err := os.ReadFile(v.rulesFile())
		if err != nil || string(b) != text(accepted) && string(b) != text(accepted+1) {
			t.Fatalf("round %d: rules.yaml reads %q, %v; accepted was %d", round, b, err, accepted)
		}
		holds(v, round)
		if string(b) == text(accepted+1) {
			accepted++
		}
	}
	t.Logf("%d changes of rules", accepted)
	v.sync()
	equal(t, show(t, v.cold(), "main:.emberfs/rules.yaml"), text(accepted), "the commit has")
	check(t, os.Remove(v.rulesFile())) // nothing is ignored any more
	v.umount()
	fsck(t, v.cold())
	fsck(t, repo)
	next := newVolume(t, "next", withSource(repo)).mount()
	holds(next, -1)
	next.umount()
}
