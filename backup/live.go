package backup

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

const (
	// livePrefix begins the names of live branches: refs/heads/emberfs-live/BRANCH/EPOCH.
	livePrefix = "refs/heads/emberfs-live/"
	// maxLive bounds the commits of a live branch. A writer goes back to main at half of it, so a longer one is none of
	// ours.
	maxLive = 100_000
)

// epochName is what an epoch is called: a decimal number without leading zeros. Whatever else lies beside is none of
// ours.
var epochName = regexp.MustCompile(`^(0|[1-9][0-9]{0,18})$`)

// epochOf is the epoch that begins with a commit of main: its time in seconds, then six digits of its id. Every reader
// and every other machine comes to the same name, so at one commit there is one live branch, whose moves the server
// compares.
func epochOf(id cold.ID, commit *odb.CommitData) string {
	sec := max(commit.Committer.When.Unix(), 0)
	return strconv.FormatInt(sec*1_000_000+int64(binary.BigEndian.Uint32(id[:4])%1_000_000), 10)
}

func (c *Cold) liveRef(epoch string) string { return livePrefix + c.o.Branch + "/" + epoch }

// liveRefAt is the name of the live branch that a commit of main can have.
func (c *Cold) liveRefAt(main cold.ID) (string, error) {
	commit, err := ReadCommit(c.db, main)
	if err != nil {
		return "", err
	}
	return c.liveRef(epochOf(main, &commit)), nil
}

// epochs picks the volume's references with this prefix out of all, by epoch.
func (c *Cold) epochs(prefix string) (map[string]cold.ID, error) {
	prefix += c.o.Branch + "/"
	refs, err := c.db.Refs(prefix)
	if err != nil {
		return nil, err
	}
	list := make(map[string]cold.ID)
	for name, id := range refs {
		if e := strings.TrimPrefix(name, prefix); epochName.MatchString(e) {
			list[e] = id
		}
	}
	return list, nil
}

// Position is where the branch stands.
type Position struct {
	Main    cold.ID // main's tip; zero: there is no commit
	Ref     string  // the live branch that main's tip can have
	Live    cold.ID // its tip; zero: there is none, or none that follows main
	commits int     // from main's tip to live
	Taken   error   // why what ref holds is no live branch of main's tip; nil: it is, or there is nothing
}

// Newest is the commit that a start takes.
func (p *Position) Newest() cold.ID {
	if p.Live.IsZero() {
		return p.Main
	}
	return p.Live
}

// same says whether both are at the same commits.
func (p *Position) same(q *Position) bool { return p.Main == q.Main && p.Live == q.Live }

// Position finds out where main and its live branch stand.
func (c *Cold) Position(ctx context.Context) (p Position, err error) {
	const tries = 5 // main may move between the two looks
	for range tries {
		if p.Main, err = c.Tip(); err != nil || p.Main.IsZero() {
			return Position{}, err
		}
		if p.Ref, err = c.liveRefAt(p.Main); err != nil {
			return Position{}, err
		}
		at, err := c.ReadRef(p.Ref)
		if errors.Is(err, cold.ErrCorrupt) {
			p.Taken = err
			break
		}
		if err != nil {
			return Position{}, err
		}
		if now, err := c.Tip(); err != nil {
			return Position{}, err
		} else if now != p.Main {
			continue
		}
		p.Live, p.Taken = cold.ID{}, nil
		if !at.IsZero() && at != p.Main {
			if p.commits, p.Taken, err = c.liveChain(ctx, p.Main, at); err != nil {
				return Position{}, err
			}
			if p.Taken == nil {
				p.Live = at
			}
		}
		break
	}
	if p.Taken != nil {
		p.Taken = fmt.Errorf("%s is ignored: %w; move or remove it", p.Ref, p.Taken)
	}
	c.note("live", p.Taken)
	c.note(p.Ref, nil) // what settle said of it is over
	return p, nil
}

// liveChain follows first parents from a live branch's tip to main's. why says what is wrong with one that does not
// lead there.
func (c *Cold) liveChain(ctx context.Context, main, tip cold.ID) (commits int, why, err error) {
	c.mu.Lock()
	known := c.mu.chain
	c.mu.Unlock()
	if known.main != main {
		known = chain{}
	}
	for at := tip; at != main; commits++ {
		if at == known.tip && known.commits > 0 {
			commits += known.commits
			break
		}
		if err := ctx.Err(); err != nil {
			return 0, nil, err
		}
		if commits == maxLive {
			return 0, fmt.Errorf("it is longer than %d commits", maxLive), nil
		}
		commit, err := ReadCommit(c.db, at)
		switch {
		case IsLost(err):
			return 0, err, nil
		case err != nil:
			return 0, nil, err
		case len(commit.Parents) == 0:
			return 0, fmt.Errorf("%s does not descend from %s, the tip of %s", tip, main, c.o.Branch), nil
		}
		at = commit.Parents[0]
	}
	c.mu.Lock()
	c.mu.chain = chain{main, tip, commits}
	c.mu.Unlock()
	return commits, nil, nil
}

// chain is a live branch that was found to descend from main.
type chain struct {
	main, tip cold.ID
	commits   int
}

// maxAbsorbers is how many commits of main back the live branches that they absorbed may still be here.
const maxAbsorbers = 64

// follows says whether what older has went into newer: it is an ancestor, or one that main absorbed on the way, or an
// ancestor of such a one as far as that is still here. Commits made before since are not followed further.
func (c *Cold) follows(ctx context.Context, newer, older cold.ID, since time.Time) (bool, error) {
	if newer == older {
		return true, nil
	}
	perhaps := map[cold.ID]bool{newer: false} // what was seen; true: it may be gone
	queue := []cold.ID{newer}
	for read := 0; len(queue) > 0; read++ {
		id := queue[0]
		queue = queue[1:]
		if err := ctx.Err(); err != nil {
			return false, err
		}
		if read > MaxHistory {
			return false, fmt.Errorf("history of %s: more than %d commits", newer, MaxHistory)
		}
		commit, err := ReadCommit(c.db, id)
		if perhaps[id] && IsLost(err) {
			continue
		}
		if err != nil {
			return false, err
		}
		absorbed := absorbedOf(&commit)
		for i, p := range append(absorbed, commit.Parents...) {
			if p == older {
				return true, nil
			}
			gone := i < len(absorbed) || perhaps[id]
			if _, ok := perhaps[p]; ok || commit.Committer.When.Before(since) || gone && read > maxAbsorbers &&
				!perhaps[id] {
				continue
			}
			perhaps[p] = gone
			queue = append(queue, p)
		}
	}
	return false, nil
}

// LiveBegan finds the commit of main at which the live branch of a commit began, by the name of the live branch; zero:
// it is on none.
func (c *Cold) LiveBegan(ctx context.Context, id cold.ID) (cold.ID, error) {
	list, err := c.epochs(livePrefix)
	if err != nil {
		return cold.ID{}, err
	}
	for epoch, at := range list {
		on := false
		for range maxLive {
			on = on || at == id
			commit, err := ReadCommit(c.db, at)
			if err == nil {
				err = ctx.Err()
			}
			if err != nil && !IsLost(err) {
				return cold.ID{}, err
			}
			if err != nil || len(commit.Parents) == 0 {
				break
			}
			at = commit.Parents[0]
			if before, err := ReadCommit(c.db, at); err == nil && epochOf(at, &before) == epoch {
				if on {
					return at, nil
				}
				break
			}
		}
	}
	return cold.ID{}, nil
}

// LiveCommits are those that the live branch has and main has not.
func (c *Cold) LiveCommits(ctx context.Context) (map[cold.ID]bool, error) {
	p, err := c.Position(ctx)
	if err != nil {
		return nil, err
	}
	set := make(map[cold.ID]bool)
	for id := p.Live; !id.IsZero() && id != p.Main; {
		set[id] = true
		commit, err := ReadCommit(c.db, id)
		if err != nil {
			return nil, err
		}
		id = commit.Parents[0]
	}
	return set, nil
}

// Newest implements cold.Cold.
func (c *Cold) Newest(ctx context.Context) (cold.Snapshot, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p, err := c.Position(ctx)
	if err != nil {
		return nil, err
	}
	s, err := c.newest(&p)
	if err != nil || s == nil {
		return nil, err
	}
	return p.view(s), nil
}

// newest opens the newest commit; nil while there is none. A repository that is only read may be anybody's: there a
// live branch that cannot be opened counts for nothing.
func (c *Cold) newest(p *Position) (*Snapshot, error) {
	if p.Live.IsZero() {
		return c.head()
	}
	c.mu.Lock()
	s := c.mu.live
	c.mu.Unlock()
	if s != nil && s.info.ID == p.Live {
		return s, nil
	}
	s, err := c.At(p.Live)
	if c.db.ReadOnly() && IsLost(err) {
		c.note("live", fmt.Errorf("%s is ignored: %w", p.Ref, err))
		p.Live = cold.ID{}
		return c.head()
	}
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	c.mu.live = s
	c.mu.Unlock()
	return s, nil
}

// view is the snapshot as Newest gives it.
func (p *Position) view(s *Snapshot) cold.Snapshot {
	if s.info.ID == p.Live {
		return liveSnapshot{s}
	}
	return s
}

// liveSnapshot is the tip of the live branch.
type liveSnapshot struct{ *Snapshot }

// Info implements cold.Snapshot.
func (s liveSnapshot) Info() cold.CommitInfo {
	info := s.info
	info.Live = true
	return info
}

// note keeps what is wrong for Stats, by what it is about, and logs it when it is new; nil: it is good again.
func (c *Cold) note(about string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch old := c.mu.notes[about]; {
	case err == nil:
		delete(c.mu.notes, about)
	case old != err.Error():
		if c.mu.notes == nil {
			c.mu.notes = make(map[string]string)
		}
		c.mu.notes[about] = err.Error()
		c.log.Warn(err)
	}
}
