package odb

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"emberfs/tiers/warm"
)

// crcOf returns the checksum that an index stores for a pack entry.
func crcOf(r io.Reader) (uint32, error) {
	h := crc32.NewIEEE()
	_, err := io.Copy(h, r)
	return h.Sum32(), err
}

// publishPacks makes the packs part of the repository (FORMAT.md section 5): it fsyncs pack, index and .keep, renames
// the pack, then its index, and fsyncs the directory. On an error the packs are withdrawn, unless the error is a
// simulated crash.
func (db *DB) publishPacks(packs []*packFile) error {
	if err := db.publishFiles(packs); err != nil {
		return err
	}
	return db.Refresh()
}

// publishFiles is publishPacks without the Refresh at the end, for callers that hold scanState.mu.
func (db *DB) publishFiles(packs []*packFile) (err error) {
	defer func() {
		if err != nil && !crashed(err) {
			err = errors.Join(err, db.withdraw(packs))
		}
	}()
	dir := db.packDir()
	for _, pf := range packs {
		if err := db.finish(pf); err != nil {
			return err
		}
		if !pf.linked { // a linked pack keeps its name
			pf.final = filepath.Join(dir, "pack-"+pf.sum.String())
		}
		if err := db.step("publish.keep"); err != nil {
			return err
		}
		if err := pf.writeKeep(); err != nil {
			return err
		}
	}
	if err := db.step("publish.sync"); err != nil {
		return err
	}
	if err := syncPacks(packs); err != nil {
		return err
	}
	for _, pf := range packs {
		if err := db.step("publish.rename-pack"); err != nil {
			return err
		}
		if err := os.Rename(pf.path, pf.final+".pack"); err != nil {
			return fmt.Errorf("publish pack: %w", err)
		}
		pf.moved = append(pf.moved, pf.final+".pack")
		if err := db.step("publish.rename-index"); err != nil {
			return err
		}
		if err := os.Rename(pf.idxPath, pf.final+".idx"); err != nil {
			return fmt.Errorf("publish index: %w", err)
		}
		pf.moved = append(pf.moved, pf.final+".idx")
	}
	if err := db.step("publish.sync-dir"); err != nil {
		return err
	}
	if err := warm.SyncDir(dir); err != nil {
		return err
	}
	for _, pf := range packs {
		if err := pf.f.Close(); err != nil {
			return fmt.Errorf("close pack: %w", err)
		}
		pf.objs, pf.buf = nil, nil
	}
	return db.step("publish.done")
}

// finish completes a pack and writes its index, both still under temporary names. If that was done already, it does
// nothing.
func (db *DB) finish(pf *packFile) error {
	if pf.idxPath != "" {
		return nil
	}
	if err := db.step("publish.seal"); err != nil {
		return err
	}
	if err := pf.seal(); err != nil {
		return err
	}
	if err := db.step("publish.index"); err != nil {
		return err
	}
	return pf.writeIndexFile()
}

// closeIndexes unmaps the indexes of packs that were full before the Writer's last one (see packFile.full).
func closeIndexes(packs []*packFile) error {
	var err error
	for _, pf := range packs {
		if pf.full != nil {
			err = errors.Join(err, pf.full.close())
			pf.full = nil
		}
	}
	return err
}

// syncPacks makes the files durable, several at a time, so that one commit of the file system's journal can serve
// several of them.
func syncPacks(packs []*packFile) error {
	var g errgroup.Group
	g.SetLimit(8)
	for _, pf := range packs {
		for _, path := range []string{pf.path, pf.idxPath, pf.keep} {
			if path != "" {
				g.Go(func() error { return syncFile(path) })
			}
		}
	}
	return g.Wait()
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("sync %s: %w", path, err)
	}
	return nil
}

// writeIndexFile writes the index under a temporary name.
func (pf *packFile) writeIndexFile() (err error) {
	pf.idxPath = filepath.Join(filepath.Dir(pf.path), pf.db.self.tempName("idx"))
	f, err := os.OpenFile(pf.idxPath, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return fmt.Errorf("create index: %w", err)
	}
	if pf.sorted != nil {
		err = encodeIndex(f, pf.sorted, pf.sum)
	} else {
		err = writeIndex(f, pf.objs, pf.sum)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write index %s: %w", pf.idxPath, err)
	}
	return nil
}

// writeKeep creates the .keep file. If there is one already, somebody else wants the pack kept, and that file stays.
func (pf *packFile) writeKeep() error {
	f, err := os.OpenFile(pf.final+".keep", os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o444)
	if errors.Is(err, fs.ErrExist) {
		if pf.linked && !isLinked(pf.final) {
			return fmt.Errorf("keep pack: %w", err) // it would lack the mark of a linked pack
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("keep pack: %w", err)
	}
	pf.keep = pf.final + ".keep"
	content := pf.db.self.String()
	if pf.linked {
		content = linkedKeep
	}
	_, err = f.WriteString(content)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("keep pack %s: %w", pf.keep, err)
	}
	return nil
}

// withdraw removes packs that no reference uses. A pack that git can see already must stay, because a git repack that
// is running may have left out objects that it found there and then remove their other copies. It only loses its .keep,
// and a later GC removes it. A linked pack keeps its .keep too, because that marks it as linked.
func (db *DB) withdraw(packs []*packFile) error {
	var err error
	for _, pf := range packs {
		err = errors.Join(err, pf.discard())
		if !pf.visible() {
			for _, path := range pf.moved {
				err = errors.Join(err, removeExisting(path))
			}
			pf.moved = nil
		}
		if pf.keep != "" && !(pf.linked && pf.visible()) {
			err = errors.Join(err, removeExisting(pf.keep))
			pf.keep = ""
		}
	}
	return err
}

// visible reports whether the pack and its index have their final names, so that git can see the pack.
func (pf *packFile) visible() bool { return len(pf.moved) == 2 }

// unkeep removes our .keep files. From now on only references protect what is in the packs.
func (db *DB) unkeep(packs []*packFile) error {
	for _, pf := range packs {
		if pf.keep == "" {
			continue
		}
		if err := db.step("release.keep"); err != nil {
			return err
		}
		if err := removeExisting(pf.keep); err != nil {
			return fmt.Errorf("release pack: %w", err)
		}
		pf.keep = ""
	}
	return nil
}
