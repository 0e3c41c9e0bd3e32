package backup

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"emberfs/backup/format"
	"emberfs/backup/odb"
	"emberfs/tiers/cold"
	"emberfs/tiers/rules"
)

// Limits of .emberfs/opened, in lines and bytes.
const (
	maxOpened     = 4096
	maxOpenedBlob = 256 << 10
)

// Opened implements cold.Snapshot. The list is only a hint, and no mount may fail because of it: a missing or damaged
// list counts as empty, and is a problem of the root directory.
func (s *Snapshot) Opened(ctx context.Context) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	paths, err := s.readOpened()
	if err != nil && !IsMissing(err) && !errors.Is(err, cold.ErrCorrupt) {
		return nil, err
	}
	return paths, nil
}

func (s *Snapshot) readOpened() ([]string, error) {
	if s.own.Opened.Mode == 0 {
		return nil, nil
	}
	data, err := s.db.Read(s.own.Opened.ID, odb.Blob, maxOpenedBlob)
	if errors.Is(err, odb.ErrTooLarge) {
		err = fmt.Errorf("%w: %w", cold.ErrCorrupt, err)
	}
	var paths []string
	if err == nil {
		paths, err = decodeOpened(data)
	}
	if err != nil {
		return nil, fmt.Errorf("%s/%s: %w", format.OwnName, format.OpenedName, err)
	}
	return paths, nil
}

// Rules implements cold.Snapshot.
func (s *Snapshot) Rules(ctx context.Context) ([]byte, error) {
	if err := ctx.Err(); err != nil || s.own.Rules.Mode == 0 {
		return nil, err
	}
	if s.own.Rules.Mode != odb.ModeFile {
		return nil, fmt.Errorf("commit %s: %s/%s: %w: mode %o, no plain file", s.info.ID, format.OwnName,
			format.RulesName, cold.ErrCorrupt, s.own.Rules.Mode)
	}
	data, err := s.db.Read(s.own.Rules.ID, odb.Blob, rules.MaxBytes)
	if errors.Is(err, odb.ErrTooLarge) {
		err = fmt.Errorf("%w: %w", cold.ErrCorrupt, err)
	}
	if err != nil {
		return nil, fmt.Errorf("commit %s: %s/%s: %w", s.info.ID, format.OwnName, format.RulesName, err)
	}
	return data, nil
}

// encodeOpened writes one line per path, as many as the limits allow. Invalid paths are left out.
func encodeOpened(paths []string) []byte {
	var b []byte
	lines := 0
	for _, p := range paths {
		if p == "" || len(p) >= unix.PathMax || format.CheckDirPath(p) != nil {
			continue
		}
		start := len(b)
		b = append(b, '{')
		b = format.AppendText(b, "path", p)
		b = append(b, '}', '\n')
		if lines++; len(b) > maxOpenedBlob || lines > maxOpened {
			return b[:start]
		}
	}
	return b
}

// decodeOpened reads the list. One invalid line makes the whole list invalid.
func decodeOpened(data []byte) ([]string, error) {
	var paths []string
	for len(data) > 0 {
		var raw []byte
		raw, data, _ = bytes.Cut(data, []byte{'\n'})
		p, err := decodeOpenedLine(raw)
		if err == nil && len(paths) == maxOpened {
			err = fmt.Errorf("more than %d lines", maxOpened)
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w: %w", len(paths)+1, cold.ErrCorrupt, err)
		}
		paths = append(paths, p)
	}
	return paths, nil
}

func decodeOpenedLine(raw []byte) (p string, err error) {
	r := format.JSONReader{B: raw}
	var isSet bool
	err = r.Object(func(key string) (err error) {
		if key != "path" && key != "path64" {
			return format.ErrUnknownKey
		}
		if err := format.Set(&isSet); err != nil {
			return err
		}
		if key == "path" {
			p, err = r.Str()
			return err
		}
		p, err = r.Base64()
		return err
	})
	if err == nil {
		err = r.End()
	}
	if err == nil && p == "" {
		err = errors.New("no path")
	}
	if err == nil {
		err = format.CheckDirPath(p)
	}
	return p, err
}
