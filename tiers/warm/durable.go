package warm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// TempPrefix is the prefix of the temporary files that WriteFileDurable leaves behind if the process dies in it. A sole
// owner of a directory may remove such files when it starts.
const TempPrefix = ".emberfs-tmp-"

// WriteFileDurable replaces the file at path by data so that after a crash or a power cut either the old or the new
// content is there, whole: temporary file in the same directory, fsync, rename, fsync of the directory. When it returns
// nil the new content is durable. perm is applied as given, not reduced by the umask. Errors name the operation and the
// Path. Concurrent calls for one path are safe: the last rename wins.
func WriteFileDurable(path string, data []byte, perm os.FileMode) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, TempPrefix+"*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("write %s: %w", path, err), ignoreNotExist(os.Remove(f.Name())))
		}
	}()
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(perm)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	return SyncDir(dir)
}

// SyncDir makes the names in the directory at path durable: creations, renames and removals done before the call
// survive a power cut. File systems that cannot sync a directory (EINVAL) are taken at their word.
func SyncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	err = d.Sync()
	if errors.Is(err, syscall.EINVAL) {
		err = nil
	}
	if err = errors.Join(err, d.Close()); err != nil {
		return fmt.Errorf("sync directory %s: %w", path, err)
	}
	return nil
}

// ignoreNotExist drops the error of removing what is gone already.
func ignoreNotExist(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
