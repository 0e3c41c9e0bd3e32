package backup

import (
	"errors"

	"emberfs/backup/format"
	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

// look reads a tree that may be a file in chunks. It remembers failures, so that a hostile directory that names the
// same tree many times does not cost a read each time.
func (m *merger) look(id cold.ID) (*format.ChunkTree, error) {
	at := &m.looked
	if at.c != nil && at.id == id {
		return at.c, nil
	}
	if err := at.errs[id]; err != nil {
		return nil, err
	}
	c, err := format.LoadChunks(m.s.db, id)
	if err == nil {
		at.id, at.c = id, c
		return c, nil
	}
	if at.errs == nil {
		at.errs = make(map[cold.ID]error)
	}
	at.errs[id] = err
	return nil, err
}

// kind returns what a tree entry is and, if it is a file in chunks, its chunk tree. If the metadata line was written
// for the same object, it is believed.
func (m *merger) kind(name string, l *format.Line, t *odb.TreeEntry) (cold.Kind, *format.ChunkTree) {
	same := l != nil && l.ID == t.ID
	if t.Mode != odb.ModeTree || same && l.Kind == cold.KindDir {
		return kindOf(t.Mode), nil
	}
	c, err := m.look(t.ID)
	switch {
	case err == nil:
		return cold.KindFile, c
	case errors.Is(err, format.ErrNotChunks):
	case IsMissing(err) && same && l.Kind == cold.KindFile:
		return cold.KindFile, nil // opening the file will report what is wrong
	case IsMissing(err) && m.isGone(t.ID):
		// Reading the directory will report it.
	default:
		m.lie(name, "is read as a directory: %w", err)
	}
	return cold.KindDir, nil
}

func (m *merger) isGone(id cold.ID) bool {
	_, _, err := m.s.db.Stat(id)
	return IsMissing(err)
}

// chunked completes e from a chunk tree and appends it. known says that the metadata line was written for this tree. If
// c is nil the tree cannot be read, and the line is all there is.
func (m *merger) chunked(e *cold.Entry, l *format.Line, known bool, c *format.ChunkTree, t *odb.TreeEntry) error {
	if c == nil {
		m.out = append(m.out, *e)
		return nil
	}
	if known && l.Chunk != c.Chunk {
		m.lie(e.Name, "%w: chunks of %d bytes in the metadata, of %d in git", cold.ErrCorrupt, l.Chunk, c.Chunk)
	}
	if at, ok := c.Plain(); ok && known && at.Size == e.Size {
		m.out = append(m.out, *e)
		return nil
	}
	at, problem, err := c.Measure(m.ctx, m.s.db)
	switch {
	case m.ctx.Err() != nil:
		return m.ctx.Err()
	case err != nil && known && IsMissing(err):
	case err != nil:
		m.other(t, err)
		return nil
	default:
		if problem != nil && !known {
			m.lie(e.Name, "%w", problem)
		}
		if known && at.Size != e.Size {
			m.lie(e.Name, "%w: size %d in the metadata, %d in git", cold.ErrCorrupt, e.Size, at.Size)
		}
		e.Size = at.Size
	}
	m.out = append(m.out, *e)
	return nil
}
