package odb

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
)

type failing struct{}

var errBroken = errors.New("the disk is on fire")

func (*failing) Read([]byte) (int, error) { return 0, errBroken }

func TestConcurrentUse(t *testing.T) {
	dir, db := newRepo(t, Options{})
	w := newWriter(t, db)
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
	check(t, w.Publish())
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
	check(t, w.Release())
	fsck(t, dir)
}
