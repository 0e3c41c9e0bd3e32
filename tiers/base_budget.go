package tiers

import (
	"strings"
	"time"

	"github.com/dustin/go-humanize"
)

// Budget bounds what may be at risk: by the age of the oldest change, by the bytes written, or by both. The zero Budget
// bounds nothing.
type Budget struct {
	Time  time.Duration // 0: no bound
	Bytes int64         // 0: no bound
}

// IsZero says whether the budget bounds nothing.
func (b Budget) IsZero() bool { return b == Budget{} }

// String returns the budget as the settings write it, such as 1m0s,100 MB.
func (b Budget) String() string {
	var parts []string
	if b.Time > 0 {
		parts = append(parts, b.Time.String())
	}
	if b.Bytes > 0 {
		parts = append(parts, humanize.Bytes(uint64(b.Bytes)))
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ",")
}

// exceeded says whether c is more than the budget.
func (b Budget) exceeded(c riskCount, now time.Time) bool {
	return b.Time > 0 && c.age(now) > b.Time || b.Bytes > 0 && c.bytes > b.Bytes
}
