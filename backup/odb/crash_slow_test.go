//go:build slow

package odb

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"emberfs/integration/effort"
	"emberfs/tiers/cold"
)

// everyStep runs once without a fault, and then again for each step that was taken, which ends by a crash or by an
// error of the disk. The suite uses the three kinds in turn, because after each run git fsck runs several times; the
// soak tries all three at each step. run returns the repository, in which nothing may be left over.
func everyStep(t *testing.T, run func(fail func(step string) error) (dir string)) []string {
	t.Helper()
	var steps []string
	run(func(s string) error {
		steps = append(steps, s)
		return nil
	})
	if len(steps) == 0 {
		t.Fatal("no steps")
	}
	faults := []error{errCrash, syscall.EIO, syscall.ENOSPC}
	for i, step := range steps {
		try := faults[i%3 : i%3+1]
		if effort.Soaking() {
			try = faults
		}
		for _, fault := range try {
			n := 0
			dir := run(func(string) error {
				if n++; n == i+1 {
					return fault
				}
				return nil
			})
			if n <= i {
				t.Errorf("step %d %s was not reached", i, step)
			}
			leftovers(t, dir, fmt.Sprintf("%v at %d %s", fault, i, step))
		}
	}
	return steps
}

func TestCommitCrashesAtEveryStep(t *testing.T) {
	t.Parallel()
	steps := allSteps(t, func(o Options) {
		_, db := newRepo(t, o)
		mustAdd(t, db, ID{}, 0, crashFiles("a"))
	})
	if len(steps) < 15 {
		t.Fatalf("only %v", steps)
	}
	dir, db := newRepo(t, Options{})
	tip := mustAdd(t, db, ID{}, 0, crashFiles("first"))
	seen := map[string]int{}
	for i, step := range steps {
		seen[step]++
		// Simulated in this process: the step ends everything, and Open finds what a killed process would leave.
		n := 0
		crashing := reopen(t, dir, Options{MaxPerPack: 3, Fail: func(string) error {
			if n++; n == i+1 {
				return errCrash
			}
			return nil
		}})
		if _, err := addCommit(crashing, tip, i, crashFiles(fmt.Sprint("c", i))); !errors.Is(err, errCrash) {
			t.Fatalf("step %d %s: %v", i, step, err)
		}
		tip = afterCrash(t, dir, tip, fmt.Sprintf("%d %s", i, step))

		// And with a process that is really killed.
		c := exec.Command(os.Args[0], "-test.run=^$")
		c.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d %s", crashEnv, step, seen[step], dir))
		out, err := c.CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("killed at %d %s: %v, %s", i, step, err, out)
		}
		tip = afterCrash(t, dir, tip, fmt.Sprintf("killed at %d %s", i, step))
	}
}

// afterCrash reopens the repository, which must be whole at the old tip or at one commit more, and goes on.
func afterCrash(t *testing.T, dir string, old ID, what string) ID {
	t.Helper()
	for line := range strings.Lines(git(t, dir, "fsck", "--strict", "--full", "--no-dangling")) {
		t.Fatalf("%s: git fsck says: %s", what, line)
	}
	db := reopen(t, dir, Options{})
	if faults, err := db.CheckPacks(t.Context()); err != nil || len(faults) > 0 {
		t.Fatalf("%s: after the next start %+v, %v", what, faults, err)
	}
	tip, err := db.Ref("refs/heads/main")
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if tip != old {
		data, err := db.Read(tip, Commit, 1<<20)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if c, err := DecodeCommit(data); err != nil || len(c.Parents) != 1 || c.Parents[0] != old {
			t.Fatalf("%s: the tip is %s, %v", what, tip, err)
		}
	}
	leftovers(t, dir, what)
	if tip, err = addCommit(db, tip, 99, crashFiles("after "+what)); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	git(t, dir, "gc", "-q", "--prune=now")
	fsck(t, dir)
	return tip
}

// TestMendingCrashesAtEveryStep ends Open at each step of a rebuild and of a salvage, by a crash and by an error of the
// disk.
func TestMendingCrashesAtEveryStep(t *testing.T) {
	t.Parallel()
	for what, damage := range map[string]func(t *testing.T, path string){
		"index": func(t *testing.T, path string) { remove(t, strings.TrimSuffix(path, ".pack")+".idx") },
		"pack": func(t *testing.T, path string) {
			change(t, path, func(b []byte) []byte { b[len(b)-1]++; return b })
		},
	} {
		everyStep(t, func(fail func(string) error) string {
			dir, good, bad, path := salvageRepo(t)
			damage(t, path)
			db := reopen(t, dir, Options{Fail: fail})
			if n, err := readAll(db, good); n != len(good) {
				t.Fatal(err)
			}
			check(t, db.Close())
			db = reopen(t, dir, Options{})
			if n, err := readAll(db, append(good, bad...)); n != len(good)+len(bad) {
				t.Fatalf("%s: %v", what, err)
			}
			fsck(t, dir)
			return dir
		})
	}
}

func TestConsolidateCrashesAtEveryStep(t *testing.T) {
	t.Parallel()
	steps := everyStep(t, func(fail func(string) error) string {
		dir, db := newRepo(t, Options{})
		tip := commits(t, db, ID{}, 4)
		before := allObjects(t, dir)
		git(t, dir, "multi-pack-index", "write")
		check(t, db.Close())
		db = reopen(t, dir, Options{Fail: fail})
		n, err := db.Consolidate(t.Context(), ConsolidateOptions{Limit: 1})
		if (n > 0) != (err == nil) {
			t.Fatal(n, err)
		}
		if err != nil && !crashed(err) && !strings.Contains(err.Error(), "release.keep") {
			leftovers(t, dir, err.Error())
		}
		fsck(t, dir)
		check(t, db.Close())
		db = reopen(t, dir, Options{})
		if !slices.Equal(before, allObjects(t, dir)) || checkAll(t, dir, db) != len(before) {
			t.Fatal(err, "the objects are not the same")
		}
		// And the next one does the rest.
		commits(t, db, tip, 2)
		consolidate(t, db, 1)
		fsck(t, dir)
		check(t, db.Close())
		reopen(t, dir, Options{})
		return dir
	})
	for _, s := range Steps {
		if strings.HasPrefix(s, "consolidate.") && !slices.Contains(steps, s) {
			t.Errorf("%s is not taken", s)
		}
	}
}

func TestGCCrashesAtEveryStep(t *testing.T) {
	t.Parallel()
	steps := everyStep(t, func(fail func(string) error) string {
		dir, db := newRepo(t, Options{})
		tip := commits(t, db, ID{}, 2)
		garbage(t, db, "mixed")
		if _, err := db.replace(t.Context(), mustPacks(t, db)[:2], nil, nil, nil); err != nil {
			t.Fatal(err)
		}
		garbage(t, db, "alone")
		git(t, dir, "hash-object", "-w", "--stdin")
		ageAll(t, dir, time.Hour)
		check(t, db.Close())
		db = reopen(t, dir, Options{Fail: fail})
		_, err := db.GC(t.Context(), cold.GCOptions{Grace: time.Minute})
		if err != nil && !crashed(err) && !strings.Contains(err.Error(), "release.keep") {
			leftovers(t, dir, err.Error())
		}
		fsck(t, dir)
		check(t, db.Close())
		db = reopen(t, dir, Options{})
		ageAll(t, dir, time.Hour)
		gc(t, db, cold.GCOptions{Grace: time.Minute})
		if db.Has(hashOf("mixed")) || db.Has(hashOf("alone")) || db.Has(hashOf("")) {
			t.Fatal(err, "garbage is left")
		}
		fsck(t, dir)
		if _, err := db.Read(tip, Commit, 1000); err != nil {
			t.Fatal(err)
		}
		return dir
	})
	for _, s := range Steps {
		if strings.HasPrefix(s, "gc.") && !slices.Contains(steps, s) {
			t.Errorf("%s is not taken", s)
		}
	}
}

// A crash or an error at any step: the next Open tidies up, and the next Link goes through.
func TestLinkCrashesAtEveryStep(t *testing.T) {
	t.Parallel()
	src, tip := newLinkable(t)
	before := snapshotOf(t, src)
	steps := everyStep(t, func(fail func(string) error) string {
		dir, plain := newRepo(t, Options{})
		check(t, plain.Close())
		db, err := Open(dir, Options{Fail: fail, Log: discardLog()})
		check(t, err)
		release, err := db.Link(t.Context(), src, tip)
		if err == nil {
			err = db.UpdateRef("refs/heads/main", ID{}, tip)
		}
		if err == nil {
			err = release()
		}
		if err == nil {
			_, err = db.VerifyLinked(t.Context(), 0)
		}
		check(t, db.Close())
		again := reopen(t, dir, Options{})
		if _, rerr := again.Ref("refs/heads/main"); errors.Is(rerr, ErrNoRef) {
			if err == nil {
				t.Error("no reference")
			}
			mustLink(t, again, src, tip)
		}
		if _, err := again.VerifyLinked(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		checkAll(t, dir, again)
		fsck(t, dir)
		if keeps := glob(t, filepath.Join(dir, "objects/pack/*.keep")); len(keeps) > 0 {
			t.Errorf("kept: %q", keeps)
		}
		check(t, again.Close())
		return dir
	})
	for _, want := range []string{"link.look", "link.pack", "link.index", "link.loose", "publish.rename-index",
		"verify.read", "verify.release"} {
		if !slices.Contains(steps, want) {
			t.Errorf("%s was not passed", want)
		}
	}
	if after := snapshotOf(t, src); after != before {
		t.Error("the remote's files changed")
	}
}
