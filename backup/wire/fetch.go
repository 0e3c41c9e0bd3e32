package wire

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"golang.org/x/sys/unix"

	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

const (
	uploadPack  = "upload-pack"
	receivePack = "receive-pack"
	agent       = "emberfs"
	// maxHave is how many commits are offered as known; the newest tips are enough to find what both sides have.
	maxHave = 256
)

// Refs returns the remote's branches and tags, under their full names. An empty repository has none.
func (r *Remote) Refs(ctx context.Context) (map[string]cold.ID, error) {
	p, refs, err := r.list(ctx, []string{headsPrefix, tagsPrefix})
	if err == nil {
		err = p.hangUp()
	}
	if err != nil {
		return nil, fmt.Errorf("list references of %s: %w", r.path, sorted(ended(ctx, err)))
	}
	return refs, nil
}

// advertised returns the references that a service has advertised in version 0.
func advertised(adv *packp.AdvRefs) map[string]cold.ID {
	refs := make(map[string]cold.ID, len(adv.References))
	for name, id := range adv.References {
		refs[name] = cold.ID(id)
	}
	return refs
}

// list starts upload-pack and asks it for the branches whose full names begin with one of prefixes. It may return more.
func (r *Remote) list(ctx context.Context, prefixes []string, settings ...string) (*session, map[string]cold.ID,
	error) {
	const tries = 3 // with what is known of the other side, with what it says now, and in version 0
	for n := 1; ; n++ {
		p, err := r.connect(ctx, uploadPack, settings...)
		var refs map[string]cold.ID
		if err == nil {
			refs, err = p.list(prefixes)
			p.tempo.stop()
		}
		if err == nil {
			return p, refs, nil
		}
		if p != nil {
			err = p.fail(err)
		}
		f, ok := r.net.(forgetful)
		if !ok || n == tries || ctx.Err() != nil || !f.relearn(p, err) {
			return nil, nil, err
		}
	}
}

func (p *session) list(prefixes []string) (map[string]cold.ID, error) {
	if p.v2 == nil {
		return p.heads, nil
	}
	refs, err := p.listHeads(prefixes)
	if err != nil {
		err = fmt.Errorf("read references: %w", err)
	}
	return refs, err
}

// Link brings everything that the remote has by hard links, including tip and what it reaches, if both repositories are
// on the same file system; see odb.DB.Link. odb.ErrCannotLink says that Fetch has to be used instead.
func (r *Remote) Link(ctx context.Context, db *odb.DB, tip cold.ID) (release func() error, err error) {
	if r.net != nil {
		return nil, odb.ErrCannotLink
	}
	h, err := r.hold()
	if err != nil {
		return nil, fmt.Errorf("link %s: %w", r.path, err)
	}
	defer h.close()
	return db.Link(ctx, h.at("."), tip)
}

// Fetch downloads the objects that the remote's branch refname, a full name, reaches and the commits in have do not.
// have must be commits that this repository has with everything that they reach. The objects are verified, and with
// them that all came that was asked for; then they are published in db and protected until release is called, which
// must be after a reference reaches them. If the remote has no such branch, the error is odb.ErrNoRef; if what came is
// damaged or not enough, cold.ErrCorrupt; if it is too big, odb.ErrTooLarge, and unix.ENOSPC if that is for the disk;
// if the other side refuses, *ServerError. After an error nothing is left of what came. From a path it is enough
// without the contents of files that are damaged there. If the branch's value is in have, nothing is transferred.
func (r *Remote) Fetch(ctx context.Context, db *odb.DB, refname string, have []cold.ID) (tip cold.ID,
	release func() error, err error) {
	tip, release, err = r.fetch(ctx, db, refname, have)
	if err != nil {
		return cold.ID{}, nil, fmt.Errorf("fetch %s from %s: %w", refname, r.path, sorted(ended(ctx, err)))
	}
	return tip, release, nil
}

func (r *Remote) fetch(ctx context.Context, db *odb.DB, refname string, have []cold.ID) (cold.ID, func() error, error) {
	// Looking for deltas takes minutes where sending takes seconds, and on the same machine there is no gain.
	p, refs, err := r.list(ctx, []string{refname}, "pack.window", "0", "pack.compression", "1", "core.bigFileThreshold",
		"8m")
	if err != nil {
		return cold.ID{}, nil, err
	}
	tip, ok := refs[refname]
	if !ok {
		return cold.ID{}, nil, errors.Join(odb.ErrNoRef, p.hangUp())
	}
	if slices.Contains(have, tip) {
		return tip, func() error { return nil }, p.hangUp()
	}
	have = have[:min(len(have), maxHave)]
	p.tempo = r.tempi().pack.hold(p.cancel)
	if p.v2 != nil {
		err = p.request(tip, have)
	} else {
		err = p.negotiate(tip, have)
	}
	if err != nil {
		return cold.ID{}, nil, p.fail(err)
	}
	want := odb.Wanted{Tip: tip, Cut: p.isCut}
	var lost *cold.ID
	if r.net == nil {
		// What is good on a damaged disk is worth having, and the volume shows which files are lost.
		want.Lost = func(id cold.ID) { lost = &id }
	}
	release, err := p.receive(db, want)
	if lost != nil {
		r.logger().Warnf("contents of files are lost on %s, %s among them: git fsck lists them", r.path, lost)
	}
	if err != nil {
		return cold.ID{}, nil, p.fail(err)
	}
	_ = p.wait() // all that was asked for is here, whatever becomes of the other side
	return tip, release, nil
}

// receive takes the pack that comes now.
func (p *session) receive(db *odb.DB, want odb.Wanted) (release func() error, err error) {
	most, err := room(db.Dir())
	if err != nil {
		return nil, err
	}
	p.pkt.left = unbounded
	pack := &packReader{pkt: p.pkt, said: &p.said, tempo: p.tempo}
	_, release, err = db.ReceivePack(pack, most, want)
	if errors.Is(err, odb.ErrTooLarge) && pack.size > most {
		err = fmt.Errorf("%w, and the disk has no room for more: %w", err, unix.ENOSPC)
	}
	p.tempo.stop()
	return release, err
}

// room is how many bytes a pack may have: the file system of the repository keeps a twentieth of its blocks, or 1 GiB,
// for the work of others.
func room(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	size := int64(st.Bsize)
	return max(1, int64(st.Bavail)*size-min(int64(st.Blocks)*size/20, 1<<30)), nil
}
