package wire

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"

	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

const (
	// maxAdvertised is how many bytes a list of references may have: a million of them. Those below heads alone are
	// kept of upload-pack's.
	maxAdvertised = 64 << 20
	// headsPrefix is where all references are that anybody here follows; tags only say that a repository is not empty.
	headsPrefix = "refs/heads/"
	tagsPrefix  = "refs/tags/"
)

// abilities are the capabilities of a service that speaks version 2, by their names (gitprotocol-v2(5)). nil stands for
// version 0.
type abilities map[string]string

// has reports whether a command is known, with a feature of it if that is not "".
func (a abilities) has(command, feature string) bool {
	features, ok := a[command]
	if !ok || feature == "" {
		return ok
	}
	for f := range strings.FieldsSeq(features) {
		if f == feature {
			return true
		}
	}
	return false
}

// readAdvertised reads how a service introduces itself: with its capabilities in version 2, else with its references
// too. In version 0 it has nothing to say of a repository that is empty.
func (p *session) readAdvertised() error {
	p.pkt.left = maxAdvertised
	p.adv, p.heads = packp.NewAdvRefs(), map[string]cold.ID{}
	k, line, err := p.pkt.line()
	if err == nil && k == data && strings.HasPrefix(line, "# service=") {
		// HTTP's; a flush packet follows, but for some servers' in version 2.
		if k, line, err = p.pkt.line(); err == nil && k == flush {
			k, line, err = p.pkt.line()
		}
	}
	if err == nil && k == data && line == "version 1" {
		k, line, err = p.pkt.line()
	}
	if err != nil {
		return err
	}
	if k == data && line == "version 2" {
		p.v2, err = readAbilities(p.pkt)
		return err
	}
	for first := true; k == data; first = false {
		if err := p.advertise(line, first); err != nil {
			return err
		}
		if k, line, err = p.pkt.line(); err != nil {
			return unexpectedEnd(err)
		}
	}
	if k != flush {
		return strange("another packet in a list of references")
	}
	return nil
}

// advertise takes one line of version 0.
func (p *session) advertise(line string, first bool) error {
	if rest, ok := strings.CutPrefix(line, "shallow "); ok && !first {
		return p.cutAt(rest)
	}
	line, caps, ok := strings.Cut(line, "\x00")
	if ok && first {
		if err := p.adv.Capabilities.Decode([]byte(caps)); err != nil {
			return fmt.Errorf("%w: capabilities %.200q: %w", errProtocol, caps, err)
		}
		for _, f := range p.adv.Capabilities.Get("object-format") {
			if err := checkFormat(f); err != nil {
				return err
			}
		}
	}
	hex, name, ok := strings.Cut(line, " ")
	id, err := cold.ParseID(hex)
	if !ok || err != nil || name == "" {
		return strange(line)
	}
	switch {
	case !good(name, id): // also what stands for no reference at all, and what a tag is of
	case p.name != uploadPack:
		p.adv.References[strings.Clone(name)] = plumbing.Hash(id)
	case startsWith(name, headsPrefix, tagsPrefix):
		p.heads[strings.Clone(name)] = id
	}
	return nil
}

// good reports whether a name is one of a reference. git leaves out what is not, too.
func good(name string, id cold.ID) bool {
	return strings.HasPrefix(name, "refs/") && odb.RefNameFault(name) == "" && !id.IsZero()
}

// cutAt notes a commit at which the other side's history begins.
func (p *session) cutAt(hex string) error {
	id, err := cold.ParseID(hex)
	if err != nil {
		return strange("shallow " + hex)
	}
	if p.cut == nil {
		p.cut = map[cold.ID]struct{}{}
	}
	p.cut[id] = struct{}{}
	return nil
}

func (p *session) isCut(id cold.ID) bool {
	_, ok := p.cut[id]
	return ok
}

// readAbilities reads what follows the line "version 2".
func readAbilities(pkt *pktReader) (abilities, error) {
	a := abilities{}
	pkt.left = maxNegotiated
	for {
		k, line, err := pkt.line()
		if err != nil {
			return nil, unexpectedEnd(err)
		}
		if k == flush {
			break
		}
		key, value, _ := strings.Cut(line, "=")
		if k != data || key == "" {
			return nil, strange(line)
		}
		a[key] = value
	}
	if f, ok := a["object-format"]; ok {
		if err := checkFormat(f); err != nil {
			return nil, err
		}
	}
	for _, command := range []string{"ls-refs", "fetch"} {
		if !a.has(command, "") {
			return nil, fmt.Errorf("%w: its version 2 has no %s", errProtocol, command)
		}
	}
	return a, nil
}

func startsWith(name string, prefixes ...string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(name, p) })
}

// readHeads reads an answer to ls-refs, and returns the references that begin with one of the prefixes.
func readHeads(pkt *pktReader, prefixes ...string) (map[string]cold.ID, error) {
	refs := map[string]cold.ID{}
	for {
		k, line, err := pkt.line()
		if err != nil {
			return nil, unexpectedEnd(err)
		}
		if k == flush {
			return refs, nil
		}
		hex, rest, ok := strings.Cut(line, " ")
		name, _, _ := strings.Cut(rest, " ") // attributes may follow
		id, err := cold.ParseID(hex)
		switch {
		case k != data || !ok:
			return nil, strange(line)
		case hex == "unborn":
		case err != nil:
			return nil, strange(line)
		case startsWith(name, prefixes...) && good(name, id):
			refs[strings.Clone(name)] = id
		}
	}
}

// unexpectedEnd is the error for an end of the input where more has to come.
func unexpectedEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
