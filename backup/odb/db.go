package odb

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/sirupsen/logrus"
)

// Options configure a DB. The zero value works.
type Options struct {
	Log logrus.FieldLogger // nil: nothing is logged

	// MaxDelta is how many bytes an object stored as a delta, or the base of a delta, may have; the default is 1 GiB.
	// (Stock git makes no deltas of blobs over 512 MiB.) Objects that are not deltas have no such limit.
	MaxDelta int64
	// MaxDepth is the maximum length of delta chains; the default is 4096, as in git, the maximum 65,000.
	MaxDepth int
	// DeltaMemory is the size in bytes above which delta bases go to a temporary file; the default is 16 MiB.
	DeltaMemory int64
	// DeltaCache is how many bytes of resolved delta bases are kept in memory; the default is 8 MiB.
	DeltaCache int64
	// MaxPerPack is how many objects a Writer puts into a pack before it begins the next one; the default is 100,000.
	MaxPerPack int
	// MaxPackObjects is how many objects a fetched pack, which may bring a whole history, can have; the default is 1000
	// million. They take 60 to 200 bytes of memory each as they arrive, so a sender cannot make us use more memory than
	// a small multiple of what it sends.
	MaxPackObjects int
	// MaxInflate is how many bytes the deltas of one fetched pack, which may have a few bytes each, can make us write
	// and read in total; the default is 1 TiB, or 256 times the size of the pack if that is more. Objects that are not
	// deltas inflate to 1,032 times their size at most.
	MaxInflate int64
	// Shard reports, given the first 64 bytes of a blob over 64 KiB, whether the blob is of a kind that comes in many
	// versions with small differences. When packs are merged, such blobs are stored as deltas, as trees always are. By
	// default no blob is.
	Shard func(head []byte) bool
	// TempDir is the directory for delta bases over DeltaMemory. The default is the repository's objects directory or,
	// for OpenReadOnly, the system's directory for temporary files.
	TempDir string

	// Receiving, if not nil, is called while IndexPack receives a pack and computes the ids of its deltas: for some
	// dozen KiB, or for each delta, so it must be quick. objects are those whose ids are known, of those that the pack
	// says it has; bytes are those of the pack that have come.
	Receiving func(objects, of, bytes int64)

	// Fail is for tests of crash safety. It is called with the name of a step (see Steps) before each step that a crash
	// could separate from the previous one. If it returns an error, the operation ends there and cleans up nothing, as
	// after a crash; but if the error is a syscall.Errno, it counts as an ordinary failure of that step.
	Fail func(step string) error
}

func (o *Options) setDefaults() {
	if o.Log == nil {
		l := logrus.New()
		l.SetLevel(logrus.PanicLevel)
		o.Log = l
	}
	def(&o.MaxDelta, 1<<30)
	def(&o.MaxDepth, 4096)
	o.MaxDepth = min(o.MaxDepth, 65_000)
	def(&o.DeltaMemory, 16<<20)
	def(&o.DeltaCache, 8<<20)
	def(&o.MaxPerPack, 100_000)
	def(&o.MaxPackObjects, 1_000_000_000)
	def(&o.MaxInflate, 1<<40)
}

func def[T int | int64](p *T, v T) {
	if *p <= 0 {
		*p = v
	}
}

// DB is an open repository. It is safe for concurrent use. A process may have at most one DB from Open per repository,
// and any number from OpenReadOnly.
type DB struct {
	dir      string
	opt      Options
	log      logrus.FieldLogger
	self     owner
	readOnly bool

	packs     atomic.Pointer[packList] // nil once closed
	bases     *cache.BufferLRU         // resolved delta bases, by cacheKey
	seq       atomic.Int64             // the last pack.seq
	pools     struct{ buf, zr, fr, zw, mem sync.Pool }
	scan      scanState
	evidence  evidence
	closed    atomic.Bool
	protected protected
	upkeep    chan struct{} // holds a token while packs are merged or cleaned
}

// Open opens the bare repository at dir for reading and writing, and removes what dead processes of EmberFS left in it.
// The caller must be the only EmberFS process that writes there. The error may be ErrNotRepository or ErrUnsupported.
func Open(dir string, o Options) (*DB, error) {
	if o.TempDir == "" {
		o.TempDir = filepath.Join(dir, "objects")
	}
	db, err := open(dir, o)
	if err != nil {
		return nil, err
	}
	if err := cleanup(dir, db.self, db.log); err != nil {
		return nil, fmt.Errorf("open %s: %w", dir, err)
	}
	db.scan.noPublisher = true // if a crash left a pack of ours without its index, it gets one at once
	return db.firstScan()
}

// OpenReadOnly opens a bare repository that belongs to somebody else, or one whose daemon is running. It cleans up
// nothing and writes nothing, and the writing methods fail with ErrReadOnly.
func OpenReadOnly(dir string, o Options) (*DB, error) {
	db, err := open(dir, o)
	if err != nil {
		return nil, err
	}
	db.readOnly = true
	return db.firstScan()
}

// ErrReadOnly says that the DB comes from OpenReadOnly.
var ErrReadOnly = errors.New("object database is open for reading only")

func open(dir string, o Options) (*DB, error) {
	if err := checkLayout(dir); err != nil {
		return nil, err
	}
	c, _, err := readConfig(dir)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", dir, err)
	}
	if err := checkSupported(dir, c); err != nil {
		return nil, err
	}
	return newDB(dir, o)
}

// newDB returns a DB that has not looked for packs yet.
func newDB(dir string, o Options) (*DB, error) {
	self, err := thisProcess()
	if err != nil {
		return nil, err
	}
	o.setDefaults()
	if o.TempDir == "" {
		o.TempDir = os.TempDir()
	}
	db := &DB{dir: dir, opt: o, log: o.Log, self: self, bases: cache.NewBufferLRU(cache.FileSize(o.DeltaCache)),
		upkeep: make(chan struct{}, 1)}
	return db, nil
}

func (db *DB) firstScan() (*DB, error) {
	db.packs.Store(newPackList(nil, 0))
	db.scan.broken = map[string]error{}
	if err := db.Refresh(); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", db.dir, err), db.Close())
	}
	db.scan.mu.Lock()
	defer db.scan.mu.Unlock()
	db.scan.noPublisher = false
	return db, nil
}

// Dir returns the repository's directory.
func (db *DB) Dir() string { return db.dir }

// ReadOnly reports whether the DB comes from OpenReadOnly.
func (db *DB) ReadOnly() bool { return db.readOnly }

// Close releases all files. Streams that are open stay readable.
func (db *DB) Close() error {
	if db.closed.Swap(true) {
		return nil
	}
	db.scan.mu.Lock()
	defer db.scan.mu.Unlock()
	err := db.removeEvidence()
	if l := db.packs.Swap(nil); l != nil {
		err = errors.Join(err, l.release())
	}
	return err
}

// Stats returns the number of packs, of the objects in them (one that lies in two packs counts twice), and of their
// bytes including the indexes. Loose objects are not counted. After Close all are zero.
func (db *DB) Stats() (packs int, objects int64, bytes int64) {
	l, err := db.acquire()
	if err != nil {
		return 0, 0, 0
	}
	defer db.release(l)
	for _, p := range l.packs {
		objects += int64(p.idx.count)
		bytes += p.size + int64(len(p.idx.data))
	}
	return len(l.packs), objects, bytes
}

// crash is the error of a step at which Options.Fail simulated a crash. Code that sees it must not clean up anything.
type crash struct{ err error }

func (c *crash) Error() string { return c.err.Error() }
func (c *crash) Unwrap() error { return c.err }

// step is called where tests can simulate a crash.
func (db *DB) step(name string) error {
	if db.opt.Fail == nil {
		return nil
	}
	err := db.opt.Fail(name)
	if err == nil {
		return nil
	}
	err = fmt.Errorf("%s: %w", name, err)
	var errno syscall.Errno
	if errors.As(err, &errno) { // a step that fails, as opposed to one that is never reached
		return err
	}
	return &crash{err}
}

func crashed(err error) bool {
	var c *crash
	return errors.As(err, &c)
}
