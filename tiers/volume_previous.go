package tiers

import (
	"context"
	"fmt"
	"time"

	"github.com/dustin/go-humanize"

	"emberfs/tiers/cold"
)

// IncompleteError says that a start was refused because something of the session before it is missing, or may be.
type IncompleteError struct{ Previous Previous }

// Error implements error.
func (e *IncompleteError) Error() string {
	return "INCOMPLETE: " + e.Previous.Text + " (require_complete)"
}

// lookBackMost is how many commits of stock clients are looked through for the last one of EmberFS.
const lookBackMost = 256

// lookBack finds out how the session before this one ended, by the newest commit, which is nil where there is none, and
// by what this machine has of the volume, if local is true; before is the newest commit before the fetch, nil where
// there was none. It is an error where that is wanted to be complete and is not.
func (v *Volume) lookBack(ctx context.Context, head, before cold.Snapshot, local bool) error {
	p := v.judge(ctx, head, before, local)
	if p.Missing == nil {
		p.Missing = []string{}
	}
	v.previous = &p
	log := v.log.WithField("previous", p.State)
	switch p.State {
	case PreviousIncomplete:
		for _, line := range p.Missing {
			log.Warn("missing: " + line)
		}
		log.Warn("INCOMPLETE: " + p.Text)
		if v.cfg.RequireComplete {
			return &IncompleteError{p}
		}
	case PreviousComplete:
		log.Info("COMPLETE: " + p.Text)
	default:
		log.Info("it is not known whether something is missing: " + p.Text)
	}
	return nil
}

func (v *Volume) judge(ctx context.Context, head, before cold.Snapshot, local bool) Previous {
	last, stock := v.lastSession(ctx, head)
	p := Previous{State: PreviousUnknown}
	ours := local
	if last != nil {
		made := last.Made
		p.Machine, p.Commit, p.LastSign = last.Machine, last.ID.String(), &made
		ours = local && last.Machine == v.state.Machine && (!v.cold.HasRemote() || v.state.Head == p.Commit)
		// A machine whose disk was copied has this one's id, but its commits were not here.
		if local && !ours && last.Machine == v.state.Machine {
			known, _ := v.lastSession(ctx, before)
			ours = known != nil && known.ID == last.ID
		}
		v.sessionOpen.Store(ours && last.Clean == cold.CleanNo)
	}
	switch {
	case ours:
		v.judgeOwn(&p)
	case last == nil && head == nil:
		p.Text = "the volume has no commit yet"
	case last == nil:
		p.Text = "no machine with EmberFS has committed here lately"
	case last.Clean == cold.CleanUnsaid:
		p.Text = "machine " + last.Machine + " has an earlier version, which does not say how its session ended"
	case last.Clean == cold.CleanYes:
		p.State = PreviousComplete
		p.Text = fmt.Sprintf("machine %s ended cleanly at %s, and all that it had is here", last.Machine,
			agoText(last.Made))
	default:
		judgeLost(&p, last)
	}
	if stock > 0 && !ours && last != nil {
		p.Text += fmt.Sprintf("; commits of git clients after that: %d", stock)
	}
	if v.points.failing("fetch") {
		p.Text += "; this is by what is here, the remote was not followed" + v.points.because("fetch")
		if p.State == PreviousComplete { // others may have been there since
			p.State = PreviousUnknown
		}
	}
	return p
}

// Previous returns what Open found out about the session before this one.
func (v *Volume) Previous() Previous { return *v.previous }

// StartReceipt returns the receipt of the start of this volume: what the session before it left, and what is at risk
// from the beginning. It is to be called once, when programs can come in.
func (v *Volume) StartReceipt() *Receipt {
	p := v.Previous()
	rc := &Receipt{Reason: "start", Complete: p.State == PreviousComplete, Missing: p.Missing, Before: &p,
		Remote: v.cfg.Source, Started: v.openedAt,
		Pushed: v.cold.HasRemote() && !v.unpushed() && !v.points.failing("fetch"), // as far as this start has asked
		Took:   time.Since(v.openedAt)}
	if c := v.lastCommit(); c != nil {
		rc.Commit = c.ID
	}
	v.describeCommit(rc)
	return rc
}

// judgeOwn judges the last session of this machine, whose files are here.
func (v *Volume) judgeOwn(p *Previous) {
	p.Machine, p.Own, p.State = v.state.Machine, true, PreviousComplete
	switch {
	case v.state.Cut:
		p.State = PreviousIncomplete
		p.Text = "this machine stopped without unmounting the volume (a reset, a power cut), and not all that it wrote " +
			"just before was on its disk"
		line := "what was written and not fsynced before that"
		if v.cfg.FlushInterval > 0 {
			line += fmt.Sprintf(", in the last %v at most", v.cfg.FlushInterval)
		}
		p.Missing = append(p.Missing, line)
	case v.state.Pending:
		p.Text = "the last mount on this machine ended with files that no commit has; they are here, and the next " +
			"backup takes them"
	case v.doubtful:
		p.Text = "the last daemon on this machine was killed; all that it acknowledged is here, and the next backup " +
			"takes what no commit has"
	default:
		p.Text = "the last mount on this machine ended cleanly"
	}
}

// judgeLost judges a session of another machine whose last commit is not clean.
func judgeLost(p *Previous, last *cold.CommitInfo) {
	p.State = PreviousIncomplete
	p.AtRisk = cold.AtRisk{Files: last.AtRisk, Bytes: last.AtRiskBytes}
	amount := fmt.Sprintf("%d files, %s", last.AtRisk, humanize.IBytes(uint64(last.AtRiskBytes)))
	if endsSession(last.Reason) {
		p.Text = fmt.Sprintf("the final backup of machine %s, at %s, could not take everything: %s are missing",
			last.Machine, agoText(last.Made), amount)
		p.Missing = append(p.Missing, last.Lacking...)
		if n := last.AtRisk - int64(len(last.Lacking)); n > 0 {
			p.Missing = append(p.Missing, fmt.Sprintf("%d files whose names are not known", n))
		}
		return
	}
	p.Text = fmt.Sprintf("machine %s never took its final backup, or still runs; its last sign was at %s", last.Machine,
		agoText(last.Made))
	for _, path := range last.Lacking {
		p.Missing = append(p.Missing, path+", as it was at the last sign")
	}
	if n := last.AtRisk - int64(len(last.Lacking)); n > 0 {
		p.Missing = append(p.Missing, fmt.Sprintf("%s that were at risk at the last sign", amount))
	}
	p.Missing = append(p.Missing, "what that machine wrote after "+cold.DateText(last.Made))
}

// lastSession returns what the newest commit of EmberFS says, and how many commits of stock clients came after it. A
// merge by one of these may have several such commits behind it; the newest counts. Of a commit that only takes in the
// stray live branch of a machine that was lost, that branch is looked at. It returns nil where no such commit is found.
func (v *Volume) lastSession(ctx context.Context, head cold.Snapshot) (last *cold.CommitInfo, stock int) {
	if head == nil {
		return nil, 0
	}
	seen := map[cold.ID]bool{}
	for queue := []cold.Snapshot{head}; len(queue) > 0 && stock < lookBackMost; queue = queue[1:] {
		info := queue[0].Info()
		if info.Reason == reasonAbsorb && len(info.Absorbed) > 0 {
			if lost, err := v.cold.Snapshot(ctx, info.Absorbed[0]); err == nil {
				info = lost.Info()
			}
		}
		if info.Reason != "" {
			if last == nil || info.Time.After(last.Time) ||
				info.Time.Equal(last.Time) && last.Clean == cold.CleanYes { // a commit is no older than its parents
				last = &info
			}
			continue
		}
		stock++
		for _, id := range append([]cold.ID{info.Parent}, info.Merged...) {
			if id.IsZero() || seen[id] {
				continue
			}
			seen[id] = true
			if s, err := v.cold.Snapshot(ctx, id); err == nil { // a shallow history ends somewhere
				queue = append(queue, s)
			}
		}
	}
	return last, stock
}
