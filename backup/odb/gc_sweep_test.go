package odb

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"emberfs/tiers/cold"
)

const noGrace = -1

func gc(t testing.TB, db *DB, o cold.GCOptions) cold.GCReport {
	t.Helper()
	r, err := db.GC(t.Context(), o)
	check(t, err)
	return r
}

// garbage puts an object that nothing reaches into a pack of its own.
func garbage(t testing.TB, db *DB, text string) ID {
	t.Helper()
	var id ID
	check(t, publish(t, db, func(w *Writer) { id = mustPut(t, w, Blob, []byte(text)) }).Release())
	return id
}

func ageAll(t testing.TB, dir string, by time.Duration) {
	t.Helper()
	for _, pattern := range []string{"objects/pack/*", "objects/??/*"} {
		m := glob(t, filepath.Join(dir, pattern))
		for _, path := range m {
			age(t, path, by)
		}
	}
}

func TestGC(t *testing.T) {
	dir, db := newRepo(t, Options{})
	tip := commits(t, db, ID{}, 5)
	reachable := allObjects(t, dir)
	// A commit that was taken back, a branch that was replaced, and an object among reachable ones.
	w := publish(t, db, func(w *Writer) {
		mustPutCommit(t, w, tip, 77, map[string][]byte{"aborted": []byte("aborted")})
	})
	check(t, w.Abort())
	tip = mustAdd(t, db, tip, 78, map[string][]byte{"f": []byte("mixed")})
	dead := []ID{hashOf("aborted"), garbage(t, db, "garbage"), garbage(t, db, "more garbage")}
	if _, err := db.replace(t.Context(), mustPacks(t, db)[:3], nil, nil, nil); err != nil {
		t.Fatal(err)
	}
	loose := strings.TrimSpace(git(t, dir, "hash-object", "-w", "--stdin")) // the empty blob
	dead = append(dead, mustID(t, loose))
	all := allObjects(t, dir)

	if r := gc(t, db, cold.GCOptions{}); r.Objects != 0 || !slices.Equal(all, allObjects(t, dir)) {
		t.Fatalf("within the grace period: %+v", r)
	}
	ageAll(t, dir, time.Hour)
	if r := gc(t, db, cold.GCOptions{}); r.Objects != 0 {
		t.Fatalf("within the grace period: %+v", r)
	}
	packs := packCount(t, dir)
	dry := gc(t, db, cold.GCOptions{Grace: time.Minute, DryRun: true})
	if dry.Objects != 6 || dry.Bytes <= 0 || dry.Packs != 2 || packCount(t, dir) != packs ||
		!slices.Equal(all, allObjects(t, dir)) {
		t.Fatalf("%+v", dry)
	}
	r := gc(t, db, cold.GCOptions{Grace: time.Minute})
	if r.Objects != dry.Objects || r.Kept != dry.Kept || r.Busy || r.Bytes <= 0 ||
		max(r.Bytes-dry.Bytes, dry.Bytes-r.Bytes) > 2000 {
		t.Errorf("%+v, announced %+v", r, dry)
	}
	for _, id := range dead {
		if db.Has(id) {
			t.Errorf("%s is still there", id)
		}
	}
	if n, err := readAll(db, append(reachable, tip, hashOf("mixed"))); n != len(reachable)+2 {
		t.Error(err)
	}
	fsck(t, dir)
	leftovers(t, dir, "gc", db)
	if r := gc(t, db, cold.GCOptions{Grace: noGrace}); r.Objects != 0 {
		t.Errorf("once more: %+v", r)
	}
}

// What GC must find: everything that git would.
func TestGCRoots(t *testing.T) {
	dir, db := newRepo(t, Options{})
	commits(t, db, ID{}, 2)
	lone := func(what string) (commit, blob ID) {
		w := publish(t, db, func(w *Writer) {
			commit = mustPutCommit(t, w, ID{}, 5, map[string][]byte{"f": []byte(what)})
		})
		check(t, w.Release())
		return commit, hashOf(what)
	}
	var keep []ID
	point := func(what string, how func(commit ID)) {
		c, b := lone(what)
		how(c)
		keep = append(keep, c, b)
	}
	write := func(name, text string) {
		path := filepath.Join(dir, name)
		check(t, os.MkdirAll(filepath.Dir(path), 0o755))
		check(t, os.WriteFile(path, []byte(text), 0o644))
	}
	point("a packed branch", func(c ID) {
		git(t, dir, "update-ref", "refs/heads/packed", c.String())
		git(t, dir, "pack-refs", "--all")
	})
	point("a ref of ours", func(c ID) { git(t, dir, "update-ref", "refs/emberfs/remote/main", c.String()) })
	point("an annotated tag", func(c ID) { git(t, dir, "tag", "-a", "-m", "tag", "v1", c.String()) })
	point("HEAD", func(c ID) { write("HEAD", c.String()+"\n") })
	point("FETCH_HEAD", func(c ID) { write("FETCH_HEAD", c.String()+"\t\tbranch 'x' of y\n") })
	point("reflog", func(c ID) { write("logs/refs/heads/main", ID{}.String()+" "+c.String()+" e <e> 1 +0000\tmove\n") })
	// It is named like git's list of files, and is none.
	point("the reflog of a branch named index", func(c ID) {
		write("logs/refs/heads/index", ID{}.String()+" "+c.String()+" e <e> 1 +0000\tmove\n")
	})
	point("a work tree", func(c ID) { write("worktrees/w/HEAD", c.String()+"\n") })
	point("protected", func(c ID) { t.Cleanup(db.Protect(c)) })
	for _, at := range []string{"worktrees/w/index", "index"} { // of their commits they name the tree alone
		c, b := lone(at)
		git(t, dir, "read-tree", c.String())
		keep = append(keep, b)
		if at != "index" {
			text := readFile(t, filepath.Join(dir, "index"))
			write(at, string(text))
		}
	}
	young, youngBlob := lone("young")
	kept, keptBlob := lone("kept")
	l := mustPacks(t, db)
	write("objects/pack/"+l[0].name()+".keep", "")
	// Its tree is in an older pack: what the young one reaches stays too.
	db2w := publish(t, db, func(w *Writer) {
		data, err := db.Read(young, Commit, 1000)
		check(t, err)
		c, err := DecodeCommit(data)
		check(t, err)
		c.Message = "young too\n"
		enc, err := EncodeCommit(c)
		check(t, err)
		keep = append(keep, mustPut(t, w, Commit, enc))
	})
	check(t, db2w.Release())
	ageAll(t, dir, time.Hour)
	age(t, db2w.mu.packs[0].final+".pack", 0)
	keep = append(keep, youngBlob, kept, keptBlob)
	dead := garbage(t, db, "dead")
	age(t, mustPacks(t, db)[0].base+".pack", time.Hour)
	r := gc(t, db, cold.GCOptions{Grace: time.Minute})
	if r.Objects != 4 || db.Has(dead) || db.Has(young) { // and the commit young itself
		t.Errorf("%+v", r)
	}
	if n, err := readAll(db, keep); n != len(keep) {
		t.Error(err)
	}
}

func TestGCRefuses(t *testing.T) {
	for what, damage := range map[string]func(t *testing.T, dir string, tip ID){
		"missing blob": func(t *testing.T, dir string, _ ID) {
			remove(t, filepath.Join(dir, "objects", looseName(hashOf("loose"))))
		},
		"damaged tree": func(t *testing.T, dir string, _ ID) {
			path := filepath.Join(dir, "objects",
				looseName(mustID(t, strings.TrimSpace(git(t, dir, "rev-parse", "main^{tree}")))))
			change(t, path, func(b []byte) []byte { b[len(b)-6]++; return b })
		},
		"a ref that cannot be read": func(t *testing.T, dir string, _ ID) {
			check(t, os.WriteFile(filepath.Join(dir, "refs/heads/odd"), []byte("nonsense\n"), 0o644))
		},
		"a ref to nothing": func(t *testing.T, dir string, _ ID) {
			check(t, os.WriteFile(filepath.Join(dir, "refs/heads/gone"), []byte(strings.Repeat("1", 40)+"\n"), 0o644))
		},
	} {
		t.Run(what, func(t *testing.T) {
			dir, db := newRepo(t, Options{})
			tip := mustAdd(t, db, ID{}, 0, map[string][]byte{"loose": []byte("loose"), "other": []byte("other")})
			// As loose objects, which are easy to damage.
			pack := mustPacks(t, db)[0].base
			data := readFile(t, pack+".pack")
			remove(t, pack+".idx")
			remove(t, pack+".pack")
			if _, err := gitErr(dir, data, "unpack-objects", "-q"); err != nil {
				t.Fatal(err)
			}
			dead := garbage(t, db, "dead")
			ageAll(t, dir, time.Hour)
			damage(t, dir, tip)
			r, err := db.GC(t.Context(), cold.GCOptions{Grace: time.Minute})
			if !errors.Is(err, cold.ErrMissing) && !errors.Is(err, cold.ErrCorrupt) || r.Objects != 0 || !db.Has(dead) {
				t.Errorf("%+v, %v", r, err)
			}
		})
	}
}

func looseName(id ID) string { return filepath.Join(id.String()[:2], id.String()[2:]) }

// A reference that moves to what is about to go keeps it; so does Protect. What else was to go is looked at again and
// goes, unless that happens each time.
func TestGCIsOvertaken(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"reference", "protect", "freshened", "always"} {
		var db *DB
		var dead ID
		var dir string
		var more []ID
		checks := 0
		dir, db = newRepo(t, Options{Fail: func(step string) error {
			if step != "gc.check" || dead.IsZero() {
				return nil
			}
			checks++
			switch way {
			case "reference":
				if err := os.WriteFile(filepath.Join(dir, "refs/heads/again"), []byte(dead.String()+"\n"),
					0o644); err != nil {
					t.Error(err)
				}
			case "protect":
				db.Protect(dead)
			case "freshened":
				ageAll(t, dir, 0)
			case "always":
				if err := os.WriteFile(filepath.Join(dir, "refs/tags", fmt.Sprint("again", checks)),
					[]byte(more[checks%len(more)].String()+"\n"), 0o644); err != nil {
					t.Error(err)
				}
			}
			return nil
		}})
		tip := commits(t, db, ID{}, 2)
		w := publish(t, db, func(w *Writer) {
			dead = mustPutCommit(t, w, tip, 9, map[string][]byte{"f": []byte("dead")})
		})
		check(t, w.Release())
		unused := garbage(t, db, "garbage")
		for i := range 20 {
			more = append(more, garbage(t, db, fmt.Sprint("more", i)))
		}
		ageAll(t, dir, time.Hour)
		r := gc(t, db, cold.GCOptions{Grace: time.Minute})
		switch left := db.Has(unused); way {
		case "always":
			if !r.Busy || !left || checks < 2*gcTries {
				t.Errorf("%s: %+v, %v, %d looks", way, r, left, checks)
			}
		case "freshened": // young again, and so in the grace period
			if r.Busy || !left {
				t.Errorf("%s: %+v, %v", way, r, left)
			}
		default:
			if r.Busy || left || r.Objects == 0 {
				t.Errorf("%s: %+v, %v", way, r, left)
			}
		}
		for _, id := range []ID{dead, hashOf("dead"), tip} {
			if _, err := db.Read(id, 0, 1000); err != nil {
				t.Errorf("%s: %v", way, err)
			}
		}
		fsck(t, dir)
	}
}

// Packs of git, with deltas whose bases are dead, in a shallow repository.
func TestGCPacksOfGit(t *testing.T) {
	dir, ids := deltaRepo(t, false)
	git(t, dir, "update-ref", "refs/heads/other", "main~4")
	git(t, dir, "symbolic-ref", "HEAD", "refs/heads/other")
	git(t, dir, "update-ref", "-d", "refs/heads/main")
	parent := strings.TrimSpace(git(t, dir, "rev-parse", "other~3"))
	check(t, os.WriteFile(filepath.Join(dir, "shallow"), []byte(parent+"\n"), 0o644))
	ageAll(t, dir, time.Hour)
	want := len(strings.Fields(git(t, dir, "rev-list", "--objects", "--no-object-names", "--all")))
	db := reopen(t, dir, Options{})
	r := gc(t, db, cold.GCOptions{Grace: time.Minute})
	if got := len(allObjects(t, dir)); got != want || int(r.Objects) != len(ids)-want {
		t.Errorf("%d objects left, want %d: %+v", got, want, r)
	}
	fsck(t, dir)
	checkAll(t, dir, db)
}

// TestGCBesideCommits collects without any grace while commits are made, some of which are taken back.
func TestGCBesideCommits(t *testing.T) {
	dir, db := newRepo(t, Options{})
	tip := commits(t, db, ID{}, 3)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	rounds, freed := 0, int64(0)
	wg.Go(func() {
		for ctx.Err() == nil {
			r, err := db.GC(ctx, cold.GCOptions{Grace: noGrace})
			if err != nil && ctx.Err() == nil {
				t.Error(err)
				return
			}
			rounds++
			freed += r.Objects
			if _, err := db.Consolidate(ctx, ConsolidateOptions{Limit: 3}); err != nil && ctx.Err() == nil {
				t.Error(err)
				return
			}
		}
	})
	for i := range 60 {
		release := db.Protect(tip)
		w := newWriter(t, db)
		mustPutCommit(t, w, tip, 1000+i, map[string][]byte{"f": fmt.Appendf(nil, "aborted %d", i)})
		check(t, errors.Join(w.Publish(), w.Abort()))
		tip = mustAdd(t, db, tip, i, crashFiles(fmt.Sprint(i)))
		release()
		if t.Failed() {
			break
		}
	}
	cancel()
	wg.Wait()
	t.Logf("%d rounds, %d objects freed", rounds, freed)
	if rounds < 3 || freed == 0 {
		t.Errorf("%d rounds, %d objects", rounds, freed)
	}
	fsck(t, dir)
	gc(t, db, cold.GCOptions{Grace: noGrace})
	if n := strings.Count(git(t, dir, "log", "--format=%H", "main"), "\n"); n != 63 {
		t.Errorf("%d commits", n)
	}
}
