package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"emberfs/backup/coldtest"
	"emberfs/backup/wire"
	"emberfs/integration/testprog"
	"emberfs/tiers/cold"
)

// TestPartsAfterAbsorbed: what is pushed in parts is no more where main has absorbed a live branch of the remote.
func TestPartsAfterAbsorbed(t *testing.T) {
	t.Parallel()
	for _, live := range []bool{false, true} {
		remote := coldtest.NewRemote(t)
		v, r := newSteps(t, remote)
		f := coldtest.NewDir(0o755)
		for i := range 10 { // 1 MB of history
			f.Text("x", string(coldtest.Noise(uint64(1000+i), 100<<10)))
			v.CommitTree(f, nil)
		}
		v.MustPush()
		if live {
			f.Text("critical", "1")
			v.commitLive(f)
			v.MustPush()
		}
		r.steps, r.bytes = nil, nil
		for i := range 3 {
			f.Text(fmt.Sprint("new", i), string(coldtest.Noise(uint64(2000+i), 150<<10)))
			v.CommitTree(f, nil)
		}
		v.MustPush()
		var sum int64
		for _, n := range r.bytes {
			sum += n
		}
		if sum > 480<<10 {
			t.Errorf("live branch %v: %d KB were sent for 450 KB", live, sum>>10)
		}
	}
}

// TestPartsOfDeltas: what lies here as deltas is sent whole, and counts so.
func TestPartsOfDeltas(t *testing.T) {
	t.Parallel()
	remote := coldtest.NewRemote(t)
	v := newVolume(t, Options{Source: remote})
	f := coldtest.NewDir(0o755)
	text := string(coldtest.Noise(7, 400<<10))
	for i := range 10 {
		f.Text("x", fmt.Sprint(i)+text)
		v.CommitTree(f, nil)
	}
	v.MustPush()
	coldtest.Git(t, remote, "gc", "-q", "--aggressive", "--prune=now")
	b := newVolume(t, Options{Source: "file://" + remote}) // fetched, not linked
	b.MustFetch()
	other := coldtest.NewRemote(t)
	w := openVolume(t, b.copyWhole(), Options{Source: other, PushMax: 1 << 20})
	r := &stepsRemote{remote: w.remote, t: t}
	w.remote = r
	w.MustPush()
	for i, n := range r.bytes {
		if n > 1<<20+64<<10 {
			t.Errorf("conversation %d has %d bytes", i, n)
		}
	}
}

// TestOwnPushLandsLate: an earlier push of ours, whose answer was lost, moves the branch while the next one is under
// way. That is no other machine.
func TestOwnPushLandsLate(t *testing.T) {
	t.Parallel()
	remote := coldtest.NewRemote(t)
	v := newVolume(t, Options{Source: remote})
	f := coldtest.NewDir(0o755)
	f.Text("a", "0")
	a := v.CommitTree(f, nil)
	v.MustPush()
	f.Text("a", "1")
	b := v.CommitTree(f, nil)
	v.MustPush()
	coldtest.Git(t, remote, "update-ref", "refs/heads/main", a.String())
	f.Text("a", "2")
	c := v.CommitTree(f, nil)
	spy := &spyRemote{remote: v.remote}
	spy.before = func([]wire.Update) {
		coldtest.Git(t, remote, "update-ref", "refs/heads/main", b.String())
		spy.before = nil
	}
	v.remote = spy
	v.MustPush()
	coldtest.WantRemote(t, "after", remote, c)
}

// hidingRemote does not show carriers.
type hidingRemote struct {
	remote
	sends int
}

func (r *hidingRemote) Send(ctx context.Context, plan wire.Plan) error {
	if r.sends++; r.sends > 5 {
		return errors.New("asked again and again")
	}
	return r.remote.Send(ctx, func(refs map[string]cold.ID) ([]wire.Update, func(io.Writer) error, error) {
		for name := range refs {
			if strings.HasPrefix(name, carrierPrefix) {
				delete(refs, name)
			}
		}
		return plan(refs)
	})
}

// TestHiddenCarriers: a remote that does not show what it has acknowledged is not fed for ever.
func TestHiddenCarriers(t *testing.T) {
	t.Parallel()
	v := newVolume(t, Options{Source: coldtest.NewRemote(t), PushMax: 300 << 10})
	v.remote = &hidingRemote{remote: v.remote}
	f := coldtest.NewDir(0o755)
	noise(f, "big", 6)
	v.CommitTree(f, nil)
	var refused *cold.RefusedError
	if err := v.Push(t.Context()); !errors.As(err, &refused) || !strings.Contains(refused.Reason, "show") {
		t.Errorf("Push: %v", err)
	}
}

// absorbedPush returns a volume whose next push deletes a live branch.
func absorbedPush(t *testing.T) (v *testVolume, remote string, tip cold.ID) {
	t.Helper()
	remote = coldtest.NewRemote(t)
	v = newVolume(t, Options{Source: remote})
	f := coldtest.NewDir(0o755)
	f.Text("a", "0")
	v.CommitTree(f, nil)
	f.Text("critical", "1")
	v.commitLive(f)
	v.MustPush()
	f.Text("a", "1")
	return v, remote, v.CommitTree(f, nil)
}

// TestDeletionKills: a remote that ends without a word where something is to be deleted gets the branch all the same.
func TestDeletionKills(t *testing.T) {
	t.Parallel()
	v, remote, tip := absorbedPush(t)
	coldtest.Check(t, testprog.Write(filepath.Join(remote, "hooks/pre-receive"),
		"#!/bin/sh\nwhile read o n r; do case $n in *[!0]*) ;; *) kill -9 $PPID;; esac; done\n"))
	for range deletionsMost {
		if err := v.Push(t.Context()); err == nil {
			t.Fatal("the hook did not work")
		}
	}
	v.MustPush()
	coldtest.Equal(t, coldtest.Git(t, remote, "rev-parse", "main"), tip.String(), "main:")
}

// failsOnce fails one conversation, once it was planned.
type failsOnce struct {
	remote
	err   error
	asked int
}

func (r *failsOnce) Send(ctx context.Context, plan wire.Plan) error {
	r.asked++
	if r.asked > 1 {
		return r.remote.Send(ctx, plan)
	}
	return errors.Join(r.err, r.remote.Send(ctx,
		func(refs map[string]cold.ID) ([]wire.Update, func(io.Writer) error, error) {
			_, _, err := plan(refs)
			return nil, nil, err
		}))
}

// TestDeletionIsNotToBlame: a failure of the link or of the server is not put down to the deletions, and is not tried
// again at once.
func TestDeletionIsNotToBlame(t *testing.T) {
	t.Parallel()
	for _, first := range []error{
		&cold.BusyError{Reason: "429", After: time.Minute, Err: &wire.StatusError{Code: 429}},
		&cold.RefusedError{Reason: "401", Err: &wire.StatusError{Code: 401}}, io.ErrUnexpectedEOF,
	} {
		v, remote, tip := absorbedPush(t)
		r := &failsOnce{remote: v.remote, err: first}
		v.remote = r
		coldtest.WantErr(t, v.Push(t.Context()), first, "Push")
		if r.asked != 1 {
			t.Errorf("%v: asked %d times", first, r.asked)
		}
		v.MustPush()
		coldtest.WantRemote(t, fmt.Sprint(first), remote, tip)
		if p := v.Stats().Problems; len(p) > 0 {
			t.Errorf("%v: %q", first, p)
		}
	}
}
