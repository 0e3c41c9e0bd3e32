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
	at      Position  // where the branch was when it began
	live    bool      // the commit goes to the live branch
	adopts  cold.ID   // a stray live branch that the commit absorbs too; zero: none
	base    *Snapshot // at's newest commit; nil for the first
	w       *odb.Writer
	pending *dirBuild // the last directory put; the root must not be written before its own attributes are known

	mu struct {
		sync.Mutex
		done   error // why nothing more can be put
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

// onNewest makes the Tx extend the newest commit.
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

// end makes the first caller that says so the last: it gives the place to the next transaction.
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

// PutSymlink implements cold.Tx. It works out the id; PutDir, which sees the target too, stores what the base commit
// does not have under that name.
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

// putNew stores an object unless it is among those that the base commit reaches at this place and still has.
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

// has says whether an object is there: in this transaction or, as the caller vouches, in the base commit.
func (t *tx) has(id cold.ID) bool { return t.w.Has(id) || t.c.db.Has(id) }

// flush writes the last directory put: another one follows, so it is not the root.
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
