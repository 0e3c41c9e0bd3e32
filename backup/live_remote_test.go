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

	"emberfs/backup/coldtest"
	"emberfs/backup/wire"
	"emberfs/tiers/cold"
)

func (v *testVolume) wantPushed(what string, id cold.ID) {
	v.T.Helper()
	coldtest.Equal(v.T, v.Pushed(), id, "%s: Pushed =", what)
	again := openVolume(v.T, v.copyWhole(), Options{Source: v.o.Source})
	coldtest.Equal(v.T, again.Pushed(), id, "%s: Pushed after a restart =", what)
}

// copyWhole copies the repository with its hidden references, as a kill would leave it.
func (v *testVolume) copyWhole() string {
	v.T.Helper()
	dir := filepath.Join(v.T.TempDir(), "whole.git")
	coldtest.Check(v.T, os.CopyFS(dir, os.DirFS(v.Dir)))
	return dir
}

// A volume's critical files get to the next machine, which goes on where the first one stopped, with both ways of
// fetching and of pushing.
func TestLiveTwoMachines(t *testing.T) {
	t.Parallel()
	for _, atomic := range []bool{true, false} {
		t.Run(fmt.Sprint("atomic ", atomic), func(t *testing.T) {
			remote := coldtest.NewRemote(t)
			coldtest.Git(t, remote, "config", "receive.advertiseAtomic", fmt.Sprint(atomic))
			one := newVolume(t, Options{Source: remote, MachineID: "one"})
			f := coldtest.NewDir(0o755)
			f.Text("a", "one")
			f.Text("critical", "0")
			m1 := one.CommitTree(f, nil)
			f.Text("critical", "1")
			l1 := one.commitLive(f)
			one.MustPush() // both at once
			coldtest.WantRemote(t, "both at once", remote, m1, l1)
			one.wantPushed("both at once", l1)
			f.Text("critical", "2")
			l2 := one.commitLive(f)
			one.wantPushed("not pushed", l1)
			one.MustPush()
			coldtest.WantRemote(t, "live alone", remote, m1, l2)
			one.wantPushed("live alone", l2)

			two := newVolume(t, Options{Source: remote, MachineID: "two"})
			two.wantPeek(true, "Peek")
			two.MustFetch()
			two.WantAt("fetched", m1, l2)
			two.wantPushed("fetched", l2)
			coldtest.CompareTrees(t, two.ReadTree(two.NewestSnapshot()), f)
			two.CheckGit()
			f.Text("critical", "3")
			l3 := two.commitLive(f)
			two.MustPush()
			coldtest.WantRemote(t, "from two", remote, m1, l3)

			one.wantPeek(true, "Peek")
			one.WantAt("peeked", m1, l2)
			one.MustFetch() // a later commit of the same live branch
			one.WantAt("fetched", m1, l3)
			one.wantPeek(false, "Peek with nothing new")

			f.Text("critical", "4")
			two.commitLive(f)
			f.Text("a", "two")
			m2 := two.CommitTree(f, nil)
			f.Text("critical", "5")
			l5 := two.commitLive(f)
			two.MustPush() // main, the next epoch, and the old one's end
			coldtest.WantRemote(t, "the next epoch", remote, m2, l5)
			two.wantPushed("the next epoch", l5)
			one.MustFetch()
			one.WantAt("the next epoch", m2, l5)
			for _, id := range []cold.ID{m1, l1, l2, l3, m2, l5} {
				if ok, err := one.Follows(t.Context(), l5, id); !ok || err != nil {
					t.Errorf("Follows(%s) = %v, %v", id, ok, err)
				}
			}
			if refs := coldtest.LiveRefs(t, one.Dir); len(refs) != 1 {
				t.Errorf("live branches: %q", refs)
			}
			coldtest.CompareTrees(t, one.ReadTree(one.NewestSnapshot()), f)
			// two absorbed a commit on the way that nobody has seen; one knows by the trailer that nothing of its own
			// is lost.
			if got := one.HeadSnapshot().Info().Absorbed; len(got) < 2 || !slices.Contains(got, l2) {
				t.Errorf("Absorbed = %v, want %s among them", got, l2)
			}
			f.Text("a", "three")
			m3 := one.CommitTree(f, nil)
			one.MustPush()
			coldtest.WantRemote(t, "main again", remote, m3)
			one.wantPushed("main again", m3)
			if got := coldtest.Git(t, one.Dir, "for-each-ref", "refs/emberfs/absorbed",
				"refs/emberfs/remote-live"); got != "" {
				t.Errorf("left: %s", got)
			}
			if got := coldtest.Git(t, remote, "rev-list", "--count", "main"); got != "3" {
				t.Errorf("main has %s commits", got)
			}
			for _, v := range []*testVolume{one, two} {
				v.MustFetch()
				coldtest.Git(t, v.Dir, "gc", "-q", "--prune=now")
				coldtest.CompareTrees(t, v.ReadTree(v.NewestSnapshot()), f)
				if p := v.Stats().Problems; len(p) > 0 {
					t.Errorf("problems: %q", p)
				}
			}
		})
	}
}

// The remote has the live commits that main absorbs, so the push does not send their content again.
func TestPushOfAbsorbedSendsLittle(t *testing.T) {
	t.Parallel()
	remote := coldtest.NewRemote(t)
	v := newVolume(t, Options{Source: remote})
	f := coldtest.NewDir(0o755)
	f.Text("a", "one")
	v.CommitTree(f, nil)
	f.Text("critical", string(coldtest.Noise(1, 1<<20)))
	v.commitLive(f)
	v.MustPush()
	sent := &countingRemote{remote: v.remote}
	v.remote = sent
	f.Text("a", "two")
	v.CommitTree(f, nil)
	v.MustPush()
	if sent.bytes == 0 || sent.bytes > 100_000 {
		t.Errorf("%d bytes were sent", sent.bytes)
	}
}

type countingRemote struct {
	remote
	bytes int64
}

func (r *countingRemote) Send(ctx context.Context, plan wire.Plan) error {
	return r.remote.Send(ctx, func(refs map[string]cold.ID) ([]wire.Update, func(io.Writer) error, error) {
		updates, pack, err := plan(refs)
		return updates, func(w io.Writer) error {
			return pack(writerFunc(func(p []byte) (int, error) { r.bytes += int64(len(p)); return w.Write(p) }))
		}, err
	})
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// If a server refuses deletions, that is reported once, is no error, and is not tried again. The branches that pile up
// do not matter to a new machine.
func TestLiveDenyDeletes(t *testing.T) {
	t.Parallel()
	remote := coldtest.NewRemote(t)
	coldtest.Git(t, remote, "config", "receive.denyDeletes", "true")
	v := newVolume(t, Options{Source: remote})
	pushes := &spyRemote{remote: v.remote}
	v.remote = pushes
	f := coldtest.NewDir(0o755)
	f.Text("a", "0")
	v.CommitTree(f, nil)
	v.MustPush()
	var piled []cold.ID
	var main cold.ID
	for i := range 3 {
		f.Text("critical", fmt.Sprint(i))
		piled = append(piled, v.commitLive(f))
		v.MustPush()
		f.Text("a", fmt.Sprint(i))
		main = v.CommitTree(f, nil)
		v.MustPush()
		coldtest.WantRemote(t, fmt.Sprint(i), remote, main, piled...)
		if p := v.Stats().Problems; len(p) != 1 || !strings.Contains(p[0], "deleted") {
			t.Errorf("problems: %q", p)
		}
	}
	if pushes.deletes != 1 {
		t.Errorf("%d deletions were tried", pushes.deletes)
	}
	coldtest.Equal(t, coldtest.Git(t, v.Dir, "for-each-ref", "refs/emberfs/absorbed"), "", "left:")
	f.Text("critical", "more")
	live := v.commitLive(f)
	v.MustPush()
	other := newVolume(t, Options{Source: remote})
	other.MustFetch()
	other.WantAt("a new machine", main, live)
	coldtest.CompareTrees(t, other.ReadTree(other.NewestSnapshot()), f)
	if refs := coldtest.LiveRefs(t, other.Dir); len(refs) != 1 {
		t.Errorf("live branches: %q", refs)
	}
}

// spyRemote counts pushes with deletions, and can do things in between.
type spyRemote struct {
	remote
	deletes int
	before  func(updates []wire.Update)
}

func (r *spyRemote) Send(ctx context.Context, plan wire.Plan) error {
	return r.remote.Send(ctx, func(refs map[string]cold.ID) ([]wire.Update, func(io.Writer) error, error) {
		updates, pack, err := plan(refs)
		if slices.ContainsFunc(updates, func(u wire.Update) bool { return u.New.IsZero() }) {
			r.deletes++
		}
		if r.before != nil && err == nil && len(updates) > 0 {
			r.before(updates)
		}
		return updates, pack, err
	})
}
