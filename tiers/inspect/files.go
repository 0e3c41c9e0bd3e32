package inspect

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/warm"
)

// DropRecords removes the records of these paths in a state directory's warm, and of all directories above them. What
// is there then counts as changed, and the next commit takes it. The caller must hold the volume's lock.
func DropRecords(state string, paths []string) error {
	fd, err := openWarmDir(state)
	if err != nil {
		return err
	}
	defer warm.CloseFD(fd)
	dropped := map[string]bool{}
	for _, p := range paths {
		for at := p; ; at = path.Dir(at) {
			if at == "." {
				at = ""
			}
			if !dropped[at] {
				dropped[at] = true
				if err := dropRecord(fd, at); err != nil {
					return fmt.Errorf("drop the record of warm/%s: %w", at, err)
				}
			}
			if at == "" {
				break
			}
		}
	}
	if len(dropped) == 0 {
		return nil
	}
	return warm.SyncDir(filepath.Join(state, "warm"))
}

// dropRecord removes one record, if there is one. That of a stub is kept, because otherwise its bytes would be taken
// for zeros.
func dropRecord(root int, at string) error {
	self := warm.ByFD(root)
	if at != "" {
		dir, err := warm.OpenAt(root, cold.NameOf(path.Dir(at)), unix.O_PATH|unix.O_DIRECTORY, 0)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
			return nil
		}
		if err != nil {
			return err
		}
		defer warm.CloseFD(dir)
		self = warm.ByName(dir, path.Base(at))
	}
	var buf [warm.RecordMax + 1]byte
	if n, err := self.Get(warm.RecordAttr, buf[:]); err == nil {
		if r, ok := warm.DecodeRecord(buf[:n]); ok && (r.Has(warm.FlagStub) || r.Has(warm.FlagLazy)) {
			return nil
		}
	}
	err := self.Remove(warm.RecordAttr)
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// linkContent is a symlink's target as a cold.Content.
type linkContent string

func (c linkContent) Size() int64 { return int64(len(c)) }

func (c linkContent) ReadAt(p []byte, off int64) (int, error) {
	return strings.NewReader(string(c)).ReadAt(p, off)
}

func (c linkContent) Data(off int64) (cold.Range, bool, error) {
	return cold.Range{Off: off, End: c.Size()}, off < c.Size(), nil
}

var _ io.ReaderAt = linkContent("")

func warmFiles(ctx context.Context, fd int, at string, depth int, pick func(string, cold.ID) bool,
	f func(string, cold.Content) error) error {
	if err := ctx.Err(); err != nil || cold.TooDeepToWalk(at, depth) != nil {
		return err
	}
	names, err := warm.ListNames(fd)
	if err != nil {
		return fmt.Errorf("list warm/%s: %w", at, err)
	}
	for _, d := range names {
		full := path.Join(at, d.Name)
		var st unix.Statx_t
		if warm.StatAt(fd, d.Name, &st) != nil {
			continue
		}
		switch warm.KindOf(uint32(st.Mode)) {
		case cold.KindDir:
			sub, err := warm.OpenAt(fd, d.Name, unix.O_PATH|unix.O_DIRECTORY, 0)
			if err != nil {
				continue
			}
			err = warmFiles(ctx, sub, full, depth+1, pick, f)
			warm.CloseFD(sub)
			if err != nil {
				return err
			}
		case cold.KindSymlink:
			if to, err := warm.ReadlinkAt(fd, d.Name); err == nil && pick(full, cold.ID{}) {
				if err := f(full, linkContent(to)); err != nil {
					return err
				}
			}
		case cold.KindFile:
			var rec warm.Record
			var buf [warm.RecordMax + 1]byte
			if n, err := warm.ByName(fd, d.Name).Get(warm.RecordAttr, buf[:]); err == nil {
				rec, _ = warm.DecodeRecord(buf[:n])
			}
			if rec.Has(warm.FlagStub) || !pick(full, rec.ID) {
				continue
			}
			if err := withFile(fd, d.Name, &st, func(c cold.Content) error { return f(full, c) }); err != nil {
				return err
			}
		}
	}
	return nil
}

func withFile(dirfd int, name string, st *unix.Statx_t, f func(cold.Content) error) error {
	fd, err := warm.OpenQuiet(dirfd, name, 0)
	if err != nil {
		return nil
	}
	defer warm.CloseFD(fd)
	return f(warm.NewContent(fd, int64(st.Size)))
}
