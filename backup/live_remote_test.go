package backup

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"emberfs/backup/wire"
	"emberfs/tiers/cold"
)

// wantRemote checks what the remote has: main, and live branches at these commits in any order.
func wantRemote(t *testing.T, what, remote string, main cold.ID, live ...cold.ID) {
	t.Helper()
	if got := mainRefOf(t, remote); got != main.String() {
		t.Errorf("%s: the remote's main is at %s, want %s", what, got, main)
	}
	var want, got []string
	for _, id := range live {
		want = append(want, id.String())
	}
	for _, ref := range liveRefs(t, remote) {
		got = append(got, strings.Split(ref, ":")[1])
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("%s: the remote's live branches are at %q, want %q", what, got, want)
	}
	git(t, remote, "fsck", "--strict", "--no-dangling")
}

func (v *testVolume) wantPushed(what string, id cold.ID) {
	v.t.Helper()
	if got := v.Pushed(); got != id {
		v.t.Errorf("%s: Pushed = %s, want %s", what, got, id)
	}
	again := openVolume(v.t, v.copyWhole(), Options{Source: v.o.Source})
	if got := again.Pushed(); got != id {
		v.t.Errorf("%s: Pushed after a restart = %s, want %s", what, got, id)
	}
}

// copyWhole copies the repository with its hidden references, as a kill would leave it.
func (v *testVolume) copyWhole() string {
	v.t.Helper()
	dir := filepath.Join(v.t.TempDir(), "whole.git")
	if err := os.CopyFS(dir, os.DirFS(v.dir)); err != nil {
		v.t.Fatal(err)
	}
	return dir
}

// A volume's critical files go to the next machine, which goes on where the first stopped; both ways of fetching, both of pushing.
func TestLiveTwoMachines(t *testing.T) {
	t.Parallel()
	for _, atomic := range []bool{true, false} {
		t.Run(fmt.Sprint("atomic ", atomic), func(t *testing.T) {
			remote := newRemote(t)
			git(t, remote, "config", "receive.advertiseAtomic", fmt.Sprint(atomic))
			one := newVolume(t, Options{Source: remote, MachineID: "one"})
			f := newDir(0o755)
			f.text("a", "one")
			f.text("critical", "0")
			m1 := one.commit(f, nil)
			f.text("critical", "1")
			l1 := one.commitLive(f)
			one.mustPush() // both at once
			wantRemote(t, "both at once", remote, m1, l1)
			one.wantPushed("both at once", l1)
			f.text("critical", "2")
			l2 := one.commitLive(f)
			one.wantPushed("not pushed", l1)
			one.mustPush()
			wantRemote(t, "live alone", remote, m1, l2)
			one.wantPushed("live alone", l2)

			two := newVolume(t, Options{Source: remote, MachineID: "two"})
			if moved, err := two.Peek(t.Context()); !moved || err != nil {
				t.Errorf("Peek = %v, %v", moved, err)
			}
			two.mustFetch()
			two.wantAt("fetched", m1, l2)
			two.wantPushed("fetched", l2)
			compareTrees(t, two.read(two.newestSnapshot()), f)
			two.checkGit()
			f.text("critical", "3")
			l3 := two.commitLive(f)
			two.mustPush()
			wantRemote(t, "from two", remote, m1, l3)

			if moved, err := one.Peek(t.Context()); !moved || err != nil {
				t.Errorf("Peek = %v, %v", moved, err)
			}
			one.wantAt("peeked", m1, l2)
			one.mustFetch() // a later commit of the same live branch
			one.wantAt("fetched", m1, l3)
			if moved, err := one.Peek(t.Context()); moved || err != nil {
				t.Errorf("Peek with nothing new = %v, %v", moved, err)
			}

			f.text("critical", "4")
			two.commitLive(f)
			f.text("a", "two")
			m2 := two.commit(f, nil)
			f.text("critical", "5")
			l5 := two.commitLive(f)
			two.mustPush() // main, the next epoch, and the old one's end
			wantRemote(t, "the next epoch", remote, m2, l5)
			two.wantPushed("the next epoch", l5)
			one.mustFetch()
			one.wantAt("the next epoch", m2, l5)
			for _, id := range []cold.ID{m1, l1, l2, l3, m2, l5} {
				if ok, err := one.Follows(t.Context(), l5, id); !ok || err != nil {
					t.Errorf("Follows(%s) = %v, %v", id, ok, err)
				}
			}
			if refs := liveRefs(t, one.dir); len(refs) != 1 {
				t.Errorf("live branches: %q", refs)
			}
			compareTrees(t, one.read(one.newestSnapshot()), f)
			// two absorbed a commit on the way that nobody has seen; one knows by the trailer that nothing of its own is lost.
			if got := one.headSnapshot().Info().Absorbed; len(got) < 2 || !slices.Contains(got, l2) {
				t.Errorf("Absorbed = %v, want %s among them", got, l2)
			}
			f.text("a", "three")
			m3 := one.commit(f, nil)
			one.mustPush()
			wantRemote(t, "main again", remote, m3)
			one.wantPushed("main again", m3)
			if got := git(t, one.dir, "for-each-ref", "refs/emberfs/absorbed", "refs/emberfs/remote-live"); got != "" {
				t.Errorf("left: %s", got)
			}
			if got := git(t, remote, "rev-list", "--count", "main"); got != "3" {
				t.Errorf("main has %s commits", got)
			}
			for _, v := range []*testVolume{one, two} {
				v.mustFetch()
				git(t, v.dir, "gc", "-q", "--prune=now")
				compareTrees(t, v.read(v.newestSnapshot()), f)
				if p := v.Stats().Problems; len(p) > 0 {
					t.Errorf("problems: %q", p)
				}
			}
		})
	}
}

// The remote has the live commits that main absorbs: the push does not send their content again.
func TestPushOfAbsorbedSendsLittle(t *testing.T) {
	t.Parallel()
	remote := newRemote(t)
	v := newVolume(t, Options{Source: remote})
	f := newDir(0o755)
	f.text("a", "one")
	v.commit(f, nil)
	f.text("critical", string(noise(1, 1<<20)))
	v.commitLive(f)
	v.mustPush()
	sent := &countingRemote{remote: v.remote}
	v.remote = sent
	f.text("a", "two")
	v.commit(f, nil)
	v.mustPush()
	if sent.bytes == 0 || sent.bytes > 100_000 {
		t.Errorf("%d bytes were sent", sent.bytes)
	}
}

type countingRemote struct {
	remote
	bytes int64
}

func (r *countingRemote) Push(ctx context.Context, updates []wire.Update, pack func(io.Writer) error) error {
	return r.remote.Push(ctx, updates, func(w io.Writer) error {
		return pack(writerFunc(func(p []byte) (int, error) { r.bytes += int64(len(p)); return w.Write(p) }))
	})
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// A server that refuses deletes: said once, no error, not tried again; what piles up means nothing to a new machine.
func TestLiveDenyDeletes(t *testing.T) {
	t.Parallel()
	remote := newRemote(t)
	git(t, remote, "config", "receive.denyDeletes", "true")
	v := newVolume(t, Options{Source: remote})
	pushes := &spyRemote{remote: v.remote}
	v.remote = pushes
	f := newDir(0o755)
	f.text("a", "0")
	v.commit(f, nil)
	v.mustPush()
	var piled []cold.ID
	var main cold.ID
	for i := range 3 {
		f.text("critical", fmt.Sprint(i))
		piled = append(piled, v.commitLive(f))
		v.mustPush()
		f.text("a", fmt.Sprint(i))
		main = v.commit(f, nil)
		v.mustPush()
		wantRemote(t, fmt.Sprint(i), remote, main, piled...)
		if p := v.Stats().Problems; len(p) != 1 || !strings.Contains(p[0], "deleted") {
			t.Errorf("problems: %q", p)
		}
	}
	if pushes.deletes != 1 {
		t.Errorf("%d deletions were tried", pushes.deletes)
	}
	if got := git(t, v.dir, "for-each-ref", "refs/emberfs/absorbed"); got != "" {
		t.Errorf("left: %s", got)
	}
	f.text("critical", "more")
	live := v.commitLive(f)
	v.mustPush()
	other := newVolume(t, Options{Source: remote})
	other.mustFetch()
	other.wantAt("a new machine", main, live)
	compareTrees(t, other.read(other.newestSnapshot()), f)
	if refs := liveRefs(t, other.dir); len(refs) != 1 {
		t.Errorf("live branches: %q", refs)
	}
}

// spyRemote counts deletions, and does things in between.
type spyRemote struct {
	remote
	deletes int
	before  func(updates []wire.Update)
}

func (r *spyRemote) Push(ctx context.Context, updates []wire.Update, pack func(io.Writer) error) error {
	if updates[0].New.IsZero() {
		r.deletes++
	}
	if r.before != nil {
		r.before(updates)
	}
	return r.remote.Push(ctx, updates, pack)
}
