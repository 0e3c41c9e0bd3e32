package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"emberfs/backup/coldtest"
	"emberfs/backup/wire"
	"emberfs/tiers/cold"
)

// stepsRemote notes what each conversation moves, and how many bytes it sends; it can fail before one.
type stepsRemote struct {
	remote
	t     *testing.T
	steps [][]wire.Update
	bytes []int64
	fail  int // before which step the link breaks; 0: never
}

var errLink = errors.New("the link is down")

func (r *stepsRemote) Send(ctx context.Context, plan wire.Plan) error {
	return r.remote.Send(ctx, func(refs map[string]cold.ID) ([]wire.Update, func(io.Writer) error, error) {
		updates, pack, err := plan(refs)
		if err != nil || len(updates) == 0 {
			return updates, pack, err
		}
		if r.fail > 0 && len(r.steps)+1 == r.fail {
			return nil, nil, errLink
		}
		r.steps, r.bytes = append(r.steps, updates), append(r.bytes, 0)
		n := &r.bytes[len(r.bytes)-1]
		return updates, func(w io.Writer) error {
			return pack(writerFunc(func(p []byte) (int, error) { *n += int64(len(p)); return w.Write(p) }))
		}, nil
	})
}

// newSteps returns a volume whose pushes go in parts of about 300 KB.
func newSteps(t *testing.T, remote string) (*testVolume, *stepsRemote) {
	v := newVolume(t, Options{Source: remote, PushMax: 300 << 10})
	r := &stepsRemote{remote: v.remote, t: t}
	v.remote = r
	return v, r
}

// noise gives a directory n files of 100 KB that nobody can compress.
func noise(f *coldtest.File, prefix string, n int) {
	for i := range n {
		f.Text(fmt.Sprintf("%s%d", prefix, i), string(coldtest.Noise(uint64(len(f.Entries())), 100<<10)))
	}
}

// TestPushInParts: a push over the limit goes in several steps, whose ends are earlier commits.
func TestPushInParts(t *testing.T) {
	t.Parallel()
	remote := coldtest.NewRemote(t)
	v, r := newSteps(t, remote)
	f := coldtest.NewDir(0o755)
	var commits []cold.ID
	for i := range 5 {
		noise(f, strings.Repeat("x", i+1), 1)
		commits = append(commits, v.CommitTree(f, nil))
	}
	v.MustPush()
	coldtest.WantRemote(t, "after", remote, commits[4])
	var ends []cold.ID
	for i, s := range r.steps {
		if len(s) != 1 || s[0].Ref != v.ref || r.bytes[i] > 310<<10 {
			t.Errorf("step %d: %v, %d bytes", i, s, r.bytes[i])
		}
		ends = append(ends, s[0].New)
	}
	if len(ends) != 3 || ends[0] != commits[1] || ends[1] != commits[3] {
		t.Errorf("steps %v of %v", ends, commits)
	}
	f.Text("critical", "1")
	v.commitLive(f)
	noise(f, "live", 1)
	v.commitLive(f)
	noise(f, "more", 2)
	live := v.commitLive(f)
	v.MustPush()
	coldtest.WantRemote(t, "live", remote, commits[4], live)
	if last := r.steps[len(r.steps)-2:]; len(last[0]) != 2 || len(last[1]) != 2 || last[0][1].New == live {
		t.Errorf("live: %v", last)
	}
	coldtest.Git(t, remote, "fsck", "--strict")
}

// TestPushCarriers: one commit that is too much by itself goes ahead in carriers. What has arrived is not sent again
// after the link broke or after a restart, and nothing is left of them on either side.
func TestPushCarriers(t *testing.T) {
	t.Parallel()
	remote := coldtest.NewRemote(t)
	coldtest.Git(t, remote, "config", "receive.fsckObjects", "true")
	v, r := newSteps(t, remote)
	f := coldtest.NewDir(0o755)
	f.Text("a", "0")
	first := v.CommitTree(f, nil)
	v.MustPush()
	noise(f, "big", 10)
	second := v.CommitTree(f, nil)
	r.steps, r.bytes, r.fail = nil, nil, 3
	coldtest.WantErr(t, v.Push(t.Context()), errLink, "Push")
	coldtest.Equal(t, coldtest.Git(t, remote, "rev-parse", "main"), first.String(), "main moved before all was there:")
	if out := coldtest.Git(t, remote, "for-each-ref", "refs/heads/emberfs-part"); strings.Count(out, "commit") != 2 {
		t.Errorf("carriers: %s", out)
	}
	again := openVolume(t, v.copyWhole(), Options{Source: remote, PushMax: 300 << 10})
	r = &stepsRemote{remote: again.remote, t: t}
	again.remote = r
	again.MustPush()
	coldtest.WantRemote(t, "after", remote, second)
	var sum int64
	for i, n := range r.bytes {
		sum += n
		if n > 310<<10 {
			t.Errorf("step %d sends %d bytes", i, n)
		}
	}
	if sum > 650<<10 { // four of the ten were there
		t.Errorf("%d bytes after the restart", sum)
	}
	for _, dir := range []string{remote, again.Dir} {
		if out := coldtest.Git(t, dir, "for-each-ref"); strings.Contains(out, "part") {
			t.Errorf("left in %s: %s", dir, out)
		}
	}
	coldtest.Git(t, remote, "gc", "-q", "--prune=now")
	coldtest.Git(t, remote, "fsck", "--strict")
	next := newVolume(t, Options{Source: remote})
	next.MustFetch()
	coldtest.CompareTrees(t, next.ReadTree(next.HeadSnapshot()), f)
}

// TestOldCarriers: a complete push removes carriers of machines that were lost a day ago, and no others.
func TestOldCarriers(t *testing.T) {
	t.Parallel()
	remote := coldtest.NewRemote(t)
	v := newVolume(t, Options{Source: remote})
	f := coldtest.NewDir(0o755)
	f.Text("a", "0")
	tip := v.CommitTree(f, nil).String()
	v.MustPush()
	now := time.Now().Unix()
	name := func(branch string, made int64) string {
		return fmt.Sprintf("refs/heads/emberfs-part/%s/%d-%.12s", branch, made, tip)
	}
	old, fresh, other := name("main", now-90_000), name("main", now-1000), name("other", now-90_000)
	for _, ref := range []string{old, fresh, other, "refs/heads/emberfs-part/main/1-zz"} {
		coldtest.Git(t, remote, "update-ref", ref, tip)
	}
	f.Text("a", "1")
	v.CommitTree(f, nil)
	v.MustPush()
	out := coldtest.Git(t, remote, "for-each-ref", "--format=%(refname)", "refs/heads/emberfs-part")
	want := []string{"refs/heads/emberfs-part/main/1-zz", fresh, other}
	coldtest.Equal(t, out, strings.Join(want, "\n"), "carriers:")
}

// TestLockThatStays: a lock on the remote is waited for; one that stays is a thing for a person.
func TestLockThatStays(t *testing.T) {
	t.Parallel()
	remote := coldtest.NewRemote(t)
	v := newVolume(t, Options{Source: remote})
	f := coldtest.NewDir(0o755)
	f.Text("a", "0")
	v.CommitTree(f, nil)
	v.MustPush()
	lock := filepath.Join(remote, "refs/heads/main.lock")
	coldtest.Check(t, os.WriteFile(lock, nil, 0o600))
	f.Text("a", "1")
	tip := v.CommitTree(f, nil)
	var busy *cold.BusyError
	var refused *cold.RefusedError
	if err := v.Push(t.Context()); !errors.As(err, &busy) || !busy.Locked || errors.As(err, &refused) {
		t.Errorf("at first: %v", err)
	}
	v.lockedMost = time.Nanosecond
	if err := v.Push(t.Context()); !errors.As(err, &refused) || !strings.Contains(err.Error(), "main.lock") {
		t.Errorf("later: %v", err)
	}
	coldtest.Check(t, os.Remove(lock))
	v.MustPush()
	coldtest.WantRemote(t, "after", remote, tip)
	if !v.mu.locked.IsZero() {
		t.Error("the lock is still remembered")
	}
}

// TestPushSendsAll: a remote that lacks objects of its own commits gets everything, once, when it says so.
func TestPushSendsAll(t *testing.T) {
	t.Parallel()
	remote := coldtest.NewRemote(t)
	v := newVolume(t, Options{Source: remote})
	f := coldtest.NewDir(0o755)
	f.Text("a", "kept")
	f.Text("b", "0")
	v.CommitTree(f, nil)
	v.MustPush()
	for id := range strings.FieldsSeq(coldtest.Git(t, remote, "rev-parse", "main^{tree}", "main:a")) {
		coldtest.Check(t, os.Remove(filepath.Join(remote, "objects", id[:2], id[2:])))
	}
	f.Text("b", "1")
	tip := v.CommitTree(f, nil)
	v.MustPush()
	coldtest.Equal(t, coldtest.Git(t, remote, "rev-parse", "main"), tip.String(), "main:")
	coldtest.Equal(t, coldtest.Git(t, remote, "cat-file", "-p", "main:a"), "kept", "what it lacked:")
}
