package odb

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"testing"

	"emberfs/tiers"
)

func TestPutStream(t *testing.T) {
	dir, db := newRepo(t, Options{})
	w, err := db.NewWriter()
	if err != nil {
		t.Fatal(err)
	}
	rnd := newSeeded(4)
	want := map[ID][]byte{}
	for _, size := range []int{0, 10, smallBlob - 1, smallBlob, smallBlob + 1, 2 * smallBlob} {
		data := rnd.bytes(size, true)
		for _, wrong := range []int64{int64(size) - 1, int64(size) + 1, int64(size) + packBuffer} {
			if wrong >= 0 {
				if _, err := w.PutStream(wrong, bytes.NewReader(data), nil); !errors.Is(err, tiers.ErrSizeChanged) {
					t.Fatalf("%d bytes as %d: %v", size, wrong, err)
				}
			}
		}
		asked := ID{}
		dropped, err := w.PutStream(int64(size), bytes.NewReader(data), func(id ID) bool { asked = id; return true })
		if err != nil || asked != dropped || w.Has(dropped) {
			t.Fatalf("dropped %d bytes: %v", size, err)
		}
		broken := io.MultiReader(bytes.NewReader(data[:size/2]), &failing{})
		if _, err := w.PutStream(int64(size), broken, nil); !errors.Is(err, errBroken) {
			t.Fatalf("broken reader: %v", err)
		}
		id, err := w.PutStream(int64(size), bytes.NewReader(data), func(ID) bool { return false })
		if err != nil || id != dropped {
			t.Fatal(id, err)
		}
		want[id] = data
	}
	if err := w.Publish(); err != nil {
		t.Fatal(err)
	}
	for id, data := range want {
		if got, err := db.Read(id, Blob, 1<<30); err != nil || !bytes.Equal(got, data) {
			t.Fatal(err)
		}
	}
	fsck(t, dir)
	if n := checkAll(t, dir, db); n != len(want) {
		t.Fatalf("%d objects, want %d", n, len(want))
	}
}

type failing struct{}

var errBroken = errors.New("the disk is on fire")

func (*failing) Read([]byte) (int, error) { return 0, errBroken }

func TestConcurrentUse(t *testing.T) {
	dir, db := newRepo(t, Options{})
	w, err := db.NewWriter()
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	want := map[ID][]byte{}
	for g := range 8 {
		wg.Go(func() {
			rnd := newSeeded(byte(10 + g/2)) // pairs write the same
			for i := range 40 {
				data := rnd.bytes(1000+i*100, true)
				if i == 20 {
					data = rnd.bytes(smallBlob+100, false)
				}
				id, err := w.PutStream(int64(len(data)), bytes.NewReader(data), nil)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				want[id] = data
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if err := w.Publish(); err != nil {
		t.Fatal(err)
	}
	if w.Len() != 160 || len(want) != 160 {
		t.Fatalf("%d objects", w.Len())
	}
	for range 8 {
		wg.Go(func() {
			for id, data := range want {
				if got, err := db.Read(id, Blob, 1<<30); err != nil || !bytes.Equal(got, data) {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	fsck(t, dir)
}

func TestManyObjectsMakeSeveralPacks(t *testing.T) {
	const maxPerPack = 500
	dir, db := newRepo(t, Options{MaxPerPack: maxPerPack})
	w := publish(t, db, func(w *Writer) {
		for i := range maxPerPack + 10 {
			mustPut(t, w, Blob, fmt.Appendf(nil, "%d", i))
		}
	})
	if packs, objects, _ := db.Stats(); packs != 2 || objects != maxPerPack+10 {
		t.Fatalf("%d packs, %d objects", packs, objects)
	}
	if keeps, _ := filepath.Glob(filepath.Join(dir, "objects/pack/*.keep")); len(keeps) != 2 {
		t.Fatalf("%v", keeps)
	}
	if err := w.Release(); err != nil {
		t.Fatal(err)
	}
	fsck(t, dir)
}
