package odb

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"emberfs/tiers/cold"
)

// BadObject is a copy of an object whose bytes do not match its id.
type BadObject struct {
	ID   ID
	Path string // relative to the repository: the pack without extension, or the loose object
	Err  error
}

// VerifyAll inflates and hashes every object, packed or loose, and compares the packs with their checksums. It takes
// constant memory, except for delta bases (Options.DeltaMemory, DeltaCache). It calls bad with what is damaged, one
// call at a time; for a pack of which only the checksum is wrong, the ID is zero. progress, if not nil, is called with
// the numbers of objects and of bytes on disk that are done, and the total of bytes.
func (db *DB) VerifyAll(ctx context.Context, bad func(BadObject), progress func(objects, done, total int64)) error {
	l, err := db.acquire()
	if err != nil {
		return err
	}
	defer db.release(l)
	loose, looseBytes, err := db.looseObjects()
	if err != nil {
		return err
	}
	v := &verifier{db: db, bad: bad, progress: progress, total: looseBytes}
	for _, p := range l.packs {
		v.total += p.size
	}
	for _, p := range l.packs {
		if err := checkPackSum(p.base + ".pack"); errors.Is(err, cold.ErrCorrupt) {
			v.found(BadObject{Path: "objects/pack/" + p.name(), Err: err})
		} else if err != nil && !errors.Is(err, fs.ErrNotExist) { // a pack that was removed is still open here
			return err
		}
		if err := v.pack(ctx, p); err != nil {
			return err
		}
	}
	for _, f := range loose {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := v.loose(f); err != nil {
			return err
		}
	}
	return nil
}

type verifier struct {
	db       *DB
	mu       sync.Mutex
	bad      func(BadObject)
	progress func(objects, done, total int64)
	objects  int64
	done     int64
	total    int64
}

func (v *verifier) found(b BadObject) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.bad(b)
}

func (v *verifier) advance(objects, n int64) {
	if v.progress == nil {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.objects += objects
	v.done += n
	v.progress(v.objects, v.done, v.total)
}

// verifyBatch is how many entries one goroutine takes at a time. They are neighbours, so that delta bases are found in
// the cache.
const verifyBatch = 256

// pack verifies a pack's objects in the order of the pack.
func (v *verifier) pack(ctx context.Context, p *pack) error {
	if p.idx.count == 0 {
		return nil
	}
	order := p.offsets()
	var g errgroup.Group
	g.SetLimit(max(2, runtime.GOMAXPROCS(0)))
	var last int64
	for from := 0; from < len(order) && ctx.Err() == nil; from += verifyBatch {
		batch := order[from:min(from+verifyBatch, len(order))]
		end := p.size
		if next := from + verifyBatch; next < len(order) {
			end, _ = p.idx.offset(int(order[next]))
		}
		span := max(end-last, 0)
		last = max(last, end)
		g.Go(func() error {
			for _, i := range batch {
				if err := ctx.Err(); err != nil {
					return err
				}
				if err := v.entry(p, int(i)); err != nil {
					return err
				}
			}
			v.advance(int64(len(batch)), span)
			return nil
		})
	}
	return errors.Join(g.Wait(), ctx.Err())
}

func (v *verifier) entry(p *pack, i int) error {
	err := v.db.tryPacked(p, i, func(s source) error { return checkSource(s, p.idx.id(i)) })
	if err == nil {
		return nil
	}
	if !isDamage(err) {
		return err
	}
	v.found(BadObject{ID: p.idx.id(i), Path: "objects/pack/" + p.name(), Err: err})
	return nil
}

// isDamage reports whether an error is about an object, as opposed to a disk that fails.
func isDamage(err error) bool {
	return errors.Is(err, cold.ErrCorrupt) || errors.Is(err, ErrCollision) || errors.Is(err, ErrTooLarge)
}

// verifySource verifies one copy of an object, and returns its type and size.
func verifySource(s source, id ID) (t Type, size int64, err error) {
	o, err := s.open()
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, o.close()) }()
	h := newHasher(o.typ, o.size)
	n, err := io.Copy(h, o.r)
	if err != nil {
		return 0, 0, err
	}
	got, err := h.sum()
	if err == nil && (got != id || n != o.size) {
		err = corruptf("content has the id %s", got)
	}
	return o.typ, o.size, err
}

func checkSource(s source, id ID) error {
	_, _, err := verifySource(s, id)
	return err
}

// Verify verifies one object of any type and size; one good copy suffices. The error is cold.ErrMissing or
// cold.ErrCorrupt if there is none.
func (db *DB) Verify(id ID) error {
	if id == EmptyTree {
		return nil
	}
	return db.each(id, func(s source) error { return checkSource(s, id) })
}

// looseFile is a file in the place of a loose object.
type looseFile struct {
	id    ID
	path  string
	size  int64
	mtime time.Time
}

// looseObjects returns all loose objects, sorted by id, and their total bytes on disk.
func (db *DB) looseObjects() (list []looseFile, total int64, err error) {
	for i := range 256 {
		sub := fmt.Sprintf("%02x", i)
		names, err := os.ReadDir(filepath.Join(db.dir, "objects", sub))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, 0, fmt.Errorf("list loose objects: %w", err)
		}
		for _, e := range names {
			id, err := cold.ParseID(sub + e.Name())
			if err != nil || strings.ToLower(e.Name()) != e.Name() {
				continue // a temporary file of git, which git prunes
			}
			st, err := e.Info()
			if err != nil {
				continue // removed after it was listed
			}
			list = append(list, looseFile{id: id, path: filepath.Join("objects", sub, e.Name()), size: st.Size(),
				mtime: st.ModTime()})
			total += st.Size()
		}
	}
	return list, total, nil
}

// EmptyLoose returns the loose objects whose file is empty, which stock git leaves behind after a power cut.
func (db *DB) EmptyLoose() ([]BadObject, error) {
	list, _, err := db.looseObjects()
	var bad []BadObject
	for _, f := range list {
		if f.size == 0 {
			bad = append(bad, BadObject{ID: f.id, Path: f.path, Err: corruptf("the file is empty")})
		}
	}
	return bad, err
}

func (v *verifier) loose(f looseFile) error {
	err := checkSource(source{open: func() (*rawObject, error) { return v.db.openLoose(f.id) }}, f.id)
	switch {
	case err == nil, errors.Is(err, fs.ErrNotExist): // a git gc packed it meanwhile
		v.advance(1, f.size)
		return nil
	case !isDamage(err):
		return err
	}
	v.found(BadObject{ID: f.id, Path: f.path, Err: err})
	v.advance(1, f.size)
	return nil
}
