package wire

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/pktline"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/sideband"

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

// Refs returns the remote's references, except HEAD. An empty repository has none.
func (r *Remote) Refs(ctx context.Context) (map[string]cold.ID, error) {
	p, err := r.start(ctx, uploadPack)
	if err != nil {
		return nil, fmt.Errorf("list references of %s: %w", r.path, sorted(ended(ctx, err)))
	}
	refs := advertised(p.adv)
	if err := p.hangUp(); err != nil {
		return nil, fmt.Errorf("list references of %s: %w", r.path, sorted(ended(ctx, err)))
	}
	return refs, nil
}

func advertised(adv *packp.AdvRefs) map[string]cold.ID {
	refs := make(map[string]cold.ID, len(adv.References))
	for name, id := range adv.References {
		if id != plumbing.ZeroHash && len(name) > 5 && name[:5] == "refs/" {
			refs[name] = cold.ID(id)
		}
	}
	return refs
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

// Fetch downloads the objects that the remote's reference reaches and the commits in have do not. have must be commits
// that this repository has with everything that they reach. The objects are verified, published in db and protected
// until release is called, which must be after a reference reaches them. If the remote has no such reference, the error
// is odb.ErrNoRef. If the reference's value is in have, nothing is transferred.
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
	p, err := r.start(ctx, uploadPack, "pack.window", "0", "pack.compression", "1", "core.bigFileThreshold", "8m")
	if err != nil {
		return cold.ID{}, nil, err
	}
	nothing := func() error { return nil }
	tip, ok := advertised(p.adv)[refname]
	if !ok {
		return cold.ID{}, nil, errors.Join(odb.ErrNoRef, p.hangUp())
	}
	for _, id := range have {
		if id == tip {
			return tip, nothing, p.hangUp()
		}
	}
	if !p.adv.Capabilities.Supports(capability.Sideband64k) {
		return cold.ID{}, nil, p.fail(errors.New("it does not offer side-band-64k"))
	}
	if err := p.negotiate(tip, have); err != nil {
		return cold.ID{}, nil, p.fail(err)
	}
	demux := sideband.NewDemuxer(sideband.Sideband64k, p.out)
	demux.Progress = &p.said
	_, release, err := db.IndexPack(demux, 0)
	if err != nil {
		return cold.ID{}, nil, p.fail(err)
	}
	// From here on the objects are published; give them up again if the rest fails.
	err = p.wait()
	if err == nil {
		var t odb.Type
		if t, _, err = db.Stat(tip); err == nil && t != odb.Commit {
			err = fmt.Errorf("%s is a %s, not a commit: %w", tip, t, cold.ErrCorrupt)
		}
	}
	if err != nil {
		return cold.ID{}, nil, errors.Join(err, release())
	}
	return tip, release, nil
}

// negotiate asks for tip, and reads the answer up to the pack. Without multi_ack the answer is one line, with the first
// common commit or NAK, but git repeats it for each further commit of which it has acknowledged a descendant.
func (p *session) negotiate(tip cold.ID, have []cold.ID) error {
	var b bytes.Buffer
	e := pktline.NewEncoder(&b)
	caps := "side-band-64k no-progress agent=" + agent
	for _, c := range []capability.Capability{capability.OFSDelta, capability.ThinPack} {
		if p.adv.Capabilities.Supports(c) {
			caps += " " + c.String()
		}
	}
	err := errors.Join(e.Encodef("want %s %s\n", tip, caps), e.Flush())
	for i, id := range have {
		if i == maxHave {
			break
		}
		err = errors.Join(err, e.Encodef("have %s\n", id))
	}
	if err = errors.Join(err, e.EncodeString("done\n")); err != nil {
		return err
	}
	if _, err := p.in.Write(b.Bytes()); err != nil {
		return fmt.Errorf("send request: %w", err)
	}
	if err := p.in.Close(); err != nil { // that is all: over HTTP it is what sends the request
		return fmt.Errorf("send request: %w", err)
	}
	answer := bufio.NewReader(p.out)
	p.out = answer
	s := pktline.NewScanner(answer)
	for first := true; ; first = false {
		if !first {
			// The pack comes in packets too; their first byte is the number of a channel.
			if head, err := answer.Peek(8); err != nil || !bytes.Equal(head[4:], []byte("ACK ")) {
				return nil
			}
		}
		if !s.Scan() {
			err := s.Err()
			if err == nil {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("read answer: %w", err)
		}
		if line := s.Bytes(); !bytes.HasPrefix(line, []byte("NAK")) && !bytes.HasPrefix(line, []byte("ACK ")) {
			return fmt.Errorf("read answer: %.200q", line)
		}
	}
}
