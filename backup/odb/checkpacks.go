package odb

import (
	"bytes"
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// secondLook is how long a pack that looks faulty is given before it is looked at again: somebody may be publishing or
// removing it.
const secondLook = 300 * time.Millisecond

// CheckPacks checks all packs without inflating objects: every pack must have an index that matches its own checksum
// and agrees with the pack on the number of objects and on the pack's trailer. Only a pack that fails is read to its
// end, to tell whether the pack or the index is damaged.
func (db *DB) CheckPacks(ctx context.Context) ([]Fault, error) {
	faults, err := db.checkPacks(ctx)
	if err != nil || len(faults) == 0 {
		return nil, err
	}
	select {
	case <-time.After(secondLook):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if err := db.Refresh(); err != nil {
		return nil, err
	}
	return db.checkPacks(ctx)
}

func (db *DB) checkPacks(ctx context.Context) ([]Fault, error) {
	names, err := packNames(db.packDir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for packs: %w", err)
	}
	var faults []Fault
	for i, n := range names {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		name, isIdx := strings.CutSuffix(n, ".idx")
		if !isIdx {
			name = strings.TrimSuffix(n, ".pack")
			if i > 0 && names[i-1] == name+".idx" {
				continue // looked at with its index
			}
		}
		f := Fault{Path: "objects/pack/" + name}
		if isIdx && !slices.Contains(names, name+".pack") {
			f.Kind, f.Lost, f.Err = FaultLostPack, db.lostObjects(filepath.Join(db.packDir(), n)),
				fmt.Errorf("%s.pack: %w", name, fs.ErrNotExist)
		} else if f.Kind, f.Err = checkPack(filepath.Join(db.packDir(), name)); errors.Is(f.Err, fs.ErrNotExist) {
			if _, err := os.Lstat(filepath.Join(db.packDir(), name+".pack")); err != nil {
				continue // gone since it was listed
			}
		}
		if f.Err != nil {
			faults = append(faults, f)
		}
	}
	return faults, nil
}

// lostObjects returns how many objects of the index at path are in no pack and in no loose file.
func (db *DB) lostObjects(path string) int {
	x, err := openIndex(path)
	if err != nil {
		return 0
	}
	n := 0
	for i := range x.count {
		if !db.Has(x.id(i)) {
			n++
		}
	}
	if err := x.close(); err != nil {
		db.log.WithError(err).Warn("look at an index")
	}
	return n
}

// checkPack checks a pack and its index; base is their path without extension.
func checkPack(base string) (FaultKind, error) {
	p, err := openPack(base)
	if err == nil {
		err = errors.Join(p.idx.verify(), p.close())
	}
	if err == nil {
		return 0, nil
	}
	if !otherPlace(err) {
		return FaultPack, err // for example an error of the disk
	}
	if perr := checkPackSum(base + ".pack"); perr != nil {
		return FaultPack, perr
	}
	return FaultIndex, err
}

// checkPackSum reads a whole pack and compares it with the checksum at its end.
func checkPackSum(path string) error {
	f, st, err := openRegular(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if st.Size() < minPack {
		return corruptf("%s: %d bytes are too few", filepath.Base(path), st.Size())
	}
	h := sha1.New()
	if _, err := io.CopyBuffer(h, io.LimitReader(f, st.Size()-hashSize), make([]byte, packBuffer)); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	var sum [hashSize]byte
	if _, err := f.ReadAt(sum[:], st.Size()-hashSize); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	if !bytes.Equal(sum[:], h.Sum(nil)) {
		return corruptf("%s: its checksum does not match, it is damaged or cut off", filepath.Base(path))
	}
	return nil
}

// Aside returns the paths, relative to the repository, of the files that were put aside because they are damaged.
func (db *DB) Aside() ([]string, error) {
	names, err := os.ReadDir(filepath.Join(db.packDir(), badDir))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	var out []string
	for _, e := range names {
		out = append(out, filepath.Join("objects/pack", badDir, e.Name()))
	}
	return out, err
}
