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
	// lockPatience is how long to wait for a lock that another process holds; git holds one for milliseconds.
	lockPatience = time.Second
	lockPoll     = 10 * time.Millisecond
)

// lockFile is a held <file>.lock, as git takes it. Ours is a hard link to the DB's evidence file. So from the moment
// that it exists, and even after a power cut, it contains "emberfs <boot> <pid>", and if that process is dead the lock
// can be recognised and broken.
type lockFile struct{ path string }

// evidence is the file that our locks are hard links to. It is made for the first lock and removed by Close.
type evidence struct {
	mu   sync.Mutex
	path string
}

// evidencePath returns the path of the evidence file, after making it durable if it is new.
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

// lock takes path.lock. If somebody else holds it for longer than lockPatience, the error is ErrLocked and names the
// lock.
func (db *DB) lock(path string) (*lockFile, error) {
	l := &lockFile{path + ".lock"}
	deadline := time.Now().Add(lockPatience)
	changed := map[string]struct{}{} // directories in which one was made
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
			// git removes directories of references that became empty, perhaps just after we made them. Once the lock
			// is in them they are safe from it, and are made durable.
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

// breakLock removes the lock at path if it belongs to a dead process of EmberFS, and reports whether the lock is gone.
// Processes that break locks exclude each other by a flock on the repository; otherwise one could remove the lock that
// another has just taken.
func (db *DB) breakLock(path string) (bool, error) {
	data, err := readSmall(path, maxOwnerFile)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if o, ok := parseOwner(string(data)); err != nil || !ok || !o.dead(db.self) {
		return false, nil // a lock of git contains an id, or nothing yet
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

// UpdateRef moves a reference from old to next (FORMAT.md section 5); it is durable when it returns nil. If old is zero
// the reference must not exist. The error is cold.ErrRefMoved if the reference has another value, and ErrLocked if
// somebody else holds its lock; then nothing was changed. After other errors the reference may have moved without being
// durable, so the caller should read it again.
func (db *DB) UpdateRef(name string, old, next ID) error {
	if next.IsZero() {
		return fmt.Errorf("update reference %s: no new value", name)
	}
	return db.changeRef("update", name, old, func(path string) error { return db.writeRef(path, next) })
}

// DeleteRef removes a reference whose value is old. The error is cold.ErrRefMoved if it has another value, ErrNoRef if
// it does not exist, and ErrLocked if somebody else holds its lock.
func (db *DB) DeleteRef(name string, old ID) error {
	if old.IsZero() {
		return fmt.Errorf("delete reference %s: no old value", name)
	}
	return db.changeRef("delete", name, old, func(path string) error {
		// The packed value is removed first; otherwise it would come back to life once the loose file is gone.
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

// changeRef takes the reference's lock and runs change if the reference's value is old.
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
		if uerr := l.unlock(); uerr != nil { // not the caller's error; the next change will report the lock
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

// checkNesting refuses refs/heads/a beside refs/heads/a/b: they cannot both be files, and git refuses them even if they
// are packed.
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

// writeRef writes the value. The reference's lock must be held.
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

// removeEmptyDirs removes a directory tree without files, which may be left at refs/heads/a after refs/heads/a/b was
// deleted.
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
