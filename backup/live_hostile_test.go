package backup

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"emberfs/backup/coldtest"
	"emberfs/backup/format"
	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

// References with names of live branches that are none must not break anything.
func TestHostileLiveRefs(t *testing.T) {
	t.Parallel()
	v := newVolume(t, Options{})
	f := coldtest.NewDir(0o755)
	f.Text("a", "one")
	main := v.CommitTree(f, nil)
	f.Text("a", "two")
	v.commitLive(f)
	epoch := strings.Split(coldtest.LiveRefs(t, v.Dir)[0], ":")[0]
	name := livePrefix + "main/" + epoch
	coldtest.Git(t, v.Dir, "update-ref", "-d", name)
	unrelated := coldtest.Git(t, v.Dir, "commit-tree", "-m", "unrelated", "main^{tree}")
	write := func(ref, content string) {
		path := filepath.Join(v.Dir, ref)
		coldtest.Check(t, os.MkdirAll(filepath.Dir(path), 0o755))
		coldtest.Check(t, os.WriteFile(path, []byte(content+"\n"), 0o644))
	}
	for _, odd := range []string{"x", "01", "-1", "1e9", "99999999999999999999999", "1/2", "b/1760000000000000"} {
		coldtest.Git(t, v.Dir, "update-ref", livePrefix+"main/"+odd, stockChild(v, "main"))
	}
	for what, content := range map[string]string{
		"missing":   strings.Repeat("12", 20),
		"blob":      coldtest.Git(t, v.Dir, "rev-parse", "main:a"),
		"tree":      coldtest.Git(t, v.Dir, "rev-parse", "main^{tree}"),
		"unrelated": unrelated,
		"an empty root": coldtest.Git(t, v.Dir, "commit-tree", "-p", unrelated, "-p", "main", "-m",
			"main is the second parent", "main^{tree}"),
		"symbolic": "ref: refs/heads/nowhere",
		"loop":     "ref: " + name,
		"rubbish":  "rubbish",
		"itself":   "ref: refs/heads/main",
	} {
		write(name, content)
		again := openVolume(t, v.Dir, Options{})
		again.WantAt(what, main, cold.ID{})
		ro := openVolumeReadOnly(t, v.Dir)
		ro.WantAt(what+", read only", main, cold.ID{})
		if p := again.Stats().Problems; (len(p) == 0) != (what == "itself" || what == "symbolic") {
			t.Errorf("%s: problems: %q", what, p)
		}
		if what == "itself" || what == "symbolic" {
			continue
		}
		// A live commit goes to main instead.
		g := again.ReadTree(again.HeadSnapshot())
		g.Text("a", what)
		id, err := again.CommitBy(again.BeginLive, g, cold.CommitOptions{})
		if err != nil {
			t.Errorf("%s: live commit: %v", what, err)
			continue
		}
		again.WantAt(what+": live commit", id, cold.ID{})
		coldtest.Git(t, v.Dir, "update-ref", "refs/heads/main", main.String())
	}
}

// The remote's live branch is not a valid one: the mount uses main and reports it, and backups go on.
func TestHostileRemoteLive(t *testing.T) {
	t.Parallel()
	remote := coldtest.NewRemote(t)
	v := newVolume(t, Options{Source: remote})
	f := coldtest.NewDir(0o755)
	f.Text("a", "0")
	main := v.CommitTree(f, nil)
	f.Text("critical", "0")
	v.commitLive(f)
	v.MustPush()
	name := livePrefix + "main/" + strings.Split(coldtest.LiveRefs(t, remote)[0], ":")[0]
	bare := coldtest.Git(t, remote, "commit-tree", "-m", "unrelated", "main^{tree}")
	absorbing, err := coldtest.GitTry(t, remote,
		[]byte(fmt.Sprintf("tree %s\nparent %s\nauthor a <a> 1 +0000\ncommitter a <a> 1 +0000\n\ns\n\n%s: %s %s\n",
			coldtest.Git(t, remote, "rev-parse", "main^{tree}"), bare, format.TrailerAbsorbs, main,
			coldtest.Git(t, remote, "rev-parse", "main:a"))), "hash-object", "-w", "-t", "commit", "--stdin")
	if err != nil {
		t.Fatal(absorbing)
	}
	for what, id := range map[string]string{"unrelated": bare, "absorbs": strings.TrimSpace(absorbing)} {
		coldtest.Git(t, remote, "update-ref", name, id)
		coldtest.Git(t, remote, "update-ref", livePrefix+"main/00", id)
		for _, link := range []bool{true, false} {
			w := newVolume(t, Options{Source: remote})
			if !link {
				w.remote = unlinked{w.remote}
			}
			w.MustFetch()
			w.WantAt(what, main, cold.ID{})
			if p := w.Stats().Problems; len(p) != 1 || !strings.Contains(p[0], name) {
				t.Errorf("%s: problems: %q", what, p)
			}
			g := w.ReadTree(w.HeadSnapshot())
			g.Text("critical", what)
			live := w.commitLive(g)
			if err := w.Push(t.Context()); err == nil {
				t.Errorf("%s: the live branch was pushed over something else", what)
			}
			w.WantAt(what, main, live)
			if coldtest.Git(t, remote, "rev-parse", name) != id {
				t.Errorf("%s: it was overwritten", what)
			}
		}
	}
}

// unlinked is a remote on another disk.
type unlinked struct{ remote }

func (unlinked) Link(context.Context, *odb.DB, cold.ID) (func() error, error) {
	return nil, odb.ErrCannotLink
}
