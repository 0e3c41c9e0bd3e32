//go:build slow

package fsck

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"emberfs/backup"
	"emberfs/backup/coldtest"
	"emberfs/tiers/cold"
)

// Damage in a linked pack is found by reads, keeps Holds from relying on it, and once it was looked through everything
// is fetched.
func TestLinkedPackIsDamaged(t *testing.T) {
	t.Parallel()
	remote, _, f := linkRemote(t)
	e := f.Kids["many"].Kids["7"]
	text := coldtest.BlobID(t, "text 7")
	v := newVolume(t, backup.Options{Source: remote})
	v.MustFetch()
	packs := v.Shared(remote)
	good, err := os.ReadFile(packs[0])
	coldtest.Check(t, err)
	damageShared(t, remote, text)
	if b, err := v.Open(t.Context(), text, e.Size); err == nil {
		_, err = b.Read(make([]byte, 100))
		if !errors.Is(err, cold.ErrCorrupt) {
			t.Errorf("read of a damaged object: %v", err)
		}
	}
	coldtest.WantErr(t, v.Holds(t.Context(), text, e.Size), cold.ErrCorrupt, "Holds")
	// The remote's git sends what it has in the pack as it is, so it cannot help while it has the same file.
	coldtest.WantErr(t, v.Maintain(t.Context()), cold.ErrCorrupt, "Maintain")
	if p := v.Stats().Problems; len(p) != 1 {
		t.Errorf("Problems: %q", p)
	}
	theirs := filepath.Join(remote, "objects/pack", filepath.Base(packs[0]))
	coldtest.Remove(t, theirs)
	coldtest.Check(t, os.WriteFile(theirs, good, 0o444))
	coldtest.Check(t, v.Close())
	r := runRepair(t, v.Dir, Options{Volume: true, Source: remote}, nil)
	if problemsOf(r.before) == 0 || hasFinding(r.after, cold.Damaged, "missing") {
		t.Errorf("before: %s\nafter: %s", describe(r.before), describe(r.after))
	}
	v = openVolume(t, v.Dir, backup.Options{Source: remote})
	v.MustMaintain()
	if err := v.Holds(t.Context(), text, e.Size); err != nil {
		t.Errorf("after a repair: %v", err)
	}
	coldtest.CompareTrees(t, v.ReadTree(v.HeadSnapshot()), f)
}

// damageShared changes a byte of an object in a pack that a volume shares with its remote.
func damageShared(t *testing.T, remote string, id cold.ID) {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(remote, "objects/pack/pack-*.idx"))
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	for line := range strings.Lines(coldtest.Git(t, remote, "verify-pack", "-v", list[0])) {
		fields := strings.Fields(line)
		if len(fields) < 5 || fields[0] != id.String() {
			continue
		}
		var off, size int64
		if _, err := fmt.Sscan(fields[4]+" "+fields[3], &off, &size); err != nil {
			t.Fatal(err)
		}
		pack := strings.TrimSuffix(list[0], "idx") + "pack"
		coldtest.Check(t, os.Chmod(pack, 0o644))
		coldtest.Overwrite(t, pack, off+size-6, []byte{0xaa, 0x55})
		coldtest.Check(t, os.Chmod(pack, 0o444))
		return
	}
	t.Fatalf("%s is not in the pack", id)
}

// check --repair takes from the remote what is gone here, as ever.
func TestRepairAfterLink(t *testing.T) {
	t.Parallel()
	remote, _, f := linkRemote(t)
	v := newVolume(t, backup.Options{Source: remote})
	v.MustFetch()
	packs := v.Shared(remote)
	coldtest.Check(t, v.Close())
	for _, p := range packs {
		coldtest.Remove(t, p)
		coldtest.Remove(t, strings.TrimSuffix(p, "pack")+"idx")
	}
	r := runRepair(t, v.Dir, Options{Volume: true, Deep: true, Source: remote}, nil)
	if problemsOf(r.before) == 0 || problemsOf(r.after) > 0 {
		t.Errorf("before: %s\nafter: %s", describe(r.before), describe(r.after))
	}
	again := openVolume(t, v.Dir, backup.Options{Source: remote})
	coldtest.CompareTrees(t, again.ReadTree(again.HeadSnapshot()), f)
	again.CheckGit()
	coldtest.Git(t, remote, "fsck", "--strict")
}
