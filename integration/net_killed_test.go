//go:build slow

package integration

import (
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"emberfs/integration/effort"
	"emberfs/integration/gitserver"
)

// TestNetServerKilled kills the server in the middle of pushes, again and again. Nothing is lost or comes twice, and
// the volume ends where the server does.
func TestNetServerKilled(t *testing.T) {
	eachTransport(t, 10*time.Minute, []transport{overSSH(), overHTTP()}, func(t *testing.T, s *gitserver.Server) {
		rnd := rand.New(rand.NewSource(effort.Seed(t)))
		v := remoteVolume(t, "v", s, 0).mount()
		files := map[string]string{}
		failed, locks := 0, 0
		for round := range effort.Count(t, 20, 100) {
			name, content := fmt.Sprint("f", round), string(noise(200_000, fmt.Sprint(round)))
			v.write(name, content)
			files[name] = content
			done := make(chan int, 1)
			go func() { done <- syncCode(v) }()
			time.Sleep(time.Duration(rnd.Int63n(int64(250 * time.Millisecond))))
			s.Kill()
			if <-done != 0 {
				failed++
			}
			// What a killed git leaves locked stays locked until somebody looks after it: TestNetLockLeft.
			for _, lock := range append(globs(s.Repo+"/refs/heads/*.lock"), globs(s.Repo+"/*.lock")...) {
				locks++
				check(t, os.Remove(lock))
			}
			s.Start()
		}
		t.Logf("%d pushes failed, %d locks were left", failed, locks)
		if failed < 3 {
			t.Errorf("only %d pushes met a killed server", failed)
		}
		v.sync()
		v.remoteSound(s, files)
		v.umount()
	})
}

func globs(pattern string) []string {
	list, _ := filepath.Glob(pattern)
	return list
}

// syncCode is the exit status of `emberfs sync`, -1 where it came to no end in time. It may be used by any goroutine.
func syncCode(v *volume) int {
	r, err := command{args: []string{env.bin, "sync", v.mnt}, limit: 2 * time.Minute}.try()
	if err != nil {
		return -1
	}
	return r.code
}

// TestNetChaos writes and syncs while the link delays, stalls, resets and truncates. Commits go on as usual meanwhile,
// nothing is lost or comes twice, and the server has everything soon after the link is well.
func TestNetChaos(t *testing.T) {
	length := effort.Time(t, 20*time.Second, 10*time.Minute)
	eachTransport(t, length+4*time.Minute, []transport{overSSH(), overHTTP()},
		func(t *testing.T, s *gitserver.Server) { chaos(t, s, length) })
}

// commitsWithin is how long the next commit may take that is due each second, on a busy machine.
const commitsWithin = 8 * time.Second

func chaos(t *testing.T, s *gitserver.Server, length time.Duration) {
	link := gitserver.NewLink(t, s.Addr(), effort.Seed(t))
	v := remoteVolume(t, "v", s, link.Port(), withOpts("backup_interval=1s")).mount()
	v.write("first", "first")
	v.sync()
	link.Set(gitserver.Chaos)

	var wg sync.WaitGroup
	var stop atomic.Bool
	var syncs, good, busy atomic.Int64
	files := map[string]string{"first": "first"}
	wg.Go(func() { // the writer
		for i := 0; !stop.Load(); i++ {
			name, content := fmt.Sprintf("f%d", i%300), string(noise(3000+i%7*5000, fmt.Sprint(i)))
			if err := os.WriteFile(v.at(name), []byte(content), 0o644); err != nil {
				t.Errorf("write: %v", err)
				return
			}
			files[name] = content
			time.Sleep(50 * time.Millisecond)
		}
	})
	wg.Go(func() { // who asks for a backup each second, whatever became of those before
		var asked sync.WaitGroup
		for !stop.Load() {
			if busy.Load() < 5 {
				busy.Add(1)
				syncs.Add(1)
				asked.Go(func() {
					if syncCode(v) == 0 {
						good.Add(1)
					}
					busy.Add(-1)
				})
			}
			time.Sleep(time.Second)
		}
		asked.Wait()
	})
	longest, commits := commitPace(v, length)
	stop.Store(true)
	healed := time.Now()
	link.Set(gitserver.Pass)
	wg.Wait()
	t.Logf("%d syncs, %d of them good; %d commits, the longest time between two was %v", syncs.Load(), good.Load(),
		commits, longest.Round(time.Millisecond))
	if longest > commitsWithin {
		t.Errorf("a commit waited %v", longest)
	}
	if link.Troubles() < 3 {
		t.Errorf("the link made trouble only %d times", link.Troubles())
	}
	v.converges(s, "after the link is well")
	if took := time.Since(healed); took > convergesIn {
		t.Errorf("everything was at the server %v after the link was well", took)
	}
	v.sync()
	v.remoteSound(s, files)
	v.umount()
}

// commitPace watches the local branch for so long, and returns the longest time in which it did not move and how often
// it did.
func commitPace(v *volume, length time.Duration) (longest time.Duration, commits int) {
	last, tip := time.Now(), ""
	for end := time.Now().Add(length); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if now := tipOf(v.cold(), "main"); now != tip {
			tip, last = now, time.Now()
			commits++
		}
		longest = max(longest, time.Since(last))
	}
	return longest, commits
}
