package backup

import (
	"github.com/sirupsen/logrus"

	"emberfs/backup/format"
	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

// This file: what the packages beside this one, log and fsck, need of a Cold and a Snapshot and cold.Cold does not have.

// DB is the object database.
func (c *Cold) DB() *odb.DB { return c.db }

// Branch is the volume's branch, without refs/heads/.
func (c *Cold) Branch() string { return c.o.Branch }

// Logger is where c logs.
func (c *Cold) Logger() logrus.FieldLogger { return c.log }

// SnapshotOf is the Snapshot that a cold.Snapshot of this package is; false for another's, and for none.
func SnapshotOf(s cold.Snapshot) (*Snapshot, bool) {
	if l, ok := s.(liveSnapshot); ok {
		s = l.Snapshot
	}
	t, ok := s.(*Snapshot)
	return t, ok && t != nil
}

// Own is what the commit's directory .emberfs holds.
func (s *Snapshot) Own() format.OwnDir { return s.own }

// RootTree is the id of the user's root directory: the commit's tree without .emberfs. It need not be stored.
func (s *Snapshot) RootTree() cold.ID { return s.rootTree }

// Invented says whether an entry's mtime is none that anybody set: a stock client changed the commit, and git has no times.
func (s *Snapshot) Invented(e *cold.Entry) bool { return !s.valid && e.Mtime == s.committed() }

// Described says whether the root's metadata describes the root: then no stock client changed the commit there.
func (s *Snapshot) Described() bool { return s.valid }
