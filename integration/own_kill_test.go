//go:build slow

package integration

import (
	"fmt"
	"math/rand"
	"os"
	"testing"
	"time"
)

// TestOwnRulesKilled rewrites rules and files in a loop while the daemon is killed: the last rules that were accepted are there at the
// next mount, or those that were being written, and nothing that was acknowledged is lost.
func TestOwnRulesKilled(t *testing.T) {
	deadline(t, 5*time.Minute)
	v := newVolume(t, "v", withOpts("backup_interval=1s"))
	rnd := rand.New(rand.NewSource(5))
	text := func(i int) string {
		return fmt.Sprintf("# %d\n- match: d%d/\n  class: critical\n", i, i%3)
	}
	accepted := 0
	v.mount()
	check(t, os.WriteFile(v.rulesFile(), []byte(text(0)), 0o644))
	for round := range 12 {
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			for i := accepted + 1; ; i++ {
				bad := os.WriteFile(v.rulesFile(), []byte("- match: d/\n"), 0o644)
				if os.WriteFile(v.rulesFile(), []byte(text(i)), 0o644) != nil || os.WriteFile(v.at("f"), []byte(text(i)), 0o644) != nil {
					return // killed
				}
				if accepted = i; bad == nil {
					t.Errorf("bad rules are taken")
				}
			}
		}()
		pause := time.NewTimer(time.Duration(50+rnd.Intn(400)) * time.Millisecond) // any moment will do
		<-pause.C
		v.kill()
		<-stopped
		v.mount()
		b, err := os.ReadFile(v.rulesFile())
		if err != nil || string(b) != text(accepted) && string(b) != text(accepted+1) {
			t.Fatalf("round %d: rules.yaml reads %q, %v; accepted was %d", round, b, err, accepted)
		}
		f, err := os.ReadFile(v.at("f"))
		if accepted > 0 && (err != nil || string(f) != text(accepted) && string(f) != text(accepted+1) && string(f) != "") {
			t.Fatalf("round %d: f reads %q, %v; acknowledged was %d", round, f, err, accepted)
		}
		if string(b) == text(accepted+1) {
			accepted++
		}
	}
	t.Logf("%d changes of rules", accepted)
	v.umount()
	if got := must(t, "/", "git", "-C", v.cold(), "show", "main:.emberfs/rules.yaml"); got != text(accepted) {
		t.Errorf("the commit has %q, want %q", got, text(accepted))
	}
	fsck(t, v.cold())
}
