//go:build slow

package backup

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"emberfs/backup/coldtest"
	"emberfs/backup/wire"
	"emberfs/tiers/cold"
)

// The remote is left, by a lost connection or a kill, at any of its earlier states: the next push goes on from there.
func TestLivePushFromEarlierStates(t *testing.T) {
	t.Parallel()
	remote := coldtest.NewRemote(t)
	v := newVolume(t, Options{Source: remote})
	f := coldtest.NewDir(0o755)
	f.Text("a", "0")
	m1 := v.CommitTree(f, nil)
	v.MustPush()
	var live []cold.ID
	for i := range 3 {
		f.Text("critical", fmt.Sprint(i))
		live = append(live, v.commitLive(f))
		v.MustPush()
	}
	name := livePrefix + "main/" + strings.Split(coldtest.LiveRefs(t, remote)[0], ":")[0]
	f.Text("critical", "never pushed")
	v.commitLive(f)
	f.Text("a", "1")
	m2 := v.CommitTree(f, nil)
	f.Text("critical", "next epoch")
	l2 := v.commitLive(f)
	coldtest.Git(t, v.Dir, "gc", "-q", "--prune=now") // what the remote has must stay known
	for what, state := range map[string][2]string{
		"live 1": {m1.String(), live[0].String()}, "live 3": {m1.String(), live[2].String()},
		"no live":   {m1.String(), ""},
		"undeleted": {m2.String(), live[2].String()}, "deleted": {m2.String(), ""}, "nothing": {"", ""},
	} {
		dir := filepath.Join(t.TempDir(), "remote.git")
		coldtest.Check(t, os.CopyFS(dir, os.DirFS(remote)))
		w := openVolume(t, v.copyWhole(), Options{Source: dir})
		if state[0] == m2.String() {
			coldtest.Check(t, w.remote.Send(t.Context(),
				wire.Just([]wire.Update{{Ref: "refs/heads/main", Old: m1, New: m2}},
					func(out io.Writer) error {
						ids, err := w.collect(t.Context(), []cold.ID{m2}, m1)
						if err != nil {
							return err
						}
						return w.writePack(t.Context(), out, ids)
					})))
		}
		for ref, id := range map[string]string{"refs/heads/main": state[0], name: state[1]} {
			if id == "" {
				coldtest.Git(t, dir, "update-ref", "-d", ref)
			} else {
				coldtest.Git(t, dir, "update-ref", ref, id)
			}
		}
		w.wantPeek(false, "%s: Peek", what)
		if err := w.Push(t.Context()); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		coldtest.WantRemote(t, what, dir, m2, l2)
		w.wantPushed(what, l2)
		coldtest.Equal(t, coldtest.Git(t, w.Dir, "for-each-ref", "refs/emberfs/absorbed"), "", "%s: left:", what)
	}
}
