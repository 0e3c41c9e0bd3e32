package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"emberfs/backup/odb"
	"emberfs/backup/wire"
	"emberfs/tiers/cold"
)

// Cold implements cold.Cold over a bare git repository.
type Cold struct {
	db     *odb.DB
	o      Options
	log    logrus.FieldLogger
	ref    string // full name of the volume's branch
	remote remote // nil without a Source

	buffers sync.Pool // of chunks, *[]byte
	fetched *meter    // of a Fetch or Peek; needs the token of sync

	txs        chan struct{} // holds a token while a Tx is open
	protected  func()        // ends the protection of the open Tx's base from GC; nil: none. Needs the token of txs
	sync       chan struct{} // holds a token while Fetch or Push runs
	lockedMost time.Duration // lockedMost, for tests

	refs sync.Mutex // held while main or the live branch is checked and then moved

	// mu guards what is known in memory. No I/O is done under it, because callers ask Pushed and VolumeID while they
	// hold locks of files.
	mu struct {
		sync.Mutex
		volume    string
		head      *Snapshot // the tip of main that was opened last
		live      *Snapshot // the tip of the live branch that was opened last
		chain     chain
		pushed    cold.ID
		contact   time.Time          // when the remote last listed its references
		notes     map[string]string  // what is wrong with the branches, by topic; see note
		undeleted bool               // the remote does not let live branches be deleted
		deletions int                // how many pushes with deletions failed since one succeeded
		locked    time.Time          // since when the remote says that somebody else holds a lock; zero: it does not
		sides     []string           // what Aside returns
		ignored   map[string]cold.ID // tips of the remote's references that look like live branches and are none
	}
}

var _ cold.Cold = (*Cold)(nil)

// pushJournal is the file in cold.git that notes a push under way.
const pushJournal = "emberfs_push"

// Open opens the volume's repository at dir, and creates it if it is missing or empty. The caller must be the only
// EmberFS process that uses it. If the volume has a newer format, the error is ErrNewerFormat.
func Open(dir string, o Options) (*Cold, error) {
	if err := o.setDefaults(); err != nil {
		return nil, fmt.Errorf("open cold storage %s: %w", dir, err)
	}
	if ReservedBranch(o.Branch) {
		return nil, fmt.Errorf("open cold storage %s: branch %q: the name is reserved for EmberFS itself; choose "+
			"another", dir, o.Branch)
	}
	if err := odb.Init(dir, o.Branch); err != nil {
		return nil, fmt.Errorf("open cold storage: %w", err)
	}
	fetched := newMeter(o.Progress, "fetch")
	db, err := odb.Open(dir, odb.Options{Log: o.Log, Fail: o.Fail, Shard: isMetadata, Receiving: fetched.at})
	if err != nil {
		return nil, fmt.Errorf("open cold storage: %w", err)
	}
	return newCold(db, o, fetched)
}

// OpenRepository opens any repository for reading: the bare one of a remote, that of a volume whose daemon is running,
// or a stock clone. If o.Branch is empty, it uses the branch that the repository's HEAD names. It writes nothing there;
// Begin, Fetch and Push fail.
func OpenRepository(path string, o Options) (*Cold, error) {
	if fi, err := os.Stat(filepath.Join(path, ".git")); err == nil && fi.IsDir() {
		path = filepath.Join(path, ".git")
	}
	if o.Branch == "" {
		o.Branch = headBranch(path)
	}
	o.Source = ""
	if err := o.setDefaults(); err != nil {
		return nil, fmt.Errorf("open repository %s: %w", path, err)
	}
	db, err := odb.OpenReadOnly(path, odb.Options{Log: o.Log})
	if err != nil {
		return nil, fmt.Errorf("open repository: %w", err)
	}
	return newCold(db, o, newMeter(nil, ""))
}

// headBranch returns the branch that a repository's HEAD names, or "" if it names none.
func headBranch(path string) string {
	head, err := os.ReadFile(filepath.Join(path, "HEAD"))
	if err != nil {
		return ""
	}
	branch, ok := strings.CutPrefix(strings.TrimSpace(string(head)), "ref: refs/heads/")
	if !ok {
		return ""
	}
	return branch
}

func newCold(db *odb.DB, o Options, fetched *meter) (_ *Cold, err error) {
	c := &Cold{
		db: db, o: o, log: o.Log, ref: "refs/heads/" + o.Branch, fetched: fetched,
		txs: make(chan struct{}, 1), sync: make(chan struct{}, 1), lockedMost: lockedMost,
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, db.Close())
		}
	}()
	if o.Source != "" {
		o.Remote.Dir, o.Remote.Later = db.Dir(), o.SourceLater
		r, err := wire.Open(o.Source, o.Remote)
		if err != nil {
			return nil, err
		}
		r.Journal(filepath.Join(db.Dir(), pushJournal), c.log)
		c.remote = r
	}
	c.mu.volume = o.VolumeID
	if _, err = c.head(); err == nil && !db.ReadOnly() {
		err = c.retireAbsorbed(context.Background())
	}
	if err == nil && c.remote != nil {
		c.mu.pushed, err = c.Tracked(context.Background())
	}
	return c, err
}

// ReadRef returns the value of a reference, or the zero ID if it does not exist.
func (c *Cold) ReadRef(name string) (cold.ID, error) {
	id, err := c.db.Ref(name)
	if errors.Is(err, odb.ErrNoRef) {
		return cold.ID{}, nil
	}
	if err != nil {
		return cold.ID{}, fmt.Errorf("read %s: %w", name, err)
	}
	return id, nil
}

// Tip returns main's tip, or the zero ID if there is no commit yet.
func (c *Cold) Tip() (cold.ID, error) { return c.ReadRef(c.ref) }

// head opens main's tip. It returns nil if there is no commit yet.
func (c *Cold) head() (*Snapshot, error) {
	id, err := c.Tip()
	if err != nil || id.IsZero() {
		return nil, err
	}
	c.mu.Lock()
	s := c.mu.head
	c.mu.Unlock()
	if s != nil && s.info.ID == id {
		return s, nil
	}
	if s, err = c.At(id); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.head = s
	if s.own.Found {
		c.mu.volume = s.own.Volume.Volume
	}
	return s, nil
}

// At opens the commit with this id.
func (c *Cold) At(id cold.ID) (*Snapshot, error) {
	return openSnapshot(c.db, id, owner{c.o.UID, c.o.GID})
}

// VolumeID implements cold.Cold.
func (c *Cold) VolumeID() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.volume
}

// Head implements cold.Cold.
func (c *Cold) Head(ctx context.Context) (cold.Snapshot, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s, err := c.head()
	if err != nil || s == nil {
		return nil, err
	}
	return s, nil
}

// Snapshot implements cold.Cold.
func (c *Cold) Snapshot(ctx context.Context, commit cold.ID) (cold.Snapshot, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s, err := c.At(commit)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Open implements cold.Cold.
func (c *Cold) Open(ctx context.Context, id cold.ID, size int64) (cold.Blob, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return c.OpenContent(ctx, id, size)
}

// OpenAt implements cold.Cold.
func (c *Cold) OpenAt(ctx context.Context, id cold.ID, size int64) (cold.BlobAt, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return c.openContentAt(ctx, id, size)
}

// Begin implements cold.Cold. It waits while another Tx is open.
func (c *Cold) Begin(ctx context.Context) (cold.Tx, error) {
	return c.begin(ctx, func(t *tx) error { return t.onNewest(ctx) })
}

// BeginLive implements cold.Cold. It waits while another Tx is open.
func (c *Cold) BeginLive(ctx context.Context) (cold.Tx, error) {
	return c.begin(ctx, func(t *tx) error {
		err := t.onNewest(ctx)
		t.live = !t.at.Main.IsZero() && t.at.Taken == nil && t.at.commits < maxLive/2
		return err
	})
}

// BeginAt implements cold.Cold. It waits while another Tx is open.
func (c *Cold) BeginAt(ctx context.Context, base cold.ID) (cold.Tx, error) {
	return c.begin(ctx, func(t *tx) (err error) {
		t.at = Position{Main: base}
		t.base, err = c.At(base)
		return err
	})
}

func (c *Cold) begin(ctx context.Context, place func(*tx) error) (cold.Tx, error) {
	select {
	case c.txs <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("begin commit: %w", ctx.Err())
	}
	t := &tx{c: c}
	var err error
	if err = place(t); err == nil {
		if t.base != nil {
			c.protected = c.db.Protect(t.base.info.ID)
		}
		t.w, err = c.db.NewWriter()
	}
	if err != nil {
		c.endTx()
		return nil, fmt.Errorf("begin commit: %w", err)
	}
	return t, nil
}

func (c *Cold) endTx() {
	if c.protected != nil {
		c.protected()
		c.protected = nil
	}
	<-c.txs
}

// HasRemote implements cold.Cold.
func (c *Cold) HasRemote() bool { return c.remote != nil }

// Pushed implements cold.Cold.
func (c *Cold) Pushed() cold.ID {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.pushed
}

// Stats implements cold.Cold.
func (c *Cold) Stats() cold.ColdStats {
	packs, objects, bytes := c.db.Stats()
	s := cold.ColdStats{Packs: packs, Objects: objects, Bytes: bytes}
	for _, err := range c.db.Problems() {
		s.Problems = append(s.Problems, err.Error())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s.Problems = append(s.Problems, slices.Sorted(maps.Values(c.mu.notes))...)
	return s
}

// Close implements cold.Cold. No Tx may be open and no Maintain may run.
func (c *Cold) Close() error {
	var err error
	if r, ok := c.remote.(io.Closer); ok {
		err = r.Close()
	}
	if err = errors.Join(err, c.db.Close()); err != nil {
		return fmt.Errorf("close cold storage: %w", err)
	}
	return nil
}
