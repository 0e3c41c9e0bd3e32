package backup

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"emberfs/backup/format"
	"emberfs/backup/odb"
	"emberfs/backup/wire"
	"emberfs/tiers/cold"
)

// A push of more than Options.PushMax goes in several conversations. Each but the last moves the branch to an earlier
// commit, which is a state that the volume was in. If one commit alone is too much, its blobs go ahead in carriers:
// commits on branches of their own, which are deleted when the branch has moved (FORMAT.md section 7). What has arrived
// is not sent again after a failure, nor after a restart.
const (
	// carrierPrefix begins the names refs/heads/emberfs-part/BRANCH/SECONDS-HEX of carriers on the remote, and
	// carrierNotes those of our notes of them.
	carrierPrefix = "refs/heads/emberfs-part/"
	carrierNotes  = "refs/emberfs/part/"

	// carrierLife is after how long a carrier that is not ours belongs to nobody.
	carrierLife = 24 * time.Hour
)

// IsCarrier reports whether a reference is that of a carrier, which holds parts of a push and no state of a volume.
func IsCarrier(ref string) bool { return strings.HasPrefix(ref, carrierPrefix) }

// cut sets the updates to what one conversation may carry of parts, and returns the objects to send. more says whether
// something is left.
func (p *outgoing) cut(parts []part, refs map[string]cold.ID) ([]cold.ID, error) {
	c := p.c
	if len(parts) == 0 {
		return nil, nil
	}
	for ref, at := range p.done {
		if strings.HasPrefix(ref, carrierPrefix) && refs[ref] != at {
			return nil, &cold.RefusedError{Reason: fmt.Sprintf("it acknowledges %s, and then does not show it", ref),
				Advice: "have it show branches of this name, or raise push_max"}
		}
	}
	has, err := c.carried(refs)
	if err != nil {
		return nil, err
	}
	ids, err := c.objects(p.ctx, parts, has)
	if err != nil {
		return nil, err
	}
	over, err := c.tooMuch(ids)
	if over && len(parts) > 1 && parts[0].Old != parts[0].New {
		parts, p.more = parts[:1], true // the live branch follows
		if ids, err = c.objects(p.ctx, parts, has); err == nil {
			over, err = c.tooMuch(ids)
		}
	}
	if over && err == nil {
		var earlier bool
		if earlier, err = c.shorten(p.ctx, &parts[len(parts)-1], has); earlier && err == nil {
			p.more = true
			if ids, err = c.objects(p.ctx, parts, has); err == nil {
				over, err = c.tooMuch(ids)
			}
		}
	}
	if err != nil {
		return nil, err
	}
	if over {
		ahead, err := p.carry(ids)
		if err != nil || ahead != nil {
			return ahead, err
		}
	}
	for _, part := range parts {
		p.updates = append(p.updates, part.Update)
	}
	return ids, nil
}

// tooMuch reports whether a pack of these objects is over the limit. What all takes here together does not tell: deltas
// are sent as whole objects.
func (c *Cold) tooMuch(ids []cold.ID) (bool, error) {
	var sum int64
	for _, id := range ids {
		n, err := c.db.StoredSize(id)
		if err != nil {
			return false, err
		}
		if sum += n; sum > c.o.PushMax {
			return true, nil
		}
	}
	return false, nil
}

// shorten moves the end of a part to an earlier commit on its first-parent line: the last one up to which everything
// fits, or the first one. It returns false if there is none.
func (c *Cold) shorten(ctx context.Context, p *part, has map[cold.ID]struct{}) (bool, error) {
	in := make(map[cold.ID]bool, len(p.commits))
	for _, id := range p.commits {
		in[id] = true
	}
	var line []cold.ID // newest first
	for id := p.New; in[id]; {
		line = append(line, id)
		commit, err := ReadCommit(c.db, id)
		if err != nil {
			return false, err
		}
		if len(commit.Parents) == 0 {
			break
		}
		id = commit.Parents[0]
	}
	if len(line) < 2 {
		return false, nil
	}
	d := delta{ctx: ctx, db: c.db, seen: make(map[cold.ID]struct{}, len(has))}
	for id := range has {
		d.seen[id] = struct{}{}
	}
	before, sum := p.from, int64(0)
	end := line[len(line)-1]
	for i := len(line) - 1; i > 0; i-- {
		list, _, err := c.NewCommits(ctx, line[i], before)
		if err != nil {
			return false, err
		}
		from := len(d.ids)
		if err := d.commits(list, p.base); err != nil {
			return false, err
		}
		for _, id := range d.ids[from:] {
			n, err := c.db.StoredSize(id)
			if err != nil {
				return false, err
			}
			sum += n
		}
		if sum > c.o.PushMax {
			break
		}
		end, before = line[i], line[i]
	}
	p.New = end
	var err error
	p.commits, _, err = c.NewCommits(ctx, end, p.from)
	return true, err
}

// carry replaces the updates by a new carrier with as many blobs of ids as fit, and returns what to send for it; nil if
// there are no blobs.
func (p *outgoing) carry(ids []cold.ID) ([]cold.ID, error) {
	c := p.c
	var entries []odb.TreeEntry
	var sum int64
	for _, id := range ids {
		t, _, err := c.db.Stat(id)
		if err != nil {
			return nil, err
		}
		if t != odb.Blob {
			continue
		}
		n, err := c.db.StoredSize(id)
		if err != nil {
			return nil, err
		}
		if sum += n; sum > c.o.PushMax && len(entries) > 0 {
			break
		}
		entries = append(entries, odb.TreeEntry{Mode: odb.ModeFile, Name: id.String(), ID: id})
	}
	if len(entries) == 0 {
		return nil, nil
	}
	name, ahead, err := c.putCarrier(entries)
	if err != nil {
		return nil, fmt.Errorf("store a part of the push: %w", err)
	}
	p.updates, p.more = []wire.Update{{Ref: carrierPrefix + name, New: ahead[0]}}, true
	for _, e := range entries {
		ahead = append(ahead, e.ID)
	}
	return ahead, nil
}

// putCarrier stores a commit with these entries, and a note of it, by the same name as the remote will have.
func (c *Cold) putCarrier(entries []odb.TreeEntry) (name string, ids []cold.ID, err error) {
	data, err := odb.EncodeTree(entries)
	if err != nil {
		return "", nil, err
	}
	w, err := c.db.NewWriter()
	if err != nil {
		return "", nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.Abort())
		}
	}()
	tree, err := w.Put(odb.Tree, data)
	if err != nil {
		return "", nil, err
	}
	now := time.Now()
	who := odb.Signature{Name: c.o.UserName, Email: c.o.UserEmail, When: now}
	data, err = odb.EncodeCommit(odb.CommitData{Tree: tree, Author: who, Committer: who,
		Message: "Part of a push to " + c.o.Branch + "\n\nIt goes when the branch has moved.\n"})
	if err != nil {
		return "", nil, err
	}
	commit, err := w.Put(odb.Commit, data)
	if err == nil {
		err = w.Publish()
	}
	name = fmt.Sprintf("%s/%d-%x", c.o.Branch, now.Unix(), commit[:6])
	if err == nil {
		err = c.setRef(carrierNotes+name, commit)
	}
	if err == nil {
		err = w.Release()
	}
	return name, []cold.ID{commit, tree}, err
}

// carriers are our notes of carriers, by name.
func (c *Cold) carriers() (map[string]cold.ID, error) {
	prefix := carrierNotes + c.o.Branch + "/"
	refs, err := c.db.Refs(prefix)
	if err != nil {
		return nil, err
	}
	list := make(map[string]cold.ID, len(refs))
	for ref, id := range refs {
		if name := strings.TrimPrefix(ref, prefix); carrierName.MatchString(name) {
			list[name] = id
		}
	}
	return list, nil
}

// carrierName matches the last part of a carrier's name: when it was made, in seconds, and the beginning of its id.
var carrierName = regexp.MustCompile(`^([1-9][0-9]{0,11})-[0-9a-f]{12}$`)

// carried returns the blobs that the remote has in carriers of ours.
func (c *Cold) carried(refs map[string]cold.ID) (map[cold.ID]struct{}, error) {
	list, err := c.carriers()
	if err != nil || len(list) == 0 {
		return nil, err
	}
	has := make(map[cold.ID]struct{})
	for name, id := range list {
		if refs[carrierPrefix+c.o.Branch+"/"+name] != id {
			if err := c.setRef(carrierNotes+c.o.Branch+"/"+name, cold.ID{}); err != nil { // it did not get there
				return nil, err
			}
			continue
		}
		commit, err := ReadCommit(c.db, id)
		if err != nil {
			return nil, err
		}
		entries, err := format.ReadTree(c.db, commit.Tree, format.Ignored())
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			has[e.ID] = struct{}{}
		}
	}
	return has, nil
}

// oldCarriers returns the deletions of carriers that are of no more use, and notes which of our notes go with them.
func (p *outgoing) oldCarriers(refs map[string]cold.ID) (old []wire.Update, err error) {
	c := p.c
	ours, err := c.carriers()
	if err != nil {
		return nil, err
	}
	for name := range ours {
		p.parts = append(p.parts, carrierNotes+c.o.Branch+"/"+name)
	}
	prefix := carrierPrefix + c.o.Branch + "/"
	for _, ref := range slices.Sorted(maps.Keys(refs)) {
		name, ok := strings.CutPrefix(ref, prefix)
		match := carrierName.FindStringSubmatch(name)
		if !ok || match == nil {
			continue
		}
		made, err := strconv.ParseInt(match[1], 10, 64)
		if err != nil {
			continue
		}
		if ours[name] == refs[ref] || time.Since(time.Unix(made, 0)) > carrierLife {
			old = append(old, wire.Update{Ref: ref, Old: refs[ref]})
		}
	}
	return old, nil
}
