package tiers

import (
	"encoding/json"
	"slices"
	"time"

	"emberfs/tiers/cold"
)

// TierStatus counts what a tier holds.
type TierStatus struct {
	Files int64 `json:"files"`
	Bytes int64 `json:"bytes"`
}

// HotStatus adds the cache's counters.
type HotStatus struct {
	TierStatus
	Hits   uint64 `json:"hits"`
	Misses uint64 `json:"misses"`
	Limit  int64  `json:"limit"`
	Inodes int64  `json:"inodes"` // in the inode table
	// InodesMax is the number of inodes over which the kernel is asked to forget those that nobody uses. There may be
	// more in use.
	InodesMax int64 `json:"inodes_max"`
}

// Point is a commit and when it was made or pushed.
type Point struct {
	ID   string    `json:"id"`
	Time time.Time `json:"time"`
}

// MarshalJSON writes the time as DateText does, which can write every time that git stores.
func (p Point) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		ID   string `json:"id"`
		Time string `json:"time"`
	}{p.ID, cold.DateText(p.Time)})
}

// Receipt says what a Sync made safe and what not. Complete means that nothing acknowledged before the call is missing
// from cold, nor from the remote where there is one.
type Receipt struct {
	Complete bool   `json:"complete"`
	Reason   string `json:"reason"`
	Commit   string `json:"commit"` // tip of the branch afterwards; "" for an empty volume
	New      bool   `json:"new"`    // false: nothing had changed
	Files    int64  `json:"files"`  // that the new commit has taken
	Bytes    int64  `json:"bytes"`
	Pushed   bool   `json:"pushed"` // the remote has Commit (false without a remote)
	Remote   string `json:"remote"` // "" without one
	// Missing says what is not safe and why, one line each: at most 100 lines and then a count of the rest.
	Missing []string      `json:"missing"`
	LeftOut []string      `json:"left_out,omitempty"` // as Status.LeftOut; the commit has these
	Started time.Time     `json:"started"`
	Took    time.Duration `json:"took_ns"`

	Tree   string      `json:"tree,omitempty"`     // of Commit, as git names it
	Clean  bool        `json:"clean"`              // Commit ends the session and says that it has everything
	AtRisk cold.AtRisk `json:"at_risk"`            // when the receipt was written
	Total  int64       `json:"volume_files"`       // files of the whole volume, as far as they were counted
	Before *Previous   `json:"previous,omitempty"` // in the receipt of a start
}

// Previous is what a start found out about the session before it.
type Previous struct {
	State string `json:"state"` // PreviousComplete, PreviousIncomplete or PreviousUnknown
	// Machine is the id of the machine that had the session; "" where that is not known.
	Machine  string      `json:"machine"`
	Own      bool        `json:"own"`       // the session was this machine's, whose files are here
	Commit   string      `json:"commit"`    // the last commit of that machine; "" where there is none
	LastSign *time.Time  `json:"last_sign"` // when that commit was made, by that machine's clock; null: not known
	AtRisk   cold.AtRisk `json:"at_risk"`   // what that machine had then that the commit has not, as far as it knew
	Missing  []string    `json:"missing"`   // what is known to be missing, one line each; never null
	Text     string      `json:"text"`      // the whole as one line for people
}

// The states of a Previous.
const (
	PreviousComplete   = "complete"   // everything that it acknowledged is here
	PreviousIncomplete = "incomplete" // something is missing, or may be
	PreviousUnknown    = "unknown"    // nobody said so
)

// CriticalStatus says how soon critical files are safe.
type CriticalStatus struct {
	Waiting int64   `json:"waiting"` // changed names that no commit has
	Commits int64   `json:"commits"` // to the live branch, since the mount
	P50     float64 `json:"p50"`     // seconds from close or fsync to the commit, of the last changes
	P99     float64 `json:"p99"`
	Worst   float64 `json:"worst"` // since the mount
}

// delays holds the last lastDelays delays that were measured, and the worst of all.
type delays struct {
	last  []time.Duration
	at    int
	worst time.Duration
}

// lastDelays is the number of delays from which percentiles are computed.
const lastDelays = 1000

func (d *delays) add(x time.Duration) {
	d.worst = max(d.worst, x)
	if len(d.last) < lastDelays {
		d.last = append(d.last, x)
		return
	}
	d.last[d.at] = x
	d.at = (d.at + 1) % lastDelays
}

// percentile returns the p-th percentile in seconds, or 0 where nothing was measured.
func (d *delays) percentile(p int) float64 {
	if len(d.last) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(d.last))
	return sorted[min(len(sorted)-1, len(sorted)*p/100)].Seconds()
}

// BudgetStatus says what may be at risk, and what was done for that.
type BudgetStatus struct {
	MaxAtRisk string     `json:"max_at_risk"`       // as the settings write it, or none
	RiskWarn  string     `json:"risk_warn"`         // the same
	Slowed    int64      `json:"slowed"`            // writes that waited since the mount
	Waited    float64    `json:"waited"`            // for how many seconds together
	Expires   *time.Time `json:"expires,omitempty"` // when the machine goes away; nil: nobody knows
}

// TierReport says what left warm in one go, and why.
type TierReport struct {
	Reason string           `json:"reason"` // command, age, limit or reserve
	Time   time.Time        `json:"time"`
	Took   time.Duration    `json:"took_ns"`
	Files  int64            `json:"files"` // that became stubs
	Bytes  int64            `json:"bytes"` // of warm that they held
	Hot    int64            `json:"hot"`   // files whose blocks left hot
	Kept   map[string]int64 `json:"kept"`  // files that stay in warm, by the reason why
}

// MemoryStatus describes the directories of class memory, which no commit ever has.
type MemoryStatus struct {
	Available   bool   `json:"available"`
	Why         string `json:"why"`         // why it is not; "" where it is
	Directories int    `json:"directories"` // memory directories that were found, without those inside them
	TierStatus         // files: entries of all kinds
	Limit       int64  `json:"limit"` // memory_class_limit, in bytes
	Swap        bool   `json:"swap"`  // their contents may be swapped out: a kernel before Linux 6.4 cannot prevent it
}
