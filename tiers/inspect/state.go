package inspect

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"emberfs/tiers/cold"
	"emberfs/tiers/warm"
)

// StateInfo is what volume.json says, for readers.
type StateInfo struct {
	Volume    string
	Branch    string
	Source    string
	Head      cold.ID // the commit that warm was last in step with; zero: none
	Origin    cold.ID // the commit that warm was last restored from; zero: none
	Restoring bool    // a restore did not finish; the next mount does it again
	Clean     bool    // the last daemon stopped cleanly
	// Trusted says whether the next start will believe the records: after a clean stop, or within the same boot.
	Trusted bool
	trust   uint16
}

// ReadState reads a state directory's volume.json and changes nothing. The error is fs.ErrNotExist if there is none,
// and ErrNewerState if it was written by a newer version.
func ReadState(dir string) (StateInfo, error) {
	if _, err := os.Lstat(filepath.Join(dir, warm.StateName)); err != nil {
		return StateInfo{}, err
	}
	s, err := warm.LoadState(dir)
	if err != nil {
		return StateInfo{}, err
	}
	boot, err := warm.BootID()
	if err != nil {
		return StateInfo{}, err
	}
	i := StateInfo{
		Volume: s.Volume, Branch: s.Branch, Source: s.Source, Restoring: s.Restore != "", Clean: s.Clean,
		Trusted: s.Clean || s.Boot == boot || s.Boot == "", trust: s.Trust,
	}
	if s.Head != "" {
		if i.Head, err = cold.ParseID(s.Head); err != nil {
			return i, fmt.Errorf("read the volume's state %s: head: %w", s.Path, err)
		}
	}
	if id, err := cold.ParseID(s.Origin); err == nil { // otherwise the daemon uses the branch's tip
		i.Origin = id
	}
	return i, nil
}

// SetHead sets the commit that warm is in step with. The caller must hold the volume's lock.
func SetHead(dir string, commit cold.ID) error {
	s, err := warm.LoadState(dir)
	if err != nil {
		return err
	}
	return s.Update(func(f *warm.StateFile) { f.Head = commit.String() })
}

// StaleTemps returns the temporary files that a killed process left in a state directory. The caller must hold the
// volume's lock.
func StaleTemps(dir string) ([]string, error) {
	var list []string
	for _, d := range []string{dir, filepath.Join(dir, "receipts")} {
		names, err := os.ReadDir(d)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return list, fmt.Errorf("look for temporary files: %w", err)
		}
		for _, e := range names {
			if strings.HasPrefix(e.Name(), warm.TempPrefix) && e.Type().IsRegular() {
				list = append(list, filepath.Join(d, e.Name()))
			}
		}
	}
	return list, nil
}

// WarmFiles walks a state directory's warm. For each regular file whose bytes are there, and each symlink (its content
// is its target), it calls pick with the path and the id in the file's record, zero if there is none; if pick returns
// true, it calls f with the content. What cannot be opened is skipped. The record may be wrong, so f has to compare.
func WarmFiles(ctx context.Context, dir string, pick func(path string, id cold.ID) bool,
	f func(path string, c cold.Content) error) error {
	fd, err := openWarmDir(dir)
	if err != nil {
		return err
	}
	defer warm.CloseFD(fd)
	return warmFiles(ctx, fd, "", 0, pick, f)
}
