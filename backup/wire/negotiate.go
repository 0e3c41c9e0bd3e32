package wire

import (
	"errors"
	"fmt"
	"strings"

	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"

	"emberfs/tiers/cold"
)

// askVersion2 asks a service for version 2 of the protocol, by its environment; one that does not know it speaks
// version 0 (git(1), GIT_PROTOCOL).
const askVersion2 = "GIT_PROTOCOL=version=2"

// maxNegotiated is how many bytes may come in version 0 between a request and the pack, and in version 2 of
// capabilities.
const maxNegotiated = 1 << 20

// negotiate asks for tip in version 0, and reads the answer up to the pack. All is said in one request, which also does
// over HTTP.
func (p *session) negotiate(tip cold.ID, have []cold.ID) error {
	offered := p.adv.Capabilities
	if !offered.Supports(capability.Sideband64k) {
		return errors.New("it does not offer side-band-64k")
	}
	caps := "side-band-64k"
	for _, c := range []capability.Capability{capability.OFSDelta, capability.ThinPack, capability.NoProgress} {
		if offered.Supports(c) {
			caps += " " + c.String()
		}
	}
	// Nothing is gained by multi_ack in a single request, but some servers want it (Azure's).
	switch {
	case offered.Supports(capability.MultiACKDetailed):
		caps += " " + capability.MultiACKDetailed.String()
	case offered.Supports(capability.MultiACK):
		caps += " " + capability.MultiACK.String()
	}
	if offered.Supports(capability.Agent) {
		caps += " agent=" + agent
	}
	var req request
	req.linef("want %s %s", tip, caps)
	req.flush()
	for _, id := range have {
		req.linef("have %s", id)
	}
	req.linef("done")
	p.pkt.some, p.pkt.left = false, maxNegotiated
	if _, err := p.in.Write(req.Bytes()); err != nil {
		return fmt.Errorf("send request: %w", err)
	}
	if err := p.in.Close(); err != nil { // that is all: over HTTP it is what sends the request
		return fmt.Errorf("send request: %w", err)
	}
	return p.acknowledged()
}

// acknowledged reads what comes before a pack in version 0: NAK, or ACK once or more, with words behind the ids. How
// often depends on multi_ack and on what is common, but a packet of the pack begins with the number of a channel.
func (p *session) acknowledged() error {
	for first := true; ; first = false {
		if !first {
			head, err := p.pkt.r.Peek(8)
			if err != nil || string(head[4:]) != "ACK " && string(head[4:7]) != "NAK" {
				return nil // what is wrong comes up when the pack is read
			}
		}
		k, line, err := p.pkt.line()
		if err != nil {
			return fmt.Errorf("read answer: %w", unexpectedEnd(err))
		}
		if k != data || line != "NAK" && !strings.HasPrefix(line, "ACK ") {
			return fmt.Errorf("read answer: %w", strange(line))
		}
	}
}

// command begins a request of version 2.
func (p *session) command(name string) *request {
	var req request
	req.linef("command=%s", name)
	if p.v2.has("agent", "") {
		req.linef("agent=%s", agent)
	}
	if p.v2.has("object-format", "") {
		req.linef("object-format=sha1")
	}
	req.delimiter()
	return &req
}

// listHeads asks in version 2 for the references that begin with one of prefixes.
func (p *session) listHeads(prefixes []string) (map[string]cold.ID, error) {
	req := p.command("ls-refs")
	for _, prefix := range prefixes {
		req.linef("ref-prefix %s", prefix)
	}
	req.flush()
	if err := p.ask(req, maxAdvertised); err != nil {
		return nil, err
	}
	return readHeads(p.pkt, prefixes...)
}

// request asks for tip in version 2, and reads the answer up to the pack.
func (p *session) request(tip cold.ID, have []cold.ID) error {
	req := p.command("fetch")
	for _, line := range []string{"thin-pack", "no-progress", "ofs-delta"} {
		req.linef("%s", line)
	}
	req.linef("want %s", tip)
	for _, id := range have {
		req.linef("have %s", id)
	}
	req.linef("done")
	req.flush()
	if err := p.ask(req, maxAdvertised); err != nil {
		return err
	}
	return p.sections()
}

// sections reads the sections of an answer to fetch that come before the pack.
func (p *session) sections() error {
	for {
		k, section, err := p.pkt.line()
		if err != nil {
			return fmt.Errorf("read answer: %w", unexpectedEnd(err))
		}
		switch {
		case k == data && section == "packfile":
			return nil
		case k == data && (section == "acknowledgments" || section == "shallow-info"):
		case k == flush:
			return fmt.Errorf("read answer: %w: it ends without a pack", errProtocol)
		default:
			return fmt.Errorf("read answer: %w", strange(section))
		}
		for k != delimiter {
			var line string
			if k, line, err = p.pkt.line(); err != nil {
				return fmt.Errorf("read answer: %w", unexpectedEnd(err))
			}
			rest, shallow := strings.CutPrefix(line, "shallow ")
			switch {
			case k == flush || k == end:
				return fmt.Errorf("read answer: %w: it ends without a pack", errProtocol)
			case k == data && shallow:
				if err := p.cutAt(rest); err != nil {
					return err
				}
			}
		}
	}
}
