package backup

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"emberfs/backup/format"
	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

// What lies below the live branch's name and is none must not break anything.
func TestHostileLiveRefs(t *testing.T) {
	t.Parallel()
	v := newVolume(t, Options{})
	f := newDir(0o755)
	f.text("a", "one")
	main := v.commit(f, nil)
	f.text("a", "two")
	v.commitLive(f)
	epoch := strings.Split(liveRefs(t, v.dir)[0], ":")[0]
	name := livePrefix + "main/" + epoch
	git(t, v.dir, "update-ref", "-d", name)
	unrelated := git(t, v.dir, "commit-tree", "-m", "unrelated", "main^{tree}")
	write := func(ref, content string) {
		path := filepath.Join(v.dir, ref)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, odd := range []string{"x", "01", "-1", "1e9", "99999999999999999999999", "1/2", "b/1760000000000000"} {
		git(t, v.dir, "update-ref", livePrefix+"main/"+odd, stockChild(v, "main"))
	}
	for what, content := range map[string]string{
		"missing":       strings.Repeat("12", 20),
		"blob":          git(t, v.dir, "rev-parse", "main:a"),
		"tree":          git(t, v.dir, "rev-parse", "main^{tree}"),
		"unrelated":     unrelated,
		"an empty root": git(t, v.dir, "commit-tree", "-p", unrelated, "-p", "main", "-m", "main is the second parent", "main^{tree}"),
		"symbolic":      "ref: refs/heads/nowhere",
		"loop":          "ref: " + name,
		"rubbish":       "rubbish",
		"itself":        "ref: refs/heads/main",
	} {
		write(name, content)
		again := openVolume(t, v.dir, Options{})
		again.wantAt(what, main, cold.ID{})
		ro := openVolumeReadOnly(t, v.dir)
		ro.wantAt(what+", read only", main, cold.ID{})
		if p := again.Stats().Problems; (len(p) == 0) != (what == "itself" || what == "symbolic") {
			t.Errorf("%s: problems: %q", what, p)
		}
		if what == "itself" || what == "symbolic" {
			continue
		}
		// A live commit goes to main instead.
		g := again.read(again.headSnapshot())
		g.text("a", what)
		id, err := again.commitBy(again.BeginLive, g, cold.CommitOptions{})
		if err != nil {
			t.Errorf("%s: live commit: %v", what, err)
			continue
		}
		again.wantAt(what+": live commit", id, cold.ID{})
		git(t, v.dir, "update-ref", "refs/heads/main", main.String())
	}
}

// A remote whose live branch is none: the mount takes main and says so, backups go on.
func TestHostileRemoteLive(t *testing.T) {
	t.Parallel()
	remote := newRemote(t)
	v := newVolume(t, Options{Source: remote})
	f := newDir(0o755)
	f.text("a", "0")
	main := v.commit(f, nil)
	f.text("critical", "0")
	v.commitLive(f)
	v.mustPush()
	name := livePrefix + "main/" + strings.Split(liveRefs(t, remote)[0], ":")[0]
	bare := git(t, remote, "commit-tree", "-m", "unrelated", "main^{tree}")
	absorbing, err := gitTry(t, remote, []byte(fmt.Sprintf("tree %s\nparent %s\nauthor a <a> 1 +0000\ncommitter a <a> 1 +0000\n\ns\n\n%s: %s %s\n",
		git(t, remote, "rev-parse", "main^{tree}"), bare, format.TrailerAbsorbs, main, git(t, remote, "rev-parse", "main:a"))), "hash-object", "-w", "-t", "commit", "--stdin")
	if err != nil {
		t.Fatal(absorbing)
	}
	for what, id := range map[string]string{"unrelated": bare, "absorbs": strings.TrimSpace(absorbing)} {
		git(t, remote, "update-ref", name, id)
		git(t, remote, "update-ref", livePrefix+"main/00", id)
		for _, link := range []bool{true, false} {
			w := newVolume(t, Options{Source: remote})
			if !link {
				w.remote = unlinked{w.remote}
			}
			w.mustFetch()
			w.wantAt(what, main, cold.ID{})
			if p := w.Stats().Problems; len(p) != 1 || !strings.Contains(p[0], name) {
				t.Errorf("%s: problems: %q", what, p)
			}
			g := w.read(w.headSnapshot())
			g.text("critical", what)
			live := w.commitLive(g)
			if err := w.Push(t.Context()); err == nil {
				t.Errorf("%s: the live branch was pushed over something else", what)
			}
			w.wantAt(what, main, live)
			if git(t, remote, "rev-parse", name) != id {
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
