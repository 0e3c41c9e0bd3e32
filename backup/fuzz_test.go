package backup

import (
	"fmt"
	"testing"
	"time"

	"emberfs/backup/coldtest"
	"emberfs/backup/format"
	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

// memStore is an object database in memory. What it is given need not be sound.
type memStore map[cold.ID]struct {
	kind odb.Type
	data []byte
}

func (m memStore) put(kind odb.Type, data []byte) cold.ID {
	id, err := odb.HashObject(kind, data)
	if err == nil {
		m[id] = struct {
			kind odb.Type
			data []byte
		}{kind, data}
	}
	return id
}

func (m memStore) Read(id cold.ID, want odb.Type, limit int64) ([]byte, error) {
	o, ok := m[id]
	switch {
	case !ok:
		return nil, fmt.Errorf("object %s: %w", id, cold.ErrMissing)
	case o.kind != want || int64(len(o.data)) > limit:
		return nil, fmt.Errorf("object %s: %w", id, cold.ErrCorrupt)
	}
	return o.data, nil
}

func (m memStore) Stat(id cold.ID) (odb.Type, int64, error) {
	o, ok := m[id]
	if !ok {
		return 0, 0, fmt.Errorf("object %s: %w", id, cold.ErrMissing)
	}
	return o.kind, int64(len(o.data)), nil
}

// goodLine is the metadata of one file.
const goodLine = `{"name":"a","type":"file","mode":"0644","uid":0,"gid":0,"mtime":[0,0],"size":1,"id":"4b825dc642cb6eb9a060e54bf8d69288fbee4904","git":"100644"}`

// Whatever a tree and its metadata are: the listing has names that a directory can hold, each once and sorted, all of
// them can be committed, and reading it does not fail.
func FuzzDirectory(f *testing.F) {
	good := rawTree("100644", "a", odb.EmptyTree, "40000", "d", odb.EmptyTree, "120000", "l", odb.EmptyTree)
	f.Add(good, []byte(`{"tree":"4b825dc642cb6eb9a060e54bf8d69288fbee4904"}`+"\n"+goodLine+"\n"))
	f.Add([]byte{}, []byte(`{"name":"p","type":"fifo","mode":"0644","uid":0,"gid":0,"mtime":[0,0],"link":"g"}`+"\n"))
	f.Fuzz(func(t *testing.T, tree, entries []byte) {
		db := memStore{}
		db.put(odb.Blob, []byte("x"))
		dir := cold.DirID{Tree: db.put(odb.Tree, tree)}
		meta := db.put(odb.Blob, entries)
		dir.Meta = db.put(odb.Tree, rawTree("100644", format.EntriesName, meta, "40000", "d", odb.EmptyTree))
		s := &Snapshot{db: db, info: cold.CommitInfo{Time: time.Unix(1, 0)}, own: format.OwnDir{Meta: dir.Meta},
			root: cold.Entry{ID: dir.Tree, Meta: dir.Meta}}
		l, err := s.ReadDir(t.Context(), dir)
		coldtest.Check(t, err)
		for i := range l.Entries {
			e := &l.Entries[i]
			if err := format.CheckEntry(e); err != nil {
				t.Fatalf("%+v: %v", e, err)
			}
			if i > 0 && l.Entries[i-1].Name >= e.Name {
				t.Fatalf("%q after %q", e.Name, l.Entries[i-1].Name)
			}
		}
		if len(l.Problems) > format.MaxProblems+1 {
			t.Fatalf("%d problems", len(l.Problems))
		}
	})
}

// FuzzTree: what can be salvaged of a tree is sound.
func FuzzTree(f *testing.F) {
	f.Add(rawTree("100644", "a", odb.EmptyTree, "40000", "a", odb.EmptyTree))
	f.Add(rawTree("100664", "a/b", odb.EmptyTree, "40000", "..", odb.EmptyTree))
	f.Fuzz(func(t *testing.T, data []byte) {
		var p format.Problems
		entries := format.SalvageTree(data, &p)
		if _, err := odb.EncodeTree(entries); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzChunks: whatever a tree of chunks and its description are, a file is listed with the size that reading it finds,
// reading it never goes beyond, and what we would write of it reads the same.
func FuzzChunks(f *testing.F) {
	blob := func(data string) cold.ID { return memStore{}.put(odb.Blob, []byte(data)) }
	a, b, info := blob("a"), blob(string(make([]byte, format.MinChunk))), []byte(`{"size":131073,"chunk":65536}`+"\n")
	at := blob(string(info))
	f.Add(rawTree("100644", format.ChunksName, at, "100644", "00000000", b, "100644", "00000001", b, "100644",
		"00000002", a), info)
	f.Add(rawTree("100644", format.ChunksName, at, "100644", "00000001", b), info)
	f.Add(rawTree("100644", format.ChunksName, at, "100644", "00000000", a, "100644", "00000003", b), info)
	f.Add(rawTree("100644", format.ChunksName, at, "100644", "00000000", a, "40000", "00000001", odb.EmptyTree), info)
	f.Add(rawTree("100755", format.ChunksName, at, "100644", "00000000", a, "100644", "00000000", a), info)
	f.Add(rawTree("100644", format.ChunksName, blob(`{"size":-1,"chunk":3}`)), []byte(`{"size":-1,"chunk":3}`))
	f.Fuzz(func(t *testing.T, tree, info []byte) {
		db := memStore{}
		db.put(odb.Blob, []byte("a"))
		db.put(odb.Blob, make([]byte, format.MinChunk))
		db.put(odb.Blob, info)
		id := db.put(odb.Tree, tree)
		c, err := format.LoadChunks(db, id)
		if err != nil {
			return
		}
		l, _, err := c.Measure(t.Context(), db)
		if err != nil {
			return
		}
		if at, ok := c.Plain(); ok && c.Regular(t.Context(), db) && at.Size != l.Size {
			t.Fatalf("%d bytes, measured %d", at.Size, l.Size)
		}
		end := int64(0)
		for i := range l.Refs {
			off, n := l.Part(i)
			if off < end || n < 0 || off+n > l.Size {
				t.Fatalf("chunk %d lies from %d to %d, behind %d and before %d", i, off, off+n, end, l.Size)
			}
			end = off + n
			if n > 0 && (l.From(off) > i || l.From(off+n) <= i) {
				t.Fatalf("chunk %d is not found at %d", i, off)
			}
		}
		data, err := c.Encode()
		coldtest.Check(t, err)
		again, err := format.LoadChunks(db, db.put(odb.Tree, data))
		if err != nil || again.Size != c.Size || again.Chunk != c.Chunk || len(again.Refs) != len(c.Refs) {
			t.Fatalf("%+v became %+v, %v", c, again, err)
		}
	})
}
