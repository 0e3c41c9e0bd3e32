//go:build slow

package integration

import (
	"bytes"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"emberfs/integration/effort"
)

// TestMachinesKilled is a chain of machines, each with a state directory of its own and the same remote, of which some
// are killed at a random moment under a writer. The next one says INCOMPLETE exactly when a killed machine had left a
// sign on the remote that it had changed something, and COMPLETE exactly when the last one to leave a sign ended
// cleanly; what it shows is a moment of the writer, not before the last one that was acknowledged as pushed, and all of
// it after a clean end. What a killed machine had acknowledged longer ago than max_at_risk is there in any case.
func TestMachinesKilled(t *testing.T) {
	t.Parallel()
	deadline(t, 60*time.Minute)
	repo := newBareRepo(t, "remote.git", user{})
	must(t, repo, "git", "config", "gc.auto", "0")
	c := &killChain{t: t, repo: repo, rnd: rand.New(rand.NewSource(effort.Seed(t))), want: "unknown"}
	rounds := effort.Count(t, 50, 1000)
	for c.round = range rounds {
		c.machine()
	}
	t.Logf("%d rounds: %v; %d operations", rounds, c.how, c.begun)
	for _, how := range []string{"killed", "killed after its sign", "killed after a sync", "came back", "unmounted"} {
		if c.how[how] == 0 {
			t.Errorf("no machine of this run was %s", how)
		}
	}
	fsck(t, repo)
}

type killChain struct {
	t     *testing.T
	repo  string
	rnd   *rand.Rand
	round int
	how   map[string]int // how many machines ended in which way

	want  string // what the next machine has to say of the session before it
	begun int    // the number of the writer's last operation that it began
	acked int    // and that was acknowledged
	safe  int    // and that the remote was said to have

	killed time.Time   // when the last machine was killed; zero: it was not
	acks   []time.Time // when its operations were acknowledged, one after the other
	first  int         // the number of the first of them
}

// chainBudget is the max_at_risk of these machines, and chainSlack what two cores that others use too may add.
const chainBudget, chainSlack = time.Second, 2500 * time.Millisecond

// chainFiles are what the writer replaces, in this order, by the number of its turn.
func chainFiles() []string { return []string{"a", "d/b", "c"} }

// machine mounts as a new machine, looks at what there is, writes, and ends in one of several ways.
func (c *killChain) machine() {
	t := c.t
	v := newVolume(t, fmt.Sprint("machine", c.round), withSource(c.repo),
		withOpts("announce_delay=100ms", "max_at_risk="+chainBudget.String()))
	defer func() { check(t, os.RemoveAll(v.dir)) }()
	c.mount(v)
	at := references(t, c.repo)
	stop := c.write(v)
	end := c.rnd.Intn(10)
	if end > 1 { // else at any moment, also before the remote has heard of it
		if !waitFor(30*time.Second, func() bool { return references(t, c.repo) != at }) {
			t.Fatalf("round %d: the remote has not heard of the session for 30 s", c.round)
		}
	}
	if end == 2 || end == 3 {
		acked := c.written(stop) // what comes after the sync stays out of the count
		v.sync()
		c.safe = acked
		stop = c.write(v)
	}
	life := 500 * time.Millisecond
	if c.round%8 == 0 {
		life = 6 * chainBudget // so that backups come because of max_at_risk
	}
	time.Sleep(time.Duration(c.rnd.Int63n(int64(life)))) // any moment will do
	switch {
	case end >= 7:
		c.count("unmounted")
		c.safe = c.written(stop)
		v.umount()
		c.want = "complete"
		return
	case end == 6:
		c.count("came back")
		v.kill(func() { c.written(stop) })
		if p := v.mount().previous(); p.State != "complete" || !p.Own {
			t.Errorf("round %d: the same machine again: %+v", c.round, p)
		}
		if n := c.read(v); n < c.acked {
			t.Fatalf("round %d: %d was acknowledged, the same machine has %d", c.round, c.acked, n)
		}
		v.umount()
		c.safe, c.want = c.acked, "complete"
		return
	case end <= 1:
		c.count("killed")
	case end <= 3:
		c.count("killed after a sync")
	default:
		c.count("killed after its sign")
	}
	c.killed = time.Now()
	v.kill(func() { c.written(stop) })
	c.quiet()
	if references(t, c.repo) != at {
		c.want = "incomplete"
	} else if c.acked > 0 && c.want == "unknown" {
		c.begun, c.acked = 0, 0 // the first of all, of which nobody knows
	}
}

func (c *killChain) count(how string) {
	if c.how == nil {
		c.how = map[string]int{}
	}
	c.how[how]++
}

// mount mounts v and compares what it says and shows with what is known.
func (c *killChain) mount(v *volume) {
	t := c.t
	t.Helper()
	r := v.tryMount("--require-complete")
	if want := map[bool]int{true: 32}[c.want == "incomplete"]; r.code != want {
		t.Fatalf("round %d: the session before is to be %s: want exit %d\n%v", c.round, c.want, want, r)
	}
	if r.code != 0 {
		v.mount()
	}
	v.mustBeMounted()
	if p := v.previous(); p.State != c.want {
		t.Fatalf("round %d: the session before is %s, want %s: %+v", c.round, p.State, c.want, p)
	}
	n := c.read(v)
	if n < c.safe || n > c.begun || c.want == "complete" && n != c.safe {
		t.Fatalf("round %d: the machine has %d; the remote had %d, begun was %d", c.round, n, c.safe, c.begun)
	}
	for lost := n + 1; !c.killed.IsZero() && lost <= c.acked; lost++ {
		if age := c.killed.Sub(c.acks[lost-c.first]); age > chainBudget+chainSlack {
			t.Errorf("round %d: operation %d of %d was acknowledged %v before the kill and is lost", c.round, lost,
				c.acked, age)
			break // it is the oldest one
		}
	}
	c.begun, c.acked, c.safe = n, n, n
	c.killed, c.acks, c.first = time.Time{}, nil, n+1
	mkdirAll(t, v.at("d"))
}

// quiet waits until no git works in the remote any more: what a daemon began there may outlive it for a moment.
func (c *killChain) quiet() {
	if !waitFor(30*time.Second, func() bool {
		names, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		return !slices.ContainsFunc(names, func(name string) bool {
			b, err := os.ReadFile(name)
			return err == nil && bytes.Contains(b, []byte("git")) && bytes.Contains(b, []byte(c.repo))
		})
	}) {
		c.t.Fatal("git works in the remote for 30 s after the daemon was killed")
	}
}

func mkdirAll(t testing.TB, dir string) {
	t.Helper()
	check(t, os.MkdirAll(dir, 0o755))
}

// read returns the last turn that the volume shows, all of whose files must be of one moment.
func (c *killChain) read(v *volume) int {
	t := c.t
	t.Helper()
	var turns []int
	for _, name := range chainFiles() {
		b, err := os.ReadFile(v.at(name))
		if os.IsNotExist(err) {
			b, err = []byte("0"), nil
		}
		check(t, err)
		n, err := strconv.Atoi(string(b))
		check(t, err)
		turns = append(turns, n)
	}
	for i := 1; i < len(turns); i++ {
		if turns[i] > turns[i-1] || turns[i] < turns[0]-1 {
			t.Fatalf("round %d: %v have %v, which they never had at one moment", c.round, chainFiles(), turns)
		}
	}
	return turns[len(turns)-1]
}

// write lets a writer go round the files until the daemon is gone, or the channel that it returns is received from.
func (c *killChain) write(v *volume) (stop chan struct{}) {
	stop = make(chan struct{})
	go func() {
		defer close(stop)
		for {
			c.begun++
			for _, name := range chainFiles() {
				if replaceFile(v.at(name), fmt.Sprint(c.begun)) != nil {
					return // the daemon is gone
				}
			}
			c.acked, c.acks = c.begun, append(c.acks, time.Now())
			select {
			case stop <- struct{}{}:
				return
			default:
			}
		}
	}()
	return stop
}

// written ends a writer, which may have ended by itself, and returns the last turn that was acknowledged.
func (c *killChain) written(stop chan struct{}) int {
	for range stop {
	}
	return c.acked
}
