package odb

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"emberfs/tiers/cold"
)

// The bytes or the index of a linked pack are wrong: nobody relies on what the pack claims to have, and verifying it
// finds that out.
func TestLinkedLies(t *testing.T) {
	t.Parallel()
	for name, lie := range map[string]func(t *testing.T, pack string) ID{
		"index": func(t *testing.T, pack string) ID {
			// Two objects change places.
			x, err := openIndex(strings.TrimSuffix(pack, "pack") + "idx")
			check(t, err)
			var objs []packedObject
			for i := range x.count {
				off, _ := x.offset(i)
				objs = append(objs, packedObject{id: x.id(i), off: off, crc: x.crc(i)})
			}
			sum := ID(x.packSum())
			objs[3].off, objs[4].off = objs[4].off, objs[3].off
			lied := objs[3].id
			path := x.path
			check(t, x.close())
			check(t, os.Remove(path))
			f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o444)
			check(t, err)
			check(t, errors.Join(writeIndex(f, objs, sum), f.Close()))
			return lied
		},
		"pack": func(t *testing.T, pack string) ID {
			x, err := openIndex(strings.TrimSuffix(pack, "pack") + "idx")
			check(t, err)
			off, _ := x.offset(5)
			id := x.id(5)
			check(t, errors.Join(x.close(), os.Chmod(pack, 0o644)))
			f, err := os.OpenFile(pack, os.O_RDWR, 0)
			check(t, err)
			_, err = f.WriteAt([]byte{0xff, 0xff, 0xff}, off+4)
			check(t, errors.Join(err, f.Close(), os.Chmod(pack, 0o444)))
			return id
		},
	} {
		t.Run(name, func(t *testing.T) {
			src, tip := newLinkable(t)
			lied := lie(t, glob(t, filepath.Join(src, "objects/pack/pack-*.pack"))[0])
			before := snapshotOf(t, src)
			dir, db := newRepo(t, Options{})
			mustLink(t, db, src, tip)
			if !db.Has(lied) {
				t.Fatal("the index does not have it")
			}
			if _, _, err := db.Kind(lied); !errors.Is(err, cold.ErrCorrupt) {
				t.Errorf("Kind: %v", err)
			}
			good, err := db.VerifyLinked(t.Context(), 0)
			switch name {
			case "index": // a new one was made
				if good != 2 || err != nil {
					t.Errorf("VerifyLinked = %d, %v", good, err)
				}
				checkAll(t, dir, db)
				fsck(t, dir)
			case "pack":
				if good != 1 || !errors.Is(err, cold.ErrCorrupt) {
					t.Errorf("VerifyLinked = %d, %v", good, err)
				}
				if p := db.Problems(); len(p) != 1 || !errors.Is(p[0], cold.ErrCorrupt) {
					t.Errorf("Problems: %v", p)
				}
				if _, _, err := db.Kind(lied); !errors.Is(err, cold.ErrMissing) {
					t.Errorf("Kind: %v", err)
				}
				if n := checkAll(t, dir, db); n < 100 {
					t.Errorf("%d objects are left", n)
				}
			}
			if good, err := db.VerifyLinked(t.Context(), 0); good != 0 || err != nil {
				t.Errorf("VerifyLinked again = %d, %v", good, err)
			}
			if keeps := glob(t, filepath.Join(dir, "objects/pack/*.keep")); len(keeps) > 0 {
				t.Errorf("kept: %q", keeps)
			}
			if after := snapshotOf(t, src); after != before {
				t.Error("the remote's files changed")
			}
		})
	}
}
