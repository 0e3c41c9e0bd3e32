package odb

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"emberfs/tiers/cold"
)

// copyLoose stores the objects that are loose in the other repository and in none of the packs.
func (l *linker) copyLoose() error {
	if err := l.db.step("link.loose"); err != nil {
		return err
	}
	list, err := l.looseIDs()
	if err != nil {
		return err
	}
	for _, id := range list {
		if l.has(id) {
			continue
		}
		if err := l.ctx.Err(); err != nil {
			return err
		}
		if err := l.copyObject(id); err != nil && !errors.Is(err, fs.ErrNotExist) { // if gone, it was packed
			return fmt.Errorf("loose object %s: %w", id, err)
		}
	}
	return nil
}

func (l *linker) looseIDs() ([]ID, error) {
	var list []ID
	for i := range 256 {
		sub := fmt.Sprintf("%02x", i)
		names, err := l.names(sub, maxLooseCopied+1)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, n := range names {
			if id, err := cold.ParseID(sub + n); err == nil && strings.ToLower(n) == n {
				list = append(list, id)
			}
		}
		if len(list) > maxLooseCopied {
			return nil, fmt.Errorf("more than %d loose objects", maxLooseCopied)
		}
	}
	return list, nil
}

func (l *linker) copyObject(id ID) (err error) {
	o, err := l.other.openLoose(id)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.close()) }()
	if l.work += o.size; l.work > l.db.opt.MaxInflate || o.typ != Blob && o.size > l.db.opt.MaxDelta {
		return fmt.Errorf("%w: %d bytes", ErrTooLarge, o.size)
	}
	var got ID
	if o.typ == Blob {
		got, err = l.w.PutStreamContext(l.ctx, o.size, o.r, nil)
	} else {
		var data []byte
		if data, err = readSized(o.r, o.size, nil); err == nil {
			got, err = l.w.Put(o.typ, data)
		}
	}
	if err == nil && got != id {
		err = corruptf("content has the id %s", got)
	}
	return err
}
