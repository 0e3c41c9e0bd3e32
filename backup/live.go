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
	// maxLive is the maximum number of commits on a live branch. Writers go back to main at half of it, so a longer
	// branch was not written by EmberFS.
	maxLive = 100_000
)

// epochName matches the name of an epoch: a decimal number without leading zeros. Other names beside are not EmberFS's.
var epochName = regexp.MustCompile(`^(0|[1-9][0-9]{0,18})$`)

// epochOf returns the epoch that begins with a commit of main: the commit's time in seconds, followed by six digits
// made from its id. Every reader and every machine computes the same name, so there is only one live branch per commit
// of main, and the server can compare whether it moved.
func epochOf(id cold.ID, commit *odb.CommitData) string {
	sec := max(commit.Committer.When.Unix(), 0)
	return strconv.FormatInt(sec*1_000_000+int64(binary.BigEndian.Uint32(id[:4])%1_000_000), 10)
}

func (c *Cold) liveRef(epoch string) string { return livePrefix + c.o.Branch + "/" + epoch }

// liveRefAt returns the name of the live branch that would begin at this commit of main.
func (c *Cold) liveRefAt(main cold.ID) (string, error) {
	commit, err := ReadCommit(c.db, main)
	if err != nil {
		return "", err
	}
	return c.liveRef(epochOf(main, &commit)), nil
}

// epochs returns the volume's references with this prefix: their values by epoch.
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

// Position is where main and the live branch are.
type Position struct {
	Main    cold.ID // main's tip; zero: there is no commit
	Ref     string  // the name of the live branch that begins at main's tip, whether it exists or not
	Live    cold.ID // the live branch's tip; zero: there is none that descends from Main
	commits int     // how many commits lead from Main to Live
	Taken   error   // why Ref exists but is not a live branch of Main; nil if it is one, or does not exist
}

// Newest returns the newest commit: the live branch's tip, or else main's.
func (p *Position) Newest() cold.ID {
	if p.Live.IsZero() {
		return p.Main
	}
	return p.Live
}

// same reports whether both positions are at the same commits.
func (p *Position) same(q *Position) bool { return p.Main == q.Main && p.Live == q.Live }

// Position reads where main and its live branch are.
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
	c.note(p.Ref, nil) // a note that retireAbsorbed made about it does not apply any more
	return p, nil
}

// liveChain follows first parents from tip, that of a live branch, to main's tip, and returns the number of commits in
// between. why is not nil if they do not lead there, and says why; err is a failure to find out.
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

// chain remembers a live branch that was found to descend from main.
type chain struct {
	main, tip cold.ID
	commits   int
}

// maxAbsorbers limits the search of follows: only absorbed live branches named by the last so many commits are
// searched, because older ones are hardly ever still in the repository.
const maxAbsorbers = 64

// follows reports whether newer contains all that was committed in older: older is an ancestor of newer, or main
// absorbed it on the way, or it is an ancestor of an absorbed commit that is still in the repository. The search does
// not go beyond commits made before since.
func (c *Cold) follows(ctx context.Context, newer, older cold.ID, since time.Time) (bool, error) {
	if newer == older {
		return true, nil
	}
	perhaps := map[cold.ID]bool{newer: false} // the commits seen; true if it may legitimately be missing here
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

// LiveBegan returns the commit of main at which the live branch that contains the commit id began, which it recognises
// by the branch's name. It returns the zero ID if id is on no live branch.
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

// LiveCommits returns the commits that the live branch has and main has not.
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

// newest opens the newest commit, and returns nil if there is none. If the repository is opened for reading only, it
// may come from anywhere: then a live branch that cannot be opened is ignored instead of being an error.
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

// view returns the snapshot in the form in which Newest returns it: it says Live if it is the live branch's tip.
func (p *Position) view(s *Snapshot) cold.Snapshot {
	if s.info.ID == p.Live {
		return liveSnapshot{s}
	}
	return s
}

// liveSnapshot is the tip of the live branch; its Info says Live.
type liveSnapshot struct{ *Snapshot }

// Info implements cold.Snapshot.
func (s liveSnapshot) Info() cold.CommitInfo {
	info := s.info
	info.Live = true
	return info
}

// note remembers for Stats what is wrong with the topic about, and logs it if it is new. A nil err says that the topic
// is fine again.
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
