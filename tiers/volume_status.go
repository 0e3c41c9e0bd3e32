package tiers

import (
	"emberfs/tiers/cold"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Status describes the volume by counters and the repository's numbers. Only warm's files have to be counted, by
// walking its tree, for which it takes at most a twentieth of the time (warmUse).
func (v *Volume) Status() Status {
	s := Status{
		Volume: v.cold.VolumeID(), Source: v.cfg.Source, Branch: v.cfg.Branch, State: v.cfg.State,
		Records: v.records, Verified: v.points.verified.Load(),
		Errors: []string{}, Rules: []string{}, Notes: []string{},
	}
	v.budgetStatus(&s)
	s.Memory = v.memoryStatus()
	s.Tiers.Hot = v.hot.status()
	v.table.mu.RLock()
	s.Tiers.Hot.Inodes, s.Tiers.Hot.InodesMax = int64(len(v.table.byID)), int64(v.table.max)
	for _, n := range v.table.byID {
		if n.hotHint.Load() {
			s.Tiers.Hot.Files++ // may have pages there
		}
	}
	v.table.mu.RUnlock()
	if a := v.area.Load(); a != nil {
		s.Tiers.Hot.Inodes += int64(a.inodes())
		s.Tiers.Hot.InodesMax += int64(a.table.max)
	}
	use := v.warmUse()
	s.Tiers.Warm = WarmStatus{
		TierStatus: TierStatus{Files: use.Files, Bytes: use.Bytes}, Stubs: use.Stubs, Lazy: use.Lazy,
		Limit: v.cfg.WarmLimit,
		Hits:  v.moved.warmHits.Load(), Released: v.moved.released.Load(), Returned: v.moved.returned.Load(),
	}
	s.Critical = v.criticalStatus()
	cs := v.cold.Stats()
	s.Tiers.Cold = ColdStatus{
		TierStatus: TierStatus{Files: v.coldFiles(use), Bytes: cs.Bytes}, Hits: v.moved.coldHits.Load(),
		Packs: cs.Packs, Objects: cs.Objects,
	}
	v.points.mu.Lock()
	s.Errors = append(s.Errors, cs.Problems...)
	s.LastCommit, s.LastPush, s.Tiers.Warm.LastTick = v.points.commit, v.points.push, v.points.tick
	s.Errors = append(s.Errors, slices.Sorted(maps.Values(v.points.errors))...)
	v.points.mu.Unlock()
	s.Errors = append(s.Errors, v.risk.left(10)...)
	s.Errors = append(s.Errors, v.cold.Aside()...)
	for i := range v.Rules().Rules() {
		s.Rules = append(s.Rules, v.Rules().Rules()[i].String())
	}
	v.book.mu.Lock()
	s.RulesStatus = RulesStatus{From: v.book.from, Withheld: v.book.withheld}
	v.book.mu.Unlock()
	if n := s.RulesStatus.Withheld; n > 0 {
		s.Notes = append(s.Notes, fmt.Sprintf("%d rules that keep data out of commits came with the repository and "+
			"are not in effect (accept_rules, or write them to .emberfs/rules.yaml here)", n))
	}
	s.Notes = append(s.Notes, v.memoryNotes()...)
	if !v.records {
		s.Notes = append(s.Notes, "no records (needs CAP_SYS_ADMIN): commits walk and compare, tiering is off")
	}
	s.LeftOut = append([]string{}, v.heldLines(20)...)
	s.Previous = v.previous
	s.LastContact = v.lastContact()
	s.Offline, _ = v.Offline()
	s.Passthrough = v.directStatus()
	if note := v.directNote(); note != "" {
		s.Notes = append(s.Notes, note)
	}
	return s
}

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
	Budget      BudgetStatus   `json:"budget"`
	Critical    CriticalStatus `json:"critical"`
	LastCommit  *Point         `json:"last_commit"`
	LastPush    *Point         `json:"last_push"`
	LastContact *time.Time     `json:"last_contact"` // when the remote last answered; null: not known
	Offline     string         `json:"offline"`      // mounted without the remote, which has not answered since; "": no
	Records     bool           `json:"records"`      // false: no CAP_SYS_ADMIN, commits walk and compare
	Verified    bool           `json:"verified"`     // false while records of an unclean stop are being compared
	Errors      []string       `json:"errors"`       // what is wrong now; empty when all is well
	Rules       []string       `json:"rules"`
	RulesStatus RulesStatus    `json:"rules_status"`
	Passthrough DirectStatus   `json:"passthrough"`
	// Previous is what the start found out about the session before this one.
	Previous *Previous `json:"previous"`
	Notes    []string  `json:"notes"`    // what this mount cannot do, and why
	LeftOut  []string  `json:"left_out"` // what commits have and this machine cannot make: they carry it over
}

// WarmStatus adds what moves between warm and cold. TierStatus counts the files that have their bytes in warm.
type WarmStatus struct {
	TierStatus
	Hits     uint64      `json:"hits"`     // reads, in pages of 4 KiB, that warm answered
	Stubs    int64       `json:"stubs"`    // files whose bytes are in cold only, in directories that are listed
	Lazy     int64       `json:"unlisted"` // directories whose children are not made yet
	Limit    int64       `json:"limit"`    // warm_limit; 0: none
	Released int64       `json:"released"` // files that became stubs since the mount
	Returned int64       `json:"returned"` // stubs whose bytes came back since the mount
	LastTick *TierReport `json:"last_tick"`
}

// ColdStatus adds the repository's packs. TierStatus counts the files of the last commit, which need not be in warm.
// Counting them takes a look at each directory; meanwhile the number is that of an earlier commit, or an estimate from
// warm.
type ColdStatus struct {
	TierStatus
	Hits    uint64 `json:"hits"` // reads, in pages of 4 KiB, that cold answered
	Packs   int    `json:"packs"`
	Objects int64  `json:"objects"`
}
