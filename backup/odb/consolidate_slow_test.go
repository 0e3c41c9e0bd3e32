//go:build slow

package odb

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// versions makes n commits of a directory of entries files, one of which changes each time, and of its metadata.
func versions(t testing.TB, db *DB, n, entries int) (tip ID, trees []ID) {
	t.Helper()
	list := make([]TreeEntry, entries)
	lines := make([]string, entries)
	line := func(i, v int) string {
		return fmt.Sprintf(`{"name":"file%06d","type":"file","mode":"0644","mtime":[%d,%d],"id":"%s"}`, i,
			1_700_000_000+v, i*7919%1_000_000_000, list[i].ID)
	}
	for i := range list {
		list[i] = TreeEntry{Mode: ModeFile, Name: fmt.Sprintf("file%06d", i), ID: hashOf("same")}
		lines[i] = line(i, 0)
	}
	for v := range n {
		w := publish(t, db, func(w *Writer) {
			i := v * 7919 % entries
			list[i].ID = mustPut(t, w, Blob, fmt.Appendf(nil, "%d", v))
			lines[i] = line(i, v)
			mustPut(t, w, Blob, []byte("same"))
			data, err := EncodeTree(list)
			check(t, err)
			dir := mustPut(t, w, Tree, data)
			meta := mustPut(t, w, Blob, []byte(strings.Join(lines, "\n")+"\n"))
			root, err := EncodeTree([]TreeEntry{{ModeTree, "dir", dir}, {ModeFile, "meta", meta}})
			check(t, err)
			trees = append(trees, dir, meta)
			who := Signature{Name: "e", Email: "e", When: time.Unix(1_700_000_000+int64(v), 0)}
			c := CommitData{Tree: mustPut(t, w, Tree, root), Author: who, Committer: who}
			if !tip.IsZero() {
				c.Parents = []ID{tip}
			}
			enc, err := EncodeCommit(c)
			check(t, err)
			tip = mustPut(t, w, Commit, enc)
		})
		old := ID{}
		if v > 0 {
			old, _ = db.Ref("refs/heads/main")
		}
		check(t, db.UpdateRef("refs/heads/main", old, tip))
		check(t, w.Release())
	}
	return tip, trees
}

func isLines(head []byte) bool { return bytes.HasPrefix(head, []byte(`{"name":"`)) }

// Versions of a big directory shrink to a fraction, with short chains, also when merged packs are merged again.
func TestShardsBecomeDeltas(t *testing.T) {
	t.Parallel()
	dir, db := newRepo(t, Options{Shard: isLines})
	_, ids := versions(t, db, 40, 3000)
	_, _, before := db.Stats()
	consolidate(t, db, 8)
	_, _, after := db.Stats()
	t.Logf("%d bytes became %d", before, after)
	if after > before/5 {
		t.Errorf("%d bytes became %d", before, after)
	}
	fsck(t, dir)
	depth := func() {
		t.Helper()
		idx := glob(t, filepath.Join(dir, "objects/pack/*.idx"))
		for _, path := range idx {
			for line := range strings.Lines(git(t, dir, "verify-pack", "-v", path)) {
				// id type size size-in-pack offset depth base
				if f := strings.Fields(line); len(f) == 7 && f[5] > "4" || len(f) == 7 && len(f[5]) > 1 {
					t.Fatal(line)
				}
			}
		}
	}
	depth()
	if n, err := readAll(db, ids); n != len(ids) {
		t.Fatal(err)
	}
	for range 3 {
		var more []ID
		old, err := db.Ref("refs/heads/main")
		check(t, err)
		check(t, db.DeleteRef("refs/heads/main", old))
		_, more = versions(t, db, 20, 3001)
		ids = append(ids, more...)
		if _, err := db.replace(t.Context(), mustPacks(t, db), nil, nil, nil); err != nil {
			t.Fatal(err)
		}
		depth()
	}
	if n, err := readAll(db, ids); n != len(ids) {
		t.Fatal(err)
	}
	fsck(t, dir)
}
