//go:build slow

package integration

import (
	"fmt"
	"math/rand"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"emberfs/integration/effort"
)

// TestCriticalKilled kills the daemon again and again while critical files are written, objects collected and
// references packed: the same machine loses nothing that was acknowledged, and the next one nothing that was closed
// before the last commit began that the remote shows.
func TestCriticalKilled(t *testing.T) {
	deadline(t, 20*time.Minute)
	repo := newBareRepo(t, "remote.git", user{})
	must(t, repo, "git", "config", "gc.auto", "0")
	rnd := rand.New(rand.NewSource(effort.Seed(t)))
	machines := 0
	next := func() *volume {
		machines++
		return newVolume(t, fmt.Sprint("machine", machines), withSource(repo), withOpts("backup_interval=2s"))
	}
	v := next().mount()
	v.rules(`- {match: "state/", class: critical, critical_delay: 100ms}`,
		`- {match: "**/*.state", class: critical, critical_delay: 200ms}`)
	check(t, os.MkdirAll(v.at("state/deep"), 0o755))
	check(t, os.MkdirAll(v.at("d"), 0o755))
	names := []string{"state/a", "state/deep/b", "d/c.state"}
	done := map[string]int{} // what was acknowledged
	read := func(name string) int {
		b, err := os.ReadFile(v.at(name))
		if os.IsNotExist(err) {
			return 0
		}
		check(t, err)
		n, err := strconv.Atoi(strings.Fields(string(b) + " -1")[0])
		check(t, err)
		return n
	}
	started := 0
	for round := range effort.Count(t, 10, 100) {
		progress := make(chan bool)
		stop := make(chan bool)
		go func() {
			defer close(progress)
			for i := started + 1; ; i++ {
				for k, name := range names {
					if started = i; k == 1 || i%3 == 0 {
						if replaceFile(v.at(name), fmt.Sprintf("%d %s", i, strings.Repeat("x", 1000*k))) != nil {
							return
						}
					} else if f, err := os.OpenFile(v.at(name), os.O_CREATE|os.O_WRONLY, 0o644); err != nil {
						return
					} else {
						_, err := f.WriteAt(fmt.Appendf(nil, "%06d ", i), 0)
						if cerr := f.Close(); err != nil || cerr != nil {
							return
						}
					}
					done[name] = i
				}
				_ = os.WriteFile(v.at(fmt.Sprint("d/plain", i%10)), []byte("plain"), 0o644)
				select {
				case <-stop:
					return
				default:
				}
			}
		}()
		var others sync.WaitGroup
		switch round % 5 {
		case 1:
			others.Go(func() { _, _ = command{args: []string{env.bin, "gc", v.mnt, "--grace", "0s"}}.try() })
		case 2:
			others.Go(func() { _, _ = command{args: []string{"git", "pack-refs", "--all"}, dir: v.cold()}.try() })
		}
		time.Sleep(time.Duration(100+rnd.Intn(1200)) * time.Millisecond) // any moment will do
		lost := round%5 == 4
		bound := map[string]int{}
		if lost { // all that was closed by now is to survive the machine
			close(stop)
			<-progress
			for k, i := range done {
				bound[k] = i
			}
			for _, name := range names {
				b, err := os.ReadFile(v.at(name))
				check(t, err)
				soon(t, repo, name, string(b))
			}
		}
		v.kill(func() { <-progress }, others.Wait)
		if lost {
			fsck(t, repo)
			check(t, os.RemoveAll(v.state))
			v = next()
		} else {
			bound = done
		}
		v.mount()
		for _, name := range names {
			if n := read(name); n < bound[name] || n > started {
				t.Fatalf("round %d, machine lost %v: %s holds %d, acknowledged was %d, begun %d", round, lost, name, n,
					bound[name], started)
			}
		}
	}
	t.Logf("%d rounds of writes, %d machines; %+v", started, machines, v.critical())
	v.umount()
	if live := liveRefs(t, repo); len(live) != 0 {
		t.Errorf("live branches are left: %v", live)
	}
	fsck(t, v.cold())
	fsck(t, repo)
}
