package backup

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"emberfs/backup/coldtest"
	"emberfs/backup/format"
	"emberfs/backup/odb"
	"emberfs/integration/effort"
	"emberfs/tiers/cold"
)

// What a commit says of itself, to people and to programs.
func TestCommitMessage(t *testing.T) {
	v := newVolume(t, Options{VolumeID: "vol-1", MachineID: "m-1", UserName: "A <U> Thor", UserEmail: "a@b\n"})
	f := hostileBase()
	v.CommitTree(f, nil)
	future := time.Now().Add(1000 * time.Hour)
	for _, c := range []struct {
		o    cold.CommitOptions
		when int64
		want string
	}{
		{cold.CommitOptions{Reason: "sync", Machine: "m-2", Files: 1, Bytes: 1234, AtRisk: 3, AtRiskBytes: 99,
			When: future, Lacking: []string{"a b", "c\nEmberfs-Clean: yes"}, Took: 1500 * time.Millisecond},
			future.Unix(),
			"Backup (sync): 1 file, 1.2 kB\n\nEmberfs-Volume: vol-1\nEmberfs-Machine: m-2\nEmberfs-Reason: " +
				"sync\nEmberfs-Files: 1\nEmberfs-Bytes: 1234\nEmberfs-At-Risk: 3\nEmberfs-At-Risk-Bytes: " +
				"99\nEmberfs-Clean: no\nEmberfs-Took: 1500\nEmberfs-Lacking: a b\nEmberfs-Lacking: c Emberfs-Clean: yes\n"},
		// A clock that went back, and a reason out to forge trailers.
		{cold.CommitOptions{Reason: "a\nEmberfs-Volume: evil\x00\xff", When: time.Unix(-5, 0), Clean: true},
			future.Unix(),
			"Backup (a Emberfs-Volume: evil ?): 0 files, 0 B\n\nEmberfs-Volume: vol-1\nEmberfs-Machine: " +
				"m-1\nEmberfs-Reason: a Emberfs-Volume: evil ?\nEmberfs-Files: 0\nEmberfs-Bytes: 0\nEmberfs-At-Risk: " +
				"0\nEmberfs-At-Risk-Bytes: 0\nEmberfs-Clean: yes\nEmberfs-Took: 0\nEmberfs-Time: 1969-12-31T23:59:55Z\n"},
	} {
		tx := v.MustBegin()
		id, err := tx.PutDir(t.Context(), coldtest.RootOf(tx.Base()), false, &cold.Root{Entry: f.Entry}, nil, nil)
		coldtest.Check(t, err)
		c.o.Root = id
		commit, err := tx.Commit(t.Context(), c.o)
		coldtest.Check(t, err)
		coldtest.Equal(t, coldtest.Git(t, v.Dir, "log", "-1", "--format=%B", commit.String()), c.want, "message:")
		if got, want := coldtest.Git(t, v.Dir, "log", "-1", "--format=%an|%ae|%at|%ct|%cn", commit.String()),
			fmt.Sprintf("A U Thor|a@b|%d|%d|A U Thor", c.when, c.when); got != want {
			t.Errorf("%s, want %s", got, want)
		}
		info := v.HeadSnapshot().Info()
		if info.ID != commit || info.Time.Unix() != c.when || info.Reason != format.OneLine(c.o.Reason) ||
			info.Parent.IsZero() || info.AtRisk != c.o.AtRisk || info.AtRiskBytes != c.o.AtRiskBytes ||
			(info.Clean == cold.CleanYes) != c.o.Clean || info.Clean == cold.CleanUnsaid ||
			len(info.Lacking) != len(c.o.Lacking) || info.Tree.IsZero() {
			t.Errorf("%+v", info)
		}
	}
	v.CheckGit()
}

func TestTrailer(t *testing.T) {
	for msg, want := range map[string]string{
		"":                                       "",
		"subject":                                "",
		"s\n\nEmberfs-Reason: x\n":               "x",
		"s\n\nEmberfs-Reason: x\n\nother: y\n":   "",
		"Emberfs-Reason: x":                      "",
		"s\n\nbody\n\na: b\nEmberfs-Reason:  z ": "z",
	} {
		coldtest.Equal(t, format.Trailer(msg, format.TrailerReason), want, "trailer(%q) =", msg)
	}
}

// Many files at once, big and small, some the same, some that change while they are read.
func TestPutFileConcurrently(t *testing.T) {
	t.Parallel()
	v := newVolume(t, Options{})
	tx := v.MustBegin()
	defer tx.Abort()
	f := coldtest.NewDir(0o755)
	count := effort.Count(t, 12, 64)
	for i := range count {
		size := i * 64 / count
		f.Text(fmt.Sprintf("f%02d", i), strings.Repeat(fmt.Sprint(i%16), 1+size*size*500))
	}
	var wg sync.WaitGroup
	for _, k := range f.Kids {
		wg.Go(func() {
			var err error
			if k.ID, err = tx.PutFile(t.Context(), coldtest.Content(k.Data), cold.Base{}); err != nil {
				t.Error(err)
			}
			for _, size := range []int64{k.Size - 1, k.Size + 1} {
				if _, err := tx.PutFile(t.Context(), coldtest.Sized{Content: coldtest.Content(k.Data), Bytes: size},
					cold.Base{}); !errors.Is(err, cold.ErrSizeChanged) {
					t.Errorf("%d bytes as %d: %v", k.Size, size, err)
				}
			}
		})
	}
	wg.Wait()
	id, err := tx.PutDir(t.Context(), cold.DirID{}, true, &cold.Root{Entry: f.Entry}, f.Entries(), nil)
	coldtest.Check(t, err)
	if _, err := tx.Commit(t.Context(), cold.CommitOptions{Root: id}); err != nil {
		t.Fatal(err)
	}
	coldtest.CompareTrees(t, v.ReadTree(v.HeadSnapshot()), f)
	v.CheckGit()
}

// What the base commit has is not stored again, and what it lost is.
func TestPutFileBase(t *testing.T) {
	v := newVolume(t, Options{})
	f := hostileBase()
	v.CommitTree(f, nil)
	a := f.Kids["a"]
	store := func() int {
		tx := v.MustBegin()
		defer tx.Abort()
		id, err := tx.PutFile(t.Context(), coldtest.Content(a.Data), cold.Base{ID: a.ID})
		if err != nil || id != a.ID {
			t.Errorf("PutFile = %s, %v", id, err)
		}
		return txLen(t, tx)
	}
	if n := store(); n != 0 {
		t.Errorf("%d objects stored again", n)
	}
	coldtest.Explode(t, v.Dir)
	coldtest.RemoveLoose(t, v.Dir, a.ID)
	if err := v.db.Refresh(); err != nil { // the pack that is gone is still open
		t.Fatal(err)
	}
	if n := store(); n != 1 {
		t.Errorf("%d objects stored of what is missing", n)
	}
}

func TestPutDirRefuses(t *testing.T) {
	v := newVolume(t, Options{})
	f := hostileBase()
	v.CommitTree(f, nil)
	good := f.Kids["a"].Entry
	bad := func(change func(e *cold.Entry)) []cold.Entry {
		e := good
		change(&e)
		return []cold.Entry{e}
	}
	tx := v.MustBegin()
	defer tx.Abort()
	for what, put := range map[string][]cold.Entry{
		"no name":        bad(func(e *cold.Entry) { e.Name = "" }),
		"slash":          bad(func(e *cold.Entry) { e.Name = "a/b" }),
		"twice":          {good, good},
		"no object":      bad(func(e *cold.Entry) { e.ID = cold.ID{} }),
		"missing object": bad(func(e *cold.Entry) { e.ID[3] ^= 1 }),
		"no kind":        bad(func(e *cold.Entry) { e.Kind = 0 }),
		"big mode":       bad(func(e *cold.Entry) { e.Mode = 0o100644 }),
		"nanoseconds":    bad(func(e *cold.Entry) { e.Mtime.Nsec = 1e9 }),
		"xattr order":    bad(func(e *cold.Entry) { e.Xattrs = []cold.Xattr{{Name: "b"}, {Name: "a"}} }),
		"lying symlink":  bad(func(e *cold.Entry) { e.Kind, e.Target, e.Size = cold.KindSymlink, "x", 1 }),
	} {
		for _, full := range []bool{false, true} {
			if id, err := tx.PutDir(t.Context(), coldtest.RootOf(tx.Base()), full, &cold.Root{Entry: f.Entry}, put,
				nil); err == nil {
				t.Errorf("%s: stored as %v", what, id)
			}
		}
	}
	if _, err := tx.PutDir(t.Context(), cold.DirID{Tree: odb.EmptyTree, Meta: good.ID}, false, nil, nil,
		nil); !errors.Is(err, cold.ErrCorrupt) && !errors.Is(err, cold.ErrMissing) {
		t.Errorf("a delta on damaged metadata: %v", err)
	}
	if _, err := tx.Commit(t.Context(), cold.CommitOptions{Root: f.Dir()}); err == nil {
		t.Error("Commit of a root that was not put")
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	for what, o := range map[string]Options{
		"branch": {Branch: "a..b"}, "branch lock": {Branch: "x.lock"}, "volume id": {VolumeID: "a b"},
		"remote":        {Source: filepath.Join(dir, "nowhere")},
		"remote scheme": {Source: "ftp://host/x"},
	} {
		if c, err := Open(filepath.Join(dir, "cold.git"), o); err == nil {
			t.Errorf("%s: opened", what)
			_ = c.Close()
		}
	}
	if c, err := OpenRepository(dir, Options{}); err == nil {
		t.Error("opened what is no repository")
		_ = c.Close()
	}
}
