package log

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"emberfs/backup"
	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

// RevisionHelp describes, for --help and the manual, what Resolve accepts.
const RevisionHelp = `A commit is named by its id or a unique beginning of it of at least 4 digits, by HEAD (the last commit of the
branch itself, without live ones), by a branch or a tag, by any of these followed by ~N (N commits back) or ^N
(the Nth parent), or by a time, which means the last commit not after it: 2026-11-20T10:00 and
"2026-11-20 10:00:30" in local time, RFC 3339, "2h30m ago" or "5 seconds ago" (seconds, minutes, hours, days and
weeks). A name that a branch and a tag share is written heads/NAME or tags/NAME.`

// ErrNoRevision says that nothing in the repository has that name, which the error contains.
var ErrNoRevision = errors.New("no such commit, branch or tag")

// maxTag is the maximum size of a tag object in bytes, and maxTags the number of tags that may point at each other.
const (
	maxTag  = 1 << 20
	maxTags = 10
)

var (
	hexID   = regexp.MustCompile(`^[0-9a-fA-F]{4,40}$`) // from 4 digits on, as for git
	looksAt = regexp.MustCompile(`^\d{4}-\d|\sago$`)    // looks like a time
)

// Resolve returns the commit that rev names; see RevisionHelp. HEAD is the tip of the volume's branch, which is not the
// newest commit while there is a live branch. now is the reference for "ago" and for times without zone.
func (c *Reader) Resolve(ctx context.Context, rev string, now time.Time) (cold.ID, error) {
	id, err := c.resolve(ctx, rev, now)
	if err != nil {
		return cold.ID{}, fmt.Errorf("%q: %w", rev, err)
	}
	return id, nil
}

// newestID returns the id of the newest commit, or an error if there is none.
func (c *Reader) newestID(ctx context.Context) (cold.ID, error) {
	p, err := c.Position(ctx)
	return p.Newest(), c.noCommit(p.Main, err)
}

func (c *Reader) noCommit(id cold.ID, err error) error {
	if err == nil && id.IsZero() {
		err = fmt.Errorf("branch %s has no commit", c.Branch())
	}
	return err
}

func (c *Reader) resolve(ctx context.Context, rev string, now time.Time) (cold.ID, error) {
	switch {
	case strings.Contains(rev, "@{"):
		return cold.ID{}, errors.New("there is no reflog to look into; name a commit, or a time alone")
	case strings.Contains(rev, ".."):
		return cold.ID{}, errors.New("is a range of commits; name one commit")
	}
	if looksAt.MatchString(rev) {
		when, err := parseTime(rev, now)
		if err != nil {
			return cold.ID{}, err
		}
		return c.lastBefore(ctx, when)
	}
	name, suffix := rev, ""
	if i := strings.IndexAny(rev, "~^"); i >= 0 {
		name, suffix = rev[:i], rev[i:]
	}
	id, err := c.named(name)
	if err != nil {
		return cold.ID{}, err
	}
	return c.ancestor(ctx, id, suffix)
}

// named resolves a name without suffix.
func (c *Reader) named(name string) (cold.ID, error) {
	switch name {
	case "":
		return cold.ID{}, errors.New("names no commit")
	case "HEAD", "@":
		id, err := c.Tip()
		return id, c.noCommit(id, err)
	}
	id, ok, err := c.reference(name)
	if err != nil {
		return cold.ID{}, err
	}
	if ok {
		return c.peel(id)
	}
	if !hexID.MatchString(name) {
		return cold.ID{}, ErrNoRevision
	}
	return c.abbreviated(strings.ToLower(name))
}

// reference finds a reference by its short name. A name that is both a tag and a branch is an error unless both have
// the same value.
func (c *Reader) reference(name string) (id cold.ID, ok bool, err error) {
	var found string
	for _, prefix := range []string{"", "refs/", "refs/tags/", "refs/heads/", "refs/remotes/"} {
		full := prefix + name
		if !strings.HasPrefix(full, "refs/") {
			continue
		}
		at, err := c.DB().Ref(full)
		if err != nil {
			if errors.Is(err, cold.ErrCorrupt) {
				return id, false, err
			}
			continue // it does not exist, or is not a valid name
		}
		if ok && at != id {
			return id, false, fmt.Errorf("is both %s and %s; write it in full", found, full)
		}
		id, ok, found = at, true, full
	}
	return id, ok, nil
}

// peel follows tags to their commit.
func (c *Reader) peel(id cold.ID) (cold.ID, error) {
	at := id
	for range maxTags {
		t, data, err := c.DB().ReadAny(at, 0, backup.MaxCommit)
		switch {
		case err != nil:
			return cold.ID{}, err
		case t == odb.Commit:
			return at, nil
		case t != odb.Tag || len(data) > maxTag:
			return cold.ID{}, fmt.Errorf("object %s is a %s, not a commit", at, t)
		}
		line, _, _ := bytes.Cut(data, []byte{'\n'})
		hex, ok := strings.CutPrefix(string(line), "object ")
		if !ok {
			return cold.ID{}, fmt.Errorf("tag %s: %w: it names no object", at, cold.ErrCorrupt)
		}
		if at, err = cold.ParseID(hex); err != nil {
			return cold.ID{}, fmt.Errorf("tag %s: %w: %w", id, cold.ErrCorrupt, err)
		}
	}
	return cold.ID{}, fmt.Errorf("tag %s: %w: tags of tags go on and on", id, cold.ErrCorrupt)
}

// maxCandidates is how many objects may share a prefix before it counts as too short.
const maxCandidates = 1000

// abbreviated returns the only commit whose id begins with prefix. Other kinds of objects with it do not matter, as for
// git.
func (c *Reader) abbreviated(prefix string) (cold.ID, error) {
	if len(prefix) == 40 {
		id, err := cold.ParseID(prefix)
		if err != nil {
			return cold.ID{}, err
		}
		return c.peel(id)
	}
	all, err := c.DB().WithPrefix(prefix, maxCandidates+1)
	if err != nil {
		return cold.ID{}, err
	}
	if len(all) > maxCandidates {
		return cold.ID{}, fmt.Errorf("is too short: more than %d objects begin so", maxCandidates)
	}
	var commits []cold.ID
	var names []string
	for _, id := range all {
		t, _, err := c.DB().Stat(id)
		if err != nil && !backup.IsMissing(err) {
			return cold.ID{}, err
		}
		if err != nil || t != odb.Commit && t != odb.Tag {
			continue
		}
		if commit, err := c.peel(id); err == nil && !slices.Contains(commits, commit) {
			commits, names = append(commits, commit), append(names, fmt.Sprintf("%.12s", id))
		}
	}
	switch len(commits) {
	case 0:
		return cold.ID{}, ErrNoRevision
	case 1:
		return commits[0], nil
	}
	return cold.ID{}, fmt.Errorf("is ambiguous: %s begin so; give more digits",
		strings.Join(names[:min(len(names), 8)], ", "))
}

// ancestor follows suffixes: ~N goes back N first parents, ^N goes to the Nth parent.
func (c *Reader) ancestor(ctx context.Context, id cold.ID, suffix string) (cold.ID, error) {
	cut, err := readShallow(c.DB().Dir())
	if err != nil {
		return cold.ID{}, err
	}
	for suffix != "" {
		op := suffix[0]
		digits := len(suffix) - 1 - len(strings.TrimLeft(suffix[1:], "0123456789"))
		n := 1
		if digits > 0 {
			if n, err = strconv.Atoi(suffix[1 : 1+digits]); err != nil {
				return cold.ID{}, fmt.Errorf("%s: no such ancestor", suffix)
			}
		}
		if rest := suffix[1+digits:]; rest != "" && rest[0] != '~' && rest[0] != '^' {
			return cold.ID{}, fmt.Errorf("%s: want ~N or ^N", suffix)
		}
		suffix = suffix[1+digits:]
		steps, parent := n, 1
		if op == '^' {
			steps, parent = min(n, 1), n
		}
		for range steps {
			if err := ctx.Err(); err != nil {
				return cold.ID{}, err
			}
			commit, err := backup.ReadCommit(c.DB(), id)
			if err != nil {
				return cold.ID{}, err
			}
			if _, ok := cut[id]; ok {
				return cold.ID{}, fmt.Errorf("the repository is shallow: it has nothing before %.12s", id)
			}
			switch {
			case len(commit.Parents) == 0:
				return cold.ID{}, fmt.Errorf("history begins with %.12s: %w", id, ErrNoRevision)
			case parent > len(commit.Parents):
				return cold.ID{}, fmt.Errorf("%.12s has %d parents: %w", id, len(commit.Parents), ErrNoRevision)
			}
			id = commit.Parents[parent-1]
		}
	}
	return id, nil
}

// parseTime parses a time as described in RevisionHelp.
func parseTime(text string, now time.Time) (time.Time, error) {
	if ago, ok := strings.CutSuffix(text, " ago"); ok {
		d, err := time.ParseDuration(strings.ReplaceAll(ago, " ", ""))
		if err != nil {
			d, err = inWords(ago)
		}
		if err != nil || d < 0 {
			return time.Time{},
				errors.New(`is no time: want numbers and units, such as "90m ago", "2h30m ago" or "3 days ago"`)
		}
		return now.Add(-d), nil
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	for _, layout := range []string{"2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02 15:04:05",
		"2006-01-02 15:04"} {
		if t, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			return t, nil
		}
	}
	return time.Time{}, errors.New(`is no time: want "2006-01-02 15:04", perhaps with seconds, or RFC 3339`)
}

// inWords parses a duration as git's users write it: "5 seconds", "1 hour 30 minutes", "3 weeks".
func inWords(text string) (sum time.Duration, err error) {
	units := map[string]time.Duration{"second": time.Second, "sec": time.Second, "minute": time.Minute,
		"min": time.Minute, "hour": time.Hour,
		"day": 24 * time.Hour, "week": 7 * 24 * time.Hour}
	f := strings.FieldsFunc(text, func(r rune) bool { return r == ' ' || r == '.' || r == ',' })
	if len(f) == 0 || len(f)%2 != 0 {
		return 0, errors.New("want a number and a unit")
	}
	for i := 0; i < len(f); i += 2 {
		n, err := strconv.ParseInt(f[i], 10, 32)
		unit, ok := units[strings.TrimSuffix(strings.ToLower(f[i+1]), "s")]
		if err != nil || !ok || n < 0 || n > int64(100*365*24*time.Hour/unit) {
			return 0, errors.New("want a number and a unit")
		}
		sum += time.Duration(n) * unit
	}
	return sum, nil
}

// lastBefore returns the newest commit of main and the live branch that is not after t.
func (c *Reader) lastBefore(ctx context.Context, t time.Time) (cold.ID, error) {
	tip, err := c.newestID(ctx)
	if err != nil {
		return cold.ID{}, err
	}
	oldest := tip
	for commit, err := range c.Log(ctx, []cold.ID{tip}, nil) {
		if err != nil {
			return cold.ID{}, err
		}
		if !commit.Made.After(t) {
			return commit.ID, nil
		}
		oldest = commit.ID
	}
	first, err := c.Commit(oldest)
	if err != nil {
		return cold.ID{}, err
	}
	return cold.ID{}, fmt.Errorf("the first commit, %.12s, was made later, at %s: %w", oldest,
		cold.DateText(first.Made),
		ErrNoRevision)
}
