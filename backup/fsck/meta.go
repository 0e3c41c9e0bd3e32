package fsck

import (
	"context"
	"fmt"
	"path"

	"emberfs/backup"
	"emberfs/backup/format"
	"emberfs/tiers/cold"
)

// metadata reads every directory of the newest commit, whose tree and metadata must agree.
func (c *Checker) metadata(ctx context.Context) error {
	s := c.tip
	own := s.Own()
	switch {
	case own.Known == nil && c.o.Volume:
		c.found(cold.Finding{Severity: cold.Risk, What: "the last commit has no " + format.OwnName +
			": owners, times and attributes are defaults", Commit: c.tipID.String(),
			Do: "git log -- " + format.OwnName + " shows who removed it"})
	case own.Known == nil:
		c.found(cold.Finding{Severity: cold.Note, What: "not a volume yet: no commit by emberfs",
			Commit: c.tipID.String(), Do: "emberfs mount makes it one"})
	case !own.Found:
		c.found(cold.Finding{Severity: cold.Damaged, What: format.VolumeName + " is missing or cannot be read",
			Path: format.OwnName + "/" + format.VolumeName, Commit: c.tipID.String(),
			Do: "the next commit writes it anew"})
	}
	m := metaCheck{c: c, ctx: ctx, seen: map[cold.DirID]bool{}, dirs: map[string]bool{}, left: maxLostFindings}
	links, problems, err := s.LinkGroups()
	if err != nil && !backup.IsMissing(err) {
		problems = append(problems, err)
	}
	for _, p := range problems {
		c.found(m.lie(path.Join(format.OwnName, format.MetaName, format.LinksName), p))
	}
	for _, dirs := range links {
		for _, d := range dirs {
			m.dirs[d] = false
		}
	}
	if err := m.dir("", rootDirOf(s), 0); err != nil {
		return err
	}
	if own.Known == nil {
		return nil
	}
	if m.reconciled > 0 {
		c.found(cold.Finding{Severity: cold.Note,
			What: fmt.Sprintf("%s changed by a stock client; the next commit brings the metadata up to date",
				plural(m.reconciled, "directory was", "directories were")),
			Commit: c.tipID.String()})
		return nil
	}
	for d, there := range m.dirs {
		if !there && !own.Meta.IsZero() {
			c.found(m.lie(d, fmt.Errorf("%s names it, but the commit has no such directory", format.LinksName)))
		}
	}
	return nil
}

func rootDirOf(s *backup.Snapshot) cold.DirID {
	root := s.Root()
	return root.Dir()
}

type metaCheck struct {
	c          *Checker
	ctx        context.Context
	seen       map[cold.DirID]bool // checked directories; in a tree bomb, few directories are in many places
	dirs       map[string]bool     // the directories that link groups name, and whether they were found
	reconciled int
	left       int
}

func (m *metaCheck) lie(at string, err error) cold.Finding {
	return cold.Finding{Severity: cold.Damaged, What: "metadata: " + err.Error(), Path: at, Commit: m.c.tipID.String(),
		Do: "the next commit that takes the directory stores it anew"}
}

func (m *metaCheck) dir(at string, id cold.DirID, depth int) error {
	if err := m.ctx.Err(); err != nil {
		return err
	}
	if _, named := m.dirs[at]; named {
		m.dirs[at] = true
	}
	if m.seen[id] && len(m.dirs) == 0 {
		return nil
	}
	if err := cold.TooDeepToWalk(at, depth); err != nil {
		m.c.found(cold.Finding{Severity: cold.Damaged, What: "not looked at: " + err.Error(), Path: at,
			Commit: m.c.tipID.String(),
			Do:     "move the directory further up by a stock client"})
		return nil
	}
	m.seen[id] = true
	l, err := m.c.tip.ReadDir(m.ctx, id)
	if m.ctx.Err() != nil {
		return m.ctx.Err()
	}
	if err != nil {
		if !backup.IsMissing(err) && !m.c.lostSeen[id.Tree] {
			m.c.found(m.lie(at, err))
		}
		return nil // the walk over the objects reports it
	}
	if l.Reconciled && len(l.Problems) == 0 {
		m.reconciled++
	}
	for _, p := range l.Problems {
		if backup.IsMissing(p) {
			continue // the walk over the objects reports it
		}
		if m.left--; m.left >= 0 {
			m.c.found(m.lie(at, p))
		}
	}
	for i := range l.Entries {
		e := &l.Entries[i]
		if e.Kind == cold.KindOther {
			if m.left--; m.left >= 0 {
				m.c.found(cold.Finding{Severity: cold.Note,
					What: "no directory can hold this, mounts show a stand-in and commits carry it over: " +
						e.Other.Why,
					Path: path.Join(at, e.Name), Commit: m.c.tipID.String(), Object: e.ID.String()})
			}
		}
		if e.Kind == cold.KindDir {
			if err := m.dir(path.Join(at, e.Name), e.Dir(), depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}
