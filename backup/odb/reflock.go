package odb

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/warm"
)

const (
	// lockPatience is how long a foreign lock is waited for; git holds one for milliseconds.
	lockPatience = time.Second
	lockPoll     = 10 * time.Millisecond
)

// lockFile is a held <file>.lock, as git takes it. Ours is a link to the DB's evidence, so it holds "emberfs <boot>
// <pid>" from the moment that it has the name, after a power cut too, and the lock of a process that died is recognised
// and broken.
type lockFile struct{ path string }

// evidence is the file that locks are links to; made for the first lock, removed by Close.
type evidence struct {
	mu   sync.Mutex
	path string
}

// evidencePath returns the file, which is durable.
func (db *DB) evidencePath() (string, error) {
	db.evidence.mu.Lock()
	defer db.evidence.mu.Unlock()
	if db.evidence.path != "" {
		if _, err := os.Lstat(db.evidence.path); err == nil {
			return db.evidence.path, nil
		}
	}
	path := filepath.Join(db.dir, db.self.tempName("lock"))
	if err := os.WriteFile(path, []byte(db.self.String()), 0o644); err != nil {
		return "", err
	}
	if err := syncFile(path); err != nil {
		return "", errors.Join(err, removeExisting(path))
	}
	db.evidence.path = path
	return path, nil
}

func (db *DB) removeEvidence() error {
	db.evidence.mu.Lock()
	defer db.evidence.mu.Unlock()
	if db.evidence.path == "" {
		return nil
	}
	return removeExisting(db.evidence.path)
}

// lock takes path.lock. ErrLocked, with the path, when somebody holds it for longer than lockPatience.
func (db *DB) lock(path string) (*lockFile, error) {
	l := &lockFile{path + ".lock"}
	deadline := time.Now().Add(lockPatience)
	changed := map[string]struct{}{} // directories that got one
	for {
		proof, err := db.evidencePath()
		if err != nil {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		err = os.Link(proof, l.path)
		switch {
		case err == nil:
			if err := syncDirs(changed); err != nil {
				return nil, fmt.Errorf("lock %s: %w", path, errors.Join(err, l.unlock()))
			}
			return l, nil
		case errors.Is(err, fs.ErrNotExist):
			// git removes directories of references that became empty, perhaps while they are made: they are safe from
			// it, and made durable, when the lock is in them.
			if merr := mkdirNoting(filepath.Dir(l.path), 0o755, changed); merr != nil {
				err = merr
			}
			if !errors.Is(err, fs.ErrNotExist) || time.Now().After(deadline) {
				return nil, fmt.Errorf("lock %s: %w", path, err)
			}
		case errors.Is(err, fs.ErrExist):
			broken, err := db.breakLock(l.path)
			if err != nil {
				return nil, err
			}
			if !broken && time.Now().After(deadline) {
				return nil, fmt.Errorf("%w: %s exists; another git process seems to be at work here, or crashed "+
					"(then remove that file)", ErrLocked, l.path)
			}
			if !broken {
				time.Sleep(lockPoll)
			}
		default:
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
	}
}

// breakLock removes the lock at path if a dead process of ours holds it. Breakers exclude each other by a flock on the
// repository: otherwise the second could remove the lock that the first has just taken.
func (db *DB) breakLock(path string) (bool, error) {
	data, err := readSmall(path, maxOwnerFile)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if o, ok := parseOwner(string(data)); err != nil || !ok || !o.dead(db.self) {
		return false, nil // git's own locks hold ids, or nothing yet
	}
	d, err := os.Open(db.dir)
	if err != nil {
		return false, fmt.Errorf("break %s: %w", path, err)
	}
	defer d.Close()
	for {
		err := unix.Flock(int(d.Fd()), unix.LOCK_EX)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EINTR) {
			return false, fmt.Errorf("break %s: %w", path, err)
		}
	}
	again, err := readSmall(path, maxOwnerFile)
	if errors.Is(err, fs.ErrNotExist) || err == nil && string(again) != string(data) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("break %s: %w", path, err)
	}
	if err := removeExisting(path); err != nil {
		return false, fmt.Errorf("break %s: %w", path, err)
	}
	db.log.WithField("path", path).Warn("broke the lock of a process that died")
	return true, nil
}

func (l *lockFile) unlock() error {
	if err := removeExisting(l.path); err != nil {
		return fmt.Errorf("unlock: %w", err)
	}
	return nil
}

// UpdateRef moves a reference from old to next (FORMAT.md section 5), durable when it returns nil. With a zero old it
// must not exist. Its errors are cold.ErrRefMoved where the reference is elsewhere, and nothing was changed, and
// ErrLocked. After other errors the reference may have moved without being durable, so the caller reads it again.
func (db *DB) UpdateRef(name string, old, next ID) error {
	if next.IsZero() {
		return fmt.Errorf("update reference %s: no new value", name)
	}
	return db.changeRef("update", name, old, func(path string) error { return db.writeRef(path, next) })
}

// DeleteRef removes a reference that points to old. cold.ErrRefMoved, ErrNoRef, ErrLocked.
func (db *DB) DeleteRef(name string, old ID) error {
	if old.IsZero() {
		return fmt.Errorf("delete reference %s: no old value", name)
	}
	return db.changeRef("delete", name, old, func(path string) error {
		// The packed value goes first, or it would come back to life when the loose one is gone.
		if err := db.dropPacked(name); err != nil {
			return err
		}
		if err := removeExisting(path); err != nil && !errors.Is(err, syscall.EISDIR) &&
			!errors.Is(err, syscall.ENOTEMPTY) {
			return err
		}
		return warm.SyncDir(filepath.Dir(path))
	})
}

// changeRef runs change under the reference's lock if it points to old.
func (db *DB) changeRef(op, name string, old ID, change func(path string) error) (err error) {
	if err := checkRefName(name); err != nil || name == headRef {
		return errors.Join(err, fmt.Errorf("%s reference %s: refused", op, name))
	}
	if db.readOnly {
		return fmt.Errorf("%s reference %s: %w", op, name, ErrReadOnly)
	}
	path := db.refPath(name)
	if err := db.step("ref.lock"); err != nil {
		return err
	}
	l, err := db.lock(path)
	if err != nil {
		return fmt.Errorf("%s reference %s: %w", op, name, err)
	}
	defer func() {
		if crashed(err) {
			return
		}
		if uerr := l.unlock(); uerr != nil { // the reference is where err says; the next change will meet the lock
			db.log.WithError(uerr).Error(op + " reference " + name)
		}
	}()
	have, target, err := db.readRef(name)
	switch {
	case errors.Is(err, ErrNoRef) && (old.IsZero() || op == "update"):
		have = ID{}
	case err != nil:
		return err
	case target != "":
		return fmt.Errorf("%s reference %s: it is symbolic, to %s", op, name, target)
	}
	if have != old {
		return fmt.Errorf("%s reference %s: %w: it is %s, expected %s", op, name, cold.ErrRefMoved, have, old)
	}
	if old.IsZero() {
		if err := db.checkNesting(name); err != nil {
			return fmt.Errorf("%s reference %s: %w", op, name, err)
		}
	}
	if err := change(path); err != nil {
		return fmt.Errorf("%s reference %s: %w", op, name, err)
	}
	return db.step("ref.unlock")
}

// checkNesting refuses refs/heads/a beside refs/heads/a/b, which cannot both be files and which git refuses also when
// they are packed.
func (db *DB) checkNesting(name string) error {
	refs, err := db.Refs("")
	if err != nil {
		return err
	}
	for other := range refs {
		if strings.HasPrefix(other, name+"/") || strings.HasPrefix(name, other+"/") {
			return fmt.Errorf("%s exists: %w", other, fs.ErrExist)
		}
	}
	return nil
}

// writeRef puts the value in place while the lock is held.
func (db *DB) writeRef(path string, id ID) (err error) {
	tmp := filepath.Join(db.dir, db.self.tempName("ref"))
	if err := db.step("ref.write"); err != nil {
		return err
	}
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil && !crashed(err) {
			err = errors.Join(err, removeExisting(tmp))
		}
	}()
	_, err = f.WriteString(id.String() + "\n")
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := db.step("ref.rename"); err != nil {
		return err
	}
	err = os.Rename(tmp, path)
	if errors.Is(err, fs.ErrExist) || errors.Is(err, syscall.EISDIR) || errors.Is(err, syscall.ENOTEMPTY) {
		if err = removeEmptyDirs(path); err == nil {
			err = os.Rename(tmp, path)
		}
	}
	if err != nil {
		return err
	}
	if err := db.step("ref.sync-dir"); err != nil {
		return err
	}
	return warm.SyncDir(filepath.Dir(path))
}

// removeEmptyDirs removes a directory tree without files, which stands where a deleted refs/heads/a/b was.
func removeEmptyDirs(path string) error {
	names, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	for _, e := range names {
		if e.IsDir() {
			if err := removeEmptyDirs(filepath.Join(path, e.Name())); err != nil {
				return err
			}
		}
	}
	return os.Remove(path)
}

// dropPacked rewrites packed-refs without name.
func (db *DB) dropPacked(name string) (err error) {
	path := filepath.Join(db.dir, "packed-refs")
	l, err := db.lock(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.unlock()) }()
	data, err := readSmall(path, maxPackedRefs)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	kept, dropped, err := withoutPacked(data, name)
	if err != nil || !dropped {
		return err
	}
	return warm.WriteFileDurable(path, kept, 0o644)
}
