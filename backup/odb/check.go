package odb

import (
	"errors"
	"fmt"
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
	FaultIndex                         // the index of an undamaged pack is missing or damaged
	FaultPack                          // a pack is damaged or truncated
	FaultLostPack                      // there is an index whose pack is missing
)

// Fault is something wrong with one of a repository's files.
type Fault struct {
	Kind FaultKind
	Path string // relative to the repository; that of a pack has no extension
	Err  error
	Lost int // FaultLostPack: how many objects of the index are nowhere else
}

// OpenDamaged is like OpenReadOnly, but accepts a repository whose directories, HEAD or configuration are damaged, and
// returns those faults. It fails with ErrNotRepository if there is no objects directory, and with ErrUnsupported as
// Open does.
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

// headTarget returns the reference that HEAD names, or "" if HEAD is detached.
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

// HeadTarget returns the reference that HEAD names, or "" if HEAD is detached or cannot be read.
func (db *DB) HeadTarget() string {
	t, _ := headTarget(db.dir)
	return t
}

// MissingSettings returns the settings that a volume's repository must have and this one lacks, as "section.key =
// value".
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

// IsPartial reports whether this is a partial clone: it may lack objects that its remote promises to have.
func (db *DB) IsPartial() bool {
	c, _, err := readConfig(db.dir)
	return err == nil && c.Section("extensions").Option("partialclone") != ""
}

// Shallow returns the commits whose parents are left out on purpose (git's file "shallow").
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

// Stale returns the files that dead processes of EmberFS left in the repository. owned says that no other EmberFS
// process is using it.
func (db *DB) Stale(owned bool) ([]StaleFile, error) { return staleFiles(db.dir, db.self, owned) }

// foreignPatience is how old somebody else's lock must be to be reported; git holds one for milliseconds.
const foreignPatience = time.Minute

// ForeignLocks returns the lock files of references and configuration that are not ours and that are too old to be in
// use.
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

// RefState is the state of a reference, readable or not.
type RefState struct {
	Name   string
	ID     ID     // zero if the reference is symbolic, or Err is set
	Target string // the name that a symbolic reference points to
	Packed ID     // the value in packed-refs, which a loose one overrides; zero: none
	Err    error  // why the reference cannot be read
}

// RefStates returns the states of HEAD and of every reference, sorted by name, including those that cannot be read.
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

// Marks is a set of objects. It takes one bit for each object in a pack, so that a walk over a whole history needs
// little memory. It must be used by one goroutine at a time.
type Marks struct {
	db    *DB
	list  *packList
	first []int // for each pack, the number of its first object
	bits  []uint64
	rest  map[ID]struct{} // members that are in none of these packs
}

// NewMarks returns an empty set. It keeps the packs open until Close.
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

// Add adds id to the set and reports whether it was not in there before.
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

// Has reports whether id is in the set.
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

// Close releases the packs.
func (m *Marks) Close() { m.db.release(m.list) }
