package backup

import (
	"io"
	"strings"
	"testing"

	"emberfs/backup/coldtest"
	"emberfs/backup/wire"
	"emberfs/tiers/cold"
)

// twoAtLive returns two machines at the same live commit, which the remote has.
func twoAtLive(t *testing.T, settings ...string) (remote string, one, two *testVolume, f *coldtest.File) {
	t.Helper()
	remote = coldtest.NewRemote(t)
	for _, s := range settings {
		key, value, _ := strings.Cut(s, "=")
		coldtest.Git(t, remote, "config", key, value)
	}
	one = newVolume(t, Options{Source: remote, MachineID: "one"})
	f = coldtest.NewDir(0o755)
	f.Text("a", "0")
	one.CommitTree(f, nil)
	f.Text("critical", "0")
	one.commitLive(f)
	one.MustPush()
	two = newVolume(t, Options{Source: remote, MachineID: "two"})
	two.MustFetch()
	return remote, one, two, f
}

// act is a commit of one of two machines, to its live branch or to main.
type act func(v *testVolume, f *coldtest.File, text string) cold.ID

func liveAct(v *testVolume, f *coldtest.File, text string) cold.ID {
	f.Text("critical", text)
	return v.commitLive(f)
}

func mainAct(v *testVolume, f *coldtest.File, text string) cold.ID {
	f.Text("a", text)
	return v.CommitTree(f, nil)
}

// Two machines work at the same time: the second to push gets ErrDiverged. Nothing of the first is overwritten, or lost
// because main moves on without it.
func TestLiveDiverged(t *testing.T) {
	t.Parallel()
	for name, acts := range map[string][2]act{"live live": {liveAct, liveAct}, "live main": {liveAct, mainAct},
		"main live": {mainAct, liveAct}, "main main": {mainAct, mainAct}} {
		t.Run(name, func(t *testing.T) {
			remote, one, two, f := twoAtLive(t)
			g := two.ReadTree(two.NewestSnapshot())
			acts[0](two, g, "two")
			two.MustPush()
			before := coldtest.Git(t, remote, "for-each-ref")
			ours := acts[1](one, f, "one")
			for range 2 {
				coldtest.WantErr(t, one.Push(t.Context()), cold.ErrDiverged, "Push")
				one.wantPeek(true, "Peek")
				coldtest.WantErr(t, one.Fetch(t.Context()), cold.ErrDiverged, "Fetch")
			}
			coldtest.Equal(t, coldtest.Git(t, remote, "for-each-ref"), before, "the references are")
			coldtest.Equal(t, one.NewestSnapshot().Info().ID, ours, "ours moved to")
			coldtest.Git(t, one.Dir, "gc", "-q", "--prune=now")
			coldtest.CompareTrees(t, one.ReadTree(one.NewestSnapshot()), f)
		})
	}
}

// One machine looks at the remote, then the other one pushes, then the first one pushes: the server must compare the
// values.
func TestLivePushRace(t *testing.T) {
	t.Parallel()
	for name, acts := range map[string][2]act{"live live": {liveAct, liveAct}, "main live": {mainAct, liveAct},
		"main main": {mainAct, mainAct}} {
		t.Run(name, func(t *testing.T) {
			remote, one, two, f := twoAtLive(t)
			g := two.ReadTree(two.NewestSnapshot())
			acts[0](two, g, "two")
			acts[1](one, f, "one")
			var between string
			spy := &spyRemote{remote: one.remote}
			spy.before = func([]wire.Update) {
				spy.before = nil
				two.MustPush()
				between = coldtest.Git(t, remote, "for-each-ref")
			}
			one.remote = spy
			coldtest.WantErr(t, one.Push(t.Context()), cold.ErrDiverged, "Push")
			coldtest.Equal(t, coldtest.Git(t, remote, "for-each-ref"), between, "the references are")
		})
	}
}

// main has absorbed the live branch and is pushed. Before the remote's live branch is deleted, another machine that
// does not know this adds to it. That is only possible if the remote has no atomic pushes; the live branch then stays
// there.
func TestDeletionLeavesNewerWork(t *testing.T) {
	t.Parallel()
	remote, one, two, f := twoAtLive(t, "receive.advertiseAtomic=false")
	g := two.ReadTree(two.NewestSnapshot())
	g.Text("critical", "two")
	theirs := two.commitLive(g)
	f.Text("a", "one")
	main := one.CommitTree(f, nil)
	spy := &spyRemote{remote: one.remote}
	deletions := 0
	spy.before = func(updates []wire.Update) {
		if updates[0].New.IsZero() {
			deletions++
			if err := two.remote.Send(t.Context(), wire.Just(
				[]wire.Update{{Ref: updates[0].Ref, Old: updates[0].Old, New: theirs}}, func(w io.Writer) error {
					ids, err := two.collect(t.Context(), []cold.ID{theirs}, updates[0].Old)
					if err != nil {
						return err
					}
					return two.writePack(t.Context(), w, ids)
				})); err != nil {
				t.Error(err)
			}
		}
	}
	one.remote = spy
	one.MustPush()
	coldtest.WantRemote(t, "after", remote, main, theirs)
	if deletions != 1 {
		t.Errorf("%d deletions", deletions)
	}
	one.MustPush()
	coldtest.WantErr(t, two.Push(t.Context()), cold.ErrDiverged, "Push")
}
