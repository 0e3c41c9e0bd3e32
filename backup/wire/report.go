package wire

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
)

// finish waits for the answer.
func (s *sender) finish() error {
	rerr := <-s.answer
	if errors.Is(rerr, errNoReport) && s.err != nil {
		rerr = errors.Join(rerr, s.err)
	}
	werr := s.p.wait()
	var ng *refusalError
	switch {
	case errors.As(rerr, &ng):
		return ng.sorted(s.p.said.String())
	case rerr != nil:
		return errors.Join(rerr, werr)
	}
	return nil // it has reported success; its exit status does not matter
}

const (
	// maxReport is how many bytes the answer to a push may have, besides its words, and maxStatus those for a
	// reference.
	maxReport, maxStatus = 64 << 10, 4 << 10
	// reportMost is how long the other side may be at work with a push that has arrived, hooks included.
	reportMost = time.Hour
)

// errNoReport says that the other side ended without an answer.
var errNoReport = errors.New("no answer came")

// readReport reads the result of the commands. A refusal comes as the status of unpacking, or as that of a reference.
func (p *session) readReport(updates []Update) error {
	p.pkt.left = maxChatter + maxReport + int64(len(updates))*maxStatus
	report := packp.NewReportStatus()
	if err := report.Decode(&packReader{pkt: p.pkt, said: &p.said}); err != nil {
		return fmt.Errorf("%w: %w", errNoReport, err)
	}
	err := report.Error()
	for _, c := range report.CommandStatuses {
		// In an atomic push, the status of the other references only says that one of them failed.
		if cerr := c.Error(); cerr != nil && strings.Contains(err.Error(), atomicFailure) {
			err = cerr
		}
	}
	if err != nil {
		return &refusalError{Clean(err.Error())}
	}
	named := map[string]bool{}
	for _, c := range report.CommandStatuses {
		named[c.ReferenceName.String()] = true
	}
	for _, u := range updates {
		if !named[u.Ref] {
			return fmt.Errorf("%w: it does not name %s", errNoReport, u.Ref)
		}
	}
	return nil
}
