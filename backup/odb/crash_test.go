package odb

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"emberfs/tiers/cold"
)

var errCrash = errors.New("crash here")

// crashEnv makes the test binary a process that commits and kills itself: "<step> <n> <repository>".
const crashEnv = "EMBERFS_ODB_CRASH"

func TestMain(m *testing.M) {
	if spec := os.Getenv(crashEnv); spec != "" {
		var step, dir string
		var n int
		if _, err := fmt.Sscan(spec, &step, &n, &dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		fmt.Fprintln(os.Stderr, crashChild(step, n, dir))
		os.Exit(3) // it should not have lived so long
	}
	os.Exit(m.Run())
}

// crashChild commits until the step was reached for the nth time, and dies of SIGKILL there.
func crashChild(step string, n int, dir string) error {
	db, err := Open(dir, Options{MaxPerPack: 3, Log: discardLog(), Fail: func(s string) error {
		if s == step {
			if n--; n == 0 {
				return syscall.Kill(os.Getpid(), syscall.SIGKILL)
			}
		}
		return nil
	}})
	if err != nil {
		return err
	}
	old, err := db.Ref("refs/heads/main")
	if err != nil {
		return err
	}
	_, err = addCommit(db, old, 1, crashFiles("child"))
	return err
}

func crashFiles(what string) map[string][]byte {
	files := map[string][]byte{}
	for i := range 5 {
		files[fmt.Sprintf("f%d", i)] = fmt.Appendf(nil, "%s %d", what, i)
	}
	return files
}

// allSteps records the names of the steps that one run takes.
func allSteps(t *testing.T, run func(o Options)) []string {
	t.Helper()
	var steps []string
	run(Options{MaxPerPack: 3, Fail: func(s string) error {
		steps = append(steps, s)
		return nil
	}})
	return steps
}

func TestIndexPackCrashesAtEveryStep(t *testing.T) {
	t.Parallel()
	src, from := newRepo(t, Options{})
	tip := mustAdd(t, from, ID{}, 0, crashFiles("fetched"))
	pack, err := gitErr(src, nil, "pack-objects", "--all", "--stdout", "-q")
	check(t, err)
	fetch := func(db *DB) error {
		n, keep, err := db.ReceivePack(strings.NewReader(pack), 1<<20, Wanted{Tip: tip})
		if err == nil && n != 7 {
			err = fmt.Errorf("%d objects", n)
		}
		if err == nil {
			err = db.UpdateRef("refs/heads/main", ID{}, tip)
		}
		if err == nil {
			err = keep()
		}
		return err
	}
	steps := allSteps(t, func(o Options) {
		_, db := newRepo(t, o)
		check(t, fetch(db))
	})
	for i, step := range steps {
		dir, _ := newRepo(t, Options{})
		n := 0
		db := reopen(t, dir, Options{Fail: func(string) error {
			if n++; n == i+1 {
				return errCrash
			}
			return nil
		}})
		if err := fetch(db); !errors.Is(err, errCrash) {
			t.Fatalf("step %s: %v", step, err)
		}
		fsck(t, dir)
		db = reopen(t, dir, Options{})
		switch got, err := db.Ref("refs/heads/main"); {
		case errors.Is(err, ErrNoRef):
			if err := fetch(db); err != nil {
				t.Fatalf("after %s: %v", step, err)
			}
		case err != nil || got != tip:
			t.Fatalf("after %s: %s, %v", step, got, err)
		}
		git(t, dir, "gc", "-q", "--prune=now")
		fsck(t, dir)
		if _, err := db.Read(tip, Commit, 1<<20); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAbortLeavesNothing(t *testing.T) {
	dir, db := newRepo(t, Options{MaxPerPack: 3})
	for _, when := range []string{"written", "published", "referenced"} {
		w := newWriter(t, db)
		id := mustPutCommit(t, w, ID{}, 0, crashFiles(when))
		if when != "written" {
			check(t, w.Publish())
			if !db.Has(id) {
				t.Fatal("published objects are not seen")
			}
		}
		if when == "referenced" {
			check(t, db.UpdateRef("refs/heads/main", ID{}, id))
		}
		check(t, w.Abort())
		check(t, w.Abort())
		if _, err := w.Put(Blob, []byte("late")); !errors.Is(err, ErrClosed) {
			t.Fatalf("Put after Abort: %v", err)
		}
		left, err := filepath.Glob(filepath.Join(dir, "objects/pack/*"))
		if err != nil || (when == "written") != (len(left) == 0) || (when == "written") == db.Has(id) {
			t.Fatalf("%s: %v, %v", when, left, err)
		}
	}
	fsck(t, dir)
}

// What git repack left out because it saw it in our pack stays readable when the commit is taken back.
func TestAbortUnderRepack(t *testing.T) {
	dir, db := newRepo(t, Options{})
	files := crashFiles("shared")
	tip := mustAdd(t, db, ID{}, 0, files)
	w := publish(t, db, func(w *Writer) {
		mustPutCommit(t, w, tip, 1, files)
	})
	git(t, dir, "repack", "-adq")
	check(t, w.Abort())
	fsck(t, dir)
	for _, data := range files {
		if _, err := db.Read(hashOf(string(data)), Blob, 100); err != nil {
			t.Error(err)
		}
	}
}

func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("needs root to mount a small file system")
		return
	}
	mnt := filepath.Join(t.TempDir(), "small")
	check(t, os.Mkdir(mnt, 0o755))
	if err := syscall.Mount("tmpfs", mnt, "tmpfs", 0, "size=3m"); err != nil {
		t.Logf("no tmpfs here: %v", err)
		return
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(mnt, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	dir := filepath.Join(mnt, "cold.git")
	check(t, Init(dir, "main"))
	db := reopen(t, dir, Options{})
	tip := mustAdd(t, db, ID{}, 0, crashFiles("fits"))
	big := newSeeded(30).bytes(5<<20, false)
	for _, size := range []int{5 << 20, smallBlob} {
		w := newWriter(t, db)
		var err error
		for i := 0; err == nil && i < 10; i++ {
			_, err = w.PutStream(int64(size-i), bytes.NewReader(big[i:size]), nil)
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("full disk: %v", err)
		}
		check(t, w.Abort())
	}
	tip = mustAdd(t, db, tip, 1, crashFiles("fits too")) // there is room again
	fsck(t, dir)
	if got, err := db.Ref("refs/heads/main"); err != nil || got != tip {
		t.Fatal(got, err)
	}
}

func TestSamePackAgain(t *testing.T) {
	dir, db := newRepo(t, Options{})
	var sums []ID
	for range 3 {
		w := publish(t, db, func(w *Writer) { mustPut(t, w, Blob, []byte("the same")) })
		sums = append(sums, w.mu.packs[0].sum)
		check(t, w.Release())
	}
	if sums[0] == sums[1] || sums[1] == sums[2] || sums[0] == sums[2] {
		t.Fatalf("packs share a name: %v", sums)
	}
	fsck(t, dir)
	if packs, objects, _ := db.Stats(); packs != 3 || objects != 3 {
		t.Fatal(packs, objects)
	}
	id, _ := HashObject(Blob, []byte("the same"))
	if _, err := db.Read(id, Blob, 100); err != nil {
		t.Fatal(err)
	}
	var missing ID
	if _, err := db.Read(missing, Blob, 1); !errors.Is(err, cold.ErrMissing) {
		t.Fatal(err)
	}
}
