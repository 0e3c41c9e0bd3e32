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

	"emberfs/tiers/cold"
)

// FaultKind says what kind of thing is wrong with a repository's files.
type FaultKind uint8

const (
	FaultLayout   FaultKind = iota + 1 // a directory that every repository has is missing
	FaultHead                          // HEAD is missing or makes no sense
	FaultConfig                        // the configuration cannot be read
	FaultIndex                         // a pack is whole, its index is missing or damaged
	FaultPack                          // a pack is cut off or damaged
	FaultLostPack                      // an index whose pack is gone
)

// Fault is something wrong with one of a repository's files.
type Fault struct {
	Kind FaultKind
	Path string // below the repository; of a pack without its extension
	Err  error
	Lost int // FaultLostPack: objects of the index that are nowhere else
}

// OpenDamaged is OpenReadOnly for a repository whose directories, HEAD or configuration may be damaged: what is wrong
// with those comes back beside the DB. Without a directory of objects it is ErrNotRepository; ErrUnsupported as for
// Open.
func OpenDamaged(dir string, o Options) (*DB, []Fault, error) {
	if st, err := os.Stat(filepath.Join(dir, "objects")); err != nil || !st.IsDir() {
		if _, err := os.Stat(dir); err != nil {
			return nil, nil, fmt.Errorf("open repository: %w", err)
		}
		return nil, nil, fmt.Errorf("open %s: %w: it has no objects", dir, ErrNotRepository)
	}
	if err := checkAlternates(dir); err != nil {
		return nil, nil, err
	}
	var faults []Fault
	for _, name := range []string{"objects/pack", "refs"} {
		if st, err := os.Stat(filepath.Join(dir, name)); err != nil || !st.IsDir() {
			faults = append(faults, Fault{Kind: FaultLayout, Path: name, Err: errors.New("the directory is missing")})
		}
	}
	if _, err := headTarget(dir); err != nil {
		faults = append(faults, Fault{Kind: FaultHead, Path: headRef, Err: err})
	}
	c, _, err := readConfig(dir)
	if err == nil {
		if err := checkSupported(dir, c); err != nil {
			return nil, nil, err
		}
	} else {
		faults = append(faults, Fault{Kind: FaultConfig, Path: "config", Err: err})
	}
	db, err := newDB(dir, o)
	if err != nil {
		return nil, nil, err
	}
	db.readOnly = true
	db, err = db.firstScan()
	return db, faults, err
}

// headTarget is the reference that HEAD names; "" for a detached one.
func headTarget(dir string) (string, error) {
	data, err := readRefFile(filepath.Join(dir, headRef))
	if err != nil {
		return "", err
	}
	if t, ok := strings.CutPrefix(string(data), "ref:"); ok {
		t = strings.TrimSpace(t)
		if err := checkRefName(t); err != nil || t == headRef {
			return "", corruptf("HEAD: content %.60q", data)
		}
		return t, nil
	}
	if _, err := cold.ParseID(strings.TrimSpace(string(data))); err != nil {
		return "", corruptf("HEAD: content %.60q", data)
	}
	return "", nil
}

// HeadTarget is the reference that HEAD names; "" where it is detached or cannot be read.
func (db *DB) HeadTarget() string {
	t, _ := headTarget(db.dir)
	return t
}

// MissingSettings lists what a volume's repository must have in its configuration and has not, as section.key = value.
func (db *DB) MissingSettings() []string {
	c, _, err := readConfig(db.dir)
	if err != nil {
		return nil
	}
	var list []string
	for _, s := range ourSettings() {
		if c.Section(s.section).Option(s.key) != s.value {
			list = append(list, s.section+"."+s.key+" = "+s.value)
		}
	}
	return list
}

// IsPartial says that the repository may lack objects which its remote promises.
func (db *DB) IsPartial() bool {
	c, _, err := readConfig(db.dir)
	return err == nil && c.Section("extensions").Option("partialclone") != ""
}

// Shallow gives the commits whose parents are not here on purpose.
func (db *DB) Shallow() (map[ID]bool, error) {
	data, err := readSmall(filepath.Join(db.dir, "shallow"), maxPackedRefs)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read shallow commits: %w", err)
	}
	out := map[ID]bool{}
	for line := range strings.Lines(string(data)) {
		id, err := cold.ParseID(strings.TrimSpace(line))
		if err != nil {
			return out, corruptf("shallow: line %.60q", line)
		}
		out[id] = true
	}
	return out, nil
}

// Stale lists what dead processes of ours left in the repository. owned says that no other process of ours works in it.
func (db *DB) Stale(owned bool) ([]StaleFile, error) { return staleFiles(db.dir, db.self, owned) }

// foreignPatience is how old somebody else's lock must be to be worth a word; git holds one for milliseconds.
const foreignPatience = time.Minute

// ForeignLocks lists lock files of references and configuration that are not ours and too old to be in use.
func (db *DB) ForeignLocks() ([]string, error) {
	var list []string
	look := func(path string) {
		if st, err := os.Lstat(path); err != nil || time.Since(st.ModTime()) < foreignPatience {
			return
		}
		data, err := readSmall(path, maxOwnerFile)
		if _, ours := parseOwner(string(data)); err != nil || !ours {
			list = append(list, path)
		}
	}
	for _, name := range []string{"HEAD.lock", "config.lock", "packed-refs.lock", "shallow.lock"} {
		look(filepath.Join(db.dir, name))
	}
	err := filepath.WalkDir(filepath.Join(db.dir, "refs"), func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() && strings.HasSuffix(e.Name(), ".lock") {
			look(path)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	return list, err
}

// settleTime is how long a pack that looks wrong is given: somebody may be publishing or removing it.
const settleTime = 300 * time.Millisecond

// CheckPacks looks at all packs without inflating an object: every pack has an index, whole by its own checksum, that
// names the pack's number of objects and its trailer. Only a pack that fails is read to its end, to tell which of the
// two is damaged.
func (db *DB) CheckPacks(ctx context.Context) ([]Fault, error) {
	faults, err := db.checkPacks(ctx)
	if err != nil || len(faults) == 0 {
		return nil, err
	}
	select {
	case <-time.After(settleTime):
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

// lostObjects counts what an index names and no pack or loose file has.
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

// checkPack looks at a pack and its index, given without extension.
func checkPack(base string) (FaultKind, error) {
	p, err := openPack(base)
	if err == nil {
		err = errors.Join(p.idx.verify(), p.close())
	}
	if err == nil {
		return 0, nil
	}
	if !otherPlace(err) {
		return FaultPack, err // the disk
	}
	if perr := checkPackSum(base + ".pack"); perr != nil {
		return FaultPack, perr
	}
	return FaultIndex, err
}

// checkPackSum compares a pack with its trailer, reading all of it.
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

// Aside lists what was put aside, by paths below the repository.
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

// RefState is a reference as it lies in the repository.
type RefState struct {
	Name   string
	ID     ID     // zero for a symbolic one, or where Err is set
	Target string // what a symbolic reference names
	Packed ID     // the value in packed-refs, which the loose one hides; zero: none
	Err    error  // why its content makes no sense
}

// RefStates lists HEAD and every reference, sorted by name, the unreadable ones too.
func (db *DB) RefStates() ([]RefState, error) {
	states := map[string]*RefState{}
	get := func(name string) *RefState {
		if states[name] == nil {
			states[name] = &RefState{Name: name}
		}
		return states[name]
	}
	err := db.eachPacked(func(name string, id ID) bool {
		get(name).ID, get(name).Packed = id, id
		return true
	})
	if err != nil {
		get("packed-refs").Err = err
	}
	loose := func(name string) {
		id, target, err := db.readLoose(name)
		if errors.Is(err, ErrNoRef) {
			return
		}
		s := get(name)
		s.ID, s.Target, s.Err = id, target, err
	}
	loose(headRef)
	err = filepath.WalkDir(filepath.Join(db.dir, "refs"), func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(db.dir, path)
		if name := filepath.ToSlash(rel); err == nil && !e.IsDir() && checkRefName(name) == nil {
			loose(name)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list references: %w", err)
	}
	out := make([]RefState, 0, len(states))
	for _, s := range states {
		out = append(out, *s)
	}
	slices.SortFunc(out, func(a, b RefState) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// Marks is a set of objects: a bit for each that lies in a pack, so that a walk over a whole history stays small. For
// one goroutine.
type Marks struct {
	db    *DB
	list  *packList
	first []int // the number of each pack's first object
	bits  []uint64
	rest  map[ID]struct{} // what is in none of these packs
}

// NewMarks begins an empty set. Close it: it holds the packs.
func (db *DB) NewMarks() (*Marks, error) {
	l, err := db.acquire()
	if err != nil {
		return nil, err
	}
	m := &Marks{db: db, list: l, rest: map[ID]struct{}{}}
	n := 0
	for _, p := range l.packs {
		m.first = append(m.first, n)
		n += p.idx.count
	}
	m.bits = make([]uint64, (n+63)/64)
	return m, nil
}

// Add puts id into the set and says whether it is new there.
func (m *Marks) Add(id ID) bool {
	for k, p := range m.list.packs {
		if i := p.idx.find(id); i >= 0 {
			n := m.first[k] + i
			fresh := m.bits[n/64]&(1<<(n%64)) == 0
			m.bits[n/64] |= 1 << (n % 64)
			return fresh
		}
	}
	_, there := m.rest[id]
	m.rest[id] = struct{}{}
	return !there
}

// Has says whether id is in the set.
func (m *Marks) Has(id ID) bool {
	for k, p := range m.list.packs {
		if i := p.idx.find(id); i >= 0 {
			n := m.first[k] + i
			return m.bits[n/64]&(1<<(n%64)) != 0
		}
	}
	_, there := m.rest[id]
	return there
}

// Close lets go of the packs.
func (m *Marks) Close() { m.db.release(m.list) }
