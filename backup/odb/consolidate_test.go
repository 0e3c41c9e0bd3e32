package odb

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"emberfs/integration/effort"
	"emberfs/tiers/cold"
)

// commits makes n commits, each in a pack of its own.
func commits(t testing.TB, db *DB, tip ID, n int) ID {
	t.Helper()
	for i := range n {
		files := crashFiles(fmt.Sprint(i / 3))
		files["new"] = fmt.Appendf(nil, "new %d %v", i, tip)
		tip = mustAdd(t, db, tip, i, files)
	}
	return tip
}

// allObjects lists what git sees.
func allObjects(t testing.TB, dir string) []ID {
	t.Helper()
	var ids []ID
	for _, line := range strings.Fields(git(t, dir, "cat-file", "--batch-all-objects", "--batch-check=%(objectname)")) {
		ids = append(ids, mustID(t, line))
	}
	return ids
}

func packCount(t testing.TB, dir string) int {
	t.Helper()
	m := glob(t, filepath.Join(dir, "objects/pack/pack-*.pack"))
	return len(m)
}

func consolidate(t testing.TB, db *DB, limit int) int {
	t.Helper()
	n, err := db.Consolidate(t.Context(), ConsolidateOptions{Limit: limit})
	check(t, err)
	return n
}

func TestConsolidate(t *testing.T) {
	dir, db := newRepo(t, Options{})
	tip := commits(t, db, ID{}, 33)
	// An object that nothing reaches, and one in two packs, stay as well.
	for range 2 {
		check(t, publish(t, db, func(w *Writer) { mustPut(t, w, Blob, []byte("nobody's")) }).Release())
	}
	before := allObjects(t, dir)
	if n := consolidate(t, db, 40); n != 0 || packCount(t, dir) != 35 {
		t.Fatal(n, packCount(t, dir))
	}
	stream, err := db.Stream(hashOf("nobody's"))
	check(t, err)
	if n := consolidate(t, db, 0); n < 30 || packCount(t, dir) > 6 {
		t.Fatal(n, packCount(t, dir))
	}
	if b, err := io.ReadAll(stream); err != nil || string(b) != "nobody's" {
		t.Error(err)
	}
	if err := stream.Close(); err != nil {
		t.Error(err)
	}
	fsck(t, dir)
	if !slices.Equal(before, allObjects(t, dir)) || checkAll(t, dir, db) != len(before) {
		t.Error("the objects are not the same")
	}
	if n := openFiles(t, dir, "deleted"); n != 0 {
		t.Errorf("%d removed files are open", n)
	}
	leftovers(t, dir, "consolidate", db)
	// Many small packs beside a big one: the big one stays.
	tip = commits(t, db, tip, 3)
	consolidate(t, db, 1)
	big := slices.MaxFunc(mustPacks(t, db), func(a, b *pack) int { return int(a.size - b.size) }).base
	commits(t, db, tip, 4)
	consolidate(t, db, 2)
	if _, err := os.Stat(big + ".pack"); err != nil {
		t.Error(err)
	}
	fsck(t, dir)
}

func mustPacks(t testing.TB, db *DB) []*pack {
	t.Helper()
	l, err := db.acquire()
	check(t, err)
	defer db.release(l)
	return l.packs
}

func TestGeometric(t *testing.T) {
	for _, c := range []struct{ sizes, want []int64 }{
		{[]int64{100, 100}, []int64{100, 100}},
		{[]int64{100, 200, 400}, nil},
		{[]int64{400, 100, 200}, nil},
		{[]int64{10, 10, 10, 10, 1000}, []int64{10, 10, 10, 10}},
		{[]int64{10, 10, 10, 10, 70}, []int64{10, 10, 10, 10, 70}},
		{[]int64{1, 2, 4, 4, 100}, []int64{1, 2, 4, 4}},
		{[]int64{5}, nil},
	} {
		var packs []*pack
		for _, s := range c.sizes {
			packs = append(packs, &pack{size: s})
		}
		var got []int64
		for _, p := range geometric(packs) {
			got = append(got, p.size)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%v: %v, want %v", c.sizes, got, c.want)
		}
	}
}

// Packs of git hold deltas of both kinds, and an object can be a delta in one pack and the base of it in another.
func TestConsolidatePacksOfGit(t *testing.T) {
	t.Parallel()
	for _, refDeltas := range []bool{false, true} {
		dir, _ := deltaRepo(t, refDeltas)
		db := reopen(t, dir, Options{})
		tip, err := db.Ref("refs/heads/main")
		check(t, err)
		// The same objects again, the other way round: those from git were deltas of each other.
		src := mustPacks(t, db)[0]
		w := publish(t, db, func(w *Writer) {
			for i := range src.idx.count {
				if i%3 == 0 {
					typ, data, err := db.ReadAny(src.idx.id(i), 0, 1<<20)
					check(t, err)
					mustPut(t, w, typ, data)
				}
			}
		})
		check(t, w.Release())
		commits(t, db, tip, 3)
		git(t, dir, "repack", "-q") // what was new, as deltas
		before := allObjects(t, dir)
		check(t, db.Refresh())
		for _, p := range mustPacks(t, db) { // into one pack, whatever their sizes
			age(t, p.base+".pack", time.Hour)
		}
		packs := mustPacks(t, db)
		if _, err := db.replace(t.Context(), packs, nil, nil, nil); err != nil {
			t.Fatal(err)
		}
		if n := packCount(t, dir); n != 1 {
			t.Errorf("%d packs", n)
		}
		st, err := os.Stat(onlyFile(t, filepath.Join(dir, "objects/pack/*.pack")))
		if err != nil || time.Since(st.ModTime()) < time.Minute {
			t.Errorf("the merged pack is young: %v", err)
		}
		fsck(t, dir)
		if checkAll(t, dir, db) != len(before) {
			t.Error("objects are missing")
		}
		deltas := strings.Count(git(t, dir, "verify-pack", "-v", onlyFile(t, filepath.Join(dir, "objects/pack/*.idx"))),
			"chain length =")
		if deltas == 0 {
			t.Error("no deltas were taken over")
		}
	}
}

func TestConsolidateLeavesAlone(t *testing.T) {
	dir, db := newRepo(t, Options{})
	commits(t, db, ID{}, 8)
	packs := mustPacks(t, db)
	for i, ext := range []string{".keep", ".promisor", ".mtimes"} {
		check(t, os.WriteFile(packs[i].base+ext, nil, 0o644))
	}
	w := publish(t, db, func(w *Writer) { mustPut(t, w, Blob, []byte("a commit under way")) })
	if n := consolidate(t, db, 4); n != 5 {
		t.Errorf("merged %d", n)
	}
	for i := range 3 {
		if _, err := os.Stat(packs[i].base + ".idx"); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(w.mu.packs[0].final + ".pack"); err != nil {
		t.Error(err)
	}
	remove(t, packs[2].base+".mtimes") // which is no true one
	fsck(t, dir)
}

// A damaged entry is taken from another pack; where there is none its pack stays and the others are merged.
func TestConsolidateDamage(t *testing.T) {
	dir, db := newRepo(t, Options{})
	commits(t, db, ID{}, 5)
	only := publish(t, db, func(w *Writer) { mustPut(t, w, Blob, []byte("only here")) })
	twice := publish(t, db, func(w *Writer) { mustPut(t, w, Blob, []byte("twice")) })
	again := publish(t, db, func(w *Writer) { mustPut(t, w, Blob, []byte("twice")) })
	for _, w := range []*Writer{only, twice, again} {
		check(t, w.Release())
	}
	for _, w := range []*Writer{only, again} {
		change(t, w.mu.packs[0].final+".pack", func(b []byte) []byte { b[len(b)-hashSize-7]++; return b })
	}
	check(t, db.Close())
	db = reopen(t, dir, Options{})
	if n, err := db.Consolidate(t.Context(), ConsolidateOptions{Limit: 2}); !errors.Is(err, cold.ErrCorrupt) ||
		n != 0 || packCount(t, dir) != 8 {
		t.Fatal(n, err, packCount(t, dir))
	}
	leftovers(t, dir, "damage")
	if n := consolidate(t, db, 2); n != 7 || packCount(t, dir) != 2 {
		t.Fatal(n, packCount(t, dir))
	}
	if _, err := db.Read(hashOf("twice"), Blob, 10); err != nil {
		t.Error(err)
	}
	if _, err := db.Read(hashOf("only here"), Blob, 10); !errors.Is(err, cold.ErrCorrupt) {
		t.Error(err)
	}
}

func TestConsolidateIsCancelled(t *testing.T) {
	dir, db := newRepo(t, Options{})
	commits(t, db, ID{}, 8)
	before := packCount(t, dir)
	for _, step := range []string{"consolidate.merge", "publish.seal"} {
		ctx, cancel := context.WithCancel(t.Context())
		db.opt.Fail = func(s string) error {
			if s == step {
				cancel()
			}
			return nil
		}
		if _, err := db.Consolidate(ctx, ConsolidateOptions{Limit: 2}); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		leftovers(t, dir, step, db)
		if packCount(t, dir) != before {
			t.Error("packs came or went")
		}
	}
	db.opt.Fail = nil
	fsck(t, dir)
}

// TestConsolidateUnderLoopingGC commits, merges and reads while stock git repacks and prunes the same repository in a
// loop.
func TestConsolidateUnderLoopingGC(t *testing.T) {
	count := effort.Count(t, 50, 2000)
	dir, db := newRepo(t, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer func() {
		cancel()
		wg.Wait()
	}()
	var mu sync.Mutex
	rounds := map[string]int{}
	loop := func(name string, do func() error) {
		wg.Go(func() {
			for ctx.Err() == nil {
				if err := do(); err != nil && ctx.Err() == nil {
					t.Error(name, err)
					return
				}
				mu.Lock()
				rounds[name]++
				mu.Unlock()
			}
		})
	}
	// One stock git at a time, in turn with the others. Two that repack at once lose objects between them where a pack
	// with .keep comes and goes, as it does while packs are merged: the first leaves out what that has, and when it is
	// about to remove the pack from before, the second, which saw no .keep, has just made that very pack again, and
	// removed the first one's.
	var one sync.Mutex
	stock := func(args ...string) func() error {
		return func() error {
			one.Lock()
			defer one.Unlock()
			c := exec.Command("git", args...) // killed, it would leave its children at work
			c.Dir = dir
			c.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null")
			_ = c.Run() // git and the merging get in each other's way
			return nil
		}
	}
	tip := commits(t, db, ID{}, 1)
	loop("gc", stock("gc", "-q", "--prune=now"))
	loop("repack", stock("repack", "-adq"))
	loop("consolidate", func() error {
		_, err := db.Consolidate(ctx, ConsolidateOptions{Limit: 1})
		if errors.Is(err, os.ErrNotExist) {
			return nil // git was faster
		}
		return err
	})
	met := func() bool { // everybody was at work twice at least
		mu.Lock()
		defer mu.Unlock()
		return min(rounds["gc"], rounds["repack"], rounds["consolidate"]) >= 2
	}
	var blobs []ID
	for i := 0; i < count || !met() && i < count+maxMore; i++ {
		var err error
		files := crashFiles(fmt.Sprint(i / 3))
		files["new"] = fmt.Appendf(nil, "%d", i)
		if tip, err = addCommitBesideGit(db, tip, i, files); err != nil {
			t.Fatalf("commit %d: %v", i, err)
		}
		blobs = append(blobs, hashOf(fmt.Sprint(i)))
		for _, id := range []ID{blobs[len(blobs)-1], blobs[len(blobs)/2], blobs[0]} {
			wantBlob(t, dir, db, id, i)
		}
		if t.Failed() {
			break
		}
	}
	cancel()
	wg.Wait()
	t.Log("rounds:", rounds)
	if !met() {
		t.Error("too few rounds")
	}
	fsck(t, dir)
	if n, err := readAll(db, blobs); n != len(blobs) {
		t.Error(err)
	}
	leftovers(t, dir, "loop", db)
}
