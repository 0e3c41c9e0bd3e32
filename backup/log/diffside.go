package log

import (
	"context"
	"fmt"
	"io"

	"emberfs/backup"
	"emberfs/tiers/cold"
)

// Side returns a snapshot of c as a side of a Diff. A nil s stands for the empty volume before the first commit.
func (c *Reader) Side(s cold.Snapshot) Side {
	if s, ok := backup.SnapshotOf(s); ok {
		return snapshotSide{c, s}
	}
	return nothing{}
}

type snapshotSide struct {
	c *Reader
	s *backup.Snapshot
}

func (s snapshotSide) Root() (cold.Entry, error) { return s.s.Root(), nil }

func (s snapshotSide) List(ctx context.Context, _ string, dir *cold.Entry) (cold.Listing, error) {
	return s.s.ReadDir(ctx, dir.Dir())
}

func (s snapshotSide) Open(ctx context.Context, _ string, e *cold.Entry) (io.ReadCloser, error) {
	return s.c.Open(ctx, e.ID, e.Size)
}

func (s snapshotSide) Invented(e *cold.Entry) bool { return s.s.Invented(e) }

func (s snapshotSide) Surely(cold.Time) bool { return false }

// nothing is the Side of an empty volume.
type nothing struct{}

func (nothing) Root() (cold.Entry, error) { return cold.Entry{Kind: cold.KindDir}, nil }
func (nothing) List(context.Context, string, *cold.Entry) (cold.Listing, error) {
	return cold.Listing{}, nil
}
func (nothing) Open(_ context.Context, at string, _ *cold.Entry) (io.ReadCloser, error) {
	return nil, fmt.Errorf("%q: nothing is there", at)
}
func (nothing) Invented(*cold.Entry) bool { return false }
func (nothing) Surely(cold.Time) bool     { return false }
