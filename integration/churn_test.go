//go:build slow

package integration

import (
	"errors"
	"fmt"
	"math/rand"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"emberfs/integration/effort"
)

// TestChurn kills the daemon again and again while programs do everything that one can do to files, and files and
// directories move between the tiers all the time; half of them are critical. The model knows each byte and attribute
// that was acknowledged; the one operation under way may show, or not, or a write in part. A seed repeats the
// operations, not the moments of the kills.
func TestChurn(t *testing.T) {
	rounds, seed := effort.Count(t, 40, 200), effort.Seed(t)
	for i, name := range []string{"alone", "with a source"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			deadline(t, time.Duration(rounds)*10*time.Second+time.Minute)
			c := &churning{t: t, rnd: rand.New(rand.NewSource(seed + int64(i)))}
			if i > 0 {
				c.repo = newBareRepo(t, "remote.git", user{})
				// Git fsck takes packs that a gc removes under it for damaged.
				must(t, "/", "git", "-C", c.repo, "config", "gc.auto", "0")
			}
			c.volume()
			for w := range 2 {
				c.workers = append(c.workers,
					&churn{tag: fmt.Sprint(w), rnd: rand.New(rand.NewSource(seed + 100*int64(w+1))), tree: newDir(),
						dir: "w" + fmt.Sprint(w)})
			}
			for round := range rounds {
				if c.round(round); t.Failed() {
					return
				}
			}
			c.end()
			t.Logf("%d rounds, %d operations, %d machines; in an eighth of the rounds %d files released, %d returned",
				rounds, c.ops.Load(), c.machines, c.released, c.returned)
		})
	}
}

// churning is a volume under several churns, one machine after the other.
type churning struct {
	t        *testing.T
	rnd      *rand.Rand
	repo     string
	v        *volume
	machines int
	moved    bool // nothing was compared yet on this machine
	workers  []*churn
	ops      atomic.Int64

	released, returned int64 // as far as it was asked
}

func (c *churning) volume() {
	c.machines++
	c.v = newVolume(c.t, fmt.Sprint("machine", c.machines), withSource(c.repo))
	c.moved = c.machines > 1
}

// options are tiny ages, so that everything moves all the time; some rounds have a limit as well, or nothing but
// commands.
func (c *churning) options(round int) []string {
	o := []string{"hot_age=100ms", "warm_age=100ms", "tier_interval=100ms", "backup_interval=1s",
		"chunk_threshold=128KiB"}
	switch round % 5 {
	case 1:
		o = append(o, "warm_limit=1MiB")
	case 2:
		o[2] = "tier_interval=none"
	case 3:
		o[1] = "warm_age=1s"
	}
	return o
}

// round mounts, compares, works, and ends in a kill, or now and then in a clean unmount or a move to the next machine.
func (c *churning) round(round int) {
	t, v := c.t, c.v
	v.opts = c.options(round)
	v.startForeground()
	for _, w := range c.workers {
		dir := v.at(path.Base(w.dir))
		if round == 0 {
			check(t, os.Mkdir(dir, 0o755))
			v.rules(`- {match: "w0/", class: critical, critical_delay: 100ms}`)
		}
		w.dir = dir
		w.settle(t, c.moved)
	}
	c.moved = false
	if t.Failed() {
		return
	}
	var gone, stop atomic.Bool
	var done sync.WaitGroup
	start := c.ops.Load()
	for _, w := range c.workers {
		done.Go(func() { w.work(t, &gone, &stop, &c.ops) })
	}
	if verb := []string{"tier", "tier", "sync", ""}[c.rnd.Intn(4)]; verb != "" {
		done.Go(func() { c.again(verb, &gone, &stop) })
	}
	want := start + 1 + c.rnd.Int63n(300)
	if !waitFor(20*time.Second, func() bool { return c.ops.Load() >= want || t.Failed() }) {
		t.Errorf("%d operations in 20 s, want %d", c.ops.Load()-start, want-start)
	}
	end := c.rnd.Intn(20)
	if round%8 == 0 {
		warm := v.status().Tiers.Warm
		c.released, c.returned = c.released+warm.Released, c.returned+warm.Returned
	}
	if end > 1 {
		gone.Store(true)
		check(t, v.fg.Process.Kill())
		v.waitForeground(20 * time.Second)
	}
	stop.Store(true)
	c.wait(&done)
	switch {
	case t.Failed():
	case end > 1:
		v.clearDeadMount()
	case end == 1 && c.repo != "":
		v.sync()
		v.kill()
		fsck(t, c.repo)
		check(t, os.RemoveAll(v.state))
		c.volume()
	default:
		v.umount()
	}
}

// wait waits for the programs; whoever hangs in a dead mount is freed, and the test fails.
func (c *churning) wait(done *sync.WaitGroup) {
	c.t.Helper()
	over := make(chan struct{})
	go func() { done.Wait(); close(over) }()
	select {
	case <-over:
		return
	case <-time.After(time.Minute):
		c.t.Errorf("a program hangs in the mount")
	}
	if m := mountAt(c.v.mnt); m != nil {
		m.abort()
	}
	<-over
}

// again runs a command of ours in a loop.
func (c *churning) again(verb string, gone, stop *atomic.Bool) {
	for !stop.Load() && !gone.Load() {
		r, err := command{args: []string{env.bin, verb, c.v.mnt}}.try()
		if verb == "tier" && r.code == 3 && strings.Contains(r.stderr, "not safe in cold yet") {
			continue // a commit of critical files came between the backup and the release, and is not pushed yet
		}
		if !gone.Load() && (err != nil || r.code != 0) {
			c.t.Errorf("%v %v", err, r)
			return
		}
	}
}

// end compares once more, also on the next machine, and looks at the repository.
func (c *churning) end() {
	t := c.t
	compare := func(v *volume, other bool) {
		for _, w := range c.workers {
			w.dir = v.at(path.Base(w.dir))
			w.settle(t, other)
		}
	}
	c.v.opts = nil
	c.v.mount()
	compare(c.v, c.moved)
	c.v.umount()
	fsck(t, c.v.cold())
	next := newVolume(t, "last", withSource(c.v.cold())).mount()
	compare(next, true)
	next.umount()
}

// work does one operation after the other until the daemon is gone.
func (w *churn) work(t *testing.T, gone, stop *atomic.Bool, ops *atomic.Int64) {
	defer func() {
		for _, h := range w.held {
			_ = unix.Close(h.fd)
		}
		w.held = nil
	}()
	for !stop.Load() && !t.Failed() {
		op := w.next()
		w.note(op.what)
		err := op.run()
		var m mismatch
		switch {
		case errors.As(err, &m) || err != nil && !gone.Load():
			t.Errorf("%s: %s: %v\nbefore it:\n%s", w.dir, op.what, err, strings.Join(w.log, "\n"))
			return
		case err != nil:
			w.unsure = &op
			return
		}
		op.effect(w.tree)
		ops.Add(1)
		if err := w.learn(op); err != nil && !gone.Load() {
			t.Errorf("%s: after %s: %v\nbefore it:\n%s", w.dir, op.what, err, strings.Join(w.log, "\n"))
		}
	}
}

// note keeps the last operations for whoever reads of a failure.
func (w *churn) note(what string) {
	const most = 60
	if w.log = append(w.log, what); len(w.log) > most {
		w.log = w.log[len(w.log)-most:]
	}
}

// effect applies an operation to a model.
func (o *cop) effect(t *cnode) {
	if o.apply != nil {
		o.apply(t)
	}
	o.forget(t)
}

// forget drops the times that the operation changes.
func (o *cop) forget(t *cnode) {
	for _, p := range o.touched {
		if n := t.at(p); n != nil {
			n.mtime, n.ctime = unix.Timespec{}, unix.Timespec{}
		}
	}
	for _, p := range o.changed {
		if n := t.at(p); n != nil {
			n.ctime = unix.Timespec{}
		}
	}
}

// learn compares what an operation touched with the model, and takes the times from there.
func (w *churn) learn(o cop) error {
	for _, p := range append(o.touched[:len(o.touched):len(o.touched)], o.changed...) {
		n := w.tree.at(p)
		if n == nil {
			continue // removed
		}
		var st unix.Stat_t
		if err := unix.Lstat(w.at(p), &st); err != nil {
			return err
		}
		seen := &cnode{}
		seen.fromStat(&st)
		if d := attrDiff(seen, n, false); d != "" {
			return wrong("%q: %s", p, d)
		}
		if n.kind == unix.S_IFREG && st.Size != int64(len(n.data)) {
			return wrong("%q: %d bytes, want %d", p, st.Size, len(n.data))
		}
		n.mtime, n.ctime, n.ino = seen.mtime, seen.ctime, seen.ino
	}
	return nil
}

// settle compares the whole tree with the model. What is seen of an operation that was cut off becomes the model.
func (w *churn) settle(t *testing.T, nextMachine bool) {
	t.Helper()
	have, err := scanChurn(w.dir, map[uint64]*cnode{})
	if err != nil {
		t.Errorf("%v\nbefore it:\n%s", err, strings.Join(w.log, "\n"))
		return
	}
	want := w.tree
	if w.unsure != nil {
		want = w.tree.clone(map[*cnode]*cnode{})
		w.unsure.forget(want)
	}
	diff := churnDiff(have, want, nextMachine)
	if len(diff) > 0 && w.unsure != nil && w.unsure.apply != nil {
		after := w.tree.clone(map[*cnode]*cnode{})
		var before []byte
		if n := after.at(w.unsure.part); n != nil {
			before = n.data
		}
		w.unsure.effect(after)
		if n := after.at(w.unsure.part); n != nil && w.unsure.part != "" {
			n.mixed, n.prefix, n.before = !w.unsure.prefix, w.unsure.prefix, before
		}
		if d := churnDiff(have, after, nextMachine); len(d) > 0 {
			diff = append(append(diff, "or, if "+w.unsure.what+" had happened:"), d...)
		} else {
			diff = nil
		}
	}
	if len(diff) > 0 {
		t.Errorf("%s, after a kill, next machine %v:\n%s\nbefore it:\n%s", filepath.Base(w.dir), nextMachine,
			strings.Join(diff, "\n"), strings.Join(w.log, "\n"))
	}
	w.tree, w.unsure = have, nil
	w.note("---- mounted")
}
