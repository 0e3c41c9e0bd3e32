package backup

import (
	"fmt"
	"strings"

	"github.com/sirupsen/logrus"

	"emberfs/backup/format"
	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

// This file has what the packages log and fsck need of a Cold and a Snapshot beyond the interface cold.Cold.

// Over returns a Cold for reading a database that may be damaged. Only methods that read, and Close, may be called.
func Over(db *odb.DB, o Options) (*Cold, error) {
	if err := o.setDefaults(); err != nil {
		return nil, err
	}
	return &Cold{db: db, o: o, log: o.Log, ref: "refs/heads/" + o.Branch}, nil
}

// With returns a Cold with the options of c over another database, with the same restrictions as Over.
func (c *Cold) With(db *odb.DB) *Cold { return &Cold{db: db, o: c.o, log: c.log, ref: c.ref} }

// MainRef returns the full name of the volume's branch.
func (c *Cold) MainRef() string { return c.ref }

// IsRemoteNote reports whether a reference is one of those in which EmberFS notes what the remote has.
func (c *Cold) IsRemoteNote(name string) bool {
	return name == c.TrackingRef() || name == c.sharedRef() || name == c.fetchedRef() ||
		strings.HasPrefix(name, c.absorbedRef("")) || strings.HasPrefix(name, carrierNotes+c.o.Branch+"/")
}

// DB returns the object database.
func (c *Cold) DB() *odb.DB { return c.db }

// Branch returns the name of the volume's branch, without refs/heads/.
func (c *Cold) Branch() string { return c.o.Branch }

// Logger returns the logger of c.
func (c *Cold) Logger() logrus.FieldLogger { return c.log }

// SnapshotOf returns the Snapshot of this package that s is or wraps. It returns false for nil and for other
// implementations.
func SnapshotOf(s cold.Snapshot) (*Snapshot, bool) {
	if l, ok := s.(liveSnapshot); ok {
		s = l.Snapshot
	}
	t, ok := s.(*Snapshot)
	return t, ok && t != nil
}

// Own returns what the commit's directory .emberfs contains.
func (s *Snapshot) Own() format.OwnDir { return s.own }

// RootTree returns the tree id of the user's root directory: the commit's tree without .emberfs. That tree need not be
// stored.
func (s *Snapshot) RootTree() cold.ID { return s.rootTree }

// Invented reports whether the mtime of an entry may be made up rather than set by anybody: git stores no times, so
// what a stock client changed gets the time of the commit.
func (s *Snapshot) Invented(e *cold.Entry) bool { return !s.valid && e.Mtime == s.committed() }

// Described reports whether the root's metadata describes the root's tree; then no stock client changed this commit.
func (s *Snapshot) Described() bool { return s.valid }

// LinkGroups returns the hard-link groups that span directories, and what is wrong with single groups.
func (s *Snapshot) LinkGroups() (map[string][]string, []error, error) {
	if s.own.Meta.IsZero() {
		return nil, nil, nil
	}
	m, err := format.LoadMetaDir(s.db, s.own.Meta, format.Ignored())
	if err != nil || m.Links.Mode == 0 {
		return nil, nil, nil // this error is reported with the root directory
	}
	data, err := s.db.Read(m.Links.ID, odb.Blob, format.MaxLinksBlob)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", format.LinksName, err)
	}
	links, problems := format.DecodeLinks(data)
	return links, problems, nil
}
