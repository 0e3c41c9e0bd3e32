package backup

import (
	"context"
	"fmt"
	"io"

	"emberfs/tiers"
)

// Side makes a snapshot of c comparable. A nil s is what was before the first commit.
func (c *Cold) Side(s tiers.Snapshot) Side {
	if l, ok := s.(liveSnapshot); ok {
		s = l.snapshot
	}
	if s, ok := s.(*snapshot); ok && s != nil {
		return snapshotSide{c, s}
	}
	return nothing{}
}

type snapshotSide struct {
	c *Cold
	s *snapshot
}

func (s snapshotSide) Root() (tiers.Entry, error) { return s.s.Root(), nil }

func (s snapshotSide) List(ctx context.Context, _ string, dir *tiers.Entry) (tiers.Listing, error) {
	return s.s.ReadDir(ctx, dir.Dir())
}

func (s snapshotSide) Open(ctx context.Context, _ string, e *tiers.Entry) (io.ReadCloser, error) {
	return s.c.Open(ctx, e.ID, e.Size)
}

func (s snapshotSide) Invented(e *tiers.Entry) bool { return !s.s.valid && e.Mtime == s.s.committed() }

func (s snapshotSide) Surely(tiers.Time) bool { return false }

// nothing is an empty volume.
type nothing struct{}

func (nothing) Root() (tiers.Entry, error) { return tiers.Entry{Kind: tiers.KindDir}, nil }
func (nothing) List(context.Context, string, *tiers.Entry) (tiers.Listing, error) {
	return tiers.Listing{}, nil
}
func (nothing) Open(_ context.Context, at string, _ *tiers.Entry) (io.ReadCloser, error) {
	return nil, fmt.Errorf("%q: nothing is there", at)
}
func (nothing) Invented(*tiers.Entry) bool { return false }
func (nothing) Surely(tiers.Time) bool     { return false }
