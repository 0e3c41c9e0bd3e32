//go:build slow

package integration

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"emberfs/integration/effort"
	"emberfs/integration/gitserver"
)

// TestNetFleetSSH and TestNetFleetHTTP: many machines at one server, each on a branch of its own, change a file and
// sync each second. None fails. The log has how long a sync took.
func TestNetFleetSSH(t *testing.T)  { fleet(t, overSSH().start(t, serverDir(t))) }
func TestNetFleetHTTP(t *testing.T) { fleet(t, overHTTP().start(t, serverDir(t))) }

// fleetFiles is how many files a machine of the fleet has.
const fleetFiles = 200

func fleet(t *testing.T, s *gitserver.Server) {
	length := effort.Time(t, 12*time.Second, time.Minute)
	deadline(t, length+5*time.Minute)
	machines := make([]*volume, effort.Count(t, 20, 50))
	each := func(f func(i int, v *volume)) {
		var wg sync.WaitGroup
		for i, v := range machines {
			wg.Go(func() { f(i, v) })
		}
		wg.Wait()
	}
	for i := range machines { // one after another: stock sshd drops those who come at once
		machines[i] = remoteVolume(t, fmt.Sprint("m", i), s, 0, withOpts(fmt.Sprintf("branch=machine-%d", i))).mount()
	}
	each(func(_ int, v *volume) {
		for k := range fleetFiles {
			v.fleetWrite(fmt.Sprint("f", k), fmt.Sprint("content ", k))
		}
		v.fleetRun("sync")
	})
	var mu sync.Mutex
	var took []time.Duration
	end := time.Now().Add(length)
	each(func(i int, v *volume) {
		time.Sleep(time.Second * time.Duration(i) / time.Duration(len(machines)))
		for round := 0; time.Now().Before(end); round++ {
			next := time.Now().Add(time.Second)
			v.fleetWrite("changing", fmt.Sprint(round))
			once := v.fleetRun("sync")
			mu.Lock()
			took = append(took, once)
			mu.Unlock()
			time.Sleep(time.Until(next))
		}
	})
	slices.Sort(took)
	if len(took) < len(machines) {
		t.Fatalf("%d syncs of %d machines", len(took), len(machines))
	}
	t.Logf("%d machines, %d syncs in %v: p50 %v, p99 %v, longest %v", len(machines), len(took), length,
		took[len(took)/2].Round(time.Millisecond), took[len(took)*99/100].Round(time.Millisecond),
		took[len(took)-1].Round(time.Millisecond))
	each(func(_ int, v *volume) { v.fleetRun("umount") })
	for i, v := range machines {
		branch := fmt.Sprint("machine-", i)
		if here, there := tipOf(v.cold(), branch), tipOf(s.Repo, branch); here != there || here == "" {
			t.Errorf("%s is at %q here, %q at the server", branch, here, there)
		}
	}
	fsck(t, s.Repo)
	nothingOfClients(t)
}

// fleetRun runs a command on the mount, which has to end well, and returns how long it took. It may be used by any
// goroutine.
func (v *volume) fleetRun(verb string) time.Duration {
	r, err := command{args: []string{env.bin, verb, v.mnt}}.try()
	if err != nil || r.code != 0 {
		v.t.Errorf("%v: %v", err, r)
	}
	return r.took
}

// fleetWrite is write for other goroutines than the test's.
func (v *volume) fleetWrite(name, content string) {
	if err := replaceFile(v.at(name), content); err != nil {
		v.t.Error(err)
	}
}
