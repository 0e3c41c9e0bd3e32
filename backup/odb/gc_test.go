package odb

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"emberfs/integration/effort"
)

// maxMore bounds how many commits a test adds until everybody beside it has had a turn: a machine under load may need
// some.
const maxMore = 3000

// addCommitBesideGit is addCommit, repeated for as long as a reference is locked: on a busy machine, a git that works
// all the time may hold a lock for longer than lockPatience.
func addCommitBesideGit(db *DB, old ID, n int, files map[string][]byte) (id ID, err error) {
	for range 100 {
		if id, err = addCommit(db, old, n, files); !errors.Is(err, ErrLocked) {
			break
		}
	}
	return id, err
}

// wantBlob reads a blob that must be there after so many commits. On failure it says whether the blob is lost or was
// only not found.
func wantBlob(t *testing.T, dir string, db *DB, id ID, commits int) {
	t.Helper()
	_, err := db.Read(id, Blob, 100)
	if err == nil {
		return
	}
	_, again := db.Read(id, Blob, 100)
	_, stock := gitErr(dir, nil, "cat-file", "-e", id.String())
	t.Fatalf("after commit %d: %v; read again: %v; stock git: %v", commits, err, again, stock)
}

// TestCommitsUnderLoopingGC commits and reads while stock git repacks, prunes and reads the same repository in a loop.
func TestCommitsUnderLoopingGC(t *testing.T) {
	commits := effort.Count(t, 80, 2000)
	dir, db := newRepo(t, Options{})
	tip := mustAdd(t, db, ID{}, 0, crashFiles("0"))
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	stop := func() { // nobody is killed: what git leaves then is no repository
		cancel()
		wg.Wait()
	}
	defer stop()
	var mu sync.Mutex
	rounds := map[string]int{}
	loop := func(args ...string) {
		wg.Go(func() {
			for ctx.Err() == nil {
				c := exec.Command("git", args...)
				c.Dir = dir
				c.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null")
				out, err := c.CombinedOutput()
				// Two repacking processes get in each other's way; that is between them.
				if err != nil && ctx.Err() == nil && args[0] == "log" {
					t.Errorf("git %v: %v: %s", args, err, out)
				}
				mu.Lock()
				rounds[args[0]]++
				mu.Unlock()
			}
		})
	}
	loop("gc", "-q", "--prune=now")
	loop("repack", "-adq")
	loop("log", "--stat", "-5", "main")

	met := func() bool { // each command ran twice at least
		mu.Lock()
		defer mu.Unlock()
		return min(rounds["gc"], rounds["repack"], rounds["log"]) >= 2
	}
	var blobs []ID
	for i := 1; (i < commits || !met() && i < commits+maxMore) && !t.Failed(); i++ {
		files := crashFiles(fmt.Sprint(i / 3)) // most content is in earlier commits already
		files["new"] = fmt.Appendf(nil, "%d", i)
		var err error
		if tip, err = addCommitBesideGit(db, tip, i, files); err != nil {
			t.Fatalf("commit %d: %v", i, err)
		}
		blobs = append(blobs, hashOf(fmt.Sprint(i)))
		for _, id := range []ID{blobs[len(blobs)-1], blobs[len(blobs)/2], blobs[0]} {
			wantBlob(t, dir, db, id, i)
		}
		if db.Has(ID{1}) {
			t.Fatal("a missing object was found")
		}
	}
	stop()
	t.Log("rounds:", rounds)
	if !met() {
		t.Error("too few rounds")
	}
	fsck(t, dir)
	n := 0
	for id := tip; !id.IsZero(); n++ {
		data, err := db.Read(id, Commit, 1<<20)
		check(t, err)
		c, err := DecodeCommit(data)
		check(t, err)
		id = ID{}
		if len(c.Parents) > 0 {
			id = c.Parents[0]
		}
	}
	if n != len(blobs)+1 {
		t.Errorf("%d commits, want %d", n, len(blobs)+1)
	}
	for i, id := range blobs {
		if data, err := db.Read(id, Blob, 100); err != nil || string(data) != fmt.Sprint(i+1) {
			t.Errorf("content of commit %d: %q, %v", i+1, data, err)
		}
	}
}

func TestStreamSurvivesRepack(t *testing.T) {
	dir, db := newRepo(t, Options{})
	big := newSeeded(60).bytes(4<<20, false)
	tip := mustAdd(t, db, ID{}, 0, map[string][]byte{"big": big})
	id, err := HashObject(Blob, big)
	check(t, err)
	s, err := db.Stream(id)
	check(t, err)
	head := make([]byte, 1000)
	if _, err := s.Read(head); err != nil {
		t.Fatal(err)
	}
	mustAdd(t, db, tip, 1, map[string][]byte{"big": big, "small": []byte("x")})
	git(t, dir, "repack", "-adq")
	check(t, db.Refresh())
	if packs, _, _ := db.Stats(); packs != 1 {
		t.Fatalf("%d packs", packs)
	}
	if n := openFiles(t, dir, "deleted"); n == 0 {
		t.Error("the stream's pack was closed under it")
	}
	rest := make([]byte, len(big))
	n := 0
	for n < len(big)-1000 {
		k, err := s.Read(rest[n:])
		n += k
		check(t, err)
	}
	if !bytes.Equal(rest[:n], big[1000:]) {
		t.Error("content differs")
	}
	check(t, s.Close())
	if n := openFiles(t, dir, "deleted"); n != 0 {
		t.Errorf("%d removed files are still open", n)
	}
	check(t, db.Close())
	if n := openFiles(t, dir, ""); n != 0 {
		t.Errorf("%d files are open after Close", n)
	}
}

// openFiles counts the descriptors of this process below dir whose name has the word in it.
func openFiles(t *testing.T, dir, word string) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	check(t, err)
	n := 0
	for _, fd := range fds {
		name, err := os.Readlink(filepath.Join("/proc/self/fd", fd.Name()))
		if err == nil && strings.HasPrefix(name, dir) && strings.Contains(name, word) {
			n++
		}
	}
	return n
}

// TestReadersSurviveEveryRepack reads from many goroutines while packs come and go.
func TestReadersSurviveEveryRepack(t *testing.T) {
	dir, db := newRepo(t, Options{})
	tip, ids := ID{}, []ID{}
	for i := range 20 {
		tip = mustAdd(t, db, tip, i, map[string][]byte{"f": fmt.Appendf(nil, "%d", i)})
		ids = append(ids, hashOf(fmt.Sprint(i)))
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := g; ctx.Err() == nil; i++ {
				if _, err := db.Read(ids[i%len(ids)], Blob, 10); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 4 {
		for _, args := range [][]string{{"repack", "-adfq"}, {"-c", "pack.packSizeLimit=1", "repack", "-adq"},
			{"gc", "-q", "--prune=now"}} {
			if out, err := gitErr(dir, nil, args...); err != nil {
				t.Error(err, out)
			}
		}
		// And what gc --prune does to what is unreachable: out of its pack, into loose files.
		git(t, dir, "repack", "-Adq")
	}
	cancel()
	wg.Wait()
	if err := ctx.Err(); errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}
