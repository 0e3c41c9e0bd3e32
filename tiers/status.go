package tiers

import (
	"encoding/json"
	"time"

	"emberfs/tiers/cold"
)

// Status is what `emberfs status --json` shows of a volume; cmd adds pid and mountpoint.
type Status struct {
	Volume string `json:"volume"` // volume id
	Source string `json:"source"`
	Branch string `json:"branch"`
	State  string `json:"state"` // the state directory

	Tiers struct {
		Hot  HotStatus  `json:"hot"`
		Warm WarmStatus `json:"warm"`
		Cold ColdStatus `json:"cold"`
	} `json:"tiers"`

	Memory MemoryStatus `json:"memory"`

	AtRisk      cold.AtRisk    `json:"at_risk"`
	Critical    CriticalStatus `json:"critical"`
	LastCommit  *Point         `json:"last_commit"`
	LastPush    *Point         `json:"last_push"`
	Records     bool           `json:"records"`  // false: no CAP_SYS_ADMIN, commits walk and compare
	Verified    bool           `json:"verified"` // false while records of an unclean stop are being compared
	Errors      []string       `json:"errors"`   // what is wrong now; empty when all is well
	Rules       []string       `json:"rules"`
	RulesStatus RulesStatus    `json:"rules_status"`
	Passthrough DirectStatus   `json:"passthrough"`
	Notes       []string       `json:"notes"`    // what this mount cannot do, and why
	LeftOut     []string       `json:"left_out"` // what commits have and this machine cannot make: they carry it over
}

// TierStatus counts a tier.
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
	// InodesMax is where the kernel is asked to forget inodes that nobody uses; those in use may be more.
	InodesMax int64 `json:"inodes_max"`
}

// WarmStatus adds what moves between warm and cold. TierStatus counts what has its bytes in warm.
type WarmStatus struct {
	TierStatus
	Hits     uint64      `json:"hits"`     // reads, in pages of 4 KiB, that warm answered
	Stubs    int64       `json:"stubs"`    // files whose bytes are in cold only, in directories that are listed
	Unlisted int64       `json:"unlisted"` // directories whose children are not made yet
	Limit    int64       `json:"limit"`    // warm_limit; 0: none
	Released int64       `json:"released"` // files that became stubs since the mount
	Returned int64       `json:"returned"` // stubs whose bytes came back since the mount
	LastTick *TierReport `json:"last_tick"`
}

// ColdStatus adds the repository's packs. Its files are those of the last commit, which need not be in warm; while they are being
// counted, which takes a look at each directory, those of a commit before, or about as many as warm says.
type ColdStatus struct {
	TierStatus
	Hits    uint64 `json:"hits"` // reads, in pages of 4 KiB, that cold answered
	Packs   int    `json:"packs"`
	Objects int64  `json:"objects"`
}

// MemoryStatus describes the directories of class memory, which no commit ever has.
type MemoryStatus struct {
	Available   bool   `json:"available"`
	Why         string `json:"why"`         // it is not; "" where it is
	Directories int    `json:"directories"` // roots of such directories that were found
	TierStatus         // files: entries of all kinds
	Limit       int64  `json:"limit"` // memory_class_limit, in bytes
	Swap        bool   `json:"swap"`  // their contents may be swapped out: the kernel has no tmpfs without (Linux 6.4)
}

// Point is a commit and when it was made or pushed.
type Point struct {
	ID   string    `json:"id"`
	Time time.Time `json:"time"`
}

// MarshalJSON writes the time so that any that git stores can be written: as DateText does.
func (p Point) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		ID   string `json:"id"`
		Time string `json:"time"`
	}{p.ID, cold.DateText(p.Time)})
}

// Receipt says what a Sync made safe and what not. Complete means that nothing acknowledged before the call is missing
// from cold, nor from the remote where there is one.
type Receipt struct {
	Complete bool          `json:"complete"`
	Reason   string        `json:"reason"`
	Commit   string        `json:"commit"` // tip of the branch afterwards; "" for an empty volume
	New      bool          `json:"new"`    // false: nothing had changed
	Files    int64         `json:"files"`  // taken by the new commit
	Bytes    int64         `json:"bytes"`
	Pushed   bool          `json:"pushed"`             // the remote has Commit (false without a remote)
	Remote   string        `json:"remote"`             // "" without one
	Missing  []string      `json:"missing"`            // what is not safe and why, one line each, at most 100 then a count
	LeftOut  []string      `json:"left_out,omitempty"` // as Status.LeftOut: the commit has it
	Started  time.Time     `json:"started"`
	Took     time.Duration `json:"took_ns"`
}
