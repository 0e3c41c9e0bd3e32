package backup

import (
	"fmt"
	"strings"

	"github.com/sirupsen/logrus"

	"emberfs/backup/format"
	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

// This file: what the packages beside this one, log and fsck, need of a Cold and a Snapshot and cold.Cold does not
// have.

// Over reads a database that may be damaged. Only what reads may be called of it, and Close.
func Over(db *odb.DB, o Options) (*Cold, error) {
	if err := o.setDefaults(); err != nil {
		return nil, err
	}
	return &Cold{db: db, o: o, log: o.Log, ref: "refs/heads/" + o.Branch}, nil
}

// With is c over another database, as Over.
func (c *Cold) With(db *odb.DB) *Cold { return &Cold{db: db, o: c.o, log: c.log, ref: c.ref} }

// MainRef is the full name of the volume's branch.
func (c *Cold) MainRef() string { return c.ref }

// IsRemoteNote says that a reference notes what the remote has.
func (c *Cold) IsRemoteNote(name string) bool {
	return name == c.TrackingRef() || name == c.sharedRef() || name == c.fetchedRef() ||
		strings.HasPrefix(name, c.absorbedRef(""))
}

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

// Invented says whether an entry's mtime is none that anybody set: a stock client changed the commit, and git has no
// times.
func (s *Snapshot) Invented(e *cold.Entry) bool { return !s.valid && e.Mtime == s.committed() }

// Described says whether the root's metadata describes the root: then no stock client changed the commit there.
func (s *Snapshot) Described() bool { return s.valid }

// LinkGroups reads the groups that span directories, and what is wrong with them.
func (s *Snapshot) LinkGroups() (map[string][]string, []error, error) {
	if s.own.Meta.IsZero() {
		return nil, nil, nil
	}
	m, err := format.LoadMetaDir(s.db, s.own.Meta, format.Ignored())
	if err != nil || m.Links.Mode == 0 {
		return nil, nil, nil // listed with the root directory
	}
	data, err := s.db.Read(m.Links.ID, odb.Blob, format.MaxLinksBlob)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", format.LinksName, err)
	}
	links, problems := format.DecodeLinks(data)
	return links, problems, nil
}
