package backup

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"emberfs/backup/format"
	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

// tx implements cold.Tx.
type tx struct {
	c       *Cold
	at      Position  // where the branch was when the Tx began
	live    bool      // the commit goes to the live branch
	adopts  cold.ID   // tip of a stray live branch that the commit absorbs too; zero: none
	base    *Snapshot // the newest commit of at; nil for the first commit
	w       *odb.Writer
	pending *dirBuild // the directory put last, not written yet: it may be the root, which Commit writes

	mu struct {
		sync.Mutex
		done   error // why nothing more can be put; nil while the Tx is usable
		chunks chunkCache
	}
}

var _ cold.Tx = (*tx)(nil)

var (
	errTxDone   = errors.New("the transaction is over")
	errTxFailed = errors.New("the transaction failed and can only be aborted")
)

// Base implements cold.Tx.
func (t *tx) Base() cold.Snapshot {
	if t.base == nil {
		return nil
	}
	return t.at.view(t.base)
}

// onNewest bases the Tx on the newest commit.
func (t *tx) onNewest(ctx context.Context) (err error) {
	if t.at, err = t.c.Position(ctx); err == nil {
		t.base, err = t.c.newest(&t.at)
	}
	return err
}

func (t *tx) alive() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mu.done
}

// end marks the transaction as over. It returns true for the first caller only, who must then call Cold.endTx to let
// the next transaction begin.
func (t *tx) end() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if errors.Is(t.mu.done, errTxDone) {
		return false
	}
	t.mu.done = errTxDone
	return true
}

// PutFile implements cold.Tx.
func (t *tx) PutFile(ctx context.Context, f cold.Content, base cold.Base) (cold.ID, error) {
	if err := t.alive(); err != nil {
		return cold.ID{}, err
	}
	id, err := t.storeContent(ctx, f, base)
	if err != nil {
		return cold.ID{}, fmt.Errorf("store file: %w", err)
	}
	return id, nil
}

// PutSymlink implements cold.Tx. It only computes the id. PutDir, which gets the target too, stores the blob unless the
// base commit has it under that name.
func (t *tx) PutSymlink(_ context.Context, target string, _ cold.ID) (cold.ID, error) {
	if err := t.alive(); err != nil {
		return cold.ID{}, err
	}
	if target == "" || len(target) > format.MaxTarget {
		return cold.ID{}, fmt.Errorf("store symlink: target of %d bytes", len(target))
	}
	id, err := odb.HashObject(odb.Blob, []byte(target))
	if err != nil {
		return cold.ID{}, fmt.Errorf("store symlink: %w", err)
	}
	return id, nil
}

// putNew stores an object, unless it is one of known, which the base commit reaches at this place, and is still in the
// repository.
func (t *tx) putNew(kind odb.Type, data []byte, known map[cold.ID]struct{}) (cold.ID, error) {
	if len(known) == 0 {
		return t.w.Put(kind, data)
	}
	id, err := odb.HashObject(kind, data)
	if err != nil {
		return id, err
	}
	return id, t.putObject(object{id, kind, data}, known)
}

func (t *tx) putObject(o object, known map[cold.ID]struct{}) error {
	if _, ok := known[o.id]; ok && t.c.db.Has(o.id) {
		return nil
	}
	_, err := t.w.Put(o.kind, o.data)
	return err
}

// has reports whether this transaction or the repository has an object.
func (t *tx) has(id cold.ID) bool { return t.w.Has(id) || t.c.db.Has(id) }

// flush writes the pending directory. It is called when another directory follows, so the pending one is not the root.
func (t *tx) flush() error {
	d := t.pending
	if d == nil {
		return nil
	}
	if d.id.Tree != odb.EmptyTree {
		if err := t.putObject(object{d.id.Tree, odb.Tree, d.treeData}, d.known); err != nil {
			return fmt.Errorf("store directory: %w", err)
		}
	}
	if err := t.putObjects(d); err != nil {
		return err
	}
	t.pending = nil
	return nil
}

// putObjects writes a directory's metadata.
func (t *tx) putObjects(d *dirBuild) error {
	for _, o := range d.objects {
		if err := t.putObject(o, d.known); err != nil {
			return fmt.Errorf("store metadata: %w", err)
		}
	}
	return nil
}

// Abort implements cold.Tx.
func (t *tx) Abort() {
	if !t.end() {
		return
	}
	if err := t.w.Abort(); err != nil {
		t.c.log.WithError(err).Warn("an aborted commit left files behind; they go at the next start")
	}
	t.pending = nil
	t.c.endTx()
}
